//! Limits: from the host configuration's fields to the specification's.

use berth_docker::container::{HostConfig, ThrottleDevice, WeightDevice};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxWeightDevice,
};

use super::HostFacts;
use super::devices::{self, Device};

/// The period that `--cpus` is counted in, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

pub fn plan(host: &HostConfig, devices: &[Device], facts: &HostFacts) -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_memory(Some(memory(host, facts)));
    resources.set_cpu(Some(cpu(host)));
    resources.set_block_io(block_io(host));
    if let Some(limit) = host.pids_limit.filter(|limit| *limit != 0) {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit.max(-1));
        resources.set_pids(Some(pids));
    }
    resources.set_devices(Some(devices::rules(host, devices)));
    resources
}

fn memory(host: &HostConfig, facts: &HostFacts) -> LinuxMemory {
    let set = |value: i64| (value != 0).then_some(value);
    let mut memory = LinuxMemory::default();
    memory.set_limit(set(host.memory));
    memory.set_reservation(set(host.memory_reservation));
    if facts.swap_limit {
        memory.set_swap(set(host.memory_swap));
    }
    if let Some(swappiness) = host
        .memory_swappiness
        .and_then(|value| u64::try_from(value).ok())
    {
        memory.set_swappiness(Some(swappiness));
    }
    memory.set_disable_oom_killer(host.oom_kill_disable);
    memory
}

fn cpu(host: &HostConfig) -> LinuxCpu {
    let mut cpu = LinuxCpu::default();
    if let Ok(shares) = u64::try_from(host.cpu_shares)
        && shares > 0
    {
        cpu.set_shares(Some(shares));
    }
    if host.nano_cpus > 0 {
        let quota = i128::from(host.nano_cpus) * i128::from(CPU_PERIOD_US) / 1_000_000_000;
        cpu.set_period(Some(CPU_PERIOD_US));
        cpu.set_quota(Some(i64::try_from(quota).unwrap_or(i64::MAX)));
    }
    if let Ok(period) = u64::try_from(host.cpu_period)
        && period > 0
    {
        cpu.set_period(Some(period));
    }
    if host.cpu_quota != 0 {
        cpu.set_quota(Some(host.cpu_quota));
    }
    let text = |value: &String| (!value.is_empty()).then(|| value.clone());
    cpu.set_cpus(text(&host.cpuset_cpus));
    cpu.set_mems(text(&host.cpuset_mems));
    if host.cpu_realtime_runtime != 0 {
        cpu.set_realtime_runtime(Some(host.cpu_realtime_runtime));
    }
    if let Ok(period) = u64::try_from(host.cpu_realtime_period)
        && period > 0
    {
        cpu.set_realtime_period(Some(period));
    }
    cpu
}

fn block_io(host: &HostConfig) -> Option<LinuxBlockIo> {
    let throttle = |devices: &Option<Vec<ThrottleDevice>>| -> Option<Vec<LinuxThrottleDevice>> {
        let list: Vec<_> = devices
            .iter()
            .flatten()
            .filter_map(throttle_device)
            .collect();
        (!list.is_empty()).then_some(list)
    };
    let weights: Vec<_> = host
        .blkio_weight_device
        .iter()
        .flatten()
        .filter_map(weight_device)
        .collect();
    let mut block_io = LinuxBlockIo::default();
    block_io.set_weight_device((!weights.is_empty()).then_some(weights));
    block_io.set_weight((host.blkio_weight > 0).then_some(host.blkio_weight));
    block_io.set_throttle_read_bps_device(throttle(&host.blkio_device_read_bps));
    block_io.set_throttle_write_bps_device(throttle(&host.blkio_device_write_bps));
    block_io.set_throttle_read_iops_device(throttle(&host.blkio_device_read_iops));
    block_io.set_throttle_write_iops_device(throttle(&host.blkio_device_write_iops));
    (block_io != LinuxBlockIo::default()).then_some(block_io)
}

/// As [`throttle_device`].
fn weight_device(device: &WeightDevice) -> Option<LinuxWeightDevice> {
    let (major, minor) = devices::number(&device.path).ok()?;
    serde_json::from_value(
        serde_json::json!({ "major": major, "minor": minor, "weight": device.weight }),
    )
    .ok()
}

/// A device that does not exist has been refused at create; one that went since is left out.
fn throttle_device(device: &ThrottleDevice) -> Option<LinuxThrottleDevice> {
    let (major, minor) = devices::number(&device.path).ok()?;
    serde_json::from_value(
        serde_json::json!({ "major": major, "minor": minor, "rate": device.rate }),
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_become_a_quota_of_the_default_period() {
        let host = HostConfig {
            nano_cpus: 1_500_000_000,
            ..HostConfig::default()
        };
        let cpu = plan(&host, &[], &HostFacts::small()).cpu().clone().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(150_000), Some(100_000)));
    }

    #[test]
    fn unset_limits_stay_unset() {
        let resources = plan(&HostConfig::default(), &[], &HostFacts::small());
        assert_eq!(resources.memory().as_ref().unwrap().limit(), None);
        assert!(resources.pids().is_none() && resources.block_io().is_none());
    }

    #[test]
    fn a_negative_pids_limit_is_unlimited() {
        let host = HostConfig {
            pids_limit: Some(-7),
            ..HostConfig::default()
        };
        assert_eq!(
            plan(&host, &[], &HostFacts::small())
                .pids()
                .as_ref()
                .unwrap()
                .limit(),
            -1
        );
    }
}
