//! `-v`, `--mount` and `--tmpfs`.

use std::collections::{BTreeMap, BTreeSet};

use berth_docker::container::{
    BindOptions, DriverConfig, ImageOptions, Mount, TmpfsOptions, VolumeOptions,
};

use super::Error;

#[derive(Debug, Default)]
pub struct Volumes {
    /// `source:target[:options]`, passed on.
    pub binds: Vec<String>,
    /// Paths that get a volume without a name.
    pub anonymous: BTreeSet<String>,
}

pub fn volumes(texts: &[String]) -> Result<Volumes, Error> {
    let mut volumes = Volumes::default();
    for text in texts {
        if sections(text)? < 2 {
            volumes.anonymous.insert(text.clone());
            continue;
        }
        let (source, rest) = text.split_once(':').unwrap_or((text, ""));
        // The daemon sees other directories than the caller.
        let source = if source.starts_with('.') {
            let path = std::path::absolute(source).map_err(|error| error.to_string())?;
            clean(&path.display().to_string())
        } else {
            source.to_owned()
        };
        volumes.binds.push(format!("{source}:{rest}"));
    }
    Ok(volumes)
}

/// How many parts a volume has: a destination alone, with a source, with options too. A single
/// letter before a colon is a drive of Windows, even here.
fn sections(text: &str) -> Result<usize, Error> {
    match text.len() {
        0 => return Err("invalid empty volume spec".to_owned()),
        1 | 2 => return Ok(1),
        _ => {}
    }
    let invalid = |why: &str| Err(format!("invalid spec: {text}: {why}"));
    let mut count = 0;
    let mut section = String::new();
    for c in text.chars().map(Some).chain([None]) {
        match c {
            Some(':') if is_letter(&section) => section.push(':'),
            Some(c) if c != ':' => section.push(c),
            _ if section.is_empty() => return invalid("empty section between colons"),
            Some(_) if count == 2 => return invalid("too many colons"),
            _ => {
                count += 1;
                section.clear();
            }
        }
    }
    Ok(count)
}

fn is_letter(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(char::is_alphabetic) && letters.next().is_none()
}

/// Takes `.` and `..` out of a path.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

pub fn tmpfs(texts: &[String]) -> BTreeMap<String, String> {
    texts
        .iter()
        .map(|text| {
            let (path, options) = text.split_once(':').unwrap_or((text, ""));
            (path.to_owned(), options.to_owned())
        })
        .collect()
}

pub fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

/// `type=bind,source=/a,target=/b,readonly`: comma-separated values, quoted as in CSV.
pub fn parse(text: &str) -> Result<Mount, Error> {
    let mut mount = Mount {
        kind: "volume".to_owned(),
        ..Mount::default()
    };
    for field in record(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        apply(&mut mount, &key, value, &field)?;
    }
    if mount.kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    let foreign = |set: bool, what: &str, kind: &str| {
        if set && mount.kind != kind {
            return Err(format!(
                "cannot mix '{what}-*' options with mount type '{}'",
                mount.kind
            ));
        }
        Ok(())
    };
    foreign(mount.volume_options.is_some(), "volume", "volume")?;
    foreign(mount.bind_options.is_some(), "bind", "bind")?;
    foreign(mount.image_options.is_some(), "image", "image")?;
    foreign(mount.tmpfs_options.is_some(), "tmpfs", "tmpfs")?;
    if let Some(options) = &mount.bind_options {
        needs_read_only(options, mount.read_only)?;
    }
    Ok(mount)
}

/// What says how far read-only reaches says nothing without it.
fn needs_read_only(options: &BindOptions, read_only: bool) -> Result<(), Error> {
    let needs = |what: &str, needed: &str| {
        Err(format!(
            "option 'bind-recursive={what}' requires '{needed}' to be specified in conjunction"
        ))
    };
    if options.read_only_non_recursive && !read_only {
        return needs("writable", "readonly");
    }
    if options.read_only_force_recursive && !read_only {
        return needs("readonly", "readonly");
    }
    if options.read_only_force_recursive && options.propagation != "rprivate" {
        return needs("readonly", "bind-propagation=rprivate");
    }
    Ok(())
}

