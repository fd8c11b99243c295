//! Signal dispositions and masks of a forked child, and waiting for signals.

use std::io;

/// The highest signal number (SIGRTMAX of the kernel, `_NSIG`).
pub const MAX: i32 = 64;

/// Sets every signal to its default disposition and unblocks all: what a new program expects.
/// (The Rust runtime ignores SIGPIPE, and an ignored signal stays ignored through execve.)
pub fn reset() {
    let mut action = KernelSigaction {
        handler: libc::SIG_DFL,
        ..KernelSigaction::default()
    };
    for signal in 1..=MAX {
        // SAFETY: `action` is a valid kernel sigaction of the default disposition; the old one is
        // not asked for. SIGKILL and SIGSTOP fail with EINVAL, which is as wanted.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw mut action,
                std::ptr::null_mut::<KernelSigaction>(),
                SIGSET_BYTES,
            );
        }
    }
    set_mask(0);
}

/// Survives `signal` without a word. Unlike one that is ignored or blocked, it has its default
/// effect again in every program that this process or its children execute.
pub fn survive(signal: i32) {
    extern "C" fn nothing(_signal: i32) {}
    // SAFETY: the handler touches nothing, so it may run at any point; SA_RESTART (which
    // signal(3) sets) lets most system calls go on.
    unsafe {
        libc::signal(signal, nothing as *const () as libc::sighandler_t);
    }
}

/// Blocks every signal that can be blocked.
pub fn block_all() {
    set_mask(u64::MAX);
}

/// Takes [`block_all`] back.
pub fn unblock_all() {
    set_mask(0);
}

/// Waits for one of the (blocked) signals and takes it off the queue. The C library reserves
/// signals 32 and 33 and hides them from its own functions, hence the direct call.
pub fn wait_any() -> io::Result<i32> {
    let set = u64::MAX;
    // SAFETY: `set` is a kernel signal set of SIGSET_BYTES bytes; neither siginfo nor a time-out
    // is asked for.
    let signal = unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const set,
            std::ptr::null_mut::<libc::siginfo_t>(),
            std::ptr::null::<libc::timespec>(),
            SIGSET_BYTES,
        )
    };
    i32::try_from(signal)
        .ok()
        .filter(|&s| s > 0)
        .ok_or_else(io::Error::last_os_error)
}

/// Sends a signal to the process `pid` (kill(2)), real-time signals included.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill takes integers only.
    let result = unsafe { libc::kill(pid, signal) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The kernel's sigset_t has 64 bits on every architecture that we build for.
const SIGSET_BYTES: usize = 8;

/// The kernel's `struct sigaction`, on x86-64 and aarch64 alike.
#[repr(C)]
#[derive(Default)]
struct KernelSigaction {
    handler: libc::sighandler_t,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

fn set_mask(set: u64) {
    // SAFETY: `set` is a kernel signal set of SIGSET_BYTES bytes; the old mask is not asked for.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const set,
            std::ptr::null_mut::<u64>(),
            SIGSET_BYTES,
        );
    }
}
