//! eBPF programs of the device type, on version 2 cgroups (bpf(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// One instruction of eBPF. Only what a device program needs can be made.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one (little-endian bit fields).
    registers: u8,
    offset: i16,
    immediate: i32,
}

// include/uapi/linux/bpf_common.h, bpf.h
const LDX_W_MEM: u8 = 0x61;
const ALU32_AND_K: u8 = 0x54;
const ALU32_RSH_K: u8 = 0x74;
const ALU32_MOV_K: u8 = 0xb4;
const ALU32_MOV_X: u8 = 0xbc;
const JMP_JEQ_K: u8 = 0x15;
const JMP_JNE_K: u8 = 0x55;
const JMP_EXIT: u8 = 0x95;

impl Instruction {
    const fn new(code: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> Self {
        let registers = source << 4 | destination;
        Self {
            code,
            registers,
            offset,
            immediate: immediate.cast_signed(),
        }
    }

    /// `destination = *(u32 *)(source + offset)`
    pub const fn load(destination: u8, source: u8, offset: i16) -> Self {
        Self::new(LDX_W_MEM, destination, source, offset, 0)
    }

    pub const fn mov(destination: u8, value: u32) -> Self {
        Self::new(ALU32_MOV_K, destination, 0, 0, value)
    }

    pub const fn mov_register(destination: u8, source: u8) -> Self {
        Self::new(ALU32_MOV_X, destination, source, 0, 0)
    }

    pub const fn and(destination: u8, mask: u32) -> Self {
        Self::new(ALU32_AND_K, destination, 0, 0, mask)
    }

    pub const fn shift_right(destination: u8, bits: u32) -> Self {
        Self::new(ALU32_RSH_K, destination, 0, 0, bits)
    }

    /// A jump whose distance is set by [`Instruction::set_jump`].
    pub const fn jump_if_equal(register: u8, value: u32) -> Self {
        Self::new(JMP_JEQ_K, register, 0, 0, value)
    }

    pub const fn jump_if_not_equal(register: u8, value: u32) -> Self {
        Self::new(JMP_JNE_K, register, 0, 0, value)
    }

    pub const fn exit() -> Self {
        Self::new(JMP_EXIT, 0, 0, 0, 0)
    }

    /// Makes a jump go over the next `instructions`; does nothing to the others.
    pub fn set_jump(&mut self, instructions: usize) {
        if matches!(self.code, JMP_JEQ_K | JMP_JNE_K) {
            self.offset = i16::try_from(instructions).unwrap_or(i16::MAX);
        }
    }
}

/// `union bpf_attr` as BPF_PROG_LOAD reads it, up to `prog_flags`.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// `union bpf_attr` as BPF_PROG_ATTACH reads it.
#[repr(C)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// Loads a device program; the kernel verifies it.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).unwrap_or(u32::MAX),
        insns: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: `attr` is as large as said, and its two pointers are to `insn_cnt` instructions and
    // to a string with a nul, all of which live through the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw mut attr,
            std::mem::size_of::<Load>(),
        )
    };
    let fd = RawFd::try_from(fd)
        .ok()
        .filter(|&fd| fd >= 0)
        .ok_or_else(io::Error::last_os_error)?;
    // SAFETY: a successful BPF_PROG_LOAD returns a fresh descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to a cgroup, beside those that are there: all must allow.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attr = Attach {
        target_fd: cgroup.as_fd().as_raw_fd().cast_unsigned(),
        attach_bpf_fd: program.as_fd().as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attr` is as large as said and holds borrowed descriptors and integers only.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw mut attr,
            std::mem::size_of::<Attach>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Runs a device program on a context of three words, for tests of those who make programs.
/// Returns what the program returns. Panics on an instruction that no function here makes.
pub fn interpret(program: &[Instruction], context: [u32; 3]) -> u32 {
    let mut registers = [0u32; 16];
    let mut next = 0;
    loop {
        let instruction = program[next];
        next += 1;
        let destination = usize::from(instruction.registers & 15);
        let source = registers[usize::from(instruction.registers >> 4)];
        let immediate = instruction.immediate.cast_unsigned();
        let jump = instruction.offset.max(0).unsigned_abs();
        match instruction.code {
            LDX_W_MEM => registers[destination] = context[usize::from(jump / 4)],
            ALU32_AND_K => registers[destination] &= immediate,
            ALU32_RSH_K => registers[destination] >>= immediate,
            ALU32_MOV_K => registers[destination] = immediate,
            ALU32_MOV_X => registers[destination] = source,
            JMP_JEQ_K if registers[destination] == immediate => next += usize::from(jump),
            JMP_JNE_K if registers[destination] != immediate => next += usize::from(jump),
            JMP_JEQ_K | JMP_JNE_K => {}
            JMP_EXIT => return registers[0],
            code => panic!("instruction {code:#x} is not one of ours"),
        }
    }
}
