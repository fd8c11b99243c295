//! The options of the drivers, read from their labels (moby,
//! `libnetwork/drivers/bridge/{labels,bridge_linux}.go`,
//! `libnetwork/drivers/{macvlan,ipvlan}/…_network.go`).

use std::collections::BTreeMap;

use berth_net::{Bridge, Child, ChildKind, GatewayMode, IpvlanFlag, IpvlanMode, MacvlanMode};

use crate::error::{Error, Result};

const NAME: &str = "com.docker.network.bridge.name";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const GATEWAY_MODE_V4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE_V6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const INHIBIT_V4: &str = "com.docker.network.bridge.inhibit_ipv4";
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
/// Marks Docker's own bridge; here the default bridge is none that is made.
const DEFAULT_BRIDGE: &str = "com.docker.network.bridge.default_bridge";
const SOURCE_V4: &str = "com.docker.network.host_ipv4";
const SOURCE_V6: &str = "com.docker.network.host_ipv6";
const MTU: &str = "com.docker.network.driver.mtu";
pub const ENABLE_V4: &str = "com.docker.network.enable_ipv4";
pub const ENABLE_V6: &str = "com.docker.network.enable_ipv6";
/// What interfaces in containers are called, before their number.
pub const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";

const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";

type Labels = BTreeMap<String, String>;

/// What a bridge is told, and its MTU; labels that the driver does not know are left alone, as
/// Docker does.
pub fn bridge(id: &str, labels: &Labels, internal: bool) -> Result<(Bridge, Option<u32>)> {
    let mut bridge = Bridge::of(id);
    let modes = &mut bridge.gateway_modes;
    let mut size = None;
    for (label, value) in labels {
        let failed =
            |why: String| Error::invalid(format!("failed to parse {label} value: {value} ({why})"));
        let nil = || failed("nil ip".to_owned());
        match label.as_str() {
            NAME if !value.is_empty() => bridge.name.clone_from(value),
            MTU => size = mtu(value).map_err(failed)?,
            ICC => bridge.icc = truth(value).map_err(failed)?,
            MASQUERADE => bridge.masquerade = truth(value).map_err(failed)?,
            GATEWAY_MODE_V4 => modes.v4 = gateway_mode(value).map_err(failed)?,
            GATEWAY_MODE_V6 => modes.v6 = gateway_mode(value).map_err(failed)?,
            HOST_BINDING => bridge.host_ip = Some(value.parse().map_err(|_| nil())?),
            INHIBIT_V4 => bridge.inhibit_ipv4 = truth(value).map_err(failed)?,
            DEFAULT_BRIDGE => drop(truth(value).map_err(failed)?),
            TRUSTED => {
                let names = value.split(':').filter(|name| !name.is_empty());
                bridge.trusted_interfaces = names.map(str::to_owned).collect();
            }
            SOURCE_V4 => bridge.source_v4 = Some(value.parse().map_err(|_| nil())?),
            SOURCE_V6 => bridge.source_v6 = Some(value.parse().map_err(|_| nil())?),
            _ => {}
        }
    }
    let given = labels.get(MTU).filter(|text| text.starts_with('-'));
    if let Some(given) = given.filter(|_| size.is_none()) {
        return Err(Error::invalid(format!("invalid MTU number: {given}")));
    }
    let isolated = [modes.v4, modes.v6].contains(&GatewayMode::Isolated);
    if isolated && !internal {
        return Err(Error::internal(
            "gateway mode 'isolated' can only be used for an internal network",
        ));
    }
    Ok((bridge, size))
}

