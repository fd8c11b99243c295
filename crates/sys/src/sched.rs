//! How the kernel schedules the calling thread: its processor time, its block I/O, its memory
//! nodes, and which system it pretends to be.

use std::io;

/// What sched_setattr(2) takes. Fields that the policy does not use are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// SCHED_OTHER and its like.
    pub policy: u32,
    /// SCHED_FLAG_*
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// In nanoseconds, as the two that follow.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// The kernel's `struct sched_attr`, version 0 (SCHED_ATTR_SIZE_VER0).
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets the calling thread's policy.
pub fn set_attributes(attributes: &Attributes) -> io::Result<()> {
    let Attributes {
        policy,
        flags,
        nice,
        priority,
        runtime,
        deadline,
        period,
    } = *attributes;
    let attr = SchedAttr {
        size: 48,
        policy,
        flags,
        nice,
        priority,
        runtime,
        deadline,
        period,
    };
    // SAFETY: `attr` is a valid sched_attr whose size field says how long it is; the kernel only
    // reads it. 0 is the calling thread.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })
}

/// Sets the calling thread's I/O priority: class << 13 | level (ioprio_set(2)).
pub fn set_io_priority(priority: u16) -> io::Result<()> {
    const WHO_PROCESS: i32 = 1;
    let priority = i32::from(priority);
    // SAFETY: integers only.
    done(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) })
}

/// Sets the process's execution domain (personality(2)).
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: an integer only.
    done(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) })
}

/// Sets the calling thread's memory policy: a mode with its flags, and a set of nodes of which
/// bit N of word N/64 is node N (set_mempolicy(2)).
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    // The kernel counts the bits, and one more.
    let bits = match nodes.len() {
        0 => 0,
        words => words * 64 + 1,
    };
    let pointer = match nodes {
        [] => std::ptr::null(),
        nodes => nodes.as_ptr(),
    };
    // SAFETY: the kernel reads `bits - 1` bits at the pointer, which are the slice's; a null
    // pointer goes with no bits.
    done(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) })
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
