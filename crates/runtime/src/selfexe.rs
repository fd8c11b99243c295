//! Keeping our own binary out of the containers' reach (CVE-2019-5736 and its kin).
//!
//! Keepers fork processes that enter a container before they execute its command, and with
//! `--init` one stays there. Until then `/proc/PID/exe` of such a process is our binary: whoever
//! may open it could write to it once nothing executes it any more, and the next start on the
//! host would run the attacker's code. Three things stand in the way:
//!
//! 1. Every process that forks into a container is undumpable (`container::create` and `exec` see
//!    to that before the fork), and the fork inherits it. `/proc/PID/{exe,fd,mem}` then needs
//!    CAP_SYS_PTRACE over the host's user namespace, which no container has but a privileged one.
//! 2. Before anything that the container's files decide (the working directory, the search for
//!    the command) every descriptor but 0, 1, 2 and a close-on-exec socket is closed, so neither
//!    `cwd` nor the command can name one of the host's files (CVE-2024-21626).
//! 3. The daemon runs from a read-only mount of its binary ([`seal`]), which forks share. So also
//!    a privileged container, or a command of `/proc/self/exe`, finds only a file that cannot be
//!    opened for writing. ("Text file busy" is no protection: Linux 6.11 dropped it for a time.)
//!
//! runc mounts a read-only overlay over the binary's directory. A read-only bind of the file alone
//! does the same on any file system: its namespace is dissolved as soon as the descriptor of
//! `open_tree` is closed, and the kernel refuses every change of a mount without a namespace
//! (`do_mount_setattr`, `is_mounted`), so it can be neither made writable nor attached anywhere.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_sys::exec::{CStrings, execve_fd};
use berth_sys::mount::{Change, attr, setattr};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};

use crate::rootfs::mounts;

/// Makes sure that this process runs from a read-only mount of its binary, by executing it again
/// from there once. Call it first thing in `main`, with the process's own arguments and
/// environment. Afterwards `/proc/self/exe` has no path that others could use.
pub fn seal(args: Vec<CString>, env: Vec<CString>) -> io::Result<()> {
    if is_sealed()? {
        return Ok(());
    }
    let file = sealed(Path::new("/proc/self/exe"))?;
    Err(execve_fd(
        file.as_fd(),
        &CStrings::new(args),
        &CStrings::new(env),
    ))
}

/// Whether this process's binary is on a read-only mount.
pub fn is_sealed() -> io::Result<bool> {
    let exe = rustix::fs::open(
        "/proc/self/exe",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok(rustix::fs::fstatvfs(&exe)?
        .f_flag
        .contains(StatVfsMountFlags::RDONLY))
}

/// Opens a file on a read-only mount of its own that belongs to no namespace.
fn sealed(path: &Path) -> io::Result<OwnedFd> {
    let tree = mounts::clone_tree(path, false)?;
    setattr(
        tree.as_fd(),
        Change {
            set: attr::RDONLY,
            ..Change::default()
        },
        false,
    )?;
    // The mount itself is the file, so its own path is empty.
    let file = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&tree));
    Ok(rustix::fs::open(
        file,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_sealed_file_cannot_be_written_nor_unsealed() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("binary");
        std::fs::write(&path, "code").unwrap();
        let file = sealed(&path).unwrap();
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let write = rustix::fs::open(&again, OFlags::WRONLY, Mode::empty());
        assert_eq!(write.unwrap_err(), Errno::ROFS);
        let unseal = Change {
            clear: attr::RDONLY,
            ..Change::default()
        };
        let error = setattr(file.as_fd(), unseal, false).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        assert!(
            mounts::clone_at(file.as_fd(), false).is_err(),
            "it could be attached"
        );
    }
}
