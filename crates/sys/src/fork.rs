//! `fork` for single-threaded processes, and what becomes of the children.
//!
//! The launcher forks keepers without `exec`, so the child goes on running ordinary Rust code.
//! That is sound only while the process has one thread: a lock that another thread holds (the
//! allocator's, for one) would stay locked in the child for ever. [`fork`] checks that.

use std::io;

/// Which side of [`fork`] this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    Parent { child: i32 },
    Child,
}

/// Duplicates this process. Fails with `EDEADLK` when it has more than one thread.
pub fn fork() -> io::Result<Fork> {
    if thread_count()? != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    // SAFETY: the process has a single thread (checked above), so no lock is held by a thread
    // that the child lacks, and the child may run any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        child => Ok(Fork::Parent { child }),
    }
}

/// The kernel reaps this process's children by itself from now on (`true`), or leaves them for
/// `wait` (`false`, the default). A forked child inherits the setting.
pub fn reap_children_automatically(enabled: bool) -> io::Result<()> {
    let disposition = if enabled {
        libc::SIG_IGN
    } else {
        libc::SIG_DFL
    };
    // SAFETY: both dispositions are constants that install no handler.
    let previous = unsafe { libc::signal(libc::SIGCHLD, disposition) };
    if previous == libc::SIG_ERR {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Gives this process mounts of its own; what it mounts from now on is seen by nobody else.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: unshare(2) reads no memory; the namespace is this process's own.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )?)
}

/// Ends the process without unwinding and without running what `atexit` registered: for a forked
/// child, whose buffers and handlers belong to its parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// `/proc/self/task` has one link for each thread, besides `.` and `..`.
fn thread_count() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self/task")?
        .nlink()
        .saturating_sub(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_does_not_fork() {
        let (tx, rx) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || rx.recv());
        let error = fork().unwrap_err();
        drop(tx);
        let _ = other.join();
        assert_eq!(error.raw_os_error(), Some(libc::EDEADLK));
    }
}
