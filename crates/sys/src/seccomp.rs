//! Loading a seccomp filter (seccomp(2)).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// One instruction of classic BPF.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

#[repr(C)]
struct Program {
    len: libc::c_ushort,
    filter: *const Instruction,
}

/// SECCOMP_FILTER_FLAG_*
pub mod flag {
    pub const TSYNC: u64 = 1;
    pub const LOG: u64 = 2;
    pub const SPEC_ALLOW: u64 = 4;
    pub const NEW_LISTENER: u64 = 8;
    pub const WAIT_KILLABLE_RECV: u64 = 32;
}

/// Installs the filter on the calling thread. Needs CAP_SYS_ADMIN or no_new_privs; the kernel
/// checks the program.
pub fn load(filter: &[Instruction], flags: u64) -> io::Result<()> {
    set_mode_filter(filter, flags).map(drop)
}

/// As [`load`], and returns the descriptor on which calls are announced that the filter answers
/// with SECCOMP_RET_USER_NOTIF (seccomp_unotify(2)). It is close-on-exec.
pub fn load_listening(filter: &[Instruction], flags: u64) -> io::Result<OwnedFd> {
    let fd = set_mode_filter(filter, flags | flag::NEW_LISTENER)?;
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::other("no descriptor"))?;
    // SAFETY: with NEW_LISTENER a successful call returns a fresh descriptor, which nobody else
    // owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_mode_filter(filter: &[Instruction], flags: u64) -> io::Result<libc::c_long> {
    const SECCOMP_SET_MODE_FILTER: u64 = 1;
    let len = libc::c_ushort::try_from(filter.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = Program {
        len,
        filter: filter.as_ptr(),
    };
    // SAFETY: `program` points to `len` instructions in the kernel's layout, and lives through
    // the call, which copies them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
