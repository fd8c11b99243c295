//! Where a process of a container goes: its cgroup, or one below it (`exec --cgroup`).

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Cgroup, Layout};
use crate::error::Error;

/// A directory for each hierarchy.
pub(crate) struct Below<'a> {
    layout: &'a Layout,
    directories: Vec<PathBuf>,
}

impl Cgroup {
    /// `paths` are pairs of a controller (or nothing, for all) and a path; what is not named
    /// stands for the container's cgroup itself.
    pub(crate) fn below(&self, paths: &[(String, String)]) -> Result<Below<'_>, Error> {
        for (controller, path) in paths {
            let known = match self.layout {
                Layout::V2 { .. } => controller.is_empty(),
                Layout::V1(_) => controller.is_empty() || self.directory(controller).is_some(),
            };
            if !known {
                let message = format!("unknown controller {controller} in --cgroup");
                return Err(Error::invalid(message));
            }
            let parts = || Path::new(path.trim_start_matches('/')).components();
            if !parts().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
                let message = format!("{path} is not a sub cgroup path");
                return Err(Error::invalid(message));
            }
        }
        let path_of = |controllers: &[String]| {
            let named = |(controller, _): &&(String, String)| {
                controller.is_empty() || controllers.contains(controller)
            };
            let path = paths.iter().find(named).map(|(_, path)| path.as_str());
            path.unwrap_or_default().trim_start_matches('/')
        };
        let directories = match self.layout {
            Layout::V2 { mount } => vec![mount.join(&self.path).join(path_of(&[]))],
            Layout::V1(hierarchies) => hierarchies
                .iter()
                .map(|h| h.mount.join(&self.path).join(path_of(&h.controllers)))
                .collect(),
        };
        Ok(Below {
            layout: self.layout,
            directories,
        })
    }
}

impl Below<'_> {
    /// Version 2: the directory that clone3 puts a child into.
    pub fn entry(&self) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match (self.layout, self.directories.first()) {
            (Layout::V2 { .. }, Some(directory)) => {
                Ok(Some(rustix::fs::open(directory, flags, Mode::empty())?))
            }
            _ => Ok(None),
        }
    }

    /// Version 1: the files that a process enters by writing `0` to them.
    ///
    /// `tasks` and not `cgroup.procs`, and `0` and not a pid: a thread that moves only itself need
    /// not take the lock of all threads of all processes (kernel `cgroup_procs_write_start`), for
    /// which the kernel waits several milliseconds.
    pub fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let door = |directory: &PathBuf| {
            Ok(rustix::fs::open(
                directory.join("tasks"),
                flags,
                Mode::empty(),
            )?)
        };
        match self.layout {
            Layout::V2 { .. } => Ok(Vec::new()),
            Layout::V1(_) => self.directories.iter().map(door).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Hierarchy;

    fn pair(controller: &str, path: &str) -> (String, String) {
        (controller.to_owned(), path.to_owned())
    }

    #[test]
    fn each_hierarchy_has_its_path() {
        let hierarchy = |name: &str| Hierarchy {
            mount: Path::new("/m").join(name),
            controllers: vec![name.to_owned()],
        };
        let layout = Layout::V1(vec![hierarchy("cpu"), hierarchy("pids")]);
        let cgroup = Cgroup::at(layout, "c");
        let below = cgroup.below(&[pair("pids", "/x/y")]).unwrap();
        let expected = ["/m/cpu/c", "/m/pids/c/x/y"].map(PathBuf::from);
        assert_eq!(below.directories, expected);
        let below = cgroup.below(&[pair("", "x")]).unwrap();
        let expected = ["/m/cpu/c/x", "/m/pids/c/x"].map(PathBuf::from);
        assert_eq!(below.directories, expected);
        assert!(cgroup.below(&[pair("memory", "x")]).is_err());
    }

    #[test]
    fn nothing_leads_out_of_the_containers_cgroup() {
        let mount = PathBuf::from("/m");
        let cgroup = Cgroup::at(Layout::V2 { mount }, "c");
        assert!(cgroup.below(&[pair("", "x/../..")]).is_err());
        assert!(cgroup.below(&[pair("cpu", "x")]).is_err());
        let below = cgroup.below(&[pair("", "x")]).unwrap();
        assert_eq!(below.directories, [PathBuf::from("/m/c/x")]);
    }
}
