//! The notations of mounts: `SOURCE:DESTINATION:MODE`, the structured form, `--volumes-from`.

use std::path::{Component, Path, PathBuf};

use berth_docker::container::Mount as Request;

use super::super::invalid;
use super::{Kind, Mount, ReadOnlyBelow};
use crate::error::Result;

const PROPAGATIONS: &[&str] = &[
    "private", "rprivate", "slave", "rslave", "shared", "rshared",
];

/// `-v`: a destination alone is an anonymous volume.
pub fn bind(text: &str) -> Result<Mount> {
    let bad = || format!("invalid volume specification: '{text}'");
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        ["", ..] => return Err(invalid(bad())),
        [target] => ("", *target, ""),
        // A destination with a mode: a volume without a name has none.
        [_, mode] if Mode::parse(mode).is_some() => return Err(invalid(bad())),
        [source, target] => (*source, *target, ""),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(invalid(bad())),
    };
    let words = Mode::parse(mode).ok_or_else(|| invalid(format!("invalid mode: {mode}")))?;
    let is_bind = source.starts_with('/');
    let kind = if is_bind { "bind" } else { "volume" };
    let config = |why: &str| {
        invalid(format!(
            "{}: invalid mount config for type {kind:?}: {why}",
            bad()
        ))
    };
    if target.is_empty() {
        return Err(config(&missing("Target")));
    }
    let destination = destination(target).map_err(|error| config(&error.message))?;
    if words.propagation.is_some() && !is_bind {
        return Err(config(&extra("BindOptions")));
    }
    if words.no_copy && is_bind {
        return Err(config(&extra("VolumeOptions")));
    }
    if source.is_empty() {
        return Ok(anonymous(destination));
    }
    let mut mount = if is_bind {
        Mount {
            kind: Kind::Bind { create: true },
            source: clean(source),
            propagation: words.propagation.unwrap_or_default().to_owned(),
            ..anonymous(destination)
        }
    } else {
        check_volume_name(source)?;
        Mount {
            kind: volume(source, !words.no_copy),
            ..anonymous(destination)
        }
    };
    mount.read_only = words.read_only;
    mount.mode = mode.to_owned();
    // Docker shows the default label mode of named volumes.
    if mode.is_empty() && matches!(mount.kind, Kind::Volume { .. }) {
        mount.mode = "z".to_owned();
    }
    Ok(mount)
}

/// A bind with the propagation that it has by default: private, but around the daemon's own
/// directories. What is mounted there has to go from the container too when it is unmounted.
pub fn beside(mut mount: Mount, data_root: &Path) -> Result<Mount> {
    if !matches!(mount.kind, Kind::Bind { .. }) {
        return Ok(mount);
    }
    match (
        mount.propagation.as_str(),
        is_around(&mount.source, data_root),
    ) {
        ("", true) => mount.propagation = "rslave".to_owned(),
        ("", false) => mount.propagation = "rprivate".to_owned(),
        ("rslave" | "rshared", _) | (_, false) => {}
        (propagation, true) => {
            return Err(invalid(format!(
                "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" \
                 when mount source is within the daemon root, daemon root: {data_root:?}, bind \
                 mount source: {:?}, propagation: {propagation:?}",
                mount.source
            )));
        }
    }
    Ok(mount)
}

/// Whether one is within the other.
pub fn is_around(source: &Path, data_root: &Path) -> bool {
    source.starts_with(data_root) || data_root.starts_with(source)
}

fn missing(field: &str) -> String {
    format!("field {field} must not be empty")
}

fn extra(field: &str) -> String {
    format!("field {field} must not be specified")
}

/// Go's `filepath.IsLocal`.
fn is_local(subpath: &str) -> bool {
    let mut depth = 0i32;
    for part in subpath.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return false;
        }
    }
    !subpath.is_empty() && !subpath.starts_with('/')
}

/// `--mount`.
pub fn structured(request: &Request) -> Result<Mount> {
    let config = |why: &str| {
        invalid(format!(
            "invalid mount config for type {:?}: {why}",
            request.kind
        ))
    };
    let foreign = [
        ("bind", "BindOptions", request.bind_options.is_some()),
        ("volume", "VolumeOptions", request.volume_options.is_some()),
        ("tmpfs", "TmpfsOptions", request.tmpfs_options.is_some()),
    ];
    let foreign = foreign
        .iter()
        .find(|(kind, _, given)| *given && request.kind != *kind);
    if let Some((_, options, _)) = foreign {
        return Err(invalid(format!(
            "{options} must not be specified on mount type {:?}",
            request.kind
        )));
    }
    if request.target.is_empty() {
        return Err(config(&missing("Target")));
    }
    let destination = destination(&request.target).map_err(|e| config(&e.message))?;
    let base = Mount {
        read_only: request.read_only,
        ..anonymous(destination)
    };
    if request.kind != "image" && request.image_options.is_some() {
        return Err(config(&extra("ImageOptions")));
    }
    let described = match request.kind.as_str() {
        "bind" => bind_mount(request, base),
        "volume" => volume_mount(request, base),
        "tmpfs" => tmpfs_mount(request, base),
        "image" => image_mount(request, base),
        _ => Err("mount type unknown".to_owned()),
    };
    described.map_err(|why| config(&why))
}

