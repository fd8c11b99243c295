//! The cgroup file systems inside a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::mount::{Change, attr, setattr};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::file_systems::detached;
use super::mounts::{self, attach, place};
use super::options::Data;
use super::path::Leaf;
use crate::cgroup::{Hierarchy, Layout};
use crate::error::{Error, errno_words, io_words};
use crate::plan::Mount;

/// Mounts what the container shall see of its cgroup. `trees` are clones of the container's own
/// directories, one for each hierarchy of version 1; with a cgroup namespace they are not needed,
/// because a new mount shows the namespace's root; of version 2 they are what is bound where a new
/// mount is refused (a user namespace without a cgroup namespace).
pub(crate) fn apply(
    root: BorrowedFd<'_>,
    mount: &Mount,
    layout: &Layout,
    trees: &[OwnedFd],
) -> Result<(), Error> {
    let place = place(root, mount, Leaf::Directory)?;
    let fail = |errno| mounts::failed(mount, &errno_words(errno));
    let attributes = mount.options.set | mount.options.recursive_set;
    match layout {
        Layout::V2 { .. } => {
            let tree = match (detached("cgroup2", "cgroup", &[], attributes), trees) {
                (Err(Errno::PERM | Errno::BUSY), [tree, ..]) => {
                    restrict(tree, attributes).map_err(fail)?;
                    return attach(tree.as_fd(), place.as_fd()).map_err(fail);
                }
                (tree, _) => tree.map_err(fail)?,
            };
            attach(tree.as_fd(), place.as_fd()).map_err(fail)
        }
        Layout::V1(hierarchies) => {
            let data = [Data::Value("mode".into(), "755".into())];
            let tmpfs =
                detached("tmpfs", "tmpfs", &data, attributes & !attr::RDONLY).map_err(fail)?;
            attach(tmpfs.as_fd(), place.as_fd()).map_err(fail)?;
            for (index, hierarchy) in hierarchies.iter().enumerate() {
                one(&tmpfs, hierarchy, trees.get(index), attributes).map_err(|errno| {
                    let name = hierarchy.controllers.join(",");
                    mounts::failed(mount, &format!("{name}: {}", errno_words(errno)))
                })?;
            }
            if attributes & attr::RDONLY != 0 {
                let change = Change {
                    set: attr::RDONLY,
                    ..Change::default()
                };
                setattr(tmpfs.as_fd(), change, false)
                    .map_err(|e| mounts::failed(mount, &io_words(&e)))?;
            }
            Ok(())
        }
    }
}

fn restrict(tree: &OwnedFd, attributes: u64) -> rustix::io::Result<()> {
    let change = Change {
        set: attributes,
        ..Change::default()
    };
    setattr(tree.as_fd(), change, true).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

fn one(
    tmpfs: &OwnedFd,
    hierarchy: &Hierarchy,
    tree: Option<&OwnedFd>,
    attributes: u64,
) -> rustix::io::Result<()> {
    let name = hierarchy
        .mount
        .file_name()
        .unwrap_or(hierarchy.mount.as_os_str());
    rustix::fs::mkdirat(tmpfs, name, Mode::from_raw_mode(0o755))?;
    let place = rustix::fs::openat(
        tmpfs,
        name,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    match tree {
        Some(tree) => {
            restrict(tree, attributes)?;
            attach(tree.as_fd(), place.as_fd())?;
        }
        None => {
            let data: Vec<Data> = hierarchy
                .controllers
                .iter()
                .flat_map(|controller| match controller.split_once('=') {
                    Some((key, value)) => {
                        vec![
                            Data::Flag("none".into()),
                            Data::Value(key.into(), value.into()),
                        ]
                    }
                    None => vec![Data::Flag(controller.clone())],
                })
                .collect();
            let tree = detached("cgroup", "cgroup", &data, attributes)?;
            attach(tree.as_fd(), place.as_fd())?;
        }
    }
    // `cpu -> cpu,cpuacct`, where two controllers share a hierarchy.
    for controller in hierarchy.controllers.iter().filter(|c| !c.contains('=')) {
        if Path::new(controller) != Path::new(name) {
            match rustix::fs::symlinkat(name, tmpfs, controller.as_str()) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}
