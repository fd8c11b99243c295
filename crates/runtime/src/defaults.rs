//! What every container gets unless it asks for something else. The lists are policy, so they
//! are data, each with the reason for its entries; their effect is that of Docker's defaults
//! (moby `oci/defaults.go`, `oci/caps/defaults.go`).

use std::path::PathBuf;

use oci_spec::runtime::{Capability, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Mount};

/// What root inside a container may do: enough for packages and servers, nothing that reaches
/// the host.
pub const CAPABILITIES: &[Capability] = &[
    // Package managers and daemons that change owners and modes.
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Setfcap,
    Capability::Mknod,
    // Servers that start as root and drop to a user.
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::Kill,
    // ping, ports below 1024.
    Capability::NetRaw,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::AuditWrite,
];

/// Files of /proc and /sys that tell about the host or its hardware.
const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Files of /proc whose writing would change the host.
const READONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The file systems of every container: destination, type, source, options.
const MOUNTS: &[(&str, &str, &str, &[&str])] = &[
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    (
        "/dev",
        "tmpfs",
        "tmpfs",
        &["nosuid", "strictatime", "mode=755", "size=65536k"],
    ),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        &[
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
        ],
    ),
    (
        "/sys",
        "sysfs",
        "sysfs",
        &["nosuid", "noexec", "nodev", "ro"],
    ),
    (
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["ro", "nosuid", "noexec", "nodev"],
    ),
    (
        "/dev/mqueue",
        "mqueue",
        "mqueue",
        &["nosuid", "noexec", "nodev"],
    ),
    (
        "/dev/shm",
        "tmpfs",
        "shm",
        &["nosuid", "noexec", "nodev", "mode=1777"],
    ),
];

/// The character devices of every container: path, major, minor.
const DEVICES: &[(&str, i64, i64)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// What the devices cgroup allows beside the nodes that exist: making any node (using it is
/// another matter), the terminals, and the devices above. `None` is any number.
const DEVICE_RULES: &[(LinuxDeviceType, Option<i64>, Option<i64>, &str)] = &[
    (LinuxDeviceType::C, None, None, "m"),
    (LinuxDeviceType::B, None, None, "m"),
    (LinuxDeviceType::C, Some(1), Some(3), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(5), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(7), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(8), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(9), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(0), "rwm"),
    // /dev/console, /dev/ptmx and the pseudo-terminals behind it.
    (LinuxDeviceType::C, Some(5), Some(1), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(2), "rwm"),
    (LinuxDeviceType::C, Some(136), None, "rwm"),
];

pub fn masked_paths() -> Vec<String> {
    MASKED_PATHS.iter().map(|&path| path.to_owned()).collect()
}

pub fn readonly_paths() -> Vec<String> {
    READONLY_PATHS.iter().map(|&path| path.to_owned()).collect()
}

pub fn mounts() -> Vec<Mount> {
    MOUNTS
        .iter()
        .map(|&(destination, kind, source, options)| {
            let mut mount = Mount::default();
            mount.set_destination(PathBuf::from(destination));
            mount.set_typ(Some(kind.to_owned()));
            mount.set_source(Some(PathBuf::from(source)));
            mount.set_options(Some(
                options.iter().map(|&option| option.to_owned()).collect(),
            ));
            mount
        })
        .collect()
}

pub fn devices() -> Vec<LinuxDevice> {
    DEVICES
        .iter()
        .map(|&(path, major, minor)| {
            let mut device = LinuxDevice::default();
            device.set_path(PathBuf::from(path));
            device.set_typ(LinuxDeviceType::C);
            device.set_major(major);
            device.set_minor(minor);
            device.set_file_mode(Some(0o666));
            device.set_uid(Some(0));
            device.set_gid(Some(0));
            device
        })
        .collect()
}

/// In order: everything is denied first.
pub fn device_rules() -> Vec<LinuxDeviceCgroup> {
    let mut deny = LinuxDeviceCgroup::default();
    deny.set_allow(false);
    deny.set_access(Some("rwm".to_owned()));
    let mut rules = vec![deny];
    rules.extend(DEVICE_RULES.iter().map(|&(kind, major, minor, access)| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true);
        rule.set_typ(Some(kind));
        rule.set_major(major);
        rule.set_minor(minor);
        rule.set_access(Some(access.to_owned()));
        rule
    }));
    rules
}
