//! execve(2) and what goes before it in a forked child.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A null-terminated array of C strings, as execve takes it.
pub struct CStrings {
    pointers: Vec<*const libc::c_char>,
    strings: Vec<CString>,
}

impl CStrings {
    pub fn new(strings: Vec<CString>) -> Self {
        let pointers = strings
            .iter()
            .map(|s| s.as_ptr())
            .chain(std::iter::once(std::ptr::null()))
            .collect();
        Self { pointers, strings }
    }

    pub fn get(&self) -> &[CString] {
        &self.strings
    }
}

/// Replaces the process. Returns only the reason why it could not.
pub fn execve(path: &CStr, args: &CStrings, env: &CStrings) -> io::Error {
    // SAFETY: `path` ends with a nul; both arrays end with a null pointer and point to strings
    // that `args` and `env` own, so all of it lives through the call.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the process by the file behind `file`, which may be a memfd or on a detached mount.
pub fn execve_fd(file: BorrowedFd<'_>, args: &CStrings, env: &CStrings) -> io::Error {
    // SAFETY: as in `execve`; the empty path with AT_EMPTY_PATH names the borrowed descriptor.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Closes every descriptor from `first` up, but the ones in `keep`. `first` is at least 3.
///
/// For a forked child that executes or exits next: descriptors that other values of the process
/// own are closed under them, so none of these values may be used or dropped afterwards.
pub fn close_all_but(first: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok())
        .collect();
    kept.sort_unstable();
    let lowest = first.max(3);
    let mut first = lowest;
    for fd in kept.into_iter().filter(|&fd| fd >= lowest) {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// Sets close-on-exec on every descriptor from `first` up.
pub fn hide_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Passes the `count` descriptors from 3 up to the executed program. Closed ones are skipped.
pub fn pass_on_first(count: u32) -> io::Result<()> {
    for fd in 3..3_u32.saturating_add(count) {
        let Ok(fd) = i32::try_from(fd) else { break };
        // SAFETY: F_SETFD takes integers only, and changes a flag of the number, whoever owns it.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EBADF) {
                return Err(error);
            }
        }
    }
    Ok(())
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: closing is memory safe, and so is setting a flag. That no owner uses the closed
    // descriptors again is what the documentation of `close_all_but` asks of its caller.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Duplicates `fd` onto `target` (0, 1 or 2) without close-on-exec.
pub fn install_stdio(fd: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    debug_assert!((0..=2).contains(&target));
    if fd.as_raw_fd() == target {
        return clear_cloexec(fd);
    }
    // SAFETY: dup2 replaces a standard descriptor, which Rust treats as always open and owned by
    // nobody; the source is borrowed for the call.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), target) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn clear_cloexec(fd: BorrowedFd<'_>) -> io::Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).map_err(Into::into)
}

/// Clears close-on-exec, so that the descriptor passes to the executed program.
pub fn pass_on(fd: BorrowedFd<'_>) -> io::Result<()> {
    clear_cloexec(fd)
}
