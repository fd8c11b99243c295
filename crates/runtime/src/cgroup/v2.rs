//! Version 2: one tree with all controllers (kernel documentation, admin-guide/cgroup-v2).

use std::fs;
use std::io;
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::flat_key;
use super::setting::{Files, Now, Setting, rdma};
use crate::error::Error;

/// Controllers that containers use, where the kernel offers them.
const CONTROLLERS: [&str; 7] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"];
/// What [`plan`] depends on.
pub(super) const FILES: Files = Files {
    memory_limit: "memory.max",
    memory_usage: "memory.current",
    bfq_weight: "io.bfq.weight",
};
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
    Setting::new("", file, value)
}

/// What is written for these limits, in order. What version 2 does not have (swappiness, real
/// time, leaf weights, network classes, no out-of-memory killer) is in [`lacking`].
pub(super) fn plan(resources: &LinuxResources, now: &Now) -> Result<Vec<Setting>, Error> {
    let mut settings = Vec::new();
    if let Some(limits) = resources.memory() {
        memory(limits, now, &mut settings)?;
    }
    cpu(resources, &mut settings);
    if let Some(pids) = resources.pids().as_ref().filter(|pids| pids.limit() != 0) {
        settings.push(setting("pids.max", max_or(pids.limit())));
    }
    if let Some(io) = resources.block_io() {
        block_io(io, now, &mut settings);
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let (size, limit) = (limit.page_size(), max_or(limit.limit()));
        settings.push(setting(&format!("hugetlb.{size}.max"), &limit));
        // What is reserved and not faulted in yet is counted since Linux 5.7.
        settings.push(setting(&format!("hugetlb.{size}.rsvd.max"), limit).optional());
    }
    for value in rdma(resources) {
        settings.push(setting("rdma.max", value));
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        if file.contains('/') {
            return Err(Error::invalid(format!(
                "unified resource {file:?} must be a file name (no slashes)"
            )));
        }
        if !file.contains('.') {
            return Err(Error::invalid(format!(
                "unified resource {file:?} must be in the form CONTROLLER.PARAMETER"
            )));
        }
        // Files as io.max take one line for each write.
        let lines = value.split_terminator('\n');
        settings.extend(lines.map(|line| setting(file, line)));
        if value.is_empty() {
            settings.push(setting(file, ""));
        }
    }
    Ok(settings)
}

/// What was asked for and version 2 cannot do, in words for a warning; runc leaves it out too.
pub(super) fn lacking(resources: &LinuxResources) -> Vec<&'static str> {
    let memory = resources.memory().as_ref();
    let cpu = resources.cpu().as_ref();
    let io = resources.block_io().as_ref();
    let network = resources.network().as_ref();
    let set = |value: Option<i64>| value.is_some_and(|value| value != 0);
    [
        (
            "memory swappiness",
            memory.is_some_and(|m| m.swappiness().is_some_and(|s| s != u64::MAX)),
        ),
        (
            "disabling the out-of-memory killer",
            memory.is_some_and(|m| m.disable_oom_killer() == Some(true)),
        ),
        (
            "a limit of TCP buffers",
            memory.is_some_and(|m| set(m.kernel_tcp())),
        ),
        (
            "real-time CPU time",
            cpu.is_some_and(|c| set(c.realtime_runtime()) || c.realtime_period().unwrap_or(0) != 0),
        ),
        (
            "I/O weights of leaves",
            io.is_some_and(|io| {
                io.leaf_weight().unwrap_or(0) != 0
                    || (io.weight_device().iter().flatten())
                        .any(|device| device.leaf_weight().unwrap_or(0) != 0)
            }),
        ),
        (
            "network classes and priorities",
            network.is_some_and(|n| n.class_id().is_some() || n.priorities().is_some()),
        ),
    ]
    .into_iter()
    .filter_map(|(what, asked)| asked.then_some(what))
    .collect()
}

fn max_or(value: i64) -> String {
    if value > 0 {
        value.to_string()
    } else {
        "max".to_owned()
    }
}

