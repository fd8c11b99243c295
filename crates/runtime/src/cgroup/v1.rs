//! Version 1: one hierarchy for each controller (kernel documentation, admin-guide/cgroup-v1).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxBlockIo, LinuxDeviceCgroup, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};

use super::Hierarchy;
use super::setting::{Files, Now, Setting, rdma};
use crate::error::Error;

/// What [`plan`] depends on.
pub(super) const FILES: Files = Files {
    memory_limit: "memory.limit_in_bytes",
    memory_usage: "memory.usage_in_bytes",
    bfq_weight: "blkio.bfq.weight",
};
/// How long freezing may take.
const FREEZE_TRIES: u32 = 1000;

fn setting(controller: &'static str, file: &str, value: impl ToString) -> Setting {
    Setting::new(controller, file, value)
}

/// Makes the directories of one hierarchy. A cpuset starts empty, and nothing can enter it; so
/// each level that we make passes its parent's processors and memory on.
pub(super) fn make(hierarchy: &Hierarchy, path: &Path) -> io::Result<()> {
    let is_cpuset = hierarchy.controllers.iter().any(|c| c == "cpuset");
    let whole = hierarchy.mount.join(path);
    match fs::create_dir(&whole) {
        Ok(()) if !is_cpuset => return Ok(()),
        Ok(()) => return inherit_cpuset(&whole),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut directory = hierarchy.mount.clone();
    for name in path {
        directory.push(name);
        match fs::create_dir(&directory) {
            Ok(()) if is_cpuset => inherit_cpuset(&directory)?,
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies from the parent what the directory does not have, and asks the kernel to do that by
/// itself for the directories below.
fn inherit_cpuset(directory: &Path) -> io::Result<()> {
    let Some(parent) = directory.parent() else {
        return Ok(());
    };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(directory.join(file))?.trim().is_empty() {
            let value = fs::read_to_string(parent.join(file))?;
            fs::write(directory.join(file), value.trim())?;
        }
    }
    // Without it only the next container costs two more writes.
    let _ = fs::write(directory.join("cgroup.clone_children"), "1");
    Ok(())
}

/// What is written for these limits, in order.
pub(super) fn plan(resources: &LinuxResources, now: &Now) -> Result<Vec<Setting>, Error> {
    if resources.unified().as_ref().is_some_and(|u| !u.is_empty()) {
        return Err(Error::invalid(
            "invalid configuration: cannot use unified on cgroup v1",
        ));
    }
    let mut settings = Vec::new();
    if let Some(limits) = resources.memory() {
        memory(limits, now, &mut settings)?;
    }
    cpu(resources, &mut settings);
    if let Some(pids) = resources.pids().as_ref().filter(|pids| pids.limit() != 0) {
        let limit = pids.limit();
        let value = if limit > 0 {
            limit.to_string()
        } else {
            "max".to_owned()
        };
        settings.push(setting("pids", "pids.max", value));
    }
    if let Some(io) = resources.block_io() {
        block_io(io, now, &mut settings);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = limit.page_size();
        settings.push(setting(
            "hugetlb",
            &format!("hugetlb.{size}.limit_in_bytes"),
            limit.limit(),
        ));
        // What is reserved and not faulted in yet is counted since Linux 5.7.
        let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        settings.push(setting("hugetlb", &reserved, limit.limit()).optional());
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id() {
            settings.push(setting("net_cls", "net_cls.classid", class));
        }
        for priority in network.priorities().iter().flatten() {
            let value = format!("{} {}", priority.name(), priority.priority());
            settings.push(setting("net_prio", "net_prio.ifpriomap", value));
        }
    }
    for value in rdma(resources) {
        settings.push(setting("rdma", "rdma.max", value));
    }
    Ok(settings)
}

fn memory(memory: &LinuxMemory, now: &Now, settings: &mut Vec<Setting>) -> Result<(), Error> {
    now.check_memory(memory)?;
    let set = |value: Option<i64>| value.filter(|&value| value != 0);
    let limit = set(memory.limit());
    let part = limit.map(|limit| setting("memory", "memory.limit_in_bytes", limit));
    let sum = |value: i64| setting("memory", "memory.memsw.limit_in_bytes", value);
    let sum = match (limit, set(memory.swap())) {
        // Unlimited memory in a limited sum would be refused. A kernel that does not account swap
        // has no sum to lift.
        (Some(-1), None) => Some(sum(-1).optional()),
        (_, swap) => swap.map(sum),
    };
    // The sum must never be below the part, also in between: growing starts with the sum.
    let grows = match (set(memory.swap()), now.memory_limit) {
        (None | Some(-1), _) => true,
        (Some(swap), Some(current)) => current < swap,
        (Some(_), None) => false,
    };
    if grows {
        settings.extend(sum.into_iter().chain(part));
    } else {
        settings.extend(part.into_iter().chain(sum));
    }
    if let Some(reservation) = set(memory.reservation()) {
        settings.push(setting("memory", "memory.soft_limit_in_bytes", reservation));
    }
    // The limit of all kernel memory is gone since Linux 5.16, and ignored as in runc; that of
    // TCP buffers is not.
    if let Some(buffers) = set(memory.kernel_tcp()) {
        settings.push(setting("memory", "memory.kmem.tcp.limit_in_bytes", buffers));
    }
    match memory.swappiness() {
        // Go's -1 for "as it is", which some callers write as an unsigned number.
        None | Some(u64::MAX) => {}
        Some(value @ 0..=100) => settings.push(setting("memory", "memory.swappiness", value)),
        Some(value) => {
            return Err(Error::invalid(format!(
                "invalid memory swappiness value: {value} (valid range is 0-100)"
            )));
        }
    }
    if memory.disable_oom_killer() == Some(true) {
        settings.push(setting("memory", "memory.oom_control", 1));
    }
    // Since Linux 5.11 every cgroup is hierarchical, and nothing else can be chosen.
    if memory.use_hierarchy() == Some(true) {
        settings.push(setting("memory", "memory.use_hierarchy", 1).optional());
    }
    Ok(())
}

fn cpu(resources: &LinuxResources, settings: &mut Vec<Setting>) {
    let Some(cpu) = resources.cpu() else { return };
    // Real time first: a process with such a priority cannot enter a group without.
    if let Some(period) = cpu.realtime_period().filter(|&period| period != 0) {
        settings.push(setting("cpu", "cpu.rt_period_us", period).again());
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|&runtime| runtime != 0) {
        settings.push(setting("cpu", "cpu.rt_runtime_us", runtime));
    }
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
        settings.push(setting("cpu", "cpu.shares", shares));
    }
    // A period is refused while the old quota in it would be more than the parent's share, and a
    // burst while it is above the old quota.
    if let Some(period) = cpu.period().filter(|&period| period != 0) {
        settings.push(setting("cpu", "cpu.cfs_period_us", period).again());
    }
    if let Some(burst) = cpu.burst() {
        settings.push(setting("cpu", "cpu.cfs_burst_us", burst).again());
    }
    if let Some(quota) = cpu.quota().filter(|&quota| quota != 0) {
        settings.push(setting("cpu", "cpu.cfs_quota_us", quota.max(-1)));
    }
    if let Some(idle) = cpu.idle() {
        settings.push(setting("cpu", "cpu.idle", idle));
    }
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            settings.push(setting("cpuset", file, list));
        }
    }
}

