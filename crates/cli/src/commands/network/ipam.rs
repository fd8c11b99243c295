//! The subnets of `network create`, each with the range, the gateway and the addresses that lie
//! in it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_docker::network::{Ipam, IpamConfig};

use crate::failure::Failure;

/// The flags, as they are given.
#[derive(Debug, Default)]
pub struct Options {
    pub driver: String,
    pub subnets: Vec<String>,
    pub ranges: Vec<String>,
    pub gateways: Vec<String>,
    pub auxiliary: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
}

/// An address with the length of a prefix.
type Block = (IpAddr, u8);

/// Puts together what belongs to one subnet; says what belongs to none, in docker's words.
pub fn plan(options: &Options) -> Result<Ipam, Failure> {
    let count = options.subnets.len();
    if count < options.ranges.len() || count < options.gateways.len() {
        return Err(Failure::new(
            "every ip-range or gateway must have a corresponding subnet",
        ));
    }
    let mut configs: Vec<IpamConfig> = Vec::with_capacity(count);
    for subnet in &options.subnets {
        for other in &configs {
            if contains(subnet, &other.subnet)? || contains(&other.subnet, subnet)? {
                return Err(Failure::new(
                    "multiple overlapping subnet configuration is not supported",
                ));
            }
        }
        configs.push(IpamConfig {
            subnet: subnet.clone(),
            ..IpamConfig::default()
        });
    }
    for range in &options.ranges {
        block(range)?;
        for config in within(&mut configs, range, "range")? {
            if !config.ip_range.is_empty() {
                return Err(Failure::new(format!(
                    "cannot configure multiple ranges ({range}, {}) on the same subnet ({})",
                    config.ip_range, config.subnet
                )));
            }
            config.ip_range.clone_from(range);
        }
    }
    for gateway in &options.gateways {
        for config in within(&mut configs, gateway, "gateway")? {
            if !config.gateway.is_empty() {
                return Err(Failure::new(format!(
                    "cannot configure multiple gateways ({gateway}, {}) for the same subnet ({})",
                    config.gateway, config.subnet
                )));
            }
            config.gateway.clone_from(gateway);
        }
    }
    for (name, address) in &options.auxiliary {
        for config in within(&mut configs, address, "aux-address")? {
            config
                .auxiliary_addresses
                .insert(name.clone(), address.clone());
        }
    }
    Ok(Ipam {
        driver: options.driver.clone(),
        options: Some(options.options.clone()),
        config: Some(configs),
    })
}

/// The subnets in which this lies: one at least.
fn within<'a>(
    configs: &'a mut [IpamConfig],
    text: &str,
    what: &str,
) -> Result<Vec<&'a mut IpamConfig>, Failure> {
    let mut found = Vec::new();
    for config in configs {
        if contains(&config.subnet, text)? {
            found.push(config);
        }
    }
    match found.is_empty() {
        true => Err(Failure::new(format!(
            "no matching subnet for {what} {text}"
        ))),
        false => Ok(found),
    }
}

/// Whether a block or an address lies in a subnet. What is no address lies nowhere.
fn contains(subnet: &str, text: &str) -> Result<bool, Failure> {
    let (network, prefix) = block(subnet).map_err(|failure| Failure {
        message: format!("invalid subnet: {}", failure.message),
        ..failure
    })?;
    let address = match text.contains('/') {
        true => Some(block(text)?.0),
        false => text.parse().ok(),
    };
    Ok(match (network, address) {
        (IpAddr::V4(network), Some(IpAddr::V4(address))) => {
            let shift = 32 - u32::from(prefix);
            (network.to_bits() ^ address.to_bits())
                .checked_shr(shift)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(network), Some(IpAddr::V6(address))) => {
            let shift = 128 - u32::from(prefix);
            (network.to_bits() ^ address.to_bits())
                .checked_shr(shift)
                .unwrap_or(0)
                == 0
        }
        _ => false,
    })
}

fn block(text: &str) -> Result<Block, Failure> {
    let parse = || {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= most)?;
        Some((address, prefix))
    };
    parse().ok_or_else(|| Failure::new(format!("invalid CIDR address: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(subnets: &str, ranges: &str, gateways: &str, auxiliary: &str) -> Options {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Options {
            subnets: list(subnets),
            ranges: list(ranges),
            gateways: list(gateways),
            auxiliary: auxiliary
                .split_whitespace()
                .map(|address| (format!("host-{address}"), address.to_owned()))
                .collect(),
            ..Options::default()
        }
    }

    #[test]
    fn each_subnet_gets_what_lies_in_it() {
        let options = options(
            "10.1.0.0/16 fd00:1::/64",
            "10.1.4.0/24",
            "fd00:1::9 10.1.0.9",
            "10.1.0.7",
        );
        let configs = plan(&options).unwrap().config.unwrap();
        assert_eq!(configs[0].gateway, "10.1.0.9");
        assert_eq!(configs[0].ip_range, "10.1.4.0/24");
        assert_eq!(configs[0].auxiliary_addresses["host-10.1.0.7"], "10.1.0.7");
        assert_eq!(configs[1].gateway, "fd00:1::9");
        assert_eq!(configs[1].ip_range, "");
    }

    #[test]
    fn what_belongs_to_no_subnet_is_told_in_dockers_words() {
        let check = |subnets, ranges, gateways, auxiliary, words: &str| {
            let failure = plan(&options(subnets, ranges, gateways, auxiliary)).unwrap_err();
            assert_eq!(failure.message, words);
        };
        let all = "every ip-range or gateway must have a corresponding subnet";
        check("", "10.0.0.0/8", "", "", all);
        check("", "", "10.0.0.1", "", all);
        let overlapping = "multiple overlapping subnet configuration is not supported";
        check("10.0.0.0/8 10.1.0.0/16", "", "", "", overlapping);
        check("x y", "", "", "", "invalid subnet: invalid CIDR address: y");
        let lonely = "no matching subnet for gateway 10.2.0.1";
        check("10.1.0.0/16", "", "10.2.0.1", "", lonely);
        let lonely = "no matching subnet for aux-address 10.2.0.1";
        check("10.1.0.0/16", "", "", "10.2.0.1", lonely);
        let two = "cannot configure multiple gateways (10.1.0.2, 10.1.0.1) for the same subnet (10.1.0.0/16)";
        check("10.1.0.0/16 10.2.0.0/16", "", "10.1.0.1 10.1.0.2", "", two);
    }
}
