//! How a process is scheduled: from the specification's words to the kernel's numbers (`plan`),
//! and telling the kernel (`apply`). Scheduler, I/O priority, personality, memory policy, and the
//! processors of a process that joins.

use berth_sys::sched::{self, Attributes};
use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType,
    Process as ProcessSpec, Scheduler,
};
use rustix::thread::CpuSet;

use crate::error::{Error, errno_words, io_words};

/// The largest processor or node number that is understood.
const MAX_SET_MEMBER: u32 = 8191;

/// What is told the kernel; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scheduling {
    attributes: Option<Attributes>,
    io_priority: Option<u16>,
    personality: Option<u32>,
    memory: Option<Memory>,
    /// Of a process that joins: before it enters the container's cgroup, and after.
    pub first_cpus: Option<Vec<u32>>,
    pub last_cpus: Option<Vec<u32>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Memory {
    mode: i32,
    nodes: Vec<u64>,
}

impl Scheduling {
    /// The last two are the container's, and hold for every process of it.
    pub fn plan(
        process: &ProcessSpec,
        personality: Option<&LinuxPersonality>,
        memory: Option<&LinuxMemoryPolicy>,
    ) -> Result<Self, Error> {
        let affinity = process.exec_cpu_affinity().as_ref();
        let cpus = |name: &str, text: Option<&String>| {
            text.filter(|text| !text.is_empty())
                .map(|text| set(text).map_err(|e| e.prefixed(&format!("bad CPUAffinity.{name}: "))))
                .transpose()
        };
        Ok(Self {
            attributes: process.scheduler().as_ref().map(attributes).transpose()?,
            io_priority: process
                .io_priority()
                .as_ref()
                .map(io_priority)
                .transpose()?,
            personality: personality.map(domain).transpose()?,
            memory: memory.map(memory_policy).transpose()?,
            first_cpus: cpus("Initial", affinity.and_then(|a| a.initial().as_ref()))?,
            last_cpus: cpus(
                "Final",
                affinity.and_then(|a| a.cpu_affinity_final().as_ref()),
            )?,
        })
    }

    /// Tells the kernel about the calling process; while it may still do anything.
    pub fn apply(&self) -> Result<(), Error> {
        let fail = |what: &str, error: &std::io::Error| {
            Error::internal(format!("{what}: {}", io_words(error)))
        };
        if let Some(attributes) = &self.attributes {
            sched::set_attributes(attributes).map_err(|e| {
                // The kernel admits a deadline only for the processors of its whole domain.
                match e.raw_os_error() {
                    Some(libc::EPERM) if attributes.policy == DEADLINE => {
                        Error::invalid("process scheduler can't be used together with AllowedCPUs")
                    }
                    _ => fail("error setting scheduler", &e),
                }
            })?;
        }
        if let Some(priority) = self.io_priority {
            sched::set_io_priority(priority).map_err(|e| fail("failed to set io priority", &e))?;
        }
        if let Some(domain) = self.personality {
            sched::set_personality(domain).map_err(|e| fail("unable to set personality", &e))?;
        }
        if let Some(memory) = &self.memory {
            sched::set_memory_policy(memory.mode, &memory.nodes)
                .map_err(|e| fail("error setting memory policy", &e))?;
        }
        Ok(())
    }
}

/// Binds the calling process to processors.
pub(crate) fn bind(cpus: &[u32]) -> Result<(), Error> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        let cpu = usize::try_from(cpu).unwrap_or(usize::MAX);
        if cpu < CpuSet::MAX_CPU {
            set.set(cpu);
        }
    }
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|e| Error::invalid(format!("error setting CPU affinity: {}", errno_words(e))))
}

const DEADLINE: u32 = 6;

fn attributes(spec: &Scheduler) -> Result<Attributes, Error> {
    use LinuxSchedulerPolicy::{
        SchedBatch, SchedDeadline, SchedFifo, SchedIdle, SchedIso, SchedOther, SchedRr,
    };
    let policy = *spec.policy();
    let number = match policy {
        SchedOther => 0,
        SchedFifo => 1,
        SchedRr => 2,
        SchedBatch => 3,
        SchedIso => 4,
        SchedIdle => 5,
        SchedDeadline => DEADLINE,
    };
    let nice = spec.nice().unwrap_or(0);
    if matches!(policy, SchedOther | SchedBatch) && !(-20..=19).contains(&nice) {
        return Err(Error::invalid(format!(
            "invalid scheduler.nice: {nice} when scheduler.policy is {policy}"
        )));
    }
    let priority = spec.priority().unwrap_or(0);
    if priority != 0 && !matches!(policy, SchedFifo | SchedRr) {
        return Err(Error::invalid(
            "scheduler.priority can only be specified for SchedFIFO or SchedRR policy",
        ));
    }
    let times = [*spec.runtime(), *spec.deadline(), *spec.period()].map(Option::unwrap_or_default);
    if times != [0; 3] && policy != SchedDeadline {
        return Err(Error::invalid(
            "scheduler runtime/deadline/period can only be specified for SchedDeadline policy",
        ));
    }
    let flags = spec.flags().iter().flatten().map(|flag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    });
    Ok(Attributes {
        policy: number,
        flags: flags.fold(0, |all, flag| all | flag),
        nice,
        priority: u32::try_from(priority)
            .map_err(|_| Error::invalid(format!("invalid scheduler.priority: {priority}")))?,
        runtime: times[0],
        deadline: times[1],
        period: times[2],
    })
}

