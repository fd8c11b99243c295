//! Seccomp profiles to BPF programs.
//!
//! For each architecture the numbers are sorted into ranges with the same outcome, and a binary
//! search over the ranges is generated: about a dozen instructions for any number, where a chain
//! of comparisons has hundreds. That matters twice: the kernel runs the program once for every
//! number when it is loaded (`seccomp_cache_prepare`), and at every call that it cannot cache.
//!
//! The semantics are those of runc with libseccomp: an entry without conditions wins over entries
//! with some; names that the architecture lacks are skipped; a number beyond the newest that the
//! profile knows gets ENOSYS in place of an errno of the profile, so that C libraries fall back;
//! a foreign architecture is killed. x32 calls get ENOSYS (kernels of distributions lack x32).

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use berth_sys::seccomp::{Instruction, flag};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator,
};

use crate::error::Error;
use crate::hooks::Subject;

mod agent;
mod assembler;
mod profile;

pub use agent::Agent;
pub use profile::default_profile;

use agent::Listener;
use assembler::{Assembler, Condition, Label};

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    program: Vec<Instruction>,
    flags: u64,
    /// Who decides about some calls.
    listener: Option<Listener>,
}

/// What happens with one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Return(u32),
    /// The first rule of which all conditions hold; otherwise the default.
    Rules(Vec<Rule>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    conditions: Vec<LinuxSeccompArg>,
    action: u32,
}

/// AUDIT_ARCH_* and the table of names.
struct Target {
    audit: u32,
    number: fn(&str) -> Option<u32>,
    has_x32: bool,
}

const X86_64: Target = Target {
    audit: 0xc000_003e,
    number: number::x86_64,
    has_x32: true,
};
const X86: Target = Target {
    audit: 0x4000_0003,
    number: number::x86,
    has_x32: false,
};
const AARCH64: Target = Target {
    audit: 0xc000_00b7,
    number: number::aarch64,
    has_x32: false,
};
const ARM: Target = Target {
    audit: 0x4000_0028,
    number: number::arm,
    has_x32: false,
};

#[cfg(target_arch = "x86_64")]
const NATIVE: Arch = Arch::ScmpArchX86_64;
#[cfg(target_arch = "aarch64")]
const NATIVE: Arch = Arch::ScmpArchAarch64;

const RET_KILL_THREAD: u32 = 0;
const RET_ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;
const X32_BIT: u32 = 0x4000_0000;
/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;
/// BPF_MAXINSNS
const MAX_INSTRUCTIONS: usize = 4096;

impl Filter {
    pub fn compile(profile: &LinuxSeccomp) -> Result<Self, Error> {
        let listener = Listener::of(profile)?;
        let default = action(profile.default_action(), profile.default_errno_ret());
        let mut architectures = profile.architectures().clone().unwrap_or_default();
        if !architectures.contains(&NATIVE) {
            architectures.insert(0, NATIVE);
        }
        let mut asm = Assembler::default();
        let mut sections = Vec::new();
        for architecture in &architectures {
            if let Some(target) = target(*architecture) {
                let entry = section(&mut asm, profile, &target, default)?;
                sections.push((target.audit, entry));
            }
        }
        let mut next = asm.ret(RET_KILL_THREAD);
        for &(audit, entry) in &sections {
            next = asm.branch(Condition::Equal, audit, entry, next);
        }
        let entry = asm.load(OFFSET_ARCH, next);
        let program = asm.finish(entry);
        if program.len() > MAX_INSTRUCTIONS {
            return Err(Error::invalid(
                "the seccomp profile is too large for the kernel",
            ));
        }
        Ok(Self {
            program,
            flags: flags(profile, listener.is_some()),
            listener,
        })
    }

    /// The default profile with the default capabilities. A process that forks keepers compiles it
    /// once, for all of them.
    pub fn built_in() -> Result<Arc<Self>, Error> {
        static BUILT_IN: OnceLock<Arc<Filter>> = OnceLock::new();
        if let Some(filter) = BUILT_IN.get() {
            return Ok(filter.clone());
        }
        let capabilities = crate::defaults::CAPABILITIES.iter().copied().collect();
        let filter = Self::compile(&default_profile(&capabilities))?;
        Ok(BUILT_IN.get_or_init(|| Arc::new(filter)).clone())
    }

    /// The agent of a process that gets this filter, if one is to be asked. `status` is the
    /// container's: `creating` for its first process, `running` for those that join.
    pub fn agent(&self, subject: &Subject<'_>, status: &str) -> Option<Agent> {
        let listener = self.listener.as_ref()?;
        Some(Agent::new(listener, subject, status))
    }

    /// Puts the filter in force for the calling thread. Returns what its agent shall get.
    pub(crate) fn load(&self) -> std::io::Result<Option<OwnedFd>> {
        if self.listener.is_some() {
            berth_sys::seccomp::load_listening(&self.program, self.flags).map(Some)
        } else {
            berth_sys::seccomp::load(&self.program, self.flags).map(|()| None)
        }
    }
}

