//! What is asked for about addresses, by a network and by a container on it: parsed and checked,
//! with Docker's sentences (moby, `api/types/network/{ipam,endpoint}.go`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use berth_docker::network::{EndpointIpamConfig, Ipam, IpamConfig};

use crate::error::{Error, Result};

/// An address and the length of its network's prefix, of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Block {
    /// The address without its host bits.
    fn masked(self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix));
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask.unwrap_or(0)))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix));
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask.unwrap_or(0)))
            }
        };
        Self { address, ..self }
    }

    /// Its first host.
    pub fn first(self) -> Self {
        let address = match self.masked().address {
            IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() | 1)),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() | 1)),
        };
        Self { address, ..self }
    }

    pub fn contains(self, address: IpAddr) -> bool {
        let other = Self { address, ..self };
        address.is_ipv4() == self.address.is_ipv4() && other.masked() == self.masked()
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    fn family(self) -> &'static str {
        family(self.address)
    }
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Block {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (address, prefix) = text.split_once('/').ok_or(())?;
        let address: IpAddr = address.parse().map_err(drop)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let plain = prefix.bytes().all(|digit| digit.is_ascii_digit());
        if !plain || (prefix.len() > 1 && prefix.starts_with('0')) {
            return Err(());
        }
        match prefix.parse() {
            Ok(prefix) if prefix <= most => Ok(Self { address, prefix }),
            _ => Err(()),
        }
    }
}

/// Several complaints as moby joins them.
pub fn join(complaints: &[String]) -> String {
    match complaints {
        [one] => one.trim().to_owned(),
        many => {
            let lines: Vec<String> = many
                .iter()
                .map(|text| format!("* {}", text.replace('\n', "\n\t")))
                .collect();
            lines.join("\n")
        }
    }
}

/// Looks at all subnets of a request. Those of IPv6 do not count where IPv6 is off.
pub fn check(ipam: &Ipam, ipv6: bool) -> Result<()> {
    let mut complaints = Vec::new();
    for config in ipam.config.iter().flatten() {
        let Ok(subnet) = config.subnet.parse::<Block>() else {
            complaints.push(format!(
                "invalid subnet {}: invalid CIDR block notation",
                config.subnet
            ));
            continue;
        };
        if ipv6 || subnet.address.is_ipv4() {
            check_subnet(config, subnet, &mut complaints);
        }
    }
    match complaints.is_empty() {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "invalid network config:\n{}",
            join(&complaints)
        ))),
    }
}

fn check_subnet(config: &IpamConfig, subnet: Block, complaints: &mut Vec<String>) {
    if subnet != subnet.masked() {
        complaints.push(format!(
            "invalid subnet {subnet}: it should be {}",
            subnet.masked()
        ));
    }
    check_range(&config.ip_range, subnet, complaints);
    if let Some(why) = misplaced(&config.gateway, subnet) {
        complaints.push(format!("invalid gateway {}: {why}", config.gateway));
    }
    for (name, address) in &config.auxiliary_addresses {
        if let Some(why) = misplaced(address, subnet) {
            complaints.push(format!("invalid auxiliary address {name}: {why}"));
        }
    }
}

fn check_range(text: &str, subnet: Block, complaints: &mut Vec<String>) {
    if text.is_empty() {
        return;
    }
    let mut complain = |why: String| complaints.push(format!("invalid ip-range {text}: {why}"));
    let Ok(range) = text.parse::<Block>() else {
        return complain("invalid CIDR block notation".to_owned());
    };
    if range.family() != subnet.family() {
        return complain(format!("parent subnet is an {} block", subnet.family()));
    }
    if range.prefix < subnet.prefix {
        complain(format!(
            "CIDR block is bigger than its parent subnet {subnet}"
        ));
    }
    if range != range.masked() {
        complain(format!("it should be {}", range.masked()));
    }
    if !subnet.overlaps(range) {
        complain(format!("parent subnet {subnet} doesn't contain ip-range"));
    }
}

/// Why an address cannot be one of the subnet.
fn misplaced(text: &str, subnet: Block) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        return Some("invalid address".to_owned());
    };
    if family(address) != subnet.family() {
        return Some(format!("parent subnet is an {} block", subnet.family()));
    }
    (!subnet.contains(address))
        .then(|| format!("parent subnet {subnet} doesn't contain this address"))
}

