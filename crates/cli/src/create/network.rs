//! `--network` in both forms, and what belongs to it.

use std::collections::BTreeMap;

use berth_docker::container::NetworkingConfig;
use berth_docker::network::{EndpointIpamConfig, EndpointSettings};

use super::{Error, mount};
use crate::flags::Parsed;

pub struct Networks {
    /// The mode of the first network, which is the container's.
    pub mode: String,
    pub config: NetworkingConfig,
}

/// What the mode is when none was asked for.
const DEFAULT: &str = "default";

pub fn plan(flags: &Parsed) -> Result<Networks, Error> {
    let given = flags.list("network");
    let unnamed = [DEFAULT.to_owned()];
    let wanted = if given.is_empty() {
        &unnamed[..]
    } else {
        given
    };
    let mut endpoints = BTreeMap::new();
    let mut mode = DEFAULT.to_owned();
    let (mut own, mut predefined) = (false, false);
    for (index, text) in wanted.iter().enumerate() {
        let (name, mut endpoint) = parse(text)?;
        if index == 0 {
            complete(&name, &mut endpoint, flags)?;
            mode.clone_from(&name);
        }
        match is_own(&name) {
            true => own = true,
            false => predefined = true,
        }
        check_endpoint(&name, &endpoint)?;
        if endpoints.contains_key(&name) {
            return Err(format!("network {name:?} is specified multiple times"));
        }
        // What is one network's and asks for nothing is the daemon's to complete.
        if given.len() == 1 && endpoint == EndpointSettings::default() {
            continue;
        }
        endpoints.insert(name, Some(endpoint));
    }
    if own && predefined {
        return Err(
            "conflicting options: cannot attach both user-defined and non-user-defined \
             network-modes"
                .to_owned(),
        );
    }
    Ok(Networks {
        mode,
        config: NetworkingConfig {
            endpoints_config: Some(endpoints),
        },
    })
}

/// Whether it is a network that somebody made.
fn is_own(name: &str) -> bool {
    !matches!(name, "" | "default" | "bridge" | "host" | "none") && !name.starts_with("container:")
}

fn check_endpoint(name: &str, endpoint: &EndpointSettings) -> Result<(), Error> {
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if name.trim().is_empty() {
        return Err("no name set for network".to_owned());
    }
    if !is_own(name) && given(&endpoint.aliases) {
        return Err(
            "network-scoped aliases are only supported for user-defined networks".to_owned(),
        );
    }
    let mac = endpoint.mac_address.trim();
    let parts: Vec<&str> = mac.split([':', '-']).collect();
    let is_mac = parts.len() == 6
        && parts
            .iter()
            .all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok());
    match mac.is_empty() || is_mac {
        true => Ok(()),
        false => Err(format!(
            "{} is not a valid mac address",
            endpoint.mac_address
        )),
    }
}

/// `name`, or `name=n,alias=a,ip=1.2.3.4,...`.
fn parse(text: &str) -> Result<(String, EndpointSettings), Error> {
    let mut endpoint = EndpointSettings::default();
    if !text.contains('=') {
        return Ok((text.to_owned(), endpoint));
    }
    let mut name = String::new();
    for field in mount::csv(text) {
        // Docker's client lowers the values too.
        let lower = field.to_lowercase();
        let pair = lower.split_once('=').filter(|(key, _)| !key.is_empty());
        let Some((key, value)) = pair else {
            return Err(format!("invalid field {field}"));
        };
        let value = value.trim();
        match key.trim() {
            "name" => value.clone_into(&mut name),
            "alias" => endpoint
                .aliases
                .get_or_insert_default()
                .push(value.to_owned()),
            "ip" => value.clone_into(&mut ipam(&mut endpoint).ipv4_address),
            "ip6" => value.clone_into(&mut ipam(&mut endpoint).ipv6_address),
            "link-local-ip" => ipam(&mut endpoint).link_local_ips.push(value.to_owned()),
            "mac-address" => value.clone_into(&mut endpoint.mac_address),
            "driver-opt" => {
                let (key, value) = value
                    .split_once('=')
                    .ok_or_else(|| "invalid key value pair format in driver options".to_owned())?;
                let options = endpoint.driver_opts.get_or_insert_default();
                options.insert(key.trim().to_owned(), value.trim().to_owned());
            }
            "gw-priority" => {
                endpoint.gw_priority = value
                    .parse()
                    .map_err(|_| format!("invalid gw-priority ({value}): invalid syntax"))?;
            }
            key => return Err(format!("invalid field key {key}")),
        }
    }
    if name.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok((name, endpoint))
}

pub fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