fn target(architecture: Arch) -> Option<Target> {
    match architecture {
        Arch::ScmpArchNative => target(NATIVE),
        Arch::ScmpArchX86_64 => Some(X86_64),
        Arch::ScmpArchX86 => Some(X86),
        Arch::ScmpArchAarch64 => Some(AARCH64),
        Arch::ScmpArchArm => Some(ARM),
        // X32 is answered within X86_64; the others cannot run on what we build for.
        _ => None,
    }
}

fn flags(profile: &LinuxSeccomp, listens: bool) -> u64 {
    profile.flags().iter().flatten().fold(0, |flags, word| {
        flags
            | match word {
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => flag::LOG,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => flag::SPEC_ALLOW,
                // With a listener the kernel refuses it, and there are no other threads.
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync if listens => 0,
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => flag::TSYNC,
                // Only means something with a listener.
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if listens => {
                    flag::WAIT_KILLABLE_RECV
                }
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
            }
    })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    action.as_u32(errno.map(|errno| errno & 0xffff))
}

/// The code for one architecture; starts with loading the number.
fn section(
    asm: &mut Assembler,
    profile: &LinuxSeccomp,
    target: &Target,
    default: u32,
) -> Result<Label, Error> {
    let (outcomes, newest) = outcomes(profile, target, default)?;
    let ranges = ranges(
        &outcomes,
        default,
        newest,
        refuses(profile.default_action()),
    );
    let mut entry = search(asm, &ranges, default);
    if target.has_x32 {
        let absent = asm.ret(RET_ENOSYS);
        entry = asm.branch(Condition::GreaterOrEqual, X32_BIT, absent, entry);
    }
    Ok(asm.load(OFFSET_NUMBER, entry))
}

/// Whether an action is a refusal, for which ENOSYS is the better answer to an unknown number.
fn refuses(action: LinuxSeccompAction) -> bool {
    use LinuxSeccompAction::{
        ScmpActErrno, ScmpActKill, ScmpActKillProcess, ScmpActKillThread, ScmpActTrap,
    };
    matches!(
        action,
        ScmpActErrno | ScmpActKill | ScmpActKillProcess | ScmpActKillThread | ScmpActTrap
    )
}

/// By number; and the highest number that the profile names.
fn outcomes(
    profile: &LinuxSeccomp,
    target: &Target,
    default: u32,
) -> Result<(BTreeMap<u32, Outcome>, Option<u32>), Error> {
    let mut outcomes = BTreeMap::new();
    let mut newest = None;
    for entry in profile.syscalls().iter().flatten() {
        let action = action(entry.action(), entry.errno_ret());
        let rules = rules(entry.args().as_deref().unwrap_or_default(), action)?;
        for number in entry
            .names()
            .iter()
            .filter_map(|name| (target.number)(name))
        {
            newest = newest.max(Some(number));
            if action == default {
                continue;
            }
            match (outcomes.get_mut(&number), rules.is_empty()) {
                (Some(Outcome::Return(_)), _) => {}
                (_, true) => {
                    outcomes.insert(number, Outcome::Return(action));
                }
                (Some(Outcome::Rules(known)), false) => known.extend_from_slice(&rules),
                (None, false) => {
                    outcomes.insert(number, Outcome::Rules(rules.clone()));
                }
            }
        }
    }
    Ok((outcomes, newest))
}

/// Conditions on different arguments hold together; several on one argument are alternatives, as
/// in runc (`seccomp_linux.go`, matchCall).
fn rules(args: &[LinuxSeccompArg], action: u32) -> Result<Vec<Rule>, Error> {
    if let Some(arg) = args.iter().find(|arg| arg.index() > 5) {
        return Err(Error::invalid(format!(
            "seccomp: no argument has the index {}",
            arg.index()
        )));
    }
    let repeated = args
        .iter()
        .enumerate()
        .any(|(i, a)| args.iter().take(i).any(|b| a.index() == b.index()));
    Ok(if args.is_empty() {
        Vec::new()
    } else if repeated {
        args.iter()
            .map(|&arg| Rule {
                conditions: vec![arg],
                action,
            })
            .collect()
    } else {
        vec![Rule {
            conditions: args.to_vec(),
            action,
        }]
    })
}

/// Where each outcome begins, ascending, from number 0 on.
fn ranges(
    outcomes: &BTreeMap<u32, Outcome>,
    default: u32,
    newest: Option<u32>,
    absent_beyond: bool,
) -> Vec<(u32, Outcome)> {
    let mut ranges: Vec<(u32, Outcome)> = Vec::new();
    let mut add = |start: u32, outcome: Outcome| {
        if ranges.last().is_none_or(|(_, last)| *last != outcome) {
            ranges.push((start, outcome));
        }
    };
    let mut next = 0;
    for (&number, outcome) in outcomes {
        if number > next {
            add(next, Outcome::Return(default));
        }
        add(number, outcome.clone());
        next = number.saturating_add(1);
    }
    match newest.map(|newest| newest.saturating_add(1)) {
        Some(beyond) if absent_beyond => {
            if beyond > next {
                add(next, Outcome::Return(default));
            }
            add(beyond, Outcome::Return(RET_ENOSYS));
        }
        _ => add(next, Outcome::Return(default)),
    }
    ranges
}

