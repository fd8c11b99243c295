//! mount_setattr(2), which `rustix` lacks, and the table of mounts.

mod table;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

pub use table::{Mounted, table};

/// Per-mount attributes (MOUNT_ATTR_*).
pub mod attr {
    pub const RDONLY: u64 = 0x01;
    pub const NOSUID: u64 = 0x02;
    pub const NODEV: u64 = 0x04;
    pub const NOEXEC: u64 = 0x08;
    /// The field of access time modes; relatime is 0.
    pub const ATIME: u64 = 0x70;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const IDMAP: u64 = 0x0010_0000;
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// Who sees the mounts that are made below a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Private,
    Slave,
    Shared,
    Unbindable,
}

/// What [`setattr`] changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    pub set: u64,
    pub clear: u64,
    pub propagation: Option<Propagation>,
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the mount whose root `mount` is, and those below it if `recursive`.
pub fn setattr(mount: BorrowedFd<'_>, change: Change, recursive: bool) -> io::Result<()> {
    call(mount, change, 0, recursive)
}

/// Maps the ids of a detached mount by the user namespace `userns`.
pub fn set_idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let change = Change {
        set: attr::IDMAP,
        ..Change::default()
    };
    call(mount, change, userns.as_raw_fd() as u64, recursive)
}

fn call(mount: BorrowedFd<'_>, change: Change, userns_fd: u64, recursive: bool) -> io::Result<()> {
    let propagation = match change.propagation {
        None => 0,
        Some(Propagation::Private) => libc::MS_PRIVATE,
        Some(Propagation::Slave) => libc::MS_SLAVE,
        Some(Propagation::Shared) => libc::MS_SHARED,
        Some(Propagation::Unbindable) => libc::MS_UNBINDABLE,
    };
    let mut attr = MountAttr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation,
        userns_fd,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` is a mount_attr of the size given (MOUNT_ATTR_SIZE_VER0) and outlives the
    // call; the empty path with AT_EMPTY_PATH names the borrowed descriptor.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw mut attr,
            std::mem::size_of::<MountAttr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