type Described = std::result::Result<Mount, String>;

fn bind_mount(request: &Request, base: Mount) -> Described {
    if request.source.is_empty() {
        return Err(missing("Source"));
    }
    let options = request.bind_options.clone().unwrap_or_default();
    if !options.propagation.is_empty() && !PROPAGATIONS.contains(&options.propagation.as_str()) {
        return Err(format!("invalid propagation mode: {}", options.propagation));
    }
    if !request.source.starts_with('/') {
        return Err(format!(
            "invalid mount path: '{}' mount path must be absolute",
            request.source
        ));
    }
    if options.read_only_non_recursive && options.read_only_force_recursive {
        return Err(
            "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive".to_owned(),
        );
    }
    Ok(Mount {
        kind: Kind::Bind {
            create: options.create_mountpoint,
        },
        source: clean(&request.source),
        propagation: options.propagation,
        recursive: !options.non_recursive,
        read_only_below: match options.read_only_non_recursive {
            true => ReadOnlyBelow::No,
            false => ReadOnlyBelow::Yes,
        },
        ..base
    })
}

fn volume_mount(request: &Request, base: Mount) -> Described {
    let options = request.volume_options.clone().unwrap_or_default();
    let is_anonymous = request.source.is_empty();
    if !options.subpath.is_empty() {
        if is_anonymous {
            return Err("must not set Subpath when using anonymous volumes".to_owned());
        }
        check_subpath(&options.subpath)?;
    }
    if request.read_only && is_anonymous {
        return Err("must not set ReadOnly mode when using anonymous volumes".to_owned());
    }
    let populate = !options.no_copy && options.subpath.is_empty();
    Ok(Mount {
        kind: Kind::Volume {
            name: request.source.clone(),
            anonymous: is_anonymous,
            populate,
            subpath: options.subpath,
        },
        mode: "z".to_owned(),
        ..base
    })
}

fn tmpfs_mount(request: &Request, base: Mount) -> Described {
    if !request.source.is_empty() {
        return Err(extra("Source"));
    }
    let options = request.tmpfs_options.clone().unwrap_or_default();
    let mut words = Vec::new();
    if options.mode != 0 {
        words.push(format!("mode={:o}", options.mode));
    }
    if options.size_bytes != 0 {
        words.push(format!("size={}", options.size_bytes));
    }
    for option in &options.options {
        match option.as_slice() {
            [word] | [word, _] if !matches!(word.as_str(), "exec" | "noexec") => {
                return Err(format!("invalid option: {word}"));
            }
            [_] | [_, _] => words.push(option.join("=")),
            _ => return Err("invalid option array length".to_owned()),
        }
    }
    Ok(Mount {
        kind: Kind::Tmpfs { options: words },
        ..base
    })
}

fn image_mount(request: &Request, base: Mount) -> Described {
    if request.source.is_empty() {
        return Err(missing("Source"));
    }
    let subpath = request.image_options.clone().unwrap_or_default().subpath;
    if !subpath.is_empty() {
        check_subpath(&subpath)?;
    }
    Ok(Mount {
        kind: Kind::Image {
            reference: request.source.clone(),
            id: String::new(),
            subpath,
        },
        read_only: true,
        propagation: "rprivate".to_owned(),
        ..base
    })
}

fn check_subpath(subpath: &str) -> std::result::Result<(), String> {
    match is_local(subpath) {
        true => Ok(()),
        false => Err("subpath must be a relative path within the volume".to_owned()),
    }
}

/// `--volumes-from CONTAINER[:MODE]`.
pub fn volumes_from(spec: &str, of: &dyn Fn(&str) -> Result<Vec<Mount>>) -> Result<Vec<Mount>> {
    if spec.is_empty() {
        return Err(invalid(
            "volumes-from specification cannot be an empty string",
        ));
    }
    let (container, mode) = spec.split_once(':').unwrap_or((spec, ""));
    let words = Mode::parse(mode)
        .filter(|words| words.propagation.is_none() && !words.no_copy)
        .ok_or_else(|| invalid(format!("invalid mode: {mode}")))?;
    let mut mounts = of(container)?;
    for mount in &mut mounts {
        mount.read_only |= words.read_only;
        if let Kind::Volume { populate, .. } = &mut mount.kind {
            *populate = false;
        }
    }
    Ok(mounts)
}