fn search(asm: &mut Assembler, ranges: &[(u32, Outcome)], default: u32) -> Label {
    match ranges {
        [] => asm.ret(default),
        [(_, outcome)] => leaf(asm, outcome, default),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let start = high.first().map_or(0, |(start, _)| *start);
            let high = search(asm, high, default);
            let low = search(asm, low, default);
            asm.branch(Condition::GreaterOrEqual, start, high, low)
        }
    }
}

fn leaf(asm: &mut Assembler, outcome: &Outcome, default: u32) -> Label {
    match outcome {
        Outcome::Return(value) => asm.ret(*value),
        Outcome::Rules(rules) => {
            let mut next = asm.ret(default);
            for rule in rules.iter().rev() {
                let mut yes = asm.ret(rule.action);
                for condition in rule.conditions.iter().rev() {
                    yes = compare(asm, condition, yes, next);
                }
                next = yes;
            }
            next
        }
    }
}

/// Compares a 64-bit argument, whose halves are loaded one after the other.
fn compare(asm: &mut Assembler, arg: &LinuxSeccompArg, yes: Label, no: Label) -> Label {
    use Condition::{Equal, Greater, GreaterOrEqual};
    let index = u32::try_from(arg.index()).unwrap_or(5);
    let (low_at, high_at) = (OFFSET_ARGS + 8 * index, OFFSET_ARGS + 8 * index + 4);
    let (high, low) = halves(arg.value());
    let equal = |asm: &mut Assembler, masks: Option<(u32, u32)>, high, low, yes, no| {
        let mut half = |offset, mask: Option<u32>, value, yes| {
            let test = asm.branch(Equal, value, yes, no);
            let test = match mask {
                Some(mask) => asm.and(mask, test),
                None => test,
            };
            asm.load(offset, test)
        };
        let second = half(low_at, masks.map(|m| m.1), low, yes);
        half(high_at, masks.map(|m| m.0), high, second)
    };
    let ordered = |asm: &mut Assembler, condition, yes, no| {
        let test = asm.branch(condition, low, yes, no);
        let second = asm.load(low_at, test);
        let tie = asm.branch(Equal, high, second, no);
        let test = asm.branch(Greater, high, yes, tie);
        asm.load(high_at, test)
    };
    match arg.op() {
        LinuxSeccompOperator::ScmpCmpEq => equal(asm, None, high, low, yes, no),
        LinuxSeccompOperator::ScmpCmpNe => {
            let test = asm.branch(Equal, low, no, yes);
            let second = asm.load(low_at, test);
            let test = asm.branch(Equal, high, second, yes);
            asm.load(high_at, test)
        }
        LinuxSeccompOperator::ScmpCmpGt => ordered(asm, Greater, yes, no),
        LinuxSeccompOperator::ScmpCmpGe => ordered(asm, GreaterOrEqual, yes, no),
        LinuxSeccompOperator::ScmpCmpLe => ordered(asm, Greater, no, yes),
        LinuxSeccompOperator::ScmpCmpLt => ordered(asm, GreaterOrEqual, no, yes),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let masks = (high, low);
            let (high, low) = halves(arg.value_two().unwrap_or(0));
            equal(asm, Some(masks), high, low, yes, no)
        }
    }
}

fn halves(value: u64) -> (u32, u32) {
    let low = u32::try_from(value & u64::from(u32::MAX)).expect("masked to 32 bits");
    let high = u32::try_from(value >> 32).expect("shifted to 32 bits");
    (high, low)
}

/// Names to numbers.
mod number {
    use std::str::FromStr;

    fn id(id: i32) -> Option<u32> {
        u32::try_from(id).ok()
    }

    pub fn x86_64(name: &str) -> Option<u32> {
        syscalls::x86_64::Sysno::from_str(name)
            .ok()
            .and_then(|number| id(number.id()))
    }

    pub fn x86(name: &str) -> Option<u32> {
        syscalls::x86::Sysno::from_str(name)
            .ok()
            .and_then(|number| id(number.id()))
    }

    pub fn aarch64(name: &str) -> Option<u32> {
        syscalls::aarch64::Sysno::from_str(name)
            .ok()
            .and_then(|number| id(number.id()))
    }

    pub fn arm(name: &str) -> Option<u32> {
        // The private calls of ARM (__ARM_NR_*), which the table leaves out.
        match name {
            "breakpoint" => Some(0x000f_0001),
            "cacheflush" => Some(0x000f_0002),
            "usr26" => Some(0x000f_0003),
            "usr32" => Some(0x000f_0004),
            "set_tls" => Some(0x000f_0005),
            _ => syscalls::arm::Sysno::from_str(name)
                .ok()
                .and_then(|number| id(number.id())),
        }
    }
}

#[cfg(test)]
mod tests;
