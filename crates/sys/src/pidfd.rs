//! Signals by pidfd, real-time signals included (`rustix::process::Signal` names only the others).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends `signal` (1 to 64, or 0 to test) to the process behind `pidfd`.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: pidfd_send_signal(2) reads no memory of ours: the siginfo pointer is null, the
    // other arguments are integers, and the descriptor is borrowed for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
