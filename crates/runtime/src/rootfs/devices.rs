//! Device nodes and links of the container's own /dev.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, makedev};
use rustix::io::Errno;

use super::mounts;
use super::path::{self, Leaf};
use crate::error::{Error, errno_words};
use crate::plan::Device;

/// Links that programs expect (OCI runtime specification, "Dev symbolic links").
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Makes nodes and links. The caller's umask must be 0. Where mknod is not allowed, the host's
/// nodes are bound.
pub(crate) fn make(root: BorrowedFd<'_>, devices: &[Device]) -> Result<(), Error> {
    let dev = path::locate_or_make(root, Path::new("/dev"), Leaf::Directory)
        .map_err(|e| Error::internal(format!("error creating device nodes: {}", errno_words(e))))?;
    for device in devices {
        node(root, &dev, device).map_err(|errno| {
            let (path, reason) = (device.path.display(), errno_words(errno));
            Error::invalid(format!(
                "error creating device nodes: mknod {path}: {reason}"
            ))
        })?;
    }
    for (target, name) in LINKS {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                let reason = errno_words(errno);
                return Err(Error::internal(format!(
                    "symlink {target} /dev/{name}: {reason}"
                )));
            }
        }
    }
    Ok(())
}

fn node(root: BorrowedFd<'_>, dev: &OwnedFd, device: &Device) -> rustix::io::Result<()> {
    let name = device.path.file_name().ok_or(Errno::INVAL)?;
    let parent;
    let directory = if device.path.parent() == Some(Path::new("/dev")) {
        dev
    } else {
        let path = device.path.parent().ok_or(Errno::INVAL)?;
        parent = path::locate_or_make(root, path, Leaf::Directory)?;
        &parent
    };
    let mode = Mode::from_raw_mode(device.mode);
    let number = makedev(device.major, device.minor);
    match rustix::fs::mknodat(directory, name, device.kind, mode, number) {
        Ok(()) => {}
        // A mount of the user put one there.
        Err(Errno::EXIST) => return Ok(()),
        Err(Errno::PERM) => return bind(root, device),
        Err(errno) => return Err(errno),
    }
    if (device.uid, device.gid) == (0, 0) {
        return Ok(());
    }
    rustix::fs::chownat(
        directory,
        name,
        Some(Uid::from_raw(device.uid)),
        Some(Gid::from_raw(device.gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// Without CAP_MKNOD, or in a user namespace: the host's node of the same path. Still in the old root, so the host's path
/// is the namespace's `/`, below the container's root that was put on top.
fn bind(root: BorrowedFd<'_>, device: &Device) -> rustix::io::Result<()> {
    let tree = mounts::clone_tree(&device.path, false)?;
    let stat = rustix::fs::fstat(&tree)?;
    let is_it = FileType::from_raw_mode(stat.st_mode) == device.kind
        && stat.st_rdev == makedev(device.major, device.minor);
    if !is_it {
        return Err(Errno::NODEV);
    }
    let place = path::locate_or_make(root, &device.path, Leaf::File)?;
    mounts::attach(tree.as_fd(), place.as_fd())
}

/// Binds the terminal's slave on /dev/console.
pub(crate) fn console(root: BorrowedFd<'_>, slave: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let place = path::locate_or_make(root, Path::new("/dev/console"), Leaf::File)?;
    let tree = mounts::clone_at(slave, false)?;
    mounts::attach(tree.as_fd(), place.as_fd())
}

/// Whether a descriptor is the null device, whoever made the node.
pub(crate) fn is_null(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == makedev(1, 3)
    })
}