fn memory(memory: &LinuxMemory, now: &Now, settings: &mut Vec<Setting>) -> Result<(), Error> {
    now.check_memory(memory)?;
    let limit = memory.limit().filter(|&limit| limit != 0);
    if let Some(swap) = swap(limit, memory.swap().filter(|&both| both != 0))? {
        // Without swap accounting there is no file, and no swap to keep the container from.
        let harmless = matches!(swap.as_str(), "max" | "0");
        let swap = setting("memory.swap.max", swap);
        settings.push(if harmless { swap.optional() } else { swap });
    }
    if let Some(limit) = limit {
        settings.push(setting("memory.max", max_or(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|&reservation| reservation != 0) {
        settings.push(setting("memory.low", max_or(reservation)));
    }
    Ok(())
}

/// The specification's swap is memory and swap together, version 2's is swap alone.
fn swap(limit: Option<i64>, both: Option<i64>) -> Result<Option<String>, Error> {
    match (limit, both) {
        // As in version 1, unlimited memory is unlimited swap too.
        (Some(-1), None) => Ok(Some("max".to_owned())),
        (_, None) => Ok(None),
        (_, Some(both)) if both < 0 => Ok(Some("max".to_owned())),
        (None | Some(..=-1), Some(_)) => Err(Error::invalid(
            "unable to set swap limit without memory limit",
        )),
        (Some(limit), Some(both)) if both < limit => Err(Error::invalid(
            "memory+swap limit should be >= memory limit",
        )),
        (Some(limit), Some(both)) => Ok(Some((both - limit).to_string())),
    }
}

fn cpu(resources: &LinuxResources, settings: &mut Vec<Setting>) {
    let Some(cpu) = resources.cpu() else { return };
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
        settings.push(setting("cpu.weight", weight(shares)));
    }
    if let Some(idle) = cpu.idle() {
        settings.push(setting("cpu.idle", idle));
    }
    // A burst above the old quota is refused until the new one is there; Linux before 5.14 has
    // no such file.
    if let Some(burst) = cpu.burst() {
        settings.push(setting("cpu.max.burst", burst).optional().again());
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
    for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            settings.push(setting(file, list));
        }
    }
}

/// From version 1's shares (2, 1024 by default, 262144) to weights (1, 100, 10000): the power of
/// ten whose exponent is the quadratic function of the shares' binary logarithm through these
/// three points, as in runc 1.3.2 and crun 1.23. (The straight line of before gave the default
/// of one version less than half of the default of the other.)
pub(crate) fn weight(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        _ => {
            #[expect(clippy::cast_precision_loss, reason = "less than 2^18")]
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 1 and 10000"
            )]
            let weight = 10f64.powf(exponent).ceil() as u64;
            weight
        }
    }
}

fn block_io(io: &LinuxBlockIo, now: &Now, settings: &mut Vec<Setting>) {
    // BFQ takes 1..1000 as it is; io.weight's 1..10000 is spread over 10..1000.
    if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
        settings.push(if now.has_bfq {
            setting("io.bfq.weight", weight)
        } else {
            setting("io.weight", io_weight(weight))
        });
    }
    for device in io.weight_device().iter().flatten() {
        let (major, minor) = (device.major(), device.minor());
        let Some(weight) = device.weight().filter(|&weight| weight != 0) else {
            continue;
        };
        settings.push(if now.has_bfq {
            setting("io.bfq.weight", format!("{major}:{minor} {weight}"))
        } else {
            let value = format!("{major}:{minor} {}", io_weight(weight));
            setting("io.weight", value)
        });
    }
    let mut limit = |key: &str, devices: &Option<Vec<LinuxThrottleDevice>>| {
        for device in devices.iter().flatten() {
            // 0 lifts a limit, which version 2 writes as a word.
            let rate = match device.rate() {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            settings.push(setting("io.max", value));
        }
    };
    limit("rbps", io.throttle_read_bps_device());
    limit("wbps", io.throttle_write_bps_device());
    limit("riops", io.throttle_read_iops_device());
    limit("wiops", io.throttle_write_iops_device());
}

fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

/// Gives a cgroup to a user, who may then move processes about in it and make cgroups below it
/// (kernel documentation, "Delegation"). `files` is the kernel's list of what goes with that.
pub(super) fn delegate(directory: &Path, uid: u32, files: &str) -> io::Result<()> {
    std::os::unix::fs::chown(directory, Some(uid), None)?;
    for file in files.lines() {
        match std::os::unix::fs::chown(directory.join(file), Some(uid), None) {
            // A controller that the cgroup does not have.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
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
