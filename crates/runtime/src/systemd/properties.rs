//! What systemd is told of a container: the properties of its scope, as runc sets them.

use std::collections::HashMap;

use berth_sys::dbus::Value;
use oci_spec::runtime::{LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use super::unit::Unit;
use crate::cgroup::weight;
use crate::error::Error;
use crate::scheduling::set;

/// Name and value.
pub type Property = (&'static str, Value);

/// What stands for no limit.
const INFINITY: u64 = u64::MAX;
/// systemd divides a second's share of processor time into pieces of 10 ms.
const QUOTA_STEP_US: u64 = 10_000;
const SECOND_US: u64 = 1_000_000;
const DEFAULT_PERIOD_US: u64 = 100_000;
/// Annotations that are properties.
const ANNOTATION: &str = "org.systemd.property.";

/// Those of any container.
pub fn of_container(unit: &Unit, id: &str, is_v2: bool) -> Vec<Property> {
    let yes = || Value::Bool(true);
    vec![
        ("Description", format!("Container {id}").as_str().into()),
        ("Slice", unit.slice().into()),
        ("Delegate", yes()),
        ("MemoryAccounting", yes()),
        ("CPUAccounting", yes()),
        (
            if is_v2 {
                "IOAccounting"
            } else {
                "BlockIOAccounting"
            },
            yes(),
        ),
        ("TasksAccounting", yes()),
        ("DefaultDependencies", Value::Bool(false)),
        // One whose processes were killed for lack of memory has failed, and would stay.
        ("CollectMode", "inactive-or-failed".into()),
    ]
}

/// Those that limit.
pub fn of_limits(resources: &LinuxResources, is_v2: bool) -> Result<Vec<Property>, Error> {
    let mut all = Vec::new();
    memory(resources, is_v2, &mut all);
    if let Some(cpu) = resources.cpu() {
        processors(cpu, is_v2, &mut all)?;
    }
    let limit = resources.pids().as_ref().map(|pids| pids.limit());
    if let Some(limit) = limit.filter(|&limit| limit != 0) {
        all.push(("TasksMax", Value::Uint64(limited(limit))));
    }
    let weight = resources.block_io().as_ref().and_then(|io| io.weight());
    if let Some(weight) = weight.filter(|&weight| weight != 0 && !is_v2) {
        all.push(("BlockIOWeight", Value::Uint64(weight.into())));
    }
    if let Some(rules) = resources.devices().as_ref().filter(|_| !is_v2) {
        devices(rules, &mut all);
    }
    Ok(all)
}

fn limited(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(INFINITY)
}

fn memory(resources: &LinuxResources, is_v2: bool, all: &mut Vec<Property>) {
    let Some(memory) = resources.memory() else {
        return;
    };
    let given = |value: Option<i64>| value.filter(|&value| value != 0);
    let limit = given(memory.limit());
    if let Some(limit) = limit {
        let name = if is_v2 { "MemoryMax" } else { "MemoryLimit" };
        all.push((name, Value::Uint64(limited(limit))));
    }
    if !is_v2 {
        return;
    }
    if let Some(reservation) = given(memory.reservation()) {
        all.push(("MemoryLow", Value::Uint64(limited(reservation))));
    }
    // The specification's swap is memory and swap together.
    match (given(memory.swap()), limit) {
        // Unlimited memory is unlimited swap too.
        (None, Some(..0)) => all.push(("MemorySwapMax", Value::Uint64(INFINITY))),
        (Some(both), _) if both < 0 => all.push(("MemorySwapMax", Value::Uint64(INFINITY))),
        (Some(both), Some(limit)) if limit > 0 && both >= limit => {
            all.push(("MemorySwapMax", Value::Uint64(limited(both - limit))));
        }
        // Refused when the cgroup's files are written.
        _ => {}
    }
}

fn processors(cpu: &LinuxCpu, is_v2: bool, all: &mut Vec<Property>) -> Result<(), Error> {
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
        all.push(if is_v2 {
            ("CPUWeight", Value::Uint64(weight(shares)))
        } else {
            ("CPUShares", Value::Uint64(shares))
        });
    }
    let period = cpu.period().filter(|&period| period != 0);
    if let Some(period) = period {
        all.push(("CPUQuotaPeriodUSec", Value::Uint64(period)));
    }
    if let Some(quota) = cpu.quota().filter(|&quota| quota != 0) {
        all.push((
            "CPUQuotaPerSecUSec",
            Value::Uint64(per_second(quota, period)),
        ));
    }
    if !is_v2 {
        return Ok(());
    }
    for (name, list) in [
        ("AllowedCPUs", cpu.cpus()),
        ("AllowedMemoryNodes", cpu.mems()),
    ] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            let mask = mask(list).map_err(|e| e.prefixed(&format!("list {list:?}: ")))?;
            all.push((name, Value::bytes(&mask)));
        }
    }
    Ok(())
}