fn block_io(io: &LinuxBlockIo, now: &Now, settings: &mut Vec<Setting>) {
    let (weight, device_weight) = if now.has_bfq {
        ("blkio.bfq.weight", "blkio.bfq.weight_device")
    } else {
        ("blkio.weight", "blkio.weight_device")
    };
    if let Some(value) = io.weight().filter(|&value| value != 0) {
        settings.push(setting("blkio", weight, value));
    }
    // BFQ has no weights for leaves, and CFQ, which had, is gone since Linux 5.0.
    if let Some(value) = io.leaf_weight().filter(|&v| v != 0 && !now.has_bfq) {
        settings.push(setting("blkio", "blkio.leaf_weight", value));
    }
    for device in io.weight_device().iter().flatten() {
        let (major, minor) = (device.major(), device.minor());
        if let Some(value) = device.weight().filter(|&value| value != 0) {
            let value = format!("{major}:{minor} {value}");
            settings.push(setting("blkio", device_weight, value));
        }
        if let Some(value) = device.leaf_weight().filter(|&v| v != 0 && !now.has_bfq) {
            let value = format!("{major}:{minor} {value}");
            settings.push(setting("blkio", "blkio.leaf_weight_device", value));
        }
    }
    let mut throttle = |file, devices: &Option<Vec<LinuxThrottleDevice>>| {
        for device in devices.iter().flatten() {
            let value = format!("{}:{} {}", device.major(), device.minor(), device.rate());
            settings.push(setting("blkio", file, value));
        }
    };
    throttle(
        "blkio.throttle.read_bps_device",
        io.throttle_read_bps_device(),
    );
    throttle(
        "blkio.throttle.write_bps_device",
        io.throttle_write_bps_device(),
    );
    throttle(
        "blkio.throttle.read_iops_device",
        io.throttle_read_iops_device(),
    );
    throttle(
        "blkio.throttle.write_iops_device",
        io.throttle_write_iops_device(),
    );
}

/// `devices.allow` and `devices.deny` take one rule for each write, and later ones win.
pub(super) fn device_rules(rules: &[LinuxDeviceCgroup]) -> Vec<Setting> {
    rules
        .iter()
        .map(|rule| {
            let file = if rule.allow() {
                "devices.allow"
            } else {
                "devices.deny"
            };
            let kind = rule.typ().unwrap_or_default();
            let number = |number: Option<i64>| match number {
                Some(number) if number >= 0 => number.to_string(),
                _ => "*".to_owned(),
            };
            let access = rule.access().as_deref().unwrap_or("rwm");
            let value = match kind.as_str() {
                "a" => "a".to_owned(),
                kind => format!(
                    "{kind} {}:{} {access}",
                    number(rule.major()),
                    number(rule.minor())
                ),
            };
            setting("devices", file, value)
        })
        .collect()
}

pub(super) fn freeze(directory: &Path, frozen: bool) -> io::Result<()> {
    let wanted = if frozen { "FROZEN" } else { "THAWED" };
    let file: PathBuf = directory.join("freezer.state");
    for _ in 0..FREEZE_TRIES {
        fs::write(&file, wanted)?;
        if fs::read_to_string(&file)?.trim() == wanted {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    if frozen {
        fs::write(&file, "THAWED")?;
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "unable to freeze"))
}