/// What a network of the driver `macvlan` or `ipvlan` is told, and its MTU, which Docker takes from
/// the parent always. Without a parent its interfaces are on one that leads nowhere.
pub fn child(driver: &str, id: &str, labels: &Labels) -> Result<(Child, Option<u32>)> {
    let refused = |what: &str, value: &str, default: &str| {
        Error::internal(format!(
            "requested {driver} {what} '{value}' is not valid, {default} is the {driver} driver \
             default"
        ))
    };
    let given = |label: &str| labels.get(label).map_or("", String::as_str);
    let kind = if driver == "macvlan" {
        ChildKind::Macvlan(match given(MACVLAN_MODE) {
            "" | "bridge" => MacvlanMode::Bridge,
            "private" => MacvlanMode::Private,
            "passthru" => MacvlanMode::Passthru,
            "vepa" => MacvlanMode::Vepa,
            other => return Err(refused("mode", other, "'bridge' mode")),
        })
    } else {
        let mode = match given(IPVLAN_MODE) {
            "" | "l2" => IpvlanMode::L2,
            "l3" => IpvlanMode::L3,
            "l3s" => IpvlanMode::L3s,
            other => return Err(refused("mode", other, "'l2' mode")),
        };
        let flag = match given(IPVLAN_FLAG) {
            "" | "bridge" => IpvlanFlag::Bridge,
            "private" => IpvlanFlag::Private,
            "vepa" => IpvlanFlag::Vepa,
            other => return Err(refused("flag", other, "'bridge'")),
        };
        ChildKind::Ipvlan(mode, flag)
    };
    let child = match given(PARENT) {
        "" => Child::without_parent(id, kind),
        "lo" => {
            return Err(Error::internal(format!(
                "loopback interface is not a valid {driver} parent link"
            )));
        }
        parent => Child {
            parent: parent.to_owned(),
            kind,
        },
    };
    let size = mtu(labels.get(MTU).map_or("0", String::as_str));
    Ok((child, size.unwrap_or_default()))
}

/// Whether a network of these labels is on a link of the host's, if its driver needs one.
pub fn has_parent(labels: &Labels) -> bool {
    labels.get(PARENT).is_some_and(|parent| !parent.is_empty())
}

/// Whether IPv4 or IPv6 is on: what the request says itself goes before its label.
pub fn enabled(given: Option<bool>, labels: &BTreeMap<String, String>, ipv6: bool) -> Result<bool> {
    let label = if ipv6 { ENABLE_V6 } else { ENABLE_V4 };
    match (given, labels.get(label)) {
        (Some(given), _) => Ok(given),
        (None, Some(text)) => truth(text)
            .map_err(|_| Error::invalid(format!("driver-opt {label:?} is not a valid bool"))),
        (None, None) => Ok(!ipv6),
    }
}

/// As Go's `strconv.ParseBool`.
fn truth(text: &str) -> std::result::Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

/// 0 is the kernel's, as are negative numbers, which are refused later.
fn mtu(text: &str) -> std::result::Result<Option<u32>, String> {
    let number: i64 = text
        .parse()
        .map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))?;
    Ok(u32::try_from(number).ok().filter(|mtu| *mtu > 0))
}

