//! Making the container's mounts, in the first process, before the pivot.
//!
//! Sources on the host were cloned by the caller, in the host's mount namespace, as detached
//! mounts (see [`open_sources`]); so the first process never resolves a path of the host, and a
//! `shared` volume stays in the host's peer group. Destinations are descriptors from
//! [`super::path`]; move_mount attaches one to the other without a path in between.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::clone::Namespaces;
use berth_sys::mount::{Change, Propagation, setattr};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::file_systems;
use super::options::Bind;
use super::path::{self, Leaf};
use crate::error::{Error, errno_words, io_words};
use crate::plan::{Idmap, Mount, MountKind, Plan};
use crate::userns;

/// Files of /proc that may be mounted over: what lxcfs and its kin tell differently, and nothing
/// that decides about privileges. An image's volume anywhere else in /proc would stand between a
/// program and what the kernel tells it (CVE-2019-16884). As in runc.
const EMULATED: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Clones the bind sources, each a detached mount, in the order of the plan's mounts, and maps
/// their ids. `join` are the namespaces that the container joins.
pub(crate) fn open_sources(
    plan: &Plan,
    join: &[(Namespaces, OwnedFd)],
) -> Result<Vec<Option<OwnedFd>>, Error> {
    let open = |mount: &Mount| {
        let MountKind::Bind { source } = &mount.kind else {
            return Ok(None);
        };
        let recursive = mount.options.bind != Some(Bind::Single);
        let tree = clone_tree(source, recursive).map_err(|errno| {
            let reason = errno_words(errno);
            failed(mount, &format!("stat {}: {reason}", source.display()))
        })?;
        if let Some(idmap) = &mount.idmap {
            map_ids(plan, join, mount, idmap, tree.as_fd())?;
        }
        Ok(Some(tree))
    };
    plan.mounts.iter().map(open).collect()
}

fn map_ids(
    plan: &Plan,
    join: &[(Namespaces, OwnedFd)],
    mount: &Mount,
    idmap: &Idmap,
    tree: BorrowedFd<'_>,
) -> Result<(), Error> {
    let made;
    let joined = join.iter().find(|(kind, _)| *kind == Namespaces::USER);
    let namespace = match (idmap.maps.as_ref().or(plan.kinds.maps.as_ref()), joined) {
        (Some(maps), _) => {
            made = userns::with_maps(maps)?;
            &made
        }
        (None, Some((_, namespace))) => namespace,
        (None, None) => return Err(failed(mount, "no mappings")),
    };
    berth_sys::mount::set_idmap(tree, namespace.as_fd(), idmap.recursive).map_err(|e| {
        let reason = io_words(&e);
        failed(
            mount,
            &format!("failed to set MOUNT_ATTR_IDMAP: {reason} (maybe the filesystem used doesn't support idmap mounts on this kernel?)"),
        )
    })
}

/// A detached copy of what is mounted at a path of the caller's namespace.
pub(crate) fn clone_tree(source: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, source, flags)
}

/// As [`clone_tree`], of what a descriptor stands on.
pub(crate) fn clone_at(place: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(place, "", flags)
}

/// Attaches a detached mount on what `place` stands on.
pub(crate) fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags)
}

/// Puts the root file system over the namespace's root, and makes everything private first, so
/// that nothing that follows is seen on the host. With a `place` it is put there instead, where
/// hooks look for it.
pub(crate) fn attach_root(root: BorrowedFd<'_>, place: Option<&Path>) -> Result<(), Error> {
    let old =
        rustix::fs::open("/", OFlags::PATH, Mode::empty()).map_err(|e| root_failed("open /", e))?;
    let private = Change {
        propagation: Some(Propagation::Private),
        ..Change::default()
    };
    setattr(old.as_fd(), private, true)
        .map_err(|e| Error::internal(format!("error preparing rootfs: {}", io_words(&e))))?;
    let place = place
        .map(|place| rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()))
        .transpose()
        .map_err(|e| root_failed("open rootfs", e))?;
    // A bundle's directory may be on a shared mount, whose clone is its peer: nothing may go out to
    // it, and the kernel would not pivot into it.
    let slave = Change {
        propagation: Some(Propagation::Slave),
        ..Change::default()
    };
    setattr(root, slave, true)
        .map_err(|e| Error::internal(format!("error preparing rootfs: {}", io_words(&e))))?;
    attach(root, place.as_ref().unwrap_or(&old).as_fd()).map_err(|e| root_failed("attach", e))
}

/// Makes the attached root file system `/`, and takes the host's away.
pub(crate) fn pivot(root: BorrowedFd<'_>) -> Result<(), Error> {
    let failed = |e| {
        Error::internal(format!(
            "error jailing process inside rootfs: pivot_root .: {}",
            errno_words(e)
        ))
    };
    rustix::process::fchdir(root).map_err(failed)?;
    // The old root ends up on top of the new one (pivot_root(2), "pivot_root(".", ".")"), so
    // detaching `.` takes it away, and no directory for it is needed in the image.
    rustix::process::pivot_root(".", ".").map_err(failed)?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)
}

/// In place of [`pivot`] where the host's root is a ramdisk, which cannot be left behind: the
/// root file system is moved over it. The host's mounts stay below, out of reach by paths.
pub(crate) fn move_root(root: BorrowedFd<'_>) -> Result<(), Error> {
    let failed = |e| {
        Error::internal(format!(
            "error jailing process inside rootfs: {}",
            errno_words(e)
        ))
    };
    rustix::process::fchdir(root).map_err(failed)?;
    rustix::mount::mount_move(".", "/").map_err(failed)?;
    rustix::process::chroot(".").map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)
}

