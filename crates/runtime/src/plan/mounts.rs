//! Mounts of a specification: of which kind each is, and what its options mean together.

use std::path::{Path, PathBuf};

use super::namespaces::IdMaps;
use crate::error::Error;
use crate::rootfs::options::{Data, Options};

#[derive(Debug)]
pub(crate) struct Mount {
    pub destination: PathBuf,
    pub kind: MountKind,
    pub options: Options,
    /// Only of binds.
    pub idmap: Option<Idmap>,
}

/// How the ids of a bind's source are mapped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Idmap {
    /// `None` stands for the container's own mappings.
    pub maps: Option<IdMaps>,
    /// Whether the mounts below the source are mapped too.
    pub recursive: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MountKind {
    Bind {
        source: PathBuf,
    },
    Cgroup,
    /// What is mounted there already gets other attributes.
    Again,
    FileSystem {
        typ: String,
        source: String,
    },
}

/// `has_user`: the container has a user namespace.
pub(super) fn plan(
    spec: &oci_spec::runtime::Mount,
    label: Option<&str>,
    has_user: bool,
) -> Result<Mount, Error> {
    let mut options = Options::parse(spec.options().as_deref().unwrap_or_default());
    let destination = Path::new("/").join(spec.destination());
    let shown = destination.display();
    let typ = spec.typ().as_deref().unwrap_or("none");
    let source = spec.source().clone().unwrap_or_default();
    let kind = if options.remount && options.bind.is_none() && typ != "bind" {
        MountKind::Again
    } else if options.bind.is_some() || typ == "bind" {
        if source.as_os_str().is_empty() {
            return Err(Error::invalid(format!(
                "the bind mount at {shown} has no source"
            )));
        }
        MountKind::Bind { source }
    } else {
        match typ {
            "cgroup" | "cgroup2" => MountKind::Cgroup,
            "none" | "" => {
                return Err(Error::invalid(format!("the mount at {shown} has no type")));
            }
            typ => {
                if let Some(label) = label.filter(|label| !label.is_empty() && takes_label(typ)) {
                    options
                        .data
                        .push(Data::Value("context".into(), label.into()));
                }
                MountKind::FileSystem {
                    typ: typ.to_owned(),
                    source: source.to_string_lossy().into_owned(),
                }
            }
        }
    };
    if options.tmpcopyup && !matches!(&kind, MountKind::FileSystem { typ, .. } if typ == "tmpfs") {
        return Err(Error::invalid(format!(
            "the mount at {shown}: tmpcopyup is only for tmpfs"
        )));
    }
    let idmap = idmap(spec, &options, has_user)
        .map_err(|reason| Error::invalid(format!("the mount at {shown}: {reason}")))?;
    if idmap.is_some() && !matches!(kind, MountKind::Bind { .. }) {
        return Err(Error::invalid(format!(
            "the mount at {shown}: only bind mounts can be idmapped"
        )));
    }
    Ok(Mount {
        destination,
        kind,
        options,
        idmap,
    })
}

fn idmap(
    spec: &oci_spec::runtime::Mount,
    options: &Options,
    has_user: bool,
) -> Result<Option<Idmap>, &'static str> {
    let recursive = options.idmap == Some(true);
    let maps = IdMaps::new(spec.uid_mappings().as_ref(), spec.gid_mappings().as_ref());
    match maps {
        None if options.idmap.is_none() => Ok(None),
        None if !has_user => Err("idmap needs mappings, or a user namespace that has them"),
        Some(maps) if maps.uids.is_empty() || maps.gids.is_empty() => {
            Err("both uidMappings and gidMappings must be there")
        }
        maps => Ok(Some(Idmap { maps, recursive })),
    }
}

/// Whether SELinux labels the file system by a mount option (as runc: proc and sysfs are labelled
/// by the policy, mqueue by its files).
fn takes_label(typ: &str) -> bool {
    !matches!(typ, "proc" | "sysfs" | "mqueue")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: serde_json::Value, has_user: bool) -> Result<Mount, Error> {
        let spec: oci_spec::runtime::Mount = serde_json::from_value(json).unwrap();
        plan(&spec, None, has_user)
    }

    fn bind(options: &[&str]) -> serde_json::Value {
        serde_json::json!({"destination": "/x", "source": "/y", "type": "bind", "options": options})
    }

    #[test]
    fn an_idmap_needs_ids() {
        assert!(check(bind(&["idmap"]), false).is_err());
        let own = check(bind(&["ridmap"]), true).unwrap().idmap.unwrap();
        assert_eq!((own.maps, own.recursive), (None, true));
        let mut given = bind(&["rbind"]);
        let map = serde_json::json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        given["uidMappings"] = map.clone();
        assert!(check(given.clone(), true).is_err(), "no mapping of groups");
        given["gidMappings"] = map;
        let given = check(given, false).unwrap().idmap.unwrap();
        assert!(given.maps.is_some() && !given.recursive);
    }

    #[test]
    fn only_binds_are_idmapped_and_only_tmpfs_copies_up() {
        for (typ, options) in [("tmpfs", ["idmap"]), ("proc", ["tmpcopyup"])] {
            let json = serde_json::json!({"destination": "/x", "type": typ, "options": options});
            assert!(check(json, true).is_err(), "{typ}");
        }
    }

    #[test]
    fn a_label_is_an_option_where_the_file_system_takes_it() {
        for (typ, labelled) in [("tmpfs", true), ("proc", false)] {
            let json = serde_json::json!({"destination": "/x", "type": typ});
            let spec = serde_json::from_value(json).unwrap();
            let mount = plan(&spec, Some("a:b"), false).unwrap();
            let context = Data::Value("context".into(), "a:b".into());
            assert_eq!(mount.options.data.contains(&context), labelled, "{typ}");
        }
    }
}
