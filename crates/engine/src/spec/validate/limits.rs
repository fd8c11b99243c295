//! What dockerd refuses of limits on processors and memory.

use berth_docker::container::HostConfig;

use crate::error::{Error, Result};
use crate::spec::{HostFacts, invalid};

/// Below this the kernel could not even start a process, in bytes.
const MIN_MEMORY_BYTES: i64 = 6 << 20;

/// Shares, quotas and sets of processors.
pub fn cpu(host: &HostConfig, facts: &HostFacts) -> Result<()> {
    if host.nano_cpus > 0 && (host.cpu_period > 0 || host.cpu_quota > 0) {
        let which = if host.cpu_period > 0 {
            "Period"
        } else {
            "Quota"
        };
        return Err(invalid(format!(
            "Conflicting options: Nano CPUs and CPU {which} cannot both be set."
        )));
    }
    if host.nano_cpus < 0 || host.nano_cpus > i64::from(facts.cpus) * 1_000_000_000 {
        return Err(invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available",
            cpus = facts.cpus
        )));
    }
    if host.cpu_shares < 0 {
        return Err(invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            host.cpu_shares
        )));
    }
    if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
        return Err(invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
        return Err(invalid(
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ));
    }
    check_cpuset(&host.cpuset_cpus, &facts.cpuset_cpus)?;
    if parse_list(&host.cpuset_mems).is_none() {
        return Err(invalid(format!(
            "Invalid value {} for cpuset mems",
            host.cpuset_mems
        )));
    }
    Ok(())
}

fn check_cpuset(requested: &str, available: &str) -> Result<()> {
    let Some(list) = parse_list(requested) else {
        return Err(invalid(format!(
            "Invalid value {requested} for cpuset cpus"
        )));
    };
    let usable = parse_list(available).unwrap_or_default();
    if list.iter().all(|cpu| usable.contains(cpu)) {
        return Ok(());
    }
    Err(invalid(format!(
        "Requested CPUs are not available - requested {requested}, available: {available}"
    )))
}

/// The kernel's notation of a set of small numbers: `0-2,7`.
pub fn parse_list(text: &str) -> Option<Vec<u32>> {
    const HIGHEST: u32 = 8192;
    let mut list = Vec::new();
    for part in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last > HIGHEST {
            return None;
        }
        list.extend(first..=last);
    }
    Some(list)
}

/// Takes away what the kernel cannot do and Docker does without; returns warnings.
pub fn discard(host: &mut HostConfig, facts: &HostFacts) -> Vec<String> {
    let mut warnings = Vec::new();
    if facts.block_io_weight {
        return warnings;
    }
    if host.blkio_weight > 0 {
        host.blkio_weight = 0;
        warnings.push(
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
                .to_owned(),
        );
    }
    if host.blkio_weight_device.iter().flatten().next().is_some() {
        host.blkio_weight_device = Some(Vec::new());
        warnings.push(
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."
                .to_owned(),
        );
    }
    warnings
}

pub fn block_io(host: &HostConfig) -> Result<()> {
    match host.blkio_weight {
        0 | 10..=1000 => Ok(()),
        _ => Err(Error::invalid("Range of blkio weight is from 10 to 1000")),
    }
}

/// Memory, swap and the killer of processes; returns warnings.
pub fn memory(host: &HostConfig, facts: &HostFacts) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    let refuse = |why: &str| -> Result<Vec<String>> { Err(Error::invalid(why)) };
    if host.shm_size < 0 {
        return refuse("SHM size can not be less than 0");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.memory < 0 || (host.memory > 0 && host.memory < MIN_MEMORY_BYTES) {
        return refuse("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return refuse("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return refuse(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if host
        .memory_swappiness
        .is_some_and(|value| !(-1..=100).contains(&value))
    {
        return Err(invalid(format!(
            "Invalid value: {}, valid memory swappiness range is 0-100",
            host.memory_swappiness.unwrap_or_default()
        )));
    }
    if host.memory_reservation > 0 && host.memory_reservation < MIN_MEMORY_BYTES {
        return refuse("Minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return refuse(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if host.memory > 0 && !facts.swap_limit {
        warnings.push(
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
                .to_owned(),
        );
    }
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
                .to_owned(),
        );
    }
    Ok(warnings)
}