/// Makes one mount that is not of a cgroup. `source` is what [`open_sources`] gave. Returns the
/// mount if it is to be read-only when everything is in it.
pub(crate) fn apply(
    root: BorrowedFd<'_>,
    mount: &Mount,
    source: Option<&OwnedFd>,
) -> Result<Option<OwnedFd>, Error> {
    match (&mount.kind, source) {
        (MountKind::Bind { .. }, Some(source)) => bind(root, mount, source.as_fd()).map(|()| None),
        (MountKind::Again, _) => {
            let place = path::locate(root, &mount.destination)
                .map_err(|errno| failed(mount, &errno_words(errno)))?;
            set_attributes(mount, place.as_fd()).map(|()| None)
        }
        (MountKind::FileSystem { typ, source }, _) => file_systems::mount(root, mount, typ, source),
        (MountKind::Bind { .. }, None) | (MountKind::Cgroup, _) => Err(failed(mount, "no source")),
    }
}

fn bind(root: BorrowedFd<'_>, mount: &Mount, source: BorrowedFd<'_>) -> Result<(), Error> {
    let fail = |errno| failed(mount, &errno_words(errno));
    let stat = rustix::fs::fstat(source).map_err(fail)?;
    let leaf = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Leaf::Directory,
        _ => Leaf::File,
    };
    let place = place(root, mount, leaf)?;
    if mount.destination == Path::new("/proc") && !is_on_proc(source) {
        let reason = "\"/proc\" cannot be mounted because it is not of type proc";
        return Err(failed(mount, reason));
    }
    set_attributes(mount, source)?;
    attach(source, place.as_fd()).map_err(|errno| {
        // move_mount calls it EINVAL, mount(2) and the clients ENOTDIR.
        let is_directory = rustix::fs::fstat(&place)
            .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory);
        let errno = match errno {
            Errno::INVAL if is_directory != (leaf == Leaf::Directory) => Errno::NOTDIR,
            errno => errno,
        };
        let source = match &mount.kind {
            MountKind::Bind { source } => source.display().to_string(),
            _ => String::new(),
        };
        // Words that Docker looks for ("not a directory") come from the errno.
        let (flags, errno) = ("MS_BIND|MS_REC", errno_words(errno));
        let destination = mount.destination.display();
        failed(
            mount,
            &format!("mount src={source}, dst={destination}, flags={flags}: {errno}"),
        )
    })
}

/// The option list of a bind: attributes are changed, those that are not named stay.
pub(super) fn set_attributes(mount: &Mount, tree: BorrowedFd<'_>) -> Result<(), Error> {
    let options = &mount.options;
    let (propagation, deep) = options.propagation.unwrap_or((Propagation::Private, true));
    let whole = Change {
        set: options.recursive_set,
        clear: options.recursive_clear,
        propagation: deep.then_some(propagation),
    };
    let top = Change {
        set: options.set,
        clear: options.clear,
        propagation: (!deep).then_some(propagation),
    };
    let fail = |e: std::io::Error| failed(mount, &io_words(&e));
    if whole != Change::default() {
        setattr(tree, whole, true).map_err(fail)?;
    }
    if top != Change::default() {
        setattr(tree, top, false).map_err(fail)?;
    }
    Ok(())
}

fn is_on_proc(place: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(place).is_ok_and(|stat| stat.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// The destination, made when missing. The kernel's own file systems are only mounted on real
/// directories: through a link `/proc -> /elsewhere` the masks would miss them.
pub(crate) fn place(root: BorrowedFd<'_>, mount: &Mount, leaf: Leaf) -> Result<OwnedFd, Error> {
    let destination = &mount.destination;
    let place = path::locate_or_make(root, destination, leaf).map_err(|errno| {
        failed(
            mount,
            &format!(
                "create mountpoint for {} mount: {}",
                destination.display(),
                errno_words(errno)
            ),
        )
    })?;
    let is_proc = matches!(&mount.kind, MountKind::FileSystem { typ, .. } if typ == "proc");
    if !is_proc
        && is_on_proc(place.as_fd())
        && !EMULATED.iter().any(|e| destination == Path::new(e))
    {
        let reason = format!("{destination:?} cannot be mounted because it is inside /proc");
        return Err(failed(mount, &reason));
    }
    if let MountKind::FileSystem { typ, .. } = &mount.kind
        && matches!(typ.as_str(), "proc" | "sysfs")
    {
        path::locate_plain(root, destination).map_err(|_| {
            failed(
                mount,
                &format!("filesystem {typ:?} must be mounted on ordinary directory"),
            )
        })?;
    }
    Ok(place)
}

pub(crate) fn failed(mount: &Mount, reason: &str) -> Error {
    let source = match &mount.kind {
        MountKind::Bind { source } => source.display().to_string(),
        MountKind::Cgroup => "cgroup".to_owned(),
        MountKind::Again => String::new(),
        MountKind::FileSystem { source, .. } => source.clone(),
    };
    let destination = mount.destination.display();
    Error::invalid(format!(
        "error mounting \"{source}\" to rootfs at \"{destination}\": {reason}"
    ))
}

fn root_failed(step: &str, errno: Errno) -> Error {
    Error::internal(format!(
        "error preparing rootfs: {step}: {}",
        errno_words(errno)
    ))
}
