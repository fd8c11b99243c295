//! Names of scopes, and where systemd puts their cgroups.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Where a container goes that names no slice, as runc's.
const DEFAULT_SLICE: &str = "system.slice";
/// What a container's scope begins with that names none.
const DEFAULT_PREFIX: &str = "berth";

/// A scope and its slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    slice: String,
    name: String,
}

impl Unit {
    pub fn new(slice: &str, name: &str) -> Result<Self, Error> {
        let malformed = |what: &str, name: &str| {
            Err(Error::invalid(format!(
                "invalid systemd {what} name: {name}"
            )))
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let parts = slice.strip_suffix(".slice").unwrap_or_default();
        // `-.slice` is the root.
        if parts != "-" && parts.split('-').any(str::is_empty) || !slice.bytes().all(plain) {
            return malformed("slice", slice);
        }
        if name == ".scope" || !name.ends_with(".scope") || !name.bytes().all(plain) {
            return malformed("scope", name);
        }
        Ok(Self {
            slice: slice.to_owned(),
            name: name.to_owned(),
        })
    }

    /// From a specification's `cgroupsPath` as runc reads it with `--systemd-cgroup`:
    /// `slice:prefix:name`, each of which may be empty; an empty path is all defaults.
    pub fn of_cgroups_path(path: &str, id: &str) -> Result<Self, Error> {
        let path = if path.is_empty() { "::" } else { path };
        let [slice, prefix, name] = path.split(':').collect::<Vec<_>>()[..] else {
            return Err(Error::invalid(format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
            )));
        };
        if name.ends_with(".slice") {
            return Err(Error::invalid(format!(
                "cgroupsPath {path:?} names a slice: systemd keeps slices for itself, name a scope in it"
            )));
        }
        let slice = if slice.is_empty() {
            DEFAULT_SLICE
        } else {
            slice
        };
        let unit = match (prefix, name) {
            ("", "") => format!("{DEFAULT_PREFIX}-{id}.scope"),
            ("", name) => format!("{name}.scope"),
            (prefix, "") => format!("{prefix}-{id}.scope"),
            (prefix, name) => format!("{prefix}-{name}.scope"),
        };
        Self::new(slice, &unit)
    }

    /// With its suffix.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn slice(&self) -> &str {
        &self.slice
    }

    /// Below each hierarchy's root. A dash in a slice's name stands for a level: `a-b.slice` is
    /// in `a.slice` (systemd.slice(5)).
    pub fn cgroup(&self) -> String {
        let mut path = String::from("/");
        let parts = self.slice.trim_end_matches(".slice");
        for (at, _) in parts.match_indices('-').filter(|(at, _)| *at > 0) {
            path += &format!("{}.slice/", &parts[..at]);
        }
        if parts != "-" {
            path += &format!("{}/", self.slice);
        }
        path + &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_paths_are_read_as_runc_does() {
        for (path, cgroup) in [
            ("", "/system.slice/berth-c1.scope"),
            ("::", "/system.slice/berth-c1.scope"),
            ("user.slice:libpod:abc", "/user.slice/libpod-abc.scope"),
            ("a-b-c.slice::x", "/a.slice/a-b.slice/a-b-c.slice/x.scope"),
            ("-.slice:p:", "/p-c1.scope"),
        ] {
            assert_eq!(
                Unit::of_cgroups_path(path, "c1").unwrap().cgroup(),
                cgroup,
                "{path}"
            );
        }
    }

    #[test]
    fn other_paths_are_refused() {
        for path in [
            "/berth/c1",
            "system.slice:a",
            "a:b:c:d",
            "a/b.slice:p:n",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            ".slice:p:n",
            "system:p:n",
            "system.slice:p:a/b",
            "system.slice:p:pod.slice",
        ] {
            assert!(Unit::of_cgroups_path(path, "c1").is_err(), "{path}");
        }
    }
}
