//! Devices: nodes to make in the container and the rules of its cgroup.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use berth_docker::container::{DeviceMapping, HostConfig};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::invalid;
use crate::error::{Error, Result};

/// A device of the host as the container sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub path: PathBuf,
    pub block: bool,
    pub major: i64,
    pub minor: i64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of `rwm`.
    pub access: String,
}

/// Looks up what `--device` names; a directory gives all devices below it. For a privileged
/// container: every device of the host.
pub fn gather(host: &HostConfig) -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    if host.privileged {
        collect(Path::new("/dev"), Path::new("/dev"), "rwm", &mut devices);
        devices.retain(|device| !is_private(&device.path));
    }
    for mapping in host.devices.iter().flatten() {
        gather_one(mapping, &mut devices)?;
    }
    Ok(devices)
}

fn gather_one(mapping: &DeviceMapping, devices: &mut Vec<Device>) -> Result<()> {
    let source = Path::new(&mapping.path_on_host);
    let target = match mapping.path_in_container.as_str() {
        "" => source,
        path => Path::new(path),
    };
    let access = match mapping.cgroup_permissions.as_str() {
        "" => "rwm",
        access => access,
    };
    let failed = |cause: &str| {
        Error::internal(format!(
            "error gathering device information while adding custom device {:?}: {cause}",
            mapping.path_on_host
        ))
    };
    let meta = std::fs::metadata(source).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed("no such file or directory"),
        _ => failed(&error.to_string()),
    })?;
    if meta.is_dir() {
        let before = devices.len();
        collect(source, target, access, devices);
        return if devices.len() > before {
            Ok(())
        } else {
            Err(failed("not a device node"))
        };
    }
    let device = from_metadata(target, &meta, access).ok_or_else(|| failed("not a device node"))?;
    devices.retain(|other| other.path != device.path);
    devices.push(device);
    Ok(())
}

fn from_metadata(path: &Path, meta: &std::fs::Metadata, access: &str) -> Option<Device> {
    let kind = meta.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return None;
    }
    Some(Device {
        path: path.to_owned(),
        block: kind.is_block_device(),
        major: i64::from(rustix::fs::major(meta.rdev())),
        minor: i64::from(rustix::fs::minor(meta.rdev())),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        access: access.to_owned(),
    })
}

fn collect(source: &Path, target: &Path, access: &str, devices: &mut Vec<Device>) {
    let Ok(entries) = std::fs::read_dir(source) else {
        return;
    };
    for entry in entries.flatten() {
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            collect(&from, &to, access, devices);
        } else if let Some(device) = from_metadata(&to, &meta, access) {
            devices.push(device);
        }
    }
}

/// What every container has of its own.
fn is_private(path: &Path) -> bool {
    [
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/dev/.lxc",
        "/dev/fd",
    ]
    .iter()
    .any(|own| path.starts_with(own))
        || path == Path::new("/dev/console")
}

/// The kernel's number of a device by its path.
pub fn number(path: &str) -> std::io::Result<(i64, i64)> {
    let device = std::fs::metadata(path)?.rdev();
    Ok((
        i64::from(rustix::fs::major(device)),
        i64::from(rustix::fs::minor(device)),
    ))
}

/// The nodes to make, beside those that every container has.
pub fn nodes(devices: &[Device]) -> Vec<LinuxDevice> {
    let mut nodes = berth_runtime::defaults::devices();
    nodes.retain(|node| !devices.iter().any(|device| device.path == *node.path()));
    nodes.extend(devices.iter().map(|device| {
        let mut node = LinuxDevice::default();
        node.set_path(device.path.clone());
        node.set_typ(kind(device));
        node.set_major(device.major);
        node.set_minor(device.minor);
        node.set_file_mode(Some(device.mode));
        node.set_uid(Some(device.uid));
        node.set_gid(Some(device.gid));
        node
    }));
    nodes
}

/// The rules of the devices cgroup, in order: the defaults, the devices, `--device-cgroup-rule`.
pub fn rules(host: &HostConfig, devices: &[Device]) -> Vec<LinuxDeviceCgroup> {
    if host.privileged {
        return vec![rule(LinuxDeviceType::A, None, None, "rwm")];
    }
    let mut rules = berth_runtime::defaults::device_rules();
    rules.extend(devices.iter().map(|device| {
        rule(
            kind(device),
            Some(device.major),
            Some(device.minor),
            &device.access,
        )
    }));
    rules.extend(
        host.device_cgroup_rules
            .iter()
            .flatten()
            .filter_map(|text| parse_rule(text).ok()),
    );
    rules
}

fn kind(device: &Device) -> LinuxDeviceType {
    if device.block {
        LinuxDeviceType::B
    } else {
        LinuxDeviceType::C
    }
}

fn rule(
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true);
    rule.set_typ(Some(kind));
    rule.set_major(major);
    rule.set_minor(minor);
    rule.set_access(Some(access.to_owned()));
    rule
}

/// `c 10:200 rwm`; `*` for any number.
pub fn parse_rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let bad = || invalid(format!("invalid device cgroup rule format: '{text}'"));
    let fields: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = fields.as_slice() else {
        return Err(bad());
    };
    let kind = match *kind {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(bad()),
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits
            .parse::<u32>()
            .map(|number| Some(i64::from(number)))
            .map_err(|_| bad()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    if access.is_empty() || access.len() > 3 || !access.bytes().all(|byte| b"rwm".contains(&byte)) {
        return Err(bad());
    }
    Ok(rule(kind, number(major)?, number(minor)?, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_rules_parse_or_are_refused() {
        let rule = parse_rule("c 10:* rw").unwrap();
        assert_eq!((rule.major(), rule.minor()), (Some(10), None));
        for bad in ["", "c 1:2", "d 1:2 r", "c 1 r", "c 1:2 x", "c -1:2 r"] {
            assert!(parse_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_that_is_none_is_refused_by_name() {
        let check = |path: &str| {
            let mapping = DeviceMapping {
                path_on_host: path.into(),
                ..DeviceMapping::default()
            };
            gather(&HostConfig {
                devices: Some(vec![mapping]),
                ..HostConfig::default()
            })
        };
        assert!(
            check("/dev/berth-none")
                .unwrap_err()
                .message
                .contains("no such file or directory")
        );
        assert!(
            check("/etc/passwd")
                .unwrap_err()
                .message
                .contains("not a device node")
        );
        assert_eq!(check("/dev/null").unwrap()[0].minor, 3);
    }
}