/// What the flags of their own say about the first network.
fn complete(name: &str, endpoint: &mut EndpointSettings, flags: &Parsed) -> Result<(), Error> {
    let config = endpoint.ipam_config.clone().unwrap_or_default();
    let given = |long: &str| flags.given(long).is_some_and(|text| !text.is_empty());
    let conflicts = [
        (
            endpoint.aliases.is_some() && given("network-alias"),
            "--network-alias and per-network alias",
        ),
        (
            !config.ipv4_address.is_empty() && given("ip"),
            "--ip and per-network IPv4 address",
        ),
        (
            !config.ipv6_address.is_empty() && given("ip6"),
            "--ip6 and per-network IPv6 address",
        ),
        (
            !endpoint.mac_address.is_empty() && given("mac-address"),
            "--mac-address and per-network MAC address",
        ),
        (
            !config.link_local_ips.is_empty() && given("link-local-ip"),
            "--link-local-ip and per-network link-local IP addresses",
        ),
    ];
    if let Some((_, what)) = conflicts.iter().find(|(conflict, _)| *conflict) {
        return Err(format!("conflicting options: cannot specify both {what}"));
    }
    if given("ip") {
        flags
            .text("ip")
            .clone_into(&mut ipam(endpoint).ipv4_address);
    }
    if given("ip6") {
        flags
            .text("ip6")
            .clone_into(&mut ipam(endpoint).ipv6_address);
    }
    for address in flags.list("link-local-ip") {
        ipam(endpoint).link_local_ips.push(address.clone());
    }
    for alias in flags.list("network-alias") {
        endpoint.aliases.get_or_insert_default().push(alias.clone());
    }
    // On the default bridge links live in the host configuration alone.
    if is_own(name) && !flags.list("link").is_empty() {
        endpoint.links = Some(flags.list("link").to_vec());
    }
    if given("mac-address") {
        flags
            .text("mac-address")
            .clone_into(&mut endpoint.mac_address);
    }
    Ok(())
}

/// `name`, or `name:alias`.
pub fn check_link(text: &str) -> Result<(), String> {
    match text.split(':').count() {
        _ if text.is_empty() => Err("empty string specified for links".to_owned()),
        1 | 2 => Ok(()),
        _ => Err(format!("bad format for links: {text}")),
    }
}

fn ipam(endpoint: &mut EndpointSettings) -> &mut EndpointIpamConfig {
    endpoint.ipam_config.get_or_insert_default()
}

/// `name:address` or `name=address`, to the first of the two.
pub fn extra_hosts(texts: &[String]) -> Vec<String> {
    texts
        .iter()
        .map(|text| {
            let (name, address) = split_host(text).unwrap_or((text, ""));
            format!(
                "{name}:{}",
                address.trim_start_matches('[').trim_end_matches(']')
            )
        })
        .collect()
}

fn split_host(text: &str) -> Option<(&str, &str)> {
    text.split_once('=').or_else(|| text.split_once(':'))
}

pub fn check_host(text: &str) -> Result<(), String> {
    let Some((name, address)) = split_host(text).filter(|(name, _)| !name.is_empty()) else {
        return Err(format!("bad format for add-host: {text:?}"));
    };
    debug_assert!(!name.is_empty());
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if address == "host-gateway" || bare.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("invalid IP address in add-host: {address:?}"))
}

pub fn check_address(text: &str) -> Result<(), String> {
    match text.trim().parse::<std::net::IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_named_or_described() {
        let (name, endpoint) = parse("name=foo,ip=1.2.3.4,alias=x,driver-opt=a=b").unwrap();
        assert_eq!(name, "foo");
        assert_eq!(endpoint.ipam_config.unwrap().ipv4_address, "1.2.3.4");
        assert_eq!(endpoint.aliases.unwrap(), ["x"]);
        assert_eq!(parse("container:x").unwrap().0, "container:x");
        assert!(parse("ip=1.2.3.4").is_err());
        assert_eq!(
            parse("name=a,gw-priority=x").unwrap_err(),
            "invalid gw-priority (x): invalid syntax"
        );
    }

    #[test]
    fn an_option_of_the_first_network_is_given_once_and_where_it_has_a_meaning() {
        let planned = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let flags = crate::flags::parse(
                crate::create::flags::CREATE,
                crate::flags::Order::FlagsFirst,
                &words,
            );
            plan(&flags.unwrap())
        };
        let both = "conflicting options: cannot specify both --ip and per-network IPv4 address";
        let twice = planned("--network name=a,ip=10.0.0.2 --ip 10.0.0.3");
        assert_eq!(twice.err().unwrap(), both);
        let mixed = "conflicting options: cannot attach both user-defined and non-user-defined network-modes";
        assert_eq!(planned("--network a --network host").err().unwrap(), mixed);
        let alias = "network-scoped aliases are only supported for user-defined networks";
        assert_eq!(planned("--network-alias x").err().unwrap(), alias);
        let two = planned("--network a --network b --link c:d").ok().unwrap();
        let endpoints = two.config.endpoints_config.unwrap();
        assert_eq!(two.mode, "a");
        let links = |name: &str| endpoints[name].clone().unwrap().links;
        assert_eq!(links("a"), Some(vec!["c:d".to_owned()]));
        assert_eq!(links("b"), None);
        let bare = planned("--network a").ok().unwrap();
        assert_eq!(bare.config.endpoints_config, Some(BTreeMap::new()));
    }

    #[test]
    fn hosts_are_written_with_either_sign() {
        let texts = ["a:1.2.3.4", "b=::1", "h:host-gateway"].map(str::to_owned);
        assert_eq!(
            extra_hosts(&texts),
            ["a:1.2.3.4", "b:::1", "h:host-gateway"]
        );
        assert_eq!(
            check_host("bad"),
            Err("bad format for add-host: \"bad\"".into())
        );
        assert!(check_host("a:nowhere").is_err());
    }
}
