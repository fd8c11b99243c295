//! Version 2: one tree with all controllers (kernel documentation, admin-guide/cgroup-v2).

use std::fs;
use std::io;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice};

use super::{Setting, flat_key};
use crate::error::Error;

/// Controllers that containers use, where the kernel offers them.
const CONTROLLERS: [&str; 7] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"];
const FREEZE_TRIES: u32 = 1000;

/// Makes the directories, and passes the controllers on to each level that has children.
pub(super) fn make(mount: &Path, path: &Path) -> io::Result<()> {
    match fs::create_dir(mount.join(path)) {
        // The parent was made by us, controllers and all.
        Ok(()) if mount.join(path).join("pids.max").exists() => return Ok(()),
        _ => {}
    }
    let mut directory = mount.to_owned();
    for name in path {
        enable(&directory)?;
        directory.push(name);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Each on its own, since one that cannot be had would spoil the others. What is missing in the
/// end shows when a limit is written.
fn enable(directory: &Path) -> io::Result<()> {
    let offered = fs::read_to_string(directory.join("cgroup.controllers"))?;
    let enabled = fs::read_to_string(directory.join("cgroup.subtree_control"))?;
    let has = |list: &str, name| list.split_whitespace().any(|word| word == name);
    for controller in CONTROLLERS {
        if has(&offered, controller) && !has(&enabled, controller) {
            let _ = fs::write(
                directory.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
    }
    Ok(())
}

fn setting(file: &str, value: impl ToString) -> Setting {
    Setting {
        controller: "",
        file: file.to_owned(),
        value: value.to_string(),
        optional: false,
    }
}

/// What is written for these limits, in order.
pub(super) fn plan(resources: &LinuxResources) -> Result<Vec<Setting>, Error> {
    let mut settings = Vec::new();
    memory(resources, &mut settings)?;
    cpu(resources, &mut settings);
    if let Some(pids) = resources.pids().as_ref().filter(|pids| pids.limit() != 0) {
        settings.push(setting("pids.max", max_or(pids.limit())));
    }
    if let Some(io) = resources.block_io() {
        block_io(io, &mut settings);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        settings.push(setting(
            &format!("hugetlb.{}.max", limit.page_size()),
            limit.limit(),
        ));
    }
    for (file, value) in resources.unified().iter().flatten() {
        if file.contains('/') {
            return Err(Error::invalid(format!(
                "unified resource {file:?} must be a file name (no slashes)"
            )));
        }
        settings.push(setting(file, value));
    }
    Ok(settings)
}

fn max_or(value: i64) -> String {
    if value > 0 {
        value.to_string()
    } else {
        "max".to_owned()
    }
}

fn memory(resources: &LinuxResources, settings: &mut Vec<Setting>) -> Result<(), Error> {
    let Some(memory) = resources.memory() else {
        return Ok(());
    };
    let limit = memory.limit().filter(|&limit| limit != 0);
    // The specification's swap is memory and swap together, this file's is swap alone.
    if let Some(both) = memory.swap().filter(|&both| both != 0) {
        let swap = match limit {
            _ if both < 0 => "max".to_owned(),
            Some(limit) if limit > 0 && both >= limit => (both - limit).to_string(),
            _ => {
                return Err(Error::invalid(
                    "unable to set swap limit without memory limit",
                ));
            }
        };
        let mut swap = setting("memory.swap.max", swap);
        // A kernel without swap accounting has no such file.
        swap.optional = true;
        settings.push(swap);
    }
    if let Some(limit) = limit {
        settings.push(setting("memory.max", max_or(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|&reservation| reservation != 0) {
        settings.push(setting("memory.low", max_or(reservation)));
    }
    Ok(())
}

fn cpu(resources: &LinuxResources, settings: &mut Vec<Setting>) {
    let Some(cpu) = resources.cpu() else { return };
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
        settings.push(setting("cpu.weight", weight(shares)));
    }
    if let Some(idle) = cpu.idle() {
        settings.push(setting("cpu.idle", idle));
    }
    let quota = cpu.quota().filter(|&quota| quota != 0);
    let period = cpu.period().filter(|&period| period != 0);
    if quota.is_some() || period.is_some() {
        let quota = max_or(quota.unwrap_or(-1));
        settings.push(setting(
            "cpu.max",
            format!("{quota} {}", period.unwrap_or(100_000)),
        ));
    }
    if let Some(burst) = cpu.burst() {
        settings.push(setting("cpu.max.burst", burst));
    }
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            settings.push(setting(file, list));
        }
    }
}

/// From version 1's 2..262144 to 1..10000, as runc and systemd do.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn block_io(io: &LinuxBlockIo, settings: &mut Vec<Setting>) {
    if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
        // 10..1000 to 1..10000; BFQ's own file takes it as it is.
        let spread = 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990;
        for (file, value) in [("io.bfq.weight", u64::from(weight)), ("io.weight", spread)] {
            let mut weight = setting(file, value);
            weight.optional = true;
            settings.push(weight);
        }
    }
    let mut limit = |key: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        for device in devices.iter().flatten() {
            let value = format!(
                "{}:{} {key}={}",
                device.major(),
                device.minor(),
                device.rate()
            );
            settings.push(setting("io.max", value));
        }
    };
    limit("rbps", io.throttle_read_bps_device());
    limit("wbps", io.throttle_write_bps_device());
    limit("riops", io.throttle_read_iops_device());
    limit("wiops", io.throttle_write_iops_device());
}

pub(super) fn freeze(directory: &Path, frozen: bool) -> io::Result<()> {
    let wanted = u64::from(frozen);
    fs::write(directory.join("cgroup.freeze"), wanted.to_string())?;
    for _ in 0..FREEZE_TRIES {
        let events = fs::read_to_string(directory.join("cgroup.events"))?;
        if flat_key(&events, "frozen") == Some(wanted) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    if frozen {
        fs::write(directory.join("cgroup.freeze"), "0")?;
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "unable to freeze"))
}
