//! Version 2 has no devices controller: an eBPF program on the cgroup decides
//! (BPF_PROG_TYPE_CGROUP_DEVICE). It returns 1 to allow.
//!
//! The rules are tested from the last to the first, and the first that matches decides; so the
//! outcome is that of version 1, where later writes win. Without a match the answer is no.

use std::io;
use std::path::Path;

use berth_sys::bpf::{self, Instruction};
use oci_spec::runtime::LinuxDeviceCgroup;
use rustix::fs::{Mode, OFlags};

// include/uapi/linux/bpf.h: BPF_DEVCG_*
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// Registers: type, access, major, minor; and one to compute in.
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// A rule without conditions is its verdict alone.
const VERDICT_LENGTH: usize = 2;

pub(super) fn attach(directory: &Path, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cgroup = rustix::fs::open(directory, flags, Mode::empty())?;
    let program = bpf::load_device_program(&program(rules))?;
    bpf::attach_device_program(&cgroup, &program)
}

fn program(rules: &[LinuxDeviceCgroup]) -> Vec<Instruction> {
    // The context: access << 16 | type, major, minor.
    let mut program = vec![
        Instruction::load(TYPE, 1, 0),
        Instruction::mov_register(ACCESS, TYPE),
        Instruction::and(TYPE, 0xffff),
        Instruction::shift_right(ACCESS, 16),
        Instruction::load(MAJOR, 1, 4),
        Instruction::load(MINOR, 1, 8),
    ];
    for rule in rules.iter().rev() {
        let test = test(rule);
        // A rule for everything hides the earlier ones, and the verifier refuses what cannot be
        // reached.
        let is_last = test.len() == VERDICT_LENGTH;
        program.extend(test);
        if is_last {
            return program;
        }
    }
    program.extend([Instruction::mov(0, 0), Instruction::exit()]);
    program
}

/// One rule: tests that jump over its verdict, then the verdict.
fn test(rule: &LinuxDeviceCgroup) -> Vec<Instruction> {
    let mut tests: Vec<Instruction> = Vec::new();
    let kind = match rule.typ().unwrap_or_default().as_str() {
        "b" => Some(BLOCK),
        "c" | "u" => Some(CHARACTER),
        _ => None,
    };
    if let Some(kind) = kind {
        tests.push(Instruction::jump_if_not_equal(TYPE, kind));
        for (register, number) in [(MAJOR, rule.major()), (MINOR, rule.minor())] {
            if let Some(number) = number.and_then(|number| u32::try_from(number).ok()) {
                tests.push(Instruction::jump_if_not_equal(register, number));
            }
        }
    }
    let access = access(rule.access().as_deref().unwrap_or("rwm"));
    if access != MKNOD | READ | WRITE {
        tests.push(Instruction::mov_register(SCRATCH, ACCESS));
        if rule.allow() {
            // Every access that is wanted must be in the rule.
            tests.push(Instruction::and(SCRATCH, !access & 7));
            tests.push(Instruction::jump_if_not_equal(SCRATCH, 0));
        } else {
            // One that is refused is enough.
            tests.push(Instruction::and(SCRATCH, access));
            tests.push(Instruction::jump_if_equal(SCRATCH, 0));
        }
    }
    let verdict: [_; VERDICT_LENGTH] = [
        Instruction::mov(0, u32::from(rule.allow())),
        Instruction::exit(),
    ];
    let length = tests.len() + verdict.len();
    for (index, test) in tests.iter_mut().enumerate() {
        test.set_jump(length - index - 1);
    }
    tests.extend(verdict);
    tests
}

fn access(words: &str) -> u32 {
    words.chars().fold(0, |access, letter| {
        access
            | match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => 0,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults;

    fn check(rules: &[LinuxDeviceCgroup], request: (u32, u32, u32, u32), expect: bool) {
        let (kind, access, major, minor) = request;
        let verdict = bpf::interpret(&program(rules), [access << 16 | kind, major, minor]);
        assert_eq!(verdict == 1, expect, "{request:?}");
    }

    #[test]
    fn the_default_rules_allow_the_default_devices_only() {
        let rules = defaults::device_rules();
        check(&rules, (CHARACTER, READ | WRITE, 1, 3), true);
        check(&rules, (CHARACTER, READ | WRITE, 136, 77), true);
        check(&rules, (CHARACTER, READ, 1, 1), false);
        check(&rules, (BLOCK, READ, 8, 0), false);
        check(&rules, (BLOCK, MKNOD, 8, 0), true);
        check(&rules, (BLOCK, MKNOD | READ, 8, 0), false);
    }

    #[test]
    fn later_rules_win() {
        let mut allow = LinuxDeviceCgroup::default();
        allow.set_allow(true).set_access(Some("rwm".into()));
        let mut deny = LinuxDeviceCgroup::default();
        deny.set_typ(Some(oci_spec::runtime::LinuxDeviceType::C))
            .set_major(Some(10));
        deny.set_access(Some("w".into()));
        let rules = [allow, deny];
        check(&rules, (CHARACTER, WRITE, 10, 1), false);
        check(&rules, (CHARACTER, READ | WRITE, 10, 1), false);
        check(&rules, (CHARACTER, READ, 10, 1), true);
        check(&rules, (BLOCK, WRITE, 10, 1), true);
    }

    /// Where a version 2 hierarchy is mounted, controllers or not, the kernel's verifier takes
    /// the program, and it decides for a process in the cgroup.
    #[test]
    fn the_kernel_takes_the_program() {
        let Some(mount) = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .map(Path::new)
            .into_iter()
            .find(|mount| mount.join("cgroup.procs").exists())
            .filter(|_| rustix::process::geteuid().is_root())
        else {
            return;
        };
        let directory = mount.join(format!("isolate-devices-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let attached = attach(&directory, &defaults::device_rules());
        let script = "echo $$ > $0/cgroup.procs && head -c 1 /dev/zero >/dev/null && \
                      ! head -c 1 /dev/kmsg >/dev/null 2>&1";
        let status = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(&directory)
            .status();
        // The directory is free as soon as the shell was reaped.
        std::fs::remove_dir(&directory).unwrap();
        attached.unwrap();
        assert!(status.unwrap().success());
    }
}
