//! The options of the bridge driver, read from their labels (moby,
//! `libnetwork/drivers/bridge/{labels,bridge_linux}.go`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_net::GatewayMode;

use crate::error::{Error, Result};

const NAME: &str = "com.docker.network.bridge.name";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const GATEWAY_MODE_V4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE_V6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const ICC: &str = "com.docker.network.bridge.enable_icc";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const MTU: &str = "com.docker.network.driver.mtu";
pub const ENABLE_V4: &str = "com.docker.network.enable_ipv4";
pub const ENABLE_V6: &str = "com.docker.network.enable_ipv6";
/// What would be ignored, and must not be in silence.
const UNSUPPORTED: &[&str] = &[
    "com.docker.network.bridge.inhibit_ipv4",
    "com.docker.network.bridge.trusted_host_interfaces",
    "com.docker.network.host_ipv4",
    "com.docker.network.host_ipv6",
];
/// What interfaces in containers are called, before their number.
pub const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";

/// What a bridge can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub bridge: Option<String>,
    /// `None` is the kernel's.
    pub mtu: Option<u32>,
    pub icc: bool,
    pub masquerade: bool,
    pub gateway_v4: GatewayMode,
    pub gateway_v6: GatewayMode,
    pub host_binding: Option<IpAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bridge: None,
            mtu: None,
            icc: true,
            masquerade: true,
            gateway_v4: GatewayMode::Nat,
            gateway_v6: GatewayMode::Nat,
            host_binding: None,
        }
    }
}

impl Options {
    /// Reads the labels; those that no driver knows are left alone, as Docker does.
    pub fn parse(labels: &BTreeMap<String, String>, internal: bool) -> Result<Self> {
        let mut options = Self::default();
        for (label, value) in labels {
            let failed = |why: String| {
                Error::invalid(format!("failed to parse {label} value: {value} ({why})"))
            };
            match label.as_str() {
                NAME if !value.is_empty() => options.bridge = Some(value.clone()),
                MTU => options.mtu = mtu(value).map_err(failed)?,
                ICC => options.icc = truth(value).map_err(failed)?,
                MASQUERADE => options.masquerade = truth(value).map_err(failed)?,
                GATEWAY_MODE_V4 => options.gateway_v4 = gateway_mode(value).map_err(failed)?,
                GATEWAY_MODE_V6 => options.gateway_v6 = gateway_mode(value).map_err(failed)?,
                HOST_BINDING => {
                    let address = value.parse().map_err(|_| failed("nil ip".to_owned()))?;
                    options.host_binding = Some(address);
                }
                _ if UNSUPPORTED.contains(&label.as_str()) => {
                    return Err(Error::not_implemented(format!(
                        "the option {label} of the bridge driver is not supported"
                    )));
                }
                _ => {}
            }
        }
        if options.mtu_is_negative(labels) {
            let given = labels.get(MTU).map_or("", String::as_str);
            return Err(Error::invalid(format!("invalid MTU number: {given}")));
        }
        let isolated = [options.gateway_v4, options.gateway_v6].contains(&GatewayMode::Isolated);
        if isolated && !internal {
            return Err(Error::internal(
                "gateway mode 'isolated' can only be used for an internal network",
            ));
        }
        Ok(options)
    }

    fn mtu_is_negative(&self, labels: &BTreeMap<String, String>) -> bool {
        self.mtu.is_none() && labels.get(MTU).is_some_and(|text| text.starts_with('-'))
    }
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

    fn parse(label: &str, value: &str) -> Result<Options> {
        let labels = BTreeMap::from([(label.to_owned(), value.to_owned())]);
        Options::parse(&labels, false)
    }

    #[test]
    fn labels_are_read_as_docker_reads_them() {
        assert_eq!(parse("x", "y"), Ok(Options::default()));
        assert_eq!(parse(MTU, "1400").unwrap().mtu, Some(1400));
        assert!(!parse(ICC, "F").unwrap().icc);
        let mode = parse(GATEWAY_MODE_V6, "routed").unwrap().gateway_v6;
        assert_eq!(mode, GatewayMode::Routed);
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