fn gateway_mode(text: &str) -> std::result::Result<GatewayMode, String> {
    match text {
        "nat" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Ok(GatewayMode::Isolated),
        _ => Err(format!("unknown gateway mode {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(label: &str, value: &str) -> Result<(Bridge, Option<u32>)> {
        let labels = BTreeMap::from([(label.to_owned(), value.to_owned())]);
        bridge("0123456789abcdef", &labels, false)
    }

    #[test]
    fn labels_are_read_as_docker_reads_them() {
        let default = Bridge::of("0123456789abcdef");
        assert_eq!(default.name, "br-0123456789ab");
        assert_eq!(parse("x", "y"), Ok((default, None)));
        assert_eq!(parse(MTU, "1400").unwrap().1, Some(1400));
        let told = |label, value| parse(label, value).unwrap().0;
        assert!(!told(ICC, "F").icc);
        let mode = told(GATEWAY_MODE_V6, "routed").gateway_modes.v6;
        assert_eq!(mode, GatewayMode::Routed);
        assert!(told(INHIBIT_V4, "1").inhibit_ipv4);
        assert_eq!(
            told(TRUSTED, ":eth0::wg0").trusted_interfaces,
            ["eth0", "wg0"]
        );
        let source = told(SOURCE_V4, "192.0.2.1").source_v4;
        assert_eq!(source, Some([192, 0, 2, 1].into()));
        let words = |label, value| parse(label, value).unwrap_err().message;
        assert_eq!(
            words(ICC, "x"),
            "failed to parse com.docker.network.bridge.enable_icc value: x \
             (strconv.ParseBool: parsing \"x\": invalid syntax)"
        );
        assert_eq!(
            words(MTU, "x"),
            "failed to parse com.docker.network.driver.mtu value: x \
             (strconv.Atoi: parsing \"x\": invalid syntax)"
        );
        assert_eq!(words(MTU, "-1"), "invalid MTU number: -1");
        assert_eq!(
            words(SOURCE_V6, "192.0.2.1"),
            "failed to parse com.docker.network.host_ipv6 value: 192.0.2.1 (nil ip)"
        );
        assert_eq!(
            words(HOST_BINDING, "x"),
            "failed to parse com.docker.network.bridge.host_binding_ipv4 value: x (nil ip)"
        );
        assert_eq!(
            words(GATEWAY_MODE_V4, "x"),
            "failed to parse com.docker.network.bridge.gateway_mode_ipv4 value: x \
             (unknown gateway mode x)"
        );
        assert_eq!(
            words(GATEWAY_MODE_V4, "isolated"),
            "gateway mode 'isolated' can only be used for an internal network"
        );
    }

    #[test]
    fn parents_and_modes_are_read_as_docker_reads_them() {
        let told = |driver, pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(label, value)| (*label, *value));
            let labels = pairs.map(|(label, value)| (label.to_owned(), value.to_owned()));
            child(driver, "0123456789abcdef", &labels.collect()).map(|told| told.0)
        };
        let bridge = ChildKind::Macvlan(MacvlanMode::Bridge);
        let without = told("macvlan", &[]).unwrap();
        assert_eq!(
            (without.parent.as_str(), without.kind),
            ("dm-0123456789ab", bridge)
        );
        let l3s = told(
            "ipvlan",
            &[
                (PARENT, "eth0.7"),
                (IPVLAN_MODE, "l3s"),
                (IPVLAN_FLAG, "vepa"),
            ],
        );
        let l3s = l3s.unwrap();
        assert_eq!(l3s.parent, "eth0.7");
        assert_eq!(
            l3s.kind,
            ChildKind::Ipvlan(IpvlanMode::L3s, IpvlanFlag::Vepa)
        );
        let words = |driver, label, value| told(driver, &[(label, value)]).unwrap_err().message;
        assert_eq!(
            words("macvlan", MACVLAN_MODE, "x"),
            "requested macvlan mode 'x' is not valid, 'bridge' mode is the macvlan driver default"
        );
        assert_eq!(
            words("ipvlan", IPVLAN_MODE, "x"),
            "requested ipvlan mode 'x' is not valid, 'l2' mode is the ipvlan driver default"
        );
        assert_eq!(
            words("ipvlan", IPVLAN_FLAG, "x"),
            "requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default"
        );
        assert_eq!(
            words("ipvlan", PARENT, "lo"),
            "loopback interface is not a valid ipvlan parent link"
        );
    }

    #[test]
    fn families_are_switched_by_field_or_label() {
        let labels = BTreeMap::from([(ENABLE_V6.to_owned(), "1".to_owned())]);
        assert_eq!(enabled(None, &labels, true), Ok(true));
        assert_eq!(enabled(Some(false), &labels, true), Ok(false));
        assert_eq!(enabled(None, &BTreeMap::new(), false), Ok(true));
        let bad = BTreeMap::from([(ENABLE_V4.to_owned(), "x".to_owned())]);
        assert_eq!(
            enabled(None, &bad, false).unwrap_err().message,
            "driver-opt \"com.docker.network.enable_ipv4\" is not a valid bool"
        );
    }
}