fn io_priority(spec: &LinuxIOPriority) -> Result<u16, Error> {
    let class: u16 = match spec.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = u16::try_from(spec.priority())
        .ok()
        .filter(|level| *level <= 7)
        .ok_or_else(|| {
            Error::invalid(format!("invalid ioPriority.Priority: {}", spec.priority()))
        })?;
    Ok(class << 13 | level)
}

fn domain(spec: &LinuxPersonality) -> Result<u32, Error> {
    if let Some(flag) = spec.flags().iter().flatten().next() {
        return Err(Error::invalid(format!(
            "personality flag {flag:?} is not supported: the specification has none"
        )));
    }
    Ok(match spec.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

fn memory_policy(spec: &LinuxMemoryPolicy) -> Result<Memory, Error> {
    use MemoryPolicyModeType as Mode;
    let nodes = match spec.nodes().as_deref() {
        None | Some("") => Vec::new(),
        Some(text) => set(text)?,
    };
    let mode = match spec.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    match spec.mode() {
        Mode::MpolDefault | Mode::MpolLocal if !nodes.is_empty() => {
            return Err(Error::invalid(format!(
                "memory policy mode requires 0 nodes but got {}",
                nodes.len()
            )));
        }
        Mode::MpolDefault | Mode::MpolLocal | Mode::MpolPreferred => {}
        _ if nodes.is_empty() => {
            return Err(Error::invalid(
                "memory policy mode requires at least one node but got 0",
            ));
        }
        _ => {}
    }
    let flags = spec.flags().iter().flatten().map(|flag| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
    });
    let mut words = Vec::new();
    for node in nodes {
        let index = usize::try_from(node / 64).unwrap_or(usize::MAX);
        if words.len() <= index {
            words.resize(index + 1, 0);
        }
        words[index] |= 1_u64 << (node % 64);
    }
    Ok(Memory {
        mode: flags.fold(mode, |mode, flag| mode | flag),
        nodes: words,
    })
}

/// The members of `0-3,7`, in order.
pub(crate) fn set(text: &str) -> Result<Vec<u32>, Error> {
    let number = |word: &str| {
        let wrong = || Error::invalid(format!("{word:?} is not a number"));
        let number: u32 = word.trim().parse().map_err(|_| wrong())?;
        if number > MAX_SET_MEMBER {
            let message = format!("values larger than {MAX_SET_MEMBER} are not supported");
            return Err(Error::invalid(message));
        }
        Ok(number)
    };
    let mut members = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        match part.split_once('-') {
            None => members.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(Error::invalid(format!("invalid range: {part}")));
                }
                members.extend(first..=last);
            }
        }
    }
    if members.is_empty() {
        return Err(Error::invalid(format!("no members found in set {text:?}")));
    }
    members.sort_unstable();
    members.dedup();
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan(process: Value, linux: Value) -> Result<Scheduling, Error> {
        let mut whole = json!({"user": {}, "cwd": "/"});
        whole
            .as_object_mut()
            .unwrap()
            .extend(process.as_object().unwrap().clone());
        let process = serde_json::from_value(whole).unwrap();
        let personality = serde_json::from_value(linux["personality"].clone()).unwrap();
        let memory = serde_json::from_value(linux["memoryPolicy"].clone()).unwrap();
        let (personality, memory): (Option<_>, Option<_>) = (personality, memory);
        Scheduling::plan(&process, personality.as_ref(), memory.as_ref())
    }

    #[test]
    fn words_become_the_kernels_numbers() {
        let planned = plan(
            json!({
                "scheduler": {"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_RESET_ON_FORK"]},
                "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 7},
                "execCPUAffinity": {"initial": "0-1", "final": "3"},
            }),
            json!({
                "personality": {"domain": "LINUX32"},
                "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0,65", "flags": ["MPOL_F_STATIC_NODES"]},
            }),
        )
        .unwrap();
        let attributes = planned.attributes.unwrap();
        assert_eq!(
            (attributes.policy, attributes.nice, attributes.flags),
            (3, 5, 1)
        );
        assert_eq!(planned.io_priority, Some(3 << 13 | 7));
        assert_eq!(planned.personality, Some(8));
        let memory = Memory {
            mode: 2 | 1 << 15,
            nodes: vec![1, 2],
        };
        assert_eq!(planned.memory, Some(memory));
        assert_eq!(planned.first_cpus, Some(vec![0, 1]));
        assert_eq!(planned.last_cpus, Some(vec![3]));
    }

    #[test]
    fn nothing_asked_is_nothing_told() {
        assert_eq!(plan(json!({}), json!({})).unwrap(), Scheduling::default());
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for (process, linux) in [
            (
                json!({"scheduler": {"policy": "SCHED_OTHER", "nice": 20}}),
                json!({}),
            ),
            (
                json!({"scheduler": {"policy": "SCHED_OTHER", "priority": 1}}),
                json!({}),
            ),
            (
                json!({"scheduler": {"policy": "SCHED_FIFO", "runtime": 1}}),
                json!({}),
            ),
            (
                json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}),
                json!({}),
            ),
            (
                json!({}),
                json!({"personality": {"domain": "LINUX", "flags": ["X"]}}),
            ),
            (json!({}), json!({"memoryPolicy": {"mode": "MPOL_BIND"}})),
            (
                json!({}),
                json!({"memoryPolicy": {"mode": "MPOL_LOCAL", "nodes": "0"}}),
            ),
        ] {
            assert!(
                plan(process.clone(), linux.clone()).is_err(),
                "{process} {linux}"
            );
        }
    }

    #[test]
    fn sets_are_ranges_and_numbers() {
        assert_eq!(set("3,0-1,1").unwrap(), [0, 1, 3]);
        for text in ["", ",", "1-", "2-1", "x", "9999"] {
            assert!(set(text).is_err(), "{text}");
        }
    }
}