/// A volume without a name at the (already checked) destination.
pub fn anonymous(destination: String) -> Mount {
    Mount {
        kind: Kind::Volume {
            name: String::new(),
            anonymous: true,
            populate: true,
            subpath: String::new(),
        },
        destination,
        source: PathBuf::new(),
        read_only: false,
        mode: String::new(),
        propagation: String::new(),
        recursive: true,
        read_only_below: ReadOnlyBelow::Yes,
    }
}

fn volume(name: &str, populate: bool) -> Kind {
    Kind::Volume {
        name: name.to_owned(),
        anonymous: name.is_empty(),
        populate,
        subpath: String::new(),
    }
}

/// The destination, absolute and clean.
pub fn destination(target: &str) -> Result<String> {
    if !target.starts_with('/') {
        return Err(invalid(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    match clean(target) {
        path if path == Path::new("/") => {
            Err(invalid("invalid specification: destination can't be '/'"))
        }
        path => Ok(path.to_string_lossy().into_owned()),
    }
}

/// Without `.`, `..`, doubled and trailing slashes, by the letters alone (Go's `path.Clean`).
pub fn clean(path: &str) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    out
}

fn check_volume_name(name: &str) -> Result<()> {
    crate::volume::check_name(name).map_err(|error| error.while_doing(format!("create {name}")))
}

struct Mode<'a> {
    read_only: bool,
    no_copy: bool,
    propagation: Option<&'a str>,
}

impl<'a> Mode<'a> {
    /// Comma-separated words, at most one of each group.
    fn parse(text: &'a str) -> Option<Self> {
        let mut mode = Self {
            read_only: false,
            no_copy: false,
            propagation: None,
        };
        let (mut access, mut label, mut consistency) = (0, 0, 0);
        for word in text.split(',').filter(|_| !text.is_empty()) {
            match word {
                "ro" | "rw" => {
                    mode.read_only = word == "ro";
                    access += 1;
                }
                "z" | "Z" => label += 1,
                "consistent" | "cached" | "delegated" => consistency += 1,
                "nocopy" if !mode.no_copy => mode.no_copy = true,
                word if PROPAGATIONS.contains(&word) && mode.propagation.is_none() => {
                    mode.propagation = Some(word)
                }
                _ => return None,
            }
        }
        (access <= 1 && label <= 1 && consistency <= 1).then_some(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_names_binds_volumes_and_anonymous_ones() {
        let mount = bind("/host/../data:/data/:ro,rslave").unwrap();
        assert_eq!(
            (mount.source.to_str().unwrap(), mount.destination.as_str()),
            ("/data", "/data")
        );
        assert!(mount.read_only && mount.propagation == "rslave");
        let mount = bind("cache:/c:nocopy").unwrap();
        assert_eq!(mount.kind, volume("cache", false));
        assert!(matches!(
            bind("/only").unwrap().kind,
            Kind::Volume {
                anonymous: true,
                ..
            }
        ));
    }

    #[test]
    fn what_docker_refuses_is_refused_in_its_words() {
        let check = |text: &str, words: &str| {
            let message = bind(text).unwrap_err().message;
            assert!(message.contains(words), "{text}: {message}");
        };
        check("a:b:c:d", "invalid volume specification");
        check("/a:", "invalid volume specification");
        check("/a:/", "destination can't be '/'");
        check(
            "/a:b",
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": \
             invalid mount path: 'b' mount path must be absolute",
        );
        check(
            "vol:/",
            "invalid volume specification: 'vol:/': invalid mount config for type \"volume\": \
             invalid specification: destination can't be '/'",
        );
        check("/a:/b:ro,rw", "invalid mode: ro,rw");
        check("/a:/b:x", "invalid mode: x");
        check(
            "../a:/b",
            "includes invalid characters for a local volume name",
        );
    }

    #[test]
    fn the_structured_form_is_checked() {
        let request = |kind: &str, source: &str, target: &str| Request {
            kind: kind.into(),
            source: source.into(),
            target: target.into(),
            ..Request::default()
        };
        assert!(structured(&request("bind", "/a", "/b")).is_ok());
        assert!(structured(&request("tmpfs", "", "/b")).is_ok());
        for (kind, source, target) in [
            ("bind", "", "/b"),
            ("bind", "a", "/b"),
            ("tmpfs", "x", "/b"),
            ("bind", "/a", ""),
            ("", "", "/b"),
            ("disk", "", "/b"),
        ] {
            assert!(
                structured(&request(kind, source, target)).is_err(),
                "{kind} {source} {target}"
            );
        }
    }
}
