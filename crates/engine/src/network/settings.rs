//! What a container asks for on its networks: checked when it is created or connected (moby,
//! `daemon/container_operations.go`, `runconfig/errors.go`).

use std::collections::BTreeMap;

use berth_docker::network::EndpointSettings;

use super::ipam::{self, Block};
use super::{Kind, Network, Networks, is_own_mode};
use crate::error::{Error, Result};
use crate::record::Record;
use crate::spec::container_of;

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// The settings of a container that is created, by the names of its networks. A network that is
/// not there keeps the word it was called by: that is the start's affair.
pub fn requested(
    networks: &Networks,
    mode: &str,
    given: BTreeMap<String, Option<EndpointSettings>>,
) -> Result<BTreeMap<String, EndpointSettings>> {
    let mut complaints = Vec::new();
    let mut settings = BTreeMap::new();
    for (word, endpoint) in given {
        let word = if word == "default" {
            "bridge".to_owned()
        } else {
            word
        };
        let Some(mut endpoint) = endpoint else {
            complaints.push(format!(
                "invalid config for network {word}: EndpointsConfig is nil"
            ));
            continue;
        };
        let network = networks.find(&word).ok();
        if let Err(error) = check(network.as_deref(), &word, &endpoint) {
            complaints.push(format!("invalid config for network {word}: {error}"));
        }
        let network = match endpoint.network_id.as_str() {
            "" => network,
            id => networks.find(id).ok().or(network),
        };
        endpoint.network_id.clear();
        settings.insert(network.map_or(word, |it| it.name.clone()), endpoint);
    }
    if !complaints.is_empty() {
        return Err(Error::invalid(ipam::join(&complaints)));
    }
    if container_of(mode).is_some() {
        return Ok(BTreeMap::new());
    }
    if settings.is_empty() {
        let name = networks
            .of(mode)
            .map_or(mode.to_owned(), |it| it.name.clone());
        settings.insert(name, EndpointSettings::default());
    }
    Ok(settings)
}

/// The settings with the container-wide hardware address at the network of the mode.
pub fn with_mac(
    mode: &str,
    mac: &str,
    mut given: BTreeMap<String, Option<EndpointSettings>>,
) -> Result<BTreeMap<String, Option<EndpointSettings>>> {
    let has_one = matches!(mode, "bridge" | "default") || is_own_mode(mode);
    if mac.is_empty() || !has_one {
        return Ok(given);
    }
    if given.is_empty() {
        given.insert(mode.to_owned(), Some(EndpointSettings::default()));
    }
    let names = [mode, "default"];
    let found = names.iter().find(|name| given.contains_key(**name));
    let Some(endpoint) = found.and_then(|name| given.get_mut(*name)) else {
        return Err(Error::invalid(
            "unable to migrate container-wide MAC address to a specific network: \
             HostConfig.NetworkMode must match the identity of a network in \
             NetworkSettings.Networks",
        ));
    };
    let endpoint = endpoint.get_or_insert_default();
    match endpoint.mac_address.as_str() {
        "" => mac.clone_into(&mut endpoint.mac_address),
        own if own == mac => {}
        _ => {
            return Err(Error::invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for \
                 the main network, or be left empty",
            ));
        }
    }
    Ok(given)
}

/// Checks what is asked for on one network, which may not be there yet.
pub fn check(network: Option<&Network>, name: &str, endpoint: &EndpointSettings) -> Result<()> {
    let config = endpoint.ipam_config.clone().unwrap_or_default();
    let mut complaints = Vec::new();
    if !is_own_mode(name) {
        if !config.ipv4_address.is_empty() || !config.ipv6_address.is_empty() {
            complaints.push(
                "user specified IP address is supported on user defined networks only".to_owned(),
            );
        }
        if endpoint.aliases.as_ref().is_some_and(|it| !it.is_empty()) {
            complaints.push(
                "network-scoped alias is supported only for containers in user defined networks"
                    .to_owned(),
            );
        }
    }
    let subnets = network.map(subnets);
    ipam::check_endpoint(&config, subnets.as_deref(), &mut complaints);
    if !endpoint.mac_address.is_empty() && mac(&endpoint.mac_address).is_none() {
        return Err(Error::invalid(format!(
            "invalid MAC address {}",
            endpoint.mac_address
        )));
    }
    for sysctl in sysctls(endpoint) {
        let words: Vec<&str> = sysctl.splitn(5, '.').collect();
        let known = matches!(
            words.as_slice(),
            [_, "ipv4" | "ipv6" | "mpls", _, "IFNAME" | "ifname", _]
        );
        if !known {
            complaints.push(format!(
                "unrecognised network interface sysctl '{sysctl}'; represent 'net.X.Y.ethN.Z=V' \
                 as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            ));
        }
    }
    match complaints.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "invalid endpoint settings:\n{}",
            ipam::join(&complaints)
        ))),
    }
}

