//! Namespaces of a specification: which are new, which are joined, and how ids are mapped.

use std::fmt::Write;
use std::path::PathBuf;

use berth_sys::clone::Namespaces;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, LinuxTimeOffset};

use crate::error::Error;

/// The namespaces that a container does not share with its caller.
#[derive(Debug)]
pub(crate) struct Kinds {
    pub new: Namespaces,
    /// Joined by path before anything else.
    pub join: Vec<(Namespaces, PathBuf)>,
    /// Of a new user namespace.
    pub maps: Option<IdMaps>,
    /// What a new time namespace's `timens_offsets` gets.
    pub time_offsets: String,
}

/// How the ids of a user namespace, or of an idmapped mount, stand for the host's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct IdMaps {
    pub uids: Vec<IdMap>,
    pub gids: Vec<IdMap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IdMap {
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

impl Kinds {
    pub fn new(linux: Option<&Linux>) -> Result<Self, Error> {
        let mut new = Namespaces::empty();
        let mut join: Vec<(Namespaces, PathBuf)> = Vec::new();
        let listed = linux.and_then(|l| l.namespaces().as_ref());
        for namespace in listed.into_iter().flatten() {
            let flag = namespace_flag(namespace.typ());
            if owns(flag, new, &join) {
                let name = namespace.typ();
                return Err(Error::invalid(format!(
                    "malformed spec file: duplicated ns {name:?}"
                )));
            }
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => join.push((flag, path.clone())),
                _ => new |= flag,
            }
        }
        if !owns(Namespaces::MOUNT, new, &join) {
            return Err(Error::invalid(
                "a container needs a mount namespace of its own",
            ));
        }
        let given = linux
            .and_then(|l| IdMaps::new(l.uid_mappings().as_ref(), l.gid_mappings().as_ref()))
            .filter(|maps| !maps.uids.is_empty() || !maps.gids.is_empty());
        let offsets = linux.and_then(|l| l.time_offsets().as_ref());
        let offsets = offsets.filter(|offsets| !offsets.is_empty());
        let has = |flag| owns(flag, new, &join);
        let maps = match given {
            None if new.contains(Namespaces::USER) => {
                return Err(Error::invalid(
                    "user namespaces enabled, but no namespace path to join nor mappings to apply specified",
                ));
            }
            Some(_) if !has(Namespaces::USER) => {
                return Err(Error::invalid(
                    "user namespace mappings specified, but user namespace isn't enabled in the config",
                ));
            }
            // A namespace that is joined has its mappings already.
            maps => maps.filter(|_| new.contains(Namespaces::USER)),
        };
        if let Some(maps) = &maps
            && (host_id(&maps.uids, 0).is_none() || host_id(&maps.gids, 0).is_none())
        {
            return Err(Error::invalid(
                "user namespaces enabled, but no mapping found for id 0",
            ));
        }
        if offsets.is_some() && !has(Namespaces::TIME) {
            return Err(Error::invalid(
                "time namespace offsets specified, but time namespace isn't enabled in the config",
            ));
        }
        if offsets.is_some() && !new.contains(Namespaces::TIME) {
            return Err(Error::invalid(
                "time namespace enabled, but both namespace path and time offsets specified -- you may only provide one",
            ));
        }
        let time_offsets = offsets.map_or(Ok(String::new()), time_offsets)?;
        Ok(Self {
            new,
            join,
            maps,
            time_offsets,
        })
    }

    /// Whether the container is in a user namespace of its own, new or joined.
    pub fn has_user(&self) -> bool {
        owns(Namespaces::USER, self.new, &self.join)
    }
}

impl IdMaps {
    /// `None` when neither is there.
    pub fn new(
        uids: Option<&Vec<LinuxIdMapping>>,
        gids: Option<&Vec<LinuxIdMapping>>,
    ) -> Option<Self> {
        let list = |maps: Option<&Vec<LinuxIdMapping>>| {
            let maps = maps.into_iter().flatten();
            maps.map(|map| IdMap {
                container: map.container_id(),
                host: map.host_id(),
                size: map.size(),
            })
            .collect()
        };
        (uids.is_some() || gids.is_some()).then(|| Self {
            uids: list(uids),
            gids: list(gids),
        })
    }

    /// From the text of `/proc/PID/uid_map` or `gid_map`.
    pub fn parse(text: &str) -> Vec<IdMap> {
        let numbers = |line: &str| {
            let mut words = line.split_whitespace().map(|word| word.parse().ok());
            Some(IdMap {
                container: words.next()??,
                host: words.next()??,
                size: words.next()??,
            })
        };
        text.lines().filter_map(numbers).collect()
    }

