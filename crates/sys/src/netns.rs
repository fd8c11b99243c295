//! Network namespaces: making one, and visiting another.
//!
//! Both change the calling thread only. A thread that cannot return to where it came from must
//! not be used for anything else, so both take a thread that is made for it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// The calling thread's network namespace.
pub fn current() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(
        "/proc/thread-self/ns/net",
        flags,
        Mode::empty(),
    )?)
}

/// Moves the calling thread into a new network namespace.
pub fn unshare() -> io::Result<()> {
    // SAFETY: CLONE_NEWNET replaces the thread's reference to its network namespace. Neither
    // memory nor the table of descriptors is unshared, and open sockets keep their namespace.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Moves the calling thread into this network namespace.
pub fn enter(namespace: impl AsFd) -> io::Result<()> {
    let kind = Some(LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?;
    Ok(())
}
