//! The notations of mounts: `SOURCE:DESTINATION:MODE`, the structured form, `--volumes-from`.

use std::path::{Component, Path, PathBuf};

use berth_docker::container::Mount as Request;

use super::super::invalid;
use super::{Kind, Mount};
use crate::error::Result;

const PROPAGATIONS: &[&str] = &[
    "private", "rprivate", "slave", "rslave", "shared", "rshared",
];

/// `-v`: a destination alone is an anonymous volume.
pub fn bind(text: &str) -> Result<Mount> {
    let bad = || invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [target] => ("", *target, ""),
        // An image's volume cannot have a mode without a source, so this is source and target.
        [source, target] => (*source, *target, ""),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(bad()),
    };
    if parts.iter().any(|part| part.is_empty()) {
        return Err(bad());
    }
    let kind = if source.starts_with('/') {
        "bind"
    } else {
        "volume"
    };
    let destination = destination(target).map_err(|error| {
        invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type {kind:?}: {}",
            error.message
        ))
    })?;
    if source.is_empty() {
        return Ok(anonymous(destination));
    }
    let mode_words = Mode::parse(mode).ok_or_else(|| invalid(format!("invalid mode: {mode}")))?;
    let mut mount = if source.starts_with('/') {
        Mount {
            kind: Kind::Bind { create: true },
            source: clean(source),
            propagation: mode_words.propagation.unwrap_or("rprivate").to_owned(),
            ..anonymous(destination)
        }
    } else {
        check_volume_name(source)?;
        if mode_words.propagation.is_some() {
            return Err(bad());
        }
        Mount {
            kind: volume(source, !mode_words.no_copy),
            ..anonymous(destination)
        }
    };
    mount.read_only = mode_words.read_only;
    mount.mode = mode.to_owned();
    // Docker shows the default label mode of named volumes.
    if mode.is_empty() && matches!(mount.kind, Kind::Volume { .. }) {
        mount.mode = "z".to_owned();
    }
    Ok(mount)
}

/// `--mount`.
pub fn structured(request: &Request) -> Result<Mount> {
    let config = |why: &str| {
        invalid(format!(
            "invalid mount config for type {:?}: {why}",
            request.kind
        ))
    };
    if request.target.is_empty() {
        return Err(config("field Target must not be empty"));
    }
    let destination = destination(&request.target).map_err(|e| config(&e.message))?;
    let base = Mount {
        read_only: request.read_only,
        ..anonymous(destination)
    };
    match request.kind.as_str() {
        "bind" => {
            if request.volume_options.is_some() || request.tmpfs_options.is_some() {
                return Err(config("fields of other mount types must not be specified"));
            }
            if request.source.is_empty() {
                return Err(config("field Source must not be empty"));
            }
            if !request.source.starts_with('/') {
                return Err(config(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    request.source
                )));
            }
            let options = request.bind_options.clone().unwrap_or_default();
            if !options.propagation.is_empty()
                && !PROPAGATIONS.contains(&options.propagation.as_str())
            {
                return Err(config(&format!(
                    "invalid propagation mode: {}",
                    options.propagation
                )));
            }
            let propagation = if options.propagation.is_empty() {
                "rprivate"
            } else {
                &options.propagation
            };
            Ok(Mount {
                kind: Kind::Bind {
                    create: options.create_mountpoint,
                },
                source: clean(&request.source),
                propagation: propagation.to_owned(),
                recursive: !options.non_recursive,
                ..base
            })
        }
        "volume" => {
            let options = request.volume_options.clone().unwrap_or_default();
            if !request.source.is_empty() {
                check_volume_name(&request.source)?;
            }
            let subpath = Path::new(&options.subpath);
            if subpath
                .components()
                .any(|part| !matches!(part, Component::Normal(_)))
            {
                return Err(config("subpath must be a relative path within the volume"));
            }
            let mut kind = volume(
                &request.source,
                !options.no_copy && options.subpath.is_empty(),
            );
            if let Kind::Volume { subpath, .. } = &mut kind {
                *subpath = options.subpath;
            }
            Ok(Mount {
                kind,
                mode: "z".to_owned(),
                ..base
            })
        }
        "tmpfs" => {
            if !request.source.is_empty() {
                return Err(config("field Source must not be specified"));
            }
            let options = request.tmpfs_options.clone().unwrap_or_default();
            let mut words = Vec::new();
            if options.size_bytes > 0 {
                words.push(format!("size={}", options.size_bytes));
            }
            if options.mode != 0 {
                words.push(format!("mode={:o}", options.mode));
            }
            words.extend(options.options.iter().map(|pair| pair.join("=")));
            Ok(Mount {
                kind: Kind::Tmpfs { options: words },
                ..base
            })
        }
        "" => Err(invalid("mount type unknown")),
        other => Err(invalid(format!(
            "invalid mount config for type {other:?}: mount type unknown"
        ))),
    }
}

/// `--volumes-from CONTAINER[:MODE]`.
pub fn volumes_from(spec: &str, of: &dyn Fn(&str) -> Result<Vec<Mount>>) -> Result<Vec<Mount>> {
    let (container, mode) = spec.split_once(':').unwrap_or((spec, ""));
    let words = Mode::parse(mode).ok_or_else(|| invalid(format!("invalid mode: {mode}")))?;
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
fn clean(path: &str) -> PathBuf {
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
    if berth_base::name::is_valid(name) {
        return Ok(());
    }
    Err(invalid(format!(
        "create {name}: {name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
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
                "consistent" | "cached" | "delegated" | "default" => consistency += 1,
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
