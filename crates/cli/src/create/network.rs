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
    let mut endpoints = BTreeMap::new();
    let mut mode = DEFAULT.to_owned();
    let given = flags.list("network");
    let unnamed = [DEFAULT.to_owned()];
    for (index, text) in if given.is_empty() {
        &unnamed[..]
    } else {
        given
    }
    .iter()
    .enumerate()
    {
        let (name, mut endpoint) = parse(text)?;
        if index == 0 {
            complete(&mut endpoint, flags)?;
            mode.clone_from(&name);
        }
        // These have no endpoint of their own.
        if matches!(name.as_str(), "host" | "none") || name.starts_with("container:") {
            continue;
        }
        if endpoints.insert(name.clone(), Some(endpoint)).is_some() {
            return Err(format!("network {name:?} is specified multiple times"));
        }
    }
    Ok(Networks {
        mode,
        config: NetworkingConfig {
            endpoints_config: (!endpoints.is_empty()).then_some(endpoints),
        },
    })
}

/// `name`, or `name=n,alias=a,ip=1.2.3.4,...`.
fn parse(text: &str) -> Result<(String, EndpointSettings), Error> {
    let mut endpoint = EndpointSettings::default();
    if !text.contains('=') {
        return Ok((text.to_owned(), endpoint));
    }
    let mut name = String::new();
    for field in mount::csv(text) {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("invalid field {field}"));
        };
        let value = value.trim();
        match key.trim().to_lowercase().as_str() {
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
                options.insert(key.trim().to_lowercase(), value.trim().to_owned());
            }
            "gw-priority" => {
                endpoint.gw_priority = value
                    .parse()
                    .map_err(|_| format!("invalid gw-priority: {value:?}"))?;
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
fn complete(endpoint: &mut EndpointSettings, flags: &Parsed) -> Result<(), Error> {
    if let Some(address) = flags.given("ip") {
        address.clone_into(&mut ipam(endpoint).ipv4_address);
    }
    if let Some(address) = flags.given("ip6") {
        address.clone_into(&mut ipam(endpoint).ipv6_address);
    }
    for address in flags.list("link-local-ip") {
        ipam(endpoint).link_local_ips.push(address.clone());
    }
    for alias in flags.list("network-alias") {
        endpoint.aliases.get_or_insert_default().push(alias.clone());
    }
    // On the default bridge links live in the host configuration alone.
    let is_own = flags
        .given("network")
        .is_some_and(|name| !matches!(name, "default" | "bridge" | "host" | "none"));
    if is_own && !flags.list("link").is_empty() {
        endpoint.links = Some(flags.list("link").to_vec());
    }
    if let Some(mac) = flags.given("mac-address") {
        let parts: Vec<&str> = mac.split([':', '-']).collect();
        let is_mac = parts.len() == 6
            && parts
                .iter()
                .all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok());
        if !is_mac {
            return Err(format!("{mac} is not a valid mac address"));
        }
        mac.clone_into(&mut endpoint.mac_address);
    }
    Ok(())
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
