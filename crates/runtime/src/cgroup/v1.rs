//! Version 1: one hierarchy for each controller (kernel documentation, admin-guide/cgroup-v1).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxBlockIo, LinuxDeviceCgroup, LinuxResources, LinuxThrottleDevice};

use super::{Hierarchy, Setting};

/// How long freezing may take.
const FREEZE_TRIES: u32 = 1000;

fn setting(controller: &'static str, file: &str, value: impl ToString) -> Setting {
    Setting {
        controller,
        file: file.to_owned(),
        value: value.to_string(),
        optional: false,
    }
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
pub(super) fn plan(resources: &LinuxResources) -> Vec<Setting> {
    let mut settings = Vec::new();
    memory(resources, &mut settings);
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
        block_io(io, &mut settings);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let file = format!("hugetlb.{}.limit_in_bytes", limit.page_size());
        settings.push(setting("hugetlb", &file, limit.limit()));
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
    settings
}

fn memory(resources: &LinuxResources, settings: &mut Vec<Setting>) {
    let Some(memory) = resources.memory() else {
        return;
    };
    let mut add = |file, value: Option<i64>| {
        if let Some(value) = value.filter(|&value| value != 0) {
            settings.push(setting("memory", file, value));
        }
    };
    // An unlimited memory with swap is written first: the sum must never be below the part.
    if memory.swap() == Some(-1) {
        add("memory.memsw.limit_in_bytes", memory.swap());
        add("memory.limit_in_bytes", memory.limit());
    } else {
        add("memory.limit_in_bytes", memory.limit());
        add("memory.memsw.limit_in_bytes", memory.swap());
    }
    add("memory.soft_limit_in_bytes", memory.reservation());
    if let Some(swappiness) = memory.swappiness().filter(|&value| value <= 100) {
        settings.push(setting("memory", "memory.swappiness", swappiness));
    }
    if memory.disable_oom_killer() == Some(true) {
        settings.push(setting("memory", "memory.oom_control", 1));
    }
    // A kernel without swap accounting has no such file; Docker warns, and goes on.
    for setting in settings
        .iter_mut()
        .filter(|s| s.file == "memory.memsw.limit_in_bytes")
    {
        setting.optional = true;
    }
}

fn cpu(resources: &LinuxResources, settings: &mut Vec<Setting>) {
    let Some(cpu) = resources.cpu() else { return };
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
        settings.push(setting("cpu", "cpu.shares", shares));
    }
    if let Some(period) = cpu.period().filter(|&period| period != 0) {
        settings.push(setting("cpu", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = cpu.quota().filter(|&quota| quota != 0) {
        settings.push(setting("cpu", "cpu.cfs_quota_us", quota));
    }
    if let Some(burst) = cpu.burst() {
        settings.push(setting("cpu", "cpu.cfs_burst_us", burst));
    }
    if let Some(period) = cpu.realtime_period().filter(|&period| period != 0) {
        settings.push(setting("cpu", "cpu.rt_period_us", period));
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|&runtime| runtime != 0) {
        settings.push(setting("cpu", "cpu.rt_runtime_us", runtime));
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

fn block_io(io: &LinuxBlockIo, settings: &mut Vec<Setting>) {
    if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
        let mut weight = setting("blkio", "blkio.weight", weight);
        // Named so with BFQ; whichever of the two is there.
        weight.optional = true;
        settings.push(Setting {
            file: "blkio.bfq.weight".into(),
            ..weight.clone()
        });
        settings.push(weight);
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
