//! New instances of file systems.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::mount::{Change, attr, setattr};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::copyup;
use super::mounts::{attach, clone_tree, failed, place, set_attributes};
use super::options::Data;
use super::path::{self, Leaf};
use crate::error::{Error, errno_words, io_words};
use crate::plan::Mount;

/// Returns the mount if it is writable for now.
pub(super) fn mount(
    root: BorrowedFd<'_>,
    mount: &Mount,
    typ: &str,
    source: &str,
) -> Result<Option<OwnedFd>, Error> {
    let fail = |errno| failed(mount, &errno_words(errno));
    let mut data = mount.options.data.clone();
    let covered = path::locate(root, &mount.destination).ok();
    if let (Some(covered), "tmpfs") = (&covered, typ) {
        // As the directory that it covers, unless the options say otherwise.
        let mode = rustix::fs::fstat(covered).map_err(fail)?.st_mode & 0o7777;
        data.insert(0, Data::Value("mode".into(), format!("{mode:o}")));
    }
    let place = place(root, mount, Leaf::Directory)?;
    let mut attributes = mount.options.set | mount.options.recursive_set;
    let later = typ == "tmpfs" || mount.destination == Path::new("/dev");
    let later = later && attributes & attr::RDONLY != 0;
    if later {
        attributes &= !attr::RDONLY;
    }
    if data.iter().any(|word| !fits(word)) {
        return long_options(root, mount, typ, source, place.as_fd());
    }
    let tree = match (detached(typ, source, &data, attributes), host_has(typ)) {
        (Err(Errno::PERM), Some(path)) => of_the_host(mount, path)?,
        (tree, _) => tree.map_err(|errno| {
            let (destination, errno) = (mount.destination.display(), errno_words(errno));
            failed(
                mount,
                &format!("mount src={source}, dst={destination}: {errno}"),
            )
        })?,
    };
    if mount.options.tmpcopyup {
        copyup::copy(place.as_fd(), tree.as_fd())
            .map_err(|errno| failed(mount, &format!("tmpcopyup: {}", errno_words(errno))))?;
    }
    if let Some((propagation, _)) = mount.options.propagation {
        let change = Change {
            propagation: Some(propagation),
            ..Change::default()
        };
        setattr(tree.as_fd(), change, false).map_err(|e| failed(mount, &io_words(&e)))?;
    }
    attach(tree.as_fd(), place.as_fd()).map_err(fail)?;
    Ok(later.then_some(tree))
}

/// The longest value that fsconfig(2) takes, in bytes.
const MAX_VALUE_BYTES: usize = 255;

fn fits(word: &Data) -> bool {
    match word {
        Data::Flag(key) => key.len() <= MAX_VALUE_BYTES,
        Data::Value(_, value) => value.len() <= MAX_VALUE_BYTES,
    }
}

/// By mount(2), which takes a page of options in all (overlay's layers are longer than others').
fn long_options(
    root: BorrowedFd<'_>,
    mount: &Mount,
    typ: &str,
    source: &str,
    place: BorrowedFd<'_>,
) -> Result<Option<OwnedFd>, Error> {
    let fail = |errno| failed(mount, &errno_words(errno));
    let words: Vec<String> = (mount.options.data.iter())
        .map(|word| match word {
            Data::Flag(key) => key.clone(),
            Data::Value(key, value) => format!("{key}={value}"),
        })
        .collect();
    let data = CString::new(words.join(",")).map_err(|_| failed(mount, "a NUL byte"))?;
    // Still the host's proc, so what it says of us is true.
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    rustix::mount::mount(source, path, typ, MountFlags::empty(), data.as_c_str()).map_err(fail)?;
    let place = path::locate(root, &mount.destination).map_err(fail)?;
    set_attributes(mount, place.as_fd()).map(|()| None)
}

/// Where the host has the file system that shows a namespace which the container shares with it,
/// and which its user namespace may therefore not mount.
fn host_has(typ: &str) -> Option<&'static Path> {
    match typ {
        "sysfs" => Some(Path::new("/sys")),
        "mqueue" => Some(Path::new("/dev/mqueue")),
        _ => None,
    }
}

/// The host's, as the container wants it (as crun).
fn of_the_host(mount: &Mount, path: &Path) -> Result<OwnedFd, Error> {
    let tree = clone_tree(path, true).map_err(|errno| failed(mount, &errno_words(errno)))?;
    set_attributes(mount, tree.as_fd())?;
    let below = Change {
        set: mount.options.set,
        ..Change::default()
    };
    setattr(tree.as_fd(), below, true).map_err(|e| failed(mount, &io_words(&e)))?;
    Ok(tree)
}

/// A new instance of a file system as a detached mount.
pub(crate) fn detached(
    typ: &str,
    source: &str,
    data: &[Data],
    attributes: u64,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(typ, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let fs = context.as_fd();
    if !source.is_empty() {
        fsconfig_set_string(fs, "source", source)?;
    }
    for word in data {
        match word {
            Data::Flag(key) => fsconfig_set_flag(fs, key.as_str())?,
            Data::Value(key, value) => fsconfig_set_string(fs, key.as_str(), value.as_str())?,
        }
    }
    // Of a disk's file system the super block is read-only too; the kernel's own file systems
    // share one super block with the host, which a mount of ours must not change.
    if attributes & attr::RDONLY != 0 && !is_virtual(typ) {
        fsconfig_set_flag(fs, "ro")?;
    }
    fsconfig_create(fs)?;
    let attributes = u32::try_from(attributes).map_err(|_| Errno::INVAL)?;
    fsmount(
        fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::from_bits_retain(attributes),
    )
}

fn is_virtual(typ: &str) -> bool {
    matches!(
        typ,
        "tmpfs"
            | "proc"
            | "sysfs"
            | "mqueue"
            | "devpts"
            | "cgroup"
            | "cgroup2"
            | "debugfs"
            | "tracefs"
            | "securityfs"
            | "bpf"
            | "devtmpfs"
            | "overlay"
    )
}