/// What is wrong with the addresses that a container asks for. `subnets` are those that the
/// network's maker chose; `None` where the network is not known yet.
pub fn check_endpoint(
    config: &EndpointIpamConfig,
    subnets: Option<&[Block]>,
    complaints: &mut Vec<String>,
) {
    let valid = |text: &str, v4: bool| {
        let address = text.parse::<IpAddr>().ok();
        address.is_some_and(|it| it.is_ipv4() == v4 && !it.is_unspecified())
    };
    let asked = [(&config.ipv4_address, true), (&config.ipv6_address, false)];
    let asked = asked.into_iter().filter(|(text, _)| !text.is_empty());
    for (text, v4) in asked.clone() {
        if !valid(text, v4) {
            let family = if v4 { "IPv4" } else { "IPv6" };
            complaints.push(format!("invalid {family} address: {text}"));
        }
    }
    for text in &config.link_local_ips {
        if !valid(text, true) && !valid(text, false) {
            complaints.push(format!("invalid link-local IP address: {text}"));
        }
    }
    let Some(subnets) = subnets else { return };
    for (text, v4) in asked {
        let own = subnets.iter().filter(|it| it.address.is_ipv4() == v4);
        let address = text.parse::<IpAddr>().ok();
        let contained = |subnet: &Block| address.is_some_and(|address| subnet.contains(address));
        if own.clone().next().is_none() {
            complaints.push(
                "user specified IP address is supported only when connecting to networks with \
                 user configured subnets"
                    .to_owned(),
            );
        } else if !own.into_iter().any(contained) {
            complaints.push(format!(
                "no configured subnet or ip-range contain the IP address {text}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(subnet: &str, range: &str, gateway: &str, auxiliary: &str, ipv6: bool) -> String {
        let mut config = IpamConfig {
            subnet: subnet.to_owned(),
            ip_range: range.to_owned(),
            gateway: gateway.to_owned(),
            ..IpamConfig::default()
        };
        if !auxiliary.is_empty() {
            let pair = ("a".to_owned(), auxiliary.to_owned());
            config.auxiliary_addresses.extend([pair]);
        }
        let ipam = Ipam {
            config: Some(vec![config]),
            ..Ipam::default()
        };
        check(&ipam, ipv6).map_or_else(|error| error.message, |()| String::new())
    }

    #[test]
    fn addresses_of_a_network_are_refused_in_dockers_words() {
        let check = |subnet, range, gateway, auxiliary, words: &str| {
            let expect = match words {
                "" => String::new(),
                words => format!("invalid network config:\n{words}"),
            };
            assert_eq!(refused(subnet, range, gateway, auxiliary, true), expect);
        };
        check("10.1.0.0/16", "10.1.4.0/24", "10.1.0.9", "10.1.0.7", "");
        check("fd00::/64", "fd00::/80", "fd00::1", "", "");
        let notation = "invalid subnet 10.1/16: invalid CIDR block notation";
        check("10.1/16", "", "", "", notation);
        let host_bits = "invalid subnet 10.1.2.3/16: it should be 10.1.0.0/16";
        check("10.1.2.3/16", "", "", "", host_bits);
        let family = "invalid ip-range fd00::/64: parent subnet is an IPv4 block";
        check("10.1.0.0/16", "fd00::/64", "", "", family);
        check(
            "10.1.0.0/16",
            "10.2.0.0/15",
            "",
            "",
            "* invalid ip-range 10.2.0.0/15: CIDR block is bigger than its parent subnet 10.1.0.0/16\n\
             * invalid ip-range 10.2.0.0/15: parent subnet 10.1.0.0/16 doesn't contain ip-range",
        );
        let outside =
            "invalid gateway 10.2.0.1: parent subnet 10.1.0.0/16 doesn't contain this address";
        check("10.1.0.0/16", "", "10.2.0.1", "", outside);
        let bad = "invalid gateway x: invalid address";
        check("10.1.0.0/16", "", "x", "", bad);
        let auxiliary = "invalid auxiliary address a: parent subnet is an IPv4 block";
        check("10.1.0.0/16", "", "", "::1", auxiliary);
    }

    #[test]
    fn subnets_of_ipv6_do_not_count_where_it_is_off() {
        assert_eq!(refused("fd00::1/64", "", "", "", false), "");
        assert!(refused("fd00::1/64", "", "", "", true).ends_with("it should be fd00::/64"));
    }

    #[test]
    fn addresses_of_a_container_lie_in_a_chosen_subnet() {
        let check = |v4: &str, v6: &str, subnets: Option<&[&str]>, words: &[&str]| {
            let config = EndpointIpamConfig {
                ipv4_address: v4.to_owned(),
                ipv6_address: v6.to_owned(),
                link_local_ips: Vec::new(),
            };
            let parse =
                |all: &[&str]| -> Vec<Block> { all.iter().map(|it| it.parse().unwrap()).collect() };
            let subnets = subnets.map(parse);
            let mut complaints = Vec::new();
            check_endpoint(&config, subnets.as_deref(), &mut complaints);
            assert_eq!(complaints, words);
        };
        let subnets: Option<&[&str]> = Some(&["10.1.0.0/16"]);
        check("10.1.0.5", "", subnets, &[]);
        check("10.1.0.5", "", None, &[]);
        let outside = "no configured subnet or ip-range contain the IP address 10.2.0.5";
        check("10.2.0.5", "", subnets, &[outside]);
        let own = "user specified IP address is supported only when connecting to networks with user configured subnets";
        check("", "fd00::2", subnets, &[own]);
        check("fd00::2", "", None, &["invalid IPv4 address: fd00::2"]);
        check("0.0.0.0", "", None, &["invalid IPv4 address: 0.0.0.0"]);
    }
}