/// Rounded up, as systemd would round it down.
fn per_second(quota: i64, period: Option<u64>) -> u64 {
    let period = period.unwrap_or(DEFAULT_PERIOD_US);
    match u64::try_from(quota) {
        Ok(quota) => quota
            .saturating_mul(SECOND_US)
            .div_euclid(period)
            .checked_next_multiple_of(QUOTA_STEP_US)
            .unwrap_or(INFINITY),
        Err(_negative) => INFINITY,
    }
}

/// `0-2,5` as bits, the lowest first.
fn mask(list: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    for bit in set(list)? {
        let byte = bit as usize / 8;
        if bytes.len() <= byte {
            bytes.resize(byte + 1, 0);
        }
        bytes[byte] |= 1 << (bit % 8);
    }
    Ok(bytes)
}

/// Version 1 only: there systemd writes the device rules of a scope. On version 2 a program of
/// ours stands beside whatever it has.
fn devices(rules: &[LinuxDeviceCgroup], all: &mut Vec<Property>) {
    let mut allowed: Option<Vec<(String, String)>> = Some(Vec::new());
    for rule in rules {
        let kind = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::C | LinuxDeviceType::U => "char",
            LinuxDeviceType::B => "block",
            _ => {
                // All devices.
                allowed = (!rule.allow()).then(Vec::new);
                continue;
            }
        };
        let number = |number: Option<i64>| number.filter(|&number| number >= 0);
        let name = match (number(rule.major()), number(rule.minor())) {
            (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
            (Some(major), None) => match group(kind, major) {
                Some(group) => format!("{kind}-{group}"),
                // No driver has it, so nothing can be opened.
                None => continue,
            },
            _ => format!("{kind}-*"),
        };
        if let Some(allowed) = &mut allowed {
            allowed.retain(|(known, _)| *known != name);
            if rule.allow() {
                let access = rule.access().as_deref().unwrap_or("rwm");
                allowed.push((name, access.to_owned()));
            }
        }
    }
    let policy = if allowed.is_some() { "strict" } else { "auto" };
    let entry = |(name, access): (String, String)| {
        Value::Struct(vec![name.as_str().into(), access.as_str().into()])
    };
    let list = allowed.into_iter().flatten().map(entry).collect();
    all.push(("DevicePolicy", policy.into()));
    all.push(("DeviceAllow", Value::array("(ss)", list)));
}

/// The driver of a major number.
fn group(kind: &str, major: i64) -> Option<String> {
    let text = std::fs::read_to_string("/proc/devices").ok()?;
    group_in(&text, kind, major)
}

fn group_in(text: &str, kind: &str, major: i64) -> Option<String> {
    let (characters, blocks) = text.split_once("Block devices:")?;
    let section = if kind == "block" { blocks } else { characters };
    section.lines().find_map(|line| {
        let (number, name) = line.trim().split_once(' ')?;
        (number.parse() == Ok(major)).then(|| name.to_owned())
    })
}

/// `org.systemd.property.NAME: VALUE`, the value in GVariant's words: `true`, `'text'`,
/// `uint64 5`, `['a', 'b']`.
pub fn of_annotations(annotations: Option<&HashMap<String, String>>) -> Result<Vec<Value>, Error> {
    let mut all = Vec::new();
    for (key, text) in annotations.into_iter().flatten() {
        let Some(name) = key.strip_prefix(ANNOTATION) else {
            continue;
        };
        let plain = name.len() >= 3 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let value = variant(text).filter(|_| plain).ok_or_else(|| {
            Error::invalid(format!("annotation {key}={text} is no property of systemd"))
        })?;
        all.push(Value::Struct(vec![name.into(), value.variant()]));
    }
    Ok(all)
}

