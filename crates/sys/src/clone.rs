//! New processes by clone3(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// The namespaces that a child gets new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces(u64);

impl Namespaces {
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET as u64);
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// CLONE_NEWTIME; only unshare(2) and setns(2) know it.
    pub const TIME: Self = Self(0x80);

    pub const fn empty() -> Self {
        Self(0)
    }

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl std::ops::BitOr for Namespaces {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Namespaces {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// On which side of the fork we are.
pub enum Fork {
    Parent { child: Pid, pidfd: OwnedFd },
    Child,
}

/// The kernel's `struct clone_args`, version 2 (CLONE_ARGS_SIZE_VER2, Linux 5.7).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks the calling thread into `namespaces`, and into the cgroup (v2) if one is given.
///
/// The child has a copy of the caller's memory and descriptors. **The caller should be
/// single-threaded**: a lock that another thread held (the allocator's, for one) stays locked in
/// the child for ever. No `atfork` handler runs.
pub fn fork(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: namespaces.0 | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args of the size given and outlives the call, as does
    // `pidfd`, into which the kernel writes. Without CLONE_VM and with a null stack the child
    // runs on its own copy of our memory, so nothing is aliased.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            std::mem::size_of::<CloneArgs>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => {
            // SAFETY: with CLONE_PIDFD a successful clone3 stored a fresh descriptor there, which
            // nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let child = i32::try_from(pid)
                .ok()
                .and_then(Pid::from_raw)
                .ok_or_else(|| io::Error::other("clone3 returned no pid"))?;
            Ok(Fork::Parent { child, pidfd })
        }
    }
}

/// As [`fork`], but the child is the caller's sibling: a child of the caller's parent, who waits
/// for it. Returns its pid, or `None` in the child.
pub fn fork_sibling(namespaces: Namespaces) -> io::Result<Option<Pid>> {
    // With CLONE_PARENT the signal at the end is the caller's own, and none may be named.
    let mut args = CloneArgs {
        flags: namespaces.0 | libc::CLONE_PARENT as u64,
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a valid clone_args of the size given and outlives the call. Without
    // CLONE_VM and with a null stack the child runs on its own copy of our memory.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            std::mem::size_of::<CloneArgs>(),
        )
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(pid).ok().and_then(Pid::from_raw))
}

/// Forks by clone(2), without a namespace or a pidfd, and returns the child's pid, or `None` in
/// the child. For processes whose seccomp filter refuses clone3, as Docker's profile does. The
/// caller should be single-threaded, as for [`fork`].
pub fn fork_plain() -> io::Result<Option<Pid>> {
    // SAFETY: without CLONE_VM and with a null stack the child runs on its own copy of our
    // memory. The order of the arguments differs between architectures, but all are 0.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::try_from(pid).ok().and_then(Pid::from_raw))
}

/// Moves the caller into new namespaces (unshare(2)); for [`Namespaces::PID`] only its children.
pub fn unshare(namespaces: Namespaces) -> io::Result<()> {
    // SAFETY: unshare takes an integer only. None of the flags of `Namespaces` unshares memory or
    // the table of descriptors, so no reference of ours changes its meaning.
    let result = unsafe { libc::syscall(libc::SYS_unshare, namespaces.0) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Moves the caller into all of `namespaces` of the process behind `pidfd` at once, or into the
/// one namespace that `fd` is a descriptor of; for [`Namespaces::PID`] only its children.
pub fn setns(fd: BorrowedFd<'_>, namespaces: Namespaces) -> io::Result<()> {
    // SAFETY: setns takes a borrowed descriptor and an integer, and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), namespaces.0) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