    /// As the kernel takes it.
    pub fn text(maps: &[IdMap]) -> String {
        maps.iter().fold(String::new(), |mut text, map| {
            // A string takes everything.
            let _ = writeln!(text, "{} {} {}", map.container, map.host, map.size);
            text
        })
    }
}

/// What an id of the namespace is outside of it.
pub(crate) fn host_id(maps: &[IdMap], id: u32) -> Option<u32> {
    maps.iter().find_map(|map| {
        let distance = id.checked_sub(map.container)?;
        (distance < map.size).then(|| map.host.checked_add(distance))?
    })
}

fn time_offsets(
    offsets: &std::collections::HashMap<String, LinuxTimeOffset>,
) -> Result<String, Error> {
    let mut lines = offsets
        .iter()
        .map(|(clock, offset)| {
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(Error::invalid(format!("clock {clock:?} has no offset")));
            }
            let (seconds, rest) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            Ok(format!("{clock} {seconds} {rest}\n"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    lines.sort();
    Ok(lines.concat())
}

pub(super) fn owns(flag: Namespaces, new: Namespaces, join: &[(Namespaces, PathBuf)]) -> bool {
    new.contains(flag) || join.iter().any(|(joined, _)| *joined == flag)
}

fn namespace_flag(typ: LinuxNamespaceType) -> Namespaces {
    match typ {
        LinuxNamespaceType::Mount => Namespaces::MOUNT,
        LinuxNamespaceType::Cgroup => Namespaces::CGROUP,
        LinuxNamespaceType::Uts => Namespaces::UTS,
        LinuxNamespaceType::Ipc => Namespaces::IPC,
        LinuxNamespaceType::User => Namespaces::USER,
        LinuxNamespaceType::Pid => Namespaces::PID,
        LinuxNamespaceType::Network => Namespaces::NETWORK,
        LinuxNamespaceType::Time => Namespaces::TIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn kinds(mut linux: Value) -> Result<Kinds, Error> {
        let list = linux["namespaces"].as_array_mut().unwrap();
        list.push(json!({"type": "mount"}));
        Kinds::new(Some(&serde_json::from_value(linux).unwrap()))
    }

    fn map(container: u32, host: u32, size: u32) -> Value {
        json!([{"containerID": container, "hostID": host, "size": size}])
    }

    #[test]
    fn a_new_user_namespace_needs_mappings_that_have_root() {
        let user = json!([{"type": "user"}]);
        assert!(kinds(json!({"namespaces": user})).is_err());
        let linux = |first| json!({"namespaces": user, "uidMappings": map(first, 100_000, 10), "gidMappings": map(0, 5, 1)});
        assert!(kinds(linux(1)).is_err());
        let kinds = kinds(linux(0)).unwrap();
        let maps = kinds.maps.as_ref().unwrap();
        assert_eq!(IdMaps::text(&maps.uids), "0 100000 10\n");
        assert!(kinds.has_user());
    }

    #[test]
    fn mappings_without_a_user_namespace_are_refused() {
        let error = kinds(json!({"namespaces": [], "uidMappings": map(0, 1, 1)})).unwrap_err();
        assert!(error.message.contains("isn't enabled"));
    }

    #[test]
    fn ids_are_found_in_their_range_only() {
        let maps = IdMaps::parse("         0     100000         10\n        10 5 1\n");
        for (id, host) in [
            (0, Some(100_000)),
            (9, Some(100_009)),
            (10, Some(5)),
            (11, None),
        ] {
            assert_eq!(host_id(&maps, id), host, "{id}");
        }
    }

    #[test]
    fn offsets_are_of_a_new_time_namespace() {
        let offsets = json!({"monotonic": {"secs": -5}, "boottime": {"secs": 7, "nanosecs": 8}});
        let linux = |list| json!({"namespaces": list, "timeOffsets": offsets});
        let time = kinds(linux(json!([{"type": "time"}]))).unwrap();
        assert_eq!(time.time_offsets, "boottime 7 8\nmonotonic -5 0\n");
        assert!(kinds(linux(json!([]))).is_err());
        assert!(kinds(linux(json!([{"type": "time", "path": "/x"}]))).is_err());
    }

    #[test]
    fn no_kind_comes_twice() {
        assert!(
            kinds(json!({"namespaces": [{"type": "pid"}, {"type": "pid", "path": "/x"}]})).is_err()
        );
    }
}