fn variant(text: &str) -> Option<Value> {
    let quoted = |text: &str| {
        let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
        (!inner.contains(['\'', '\\'])).then(|| Value::from(inner))
    };
    let text = text.trim();
    if let Some(items) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        let items = items.split(',').map(|item| quoted(item.trim()));
        return Some(Value::array("s", items.collect::<Option<_>>()?));
    }
    match text.split_once(' ') {
        None if text == "true" || text == "false" => Some(Value::Bool(text == "true")),
        Some(("uint64", number)) => number.trim().parse().ok().map(Value::Uint64),
        Some(("uint32", number)) => number.trim().parse().ok().map(Value::Uint32),
        _ => text.parse().map(Value::Int32).ok().or_else(|| quoted(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(resources: &str, is_v2: bool, expect: &[Property]) {
        let resources = serde_json::from_str(resources).unwrap();
        assert_eq!(of_limits(&resources, is_v2).unwrap(), expect);
    }

    #[test]
    fn limits_are_units_properties() {
        let limits = r#"{
            "memory": {"limit": 64, "swap": 96, "reservation": 32},
            "cpu": {"shares": 1024, "quota": 50001, "period": 100000, "cpus": "0-1,9"},
            "pids": {"limit": -1}
        }"#;
        check(
            limits,
            true,
            &[
                ("MemoryMax", Value::Uint64(64)),
                ("MemoryLow", Value::Uint64(32)),
                ("MemorySwapMax", Value::Uint64(32)),
                ("CPUWeight", Value::Uint64(100)),
                ("CPUQuotaPeriodUSec", Value::Uint64(100_000)),
                ("CPUQuotaPerSecUSec", Value::Uint64(510_000)),
                ("AllowedCPUs", Value::bytes(&[3, 2])),
                ("TasksMax", Value::Uint64(INFINITY)),
            ],
        );
        check(
            limits,
            false,
            &[
                ("MemoryLimit", Value::Uint64(64)),
                ("CPUShares", Value::Uint64(1024)),
                ("CPUQuotaPeriodUSec", Value::Uint64(100_000)),
                ("CPUQuotaPerSecUSec", Value::Uint64(510_000)),
                ("TasksMax", Value::Uint64(INFINITY)),
            ],
        );
    }

    #[test]
    fn no_limit_of_memory_is_none_of_swap() {
        let none = |name| (name, Value::Uint64(INFINITY));
        let limits = r#"{"memory": {"limit": -1}}"#;
        check(limits, true, &[none("MemoryMax"), none("MemorySwapMax")]);
        check(limits, false, &[none("MemoryLimit")]);
    }

    #[test]
    fn version_1_gets_the_device_rules() {
        let rules = r#"{"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "access": "m"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            {"allow": true, "type": "b", "major": 7, "minor": 0, "access": "r"},
            {"allow": false, "type": "b", "major": 7, "minor": 0, "access": "r"}
        ]}"#;
        let entry = |name: &str, access: &str| Value::Struct(vec![name.into(), access.into()]);
        let list = vec![entry("char-*", "m"), entry("/dev/char/1:3", "rwm")];
        check(
            rules,
            false,
            &[
                ("DevicePolicy", "strict".into()),
                ("DeviceAllow", Value::array("(ss)", list)),
            ],
        );
        check(rules, true, &[]);
        let table =
            "Character devices:\n  5 /dev/tty\n136 pts\n\nBlock devices:\n  5 odd\n  8 sd\n";
        assert_eq!(group_in(table, "char", 136).as_deref(), Some("pts"));
        assert_eq!(group_in(table, "block", 5).as_deref(), Some("odd"));
        assert_eq!(group_in(table, "char", 8), None);
    }

    #[test]
    fn annotations_are_properties() {
        for (text, value) in [
            ("true", Some(Value::Bool(true))),
            ("uint64 90", Some(Value::Uint64(90))),
            ("37", Some(Value::Int32(37))),
            ("'inactive'", Some("inactive".into())),
            (
                "['a', 'b']",
                Some(Value::array("s", vec!["a".into(), "b".into()])),
            ),
            ("bare", None),
            ("uint64 x", None),
        ] {
            assert_eq!(variant(text), value, "{text}");
        }
    }

    #[test]
    fn malformed_lists_are_refused() {
        for list in ["", "a", "3-1", "99999999"] {
            assert!(mask(list).is_err(), "{list}");
        }
    }
}