/// The subnets that its maker chose.
fn subnets(network: &Network) -> Vec<Block> {
    let ipam = network.request().and_then(|request| request.ipam.as_ref());
    let configs = ipam.and_then(|ipam| ipam.config.as_ref());
    let parse = |text: &str| text.parse().ok();
    configs
        .into_iter()
        .flatten()
        .filter_map(|config| parse(&config.subnet))
        .collect()
}

/// The interface's own sysctls, `net.ipv4.conf.IFNAME.log_martians=1`.
pub fn sysctls(endpoint: &EndpointSettings) -> impl Iterator<Item = &str> {
    let options = endpoint.driver_opts.as_ref();
    let text = options.and_then(|options| options.get(SYSCTLS));
    text.into_iter().flat_map(|text| text.split(','))
}

/// Six bytes, with colons or hyphens between them.
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0u8; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// Why a container that is on `others` cannot be on this network too.
pub fn conflict<'a>(
    network: &Network,
    mode: &str,
    others: impl IntoIterator<Item = &'a Network>,
) -> Option<&'static str> {
    let is_host = |network: &Network| network.kind == Kind::Host;
    if is_host(network) && mode != "host" {
        return Some(
            "cannot connect container to host network - container must be created in host network \
             mode",
        );
    }
    for other in others {
        if other.id == network.id {
            return None;
        }
        if is_host(network) || is_host(other) {
            return Some(
                "container sharing network namespace with another container or host cannot be \
                 connected to any other network",
            );
        }
        if network.kind == Kind::None || other.kind == Kind::None {
            return Some(
                "container cannot be connected to multiple networks with one of the networks in \
                 private (none) mode",
            );
        }
    }
    None
}

/// The names of a container on a network of a user's; the first is what its address is called.
pub fn dns_names(record: &Record, endpoint: &EndpointSettings) -> Vec<String> {
    let mut names = vec![record.name.clone()];
    let others = endpoint
        .aliases
        .iter()
        .flatten()
        .map(String::as_str)
        .chain([record.id.short(), record.config.hostname.as_str()]);
    for name in others {
        if !name.is_empty() && !names.iter().any(|it| it == name) {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac_of(mode: &str, given: &str) -> std::result::Result<String, String> {
        let given = serde_json::from_str(given).unwrap();
        let settings = with_mac(mode, "02:00:00:00:00:05", given).map_err(|error| error.message)?;
        let macs = settings.values().flatten().map(|it| it.mac_address.clone());
        Ok(macs.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_containers_hardware_address_is_that_on_the_network_of_its_mode() {
        let mac = || Ok("02:00:00:00:00:05".to_owned());
        assert_eq!(mac_of("a", "{}"), mac());
        assert_eq!(mac_of("bridge", r#"{"default":{}}"#), mac());
        assert_eq!(mac_of("host", "{}"), Ok(String::new()));
        assert!(
            mac_of("a", r#"{"b":{}}"#)
                .unwrap_err()
                .contains("must match the identity")
        );
        let other = mac_of("a", r#"{"a":{"MacAddress":"02:00:00:00:00:06"}}"#).unwrap_err();
        assert!(other.starts_with("the container-wide MAC address must match"));
    }

    #[test]
    fn complaints_about_settings_are_dockers() {
        let refused = |name: &str, settings: &str| {
            let settings = serde_json::from_str(settings).unwrap();
            check(None, name, &settings).unwrap_err().message
        };
        assert_eq!(
            refused("a", r#"{"MacAddress":"x"}"#),
            "invalid MAC address x"
        );
        assert_eq!(
            refused(
                "bridge",
                r#"{"Aliases":["x"],"IPAMConfig":{"IPv4Address":"1.2.3.4"}}"#
            ),
            "invalid endpoint settings:\n\
             * user specified IP address is supported on user defined networks only\n\
             * network-scoped alias is supported only for containers in user defined networks"
        );
        let sysctl = r#"{"DriverOpts":{"com.docker.network.endpoint.sysctls":"net.foo=1"}}"#;
        assert!(refused("a", sysctl).contains("unrecognised network interface sysctl 'net.foo=1'"));
    }
}