fn apply(mount: &mut Mount, key: &str, value: Option<&str>, field: &str) -> Result<(), Error> {
    let switch = |value: Option<&str>| match value {
        None => Ok(true),
        Some(value) => crate::flags::parse_bool(value)
            .ok_or_else(|| format!("invalid value for {key}: {value}")),
    };
    match key {
        "readonly" | "ro" => mount.read_only = switch(value)?,
        "volume-nocopy" => {
            mount
                .volume_options
                .get_or_insert_with(volume_options)
                .no_copy = switch(value)?;
        }
        "bind-nonrecursive" => {
            mount.bind_options.get_or_insert_default().non_recursive = switch(value)?;
        }
        _ => {
            let Some(value) = value else {
                return Err(format!("invalid field '{field}' must be a key=value pair"));
            };
            apply_value(mount, key, value, field)?;
        }
    }
    Ok(())
}

fn apply_value(mount: &mut Mount, key: &str, value: &str, field: &str) -> Result<(), Error> {
    let invalid = |value: &str| format!("invalid value for {key}: {value}");
    match key {
        "type" => {
            mount.kind = value.to_lowercase();
            if mount.kind == "tmpfs" {
                mount.volume_options = None;
            }
        }
        "source" | "src" => {
            mount.source = value.to_owned();
            if value == "." || value.starts_with("./") || value.starts_with("..") {
                let path = std::path::absolute(value).map_err(|error| error.to_string())?;
                mount.source = clean(&path.display().to_string());
            }
        }
        "target" | "dst" | "destination" => value.clone_into(&mut mount.target),
        "consistency" => mount.consistency = value.to_lowercase(),
        "bind-propagation" => {
            mount.bind_options.get_or_insert_default().propagation = value.to_lowercase();
        }
        "bind-recursive" => recursive(mount.bind_options.get_or_insert_default(), value)?,
        "volume-subpath" => {
            value.clone_into(
                &mut mount
                    .volume_options
                    .get_or_insert_with(volume_options)
                    .subpath,
            );
        }
        "volume-label" => {
            let (name, text) = value.split_once('=').unwrap_or((value, ""));
            let options = mount.volume_options.get_or_insert_with(volume_options);
            options.labels.insert(name.to_owned(), text.to_owned());
        }
        "volume-driver" => driver(mount).name = value.to_owned(),
        "volume-opt" => {
            let (name, text) = value.split_once('=').unwrap_or((value, ""));
            driver(mount)
                .options
                .insert(name.to_owned(), text.to_owned());
        }
        "image-subpath" => {
            mount
                .image_options
                .get_or_insert_with(ImageOptions::default)
                .subpath = value.to_owned();
        }
        "tmpfs-size" => {
            mount
                .tmpfs_options
                .get_or_insert_with(TmpfsOptions::default)
                .size_bytes = berth_base::size::parse_binary(value).map_err(|_| invalid(value))?;
        }
        "tmpfs-mode" => {
            mount
                .tmpfs_options
                .get_or_insert_with(TmpfsOptions::default)
                .mode = u32::from_str_radix(value, 8).map_err(|_| invalid(value))?;
        }
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn recursive(options: &mut BindOptions, value: &str) -> Result<(), Error> {
    match value {
        "enabled" => {}
        "disabled" => options.non_recursive = true,
        "writable" => options.read_only_non_recursive = true,
        "readonly" => options.read_only_force_recursive = true,
        _ => {
            return Err(format!(
                "invalid value for bind-recursive: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
            ));
        }
    }
    Ok(())
}

fn volume_options() -> VolumeOptions {
    VolumeOptions {
        driver_config: Some(DriverConfig::default()),
        ..VolumeOptions::default()
    }
}

fn driver(mount: &mut Mount) -> &mut DriverConfig {
    let options = mount.volume_options.get_or_insert_with(volume_options);
    options.driver_config.get_or_insert_default()
}

/// As [`csv`], with what Go's reader refuses.
fn record(text: &str) -> Result<Vec<String>, Error> {
    if text.is_empty() {
        return Err("EOF".to_owned());
    }
    let mut start = 0;
    for field in text.split(',') {
        match field.find('"') {
            // Quoted from its beginning: what is in it is no matter of ours.
            Some(0) => return Ok(csv(text)),
            Some(at) => {
                let column = start + at + 1;
                return Err(format!(
                    "parse error on line 1, column {column}: bare \" in non-quoted-field"
                ));
            }
            None => start += field.len() + 1,
        }
    }
    Ok(csv(text))
}

/// One record of comma-separated values.
pub fn csv(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let last = fields.len() - 1;
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => fields[last].push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields[last].push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_every_type_are_read() {
        let bind = parse("type=bind,src=/a,dst=/b,ro,bind-propagation=rslave").unwrap();
        assert!(bind.read_only && bind.source == "/a" && bind.target == "/b");
        assert_eq!(bind.bind_options.unwrap().propagation, "rslave");
        let volume = parse("src=v,target=/w,volume-nocopy,volume-label=a=b").unwrap();
        assert_eq!(volume.kind, "volume");
        assert!(volume.volume_options.unwrap().no_copy);
        let tmpfs = parse("type=tmpfs,dst=/t,tmpfs-size=10m,tmpfs-mode=1777").unwrap();
        assert_eq!(tmpfs.tmpfs_options.unwrap().mode, 0o1777);
        assert_eq!(csv("a,\"b,\"\"c\"\"\",d"), ["a", "b,\"c\"", "d"]);
    }

    #[test]
    fn mistakes_in_mounts_are_told_in_dockers_words() {
        let check = |text: &str, message: &str| assert_eq!(parse(text).unwrap_err(), message);
        check("xx", "invalid field 'xx' must be a key=value pair");
        check("foo=1,dst=/b", "unexpected key 'foo' in 'foo=1'");
        check("type=bind,src=/x", "target is required");
        check("", "EOF");
        check(
            "a\"b,dst=/b",
            "parse error on line 1, column 2: bare \" in non-quoted-field",
        );
        check(
            "type=bind,src=/a,dst=/b,bind-recursive=writable",
            "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction",
        );
        check(
            "type=bind,src=/a,dst=/b,bind-recursive=readonly,ro",
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be \
             specified in conjunction",
        );
        check(
            "type=bind,src=/a,dst=/b,bind-nonrecursive=x",
            "invalid value for bind-nonrecursive: x",
        );
    }

    #[test]
    fn relative_sources_become_absolute_and_names_stay() {
        let texts = ["vv:/x", "/a:/b:ro", "/foo:rw", "/only", "./y:/z", "v:rel"];
        let parsed = volumes(&texts.map(str::to_owned)).unwrap();
        assert_eq!(parsed.binds[..3], ["vv:/x", "/a:/b:ro", "/foo:rw"]);
        assert!(parsed.binds[3].starts_with('/') && parsed.binds[3].ends_with("/y:/z"));
        assert!(parsed.anonymous.contains("/only") && parsed.anonymous.contains("v:rel"));
        for (text, why) in [
            ("", "invalid empty volume spec"),
            (
                "vv::ro",
                "invalid spec: vv::ro: empty section between colons",
            ),
            (
                "/a:/b:",
                "invalid spec: /a:/b:: empty section between colons",
            ),
            ("/a:/b:ro:x", "invalid spec: /a:/b:ro:x: too many colons"),
        ] {
            assert_eq!(volumes(&[text.to_owned()]).unwrap_err(), why);
        }
    }
}
