//! A network: what is asked for, what it is, and the choice of its subnets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_sys::netlink::route::{Family, Way};
use serde::{Deserialize, Serialize};

use crate::address::{self, Address, Cidr, Pool};
use crate::child::Child;
use crate::error::Error;

/// The id of the bridge that every instance has, in this crate and in the records that the engine
/// keeps for it; other networks' are the engine's.
pub const DEFAULT_NETWORK: &str = "bridge";

/// The names of auxiliary addresses that are the containers' gateway, in place of the bridge: of
/// IPv4, of IPv6.
pub const DEFAULT_GATEWAYS: [&str; 2] = ["DefaultGatewayIPv4", "DefaultGatewayIPv6"];

/// A network as the engine records it; everything in the kernel follows from it and its
/// endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network<V4 = Subnet, V6 = Subnet6> {
    /// The full id, or [`DEFAULT_NETWORK`].
    pub id: String,
    /// `None`: no IPv4 in this network.
    pub v4: Option<V4>,
    pub v6: Option<V6>,
    /// `None` is the kernel's 1500, or that of the link below.
    pub mtu: Option<u32>,
    /// No way out, and none in.
    pub internal: bool,
    pub driver: Driver,
}

/// What [`crate::Net::create_network`] is asked for: a network whose subnets are yet to be chosen.
pub type NetworkRequest = Network<SubnetRequest, SubnetRequest<Ipv6Addr>>;

/// What a network is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    Bridge(Bridge),
    Child(Child),
}

/// A bridge of the host's, with a port for each container, and rules in the firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// The link's name.
    pub name: String,
    /// The containers may reach each other.
    pub icc: bool,
    /// Containers leave with the host's address.
    pub masquerade: bool,
    pub gateway_modes: GatewayModes,
    /// Where ports are published if the request names no address; `None` is
    /// [`crate::Config::default_host_ip`].
    pub host_ip: Option<IpAddr>,
    /// The bridge gets no IPv4 address: the gateway is a router's, on a port of the bridge.
    pub inhibit_ipv4: bool,
    /// Interfaces of the host by which published ports are reached at the containers' own
    /// addresses.
    pub trusted_interfaces: Vec<String>,
    /// The addresses that containers leave with, in place of those that the kernel chooses.
    pub source_v4: Option<Ipv4Addr>,
    pub source_v6: Option<Ipv6Addr>,
}

/// A network's addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet<A = Ipv4Addr> {
    pub subnet: Cidr<A>,
    /// That of a bridge is its own address; `None`: it has none, and containers have no default
    /// route.
    pub gateway: Option<A>,
    /// Where addresses are chosen from; `None` is the whole subnet.
    pub range: Option<Cidr<A>>,
    /// Addresses of others, by name: no container gets them.
    pub auxiliary: BTreeMap<String, A>,
}

pub type Subnet6 = Subnet<Ipv6Addr>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GatewayModes {
    pub v4: GatewayMode,
    pub v6: GatewayMode,
}

/// How a network is joined to the world (`com.docker.network.bridge.gateway_mode_ipv4`, `…ipv6`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Ports are published at the host's addresses; containers leave with them.
    #[default]
    Nat,
    /// As [`GatewayMode::Nat`]; and hosts that have a route to the subnet reach all of the
    /// containers' ports.
    NatUnprotected,
    /// Hosts that have a route to the subnet reach the published ports at the containers'
    /// addresses; nothing is translated.
    Routed,
    /// The bridge has no address: not even the host is reached. Only for internal networks.
    Isolated,
}

impl GatewayMode {
    /// Whether ports are published at the host's addresses.
    pub(crate) fn translates(self) -> bool {
        match self {
            GatewayMode::Nat | GatewayMode::NatUnprotected => true,
            GatewayMode::Routed | GatewayMode::Isolated => false,
        }
    }
}

/// What is not given is chosen.
#[derive(Debug, Clone)]
pub struct SubnetRequest<A = Ipv4Addr> {
    /// `None`: the first of the pools that overlaps nothing.
    pub subnet: Option<Cidr<A>>,
    /// `None`: the subnet's first host.
    pub gateway: Option<A>,
    pub range: Option<Cidr<A>>,
    pub auxiliary: BTreeMap<String, A>,
}

impl<A> Default for SubnetRequest<A> {
    fn default() -> SubnetRequest<A> {
        SubnetRequest {
            subnet: None,
            gateway: None,
            range: None,
            auxiliary: BTreeMap::new(),
        }
    }
}

impl Bridge {
    /// Docker's defaults, with the name that follows from the network's id: `br-` and its first
    /// twelve digits.
    pub fn of(network: &str) -> Bridge {
        let digits = network.get(..12).unwrap_or(network);
        Bridge {
            name: format!("br-{digits}"),
            icc: true,
            masquerade: true,
            gateway_modes: GatewayModes::default(),
            host_ip: None,
            inhibit_ipv4: false,
            trusted_interfaces: Vec::new(),
            source_v4: None,
            source_v6: None,
        }
    }
}

impl NetworkRequest {
    /// Docker's defaults: a bridge with IPv4 only, all of it chosen.
    pub fn new(id: &str) -> NetworkRequest {
        NetworkRequest {
            id: id.to_owned(),
            v4: Some(SubnetRequest::default()),
            v6: None,
            mtu: None,
            internal: false,
            driver: Driver::Bridge(Bridge::of(id)),
        }
    }
}

impl<V4, V6> Network<V4, V6> {
    pub fn bridge(&self) -> Option<&Bridge> {
        match &self.driver {
            Driver::Bridge(bridge) => Some(bridge),
            Driver::Child(_) => None,
        }
    }

    /// Whether the host forwards IPv6 for it.
    pub(crate) fn forwards_v6(&self) -> bool {
        self.v6.is_some() && self.bridge().is_some()
    }

    /// Whether the gateway is to be chosen if none is asked for.
    pub(crate) fn wants_gateway(&self, of: impl Fn(GatewayModes) -> GatewayMode) -> bool {
        match &self.driver {
            Driver::Bridge(bridge) => of(bridge.gateway_modes) != GatewayMode::Isolated,
            // It is another host's.
            Driver::Child(child) => !self.internal && !child.kind.leads_to_link(),
        }
    }
}

impl Network {
    /// Where the containers' default routes lead, for each family; `None` where there is no way
    /// out.
    pub fn ways(&self) -> Ways {
        if self.internal {
            return Ways::default();
        }
        if matches!(&self.driver, Driver::Child(child) if child.kind.leads_to_link()) {
            return Ways {
                v4: self.v4.as_ref().map(|_| Way::Link(Family::V4)),
                v6: self.v6.as_ref().map(|_| Way::Link(Family::V6)),
            };
        }
        let is_bridge = self.bridge().is_some();
        Ways {
            v4: self
                .v4
                .as_ref()
                .and_then(|it| it.way(is_bridge, DEFAULT_GATEWAYS[0])),
            v6: self
                .v6
                .as_ref()
                .and_then(|it| it.way(is_bridge, DEFAULT_GATEWAYS[1])),
        }
    }

    /// The gateway with the subnet, as the bridge has it.
    pub(crate) fn bridge_address(&self) -> Option<Cidr> {
        let bridge = self.bridge()?;
        let has = !bridge.inhibit_ipv4 && bridge.gateway_modes.v4 != GatewayMode::Isolated;
        self.v4.as_ref().filter(|_| has)?.bridge_address()
    }

    pub(crate) fn bridge_address6(&self) -> Option<Cidr<Ipv6Addr>> {
        let has = self.bridge()?.gateway_modes.v6 != GatewayMode::Isolated;
        self.v6.as_ref().filter(|_| has)?.bridge_address()
    }

    /// Whether what leaves by IPv4 gets the host's address.
    pub(crate) fn masquerades_v4(&self) -> bool {
        self.translates(|modes| modes.v4) && self.v4.is_some()
    }

    pub(crate) fn masquerades_v6(&self) -> bool {
        self.translates(|modes| modes.v6) && self.v6.is_some()
    }

    /// How what is published at an address of this family reaches a container: by the way of its
    /// own family, or by the relay's, where the network lacks that.
    pub(crate) fn publication_mode(&self, bridge: &Bridge, host_ip: IpAddr) -> GatewayMode {
        let v6 = match host_ip {
            IpAddr::V4(_) => self.v4.is_none(),
            IpAddr::V6(_) => self.v6.is_some(),
        };
        if v6 {
            bridge.gateway_modes.v6
        } else {
            bridge.gateway_modes.v4
        }
    }

    fn translates(&self, mode: impl Fn(GatewayModes) -> GatewayMode) -> bool {
        let bridge = self.bridge();
        let masquerades = |it: &Bridge| it.masquerade && mode(it.gateway_modes).translates();
        !self.internal && bridge.is_some_and(masquerades)
    }
}

/// The ways out of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ways {
    pub v4: Option<Way>,
    pub v6: Option<Way>,
}

impl Ways {
    /// The gateway of IPv4, if the way leads to one.
    pub fn gateway_v4(self) -> Option<Ipv4Addr> {
        match self.v4? {
            Way::Gateway(IpAddr::V4(gateway)) => Some(gateway),
            Way::Gateway(IpAddr::V6(_)) | Way::Link(_) => None,
        }
    }

    pub fn gateway_v6(self) -> Option<Ipv6Addr> {
        match self.v6? {
            Way::Gateway(IpAddr::V6(gateway)) => Some(gateway),
            Way::Gateway(IpAddr::V4(_)) | Way::Link(_) => None,
        }
    }
}

impl<A: Address> Subnet<A> {
    /// To the gateway; on a bridge to the router that an auxiliary address of Docker's name
    /// declares, if there is one.
    fn way(&self, is_bridge: bool, declared: &str) -> Option<Way> {
        let router = self.auxiliary.get(declared).filter(|_| is_bridge);
        let gateway = router.copied().or(self.gateway)?;
        Some(Way::Gateway(gateway.into()))
    }

    fn bridge_address(&self) -> Option<Cidr<A>> {
        Some(Cidr::new(self.gateway?, self.subnet.prefix))
    }
}

/// What else there is: what a choice must keep clear of.
#[derive(Debug)]
pub(crate) struct Taken<A> {
    /// The other networks of this instance.
    pub networks: Vec<Cidr<A>>,
    /// The host's routes and addresses.
    pub host: Vec<Cidr<A>>,
}

/// Decides a network's addresses of one family. A subnet that was asked for may overlap the
/// host's routes, as in Docker: who names it is taken to know.
pub(crate) fn subnet<A: Address>(
    request: SubnetRequest<A>,
    wants_gateway: bool,
    pools: &[Pool<A>],
    taken: &Taken<A>,
) -> Result<Subnet<A>, Error> {
    let subnet = match request.subnet.map(Cidr::network) {
        Some(subnet) if taken.networks.iter().any(|other| other.overlaps(subnet)) => {
            return Err(Error::SubnetOverlaps {
                subnet: subnet.to_string(),
            });
        }
        Some(subnet) => subnet,
        None => {
            let all = [taken.networks.as_slice(), &taken.host].concat();
            address::choose(pools, &all).ok_or(Error::PoolsExhausted)?
        }
    };
    let outside = |what, address: A| Error::NotInSubnet {
        what,
        address: address.to_string(),
        subnet: subnet.to_string(),
    };
    if let Some(range) = request.range.filter(|range| !subnet.encloses(*range)) {
        return Err(outside("range", range.address));
    }
    let stray = request.auxiliary.values().find(|it| !subnet.contains(**it));
    if let Some(address) = stray {
        return Err(outside("auxiliary address", *address));
    }
    let gateway = match request.gateway {
        Some(gateway) if !subnet.is_host(gateway) => return Err(outside("gateway", gateway)),
        Some(gateway) => Some(gateway),
        None if !wants_gateway => None,
        None => {
            let within = request.range.unwrap_or(subnet);
            let mut hosts = (within.first()..=within.last()).map(A::from_number);
            let free = |host: &A| {
                subnet.is_host(*host) && request.auxiliary.values().all(|other| other != host)
            };
            let found = hosts.find(free).ok_or(Error::NoFreeAddress {
                family: A::FAMILY,
                subnet: subnet.to_string(),
            })?;
            Some(found)
        }
    };
    Ok(Subnet {
        subnet,
        gateway,
        range: request.range.map(Cidr::network),
        auxiliary: request.auxiliary,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(request: SubnetRequest, networks: &[&str]) -> Result<Subnet, Error> {
        let parse = |text: &&str| text.parse().expect("a subnet");
        let taken = Taken {
            networks: networks.iter().map(parse).collect(),
            host: vec!["172.17.0.0/16".parse().expect("a subnet")],
        };
        subnet(request, true, &Pool::defaults(), &taken)
    }

    fn given(subnet: &str) -> SubnetRequest {
        SubnetRequest {
            subnet: Some(subnet.parse().expect("a subnet")),
            ..SubnetRequest::default()
        }
    }

    #[test]
    fn what_is_not_given_is_chosen_clear_of_all_else() {
        let chosen = plan(SubnetRequest::default(), &["172.18.0.0/16"]).expect("a subnet");
        assert_eq!(chosen.subnet.to_string(), "172.19.0.0/16");
        assert_eq!(chosen.gateway, Some([172, 19, 0, 1].into()));
        let chosen = plan(given("172.17.9.7/24"), &[]).expect("as asked for");
        assert_eq!(chosen.subnet.to_string(), "172.17.9.0/24");
        let request = SubnetRequest {
            range: "10.1.2.0/24".parse().ok(),
            auxiliary: [("router".to_owned(), [10, 1, 2, 0].into())].into(),
            ..given("10.1.0.0/16")
        };
        let chosen = plan(request, &[]).expect("a subnet");
        assert_eq!(chosen.gateway, Some([10, 1, 2, 1].into()));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let check = |request, expect: &str| {
            let refused = plan(request, &["10.0.0.0/8"]).expect_err("refused");
            assert_eq!(refused.to_string(), expect);
        };
        check(
            given("10.1.0.0/16"),
            "invalid pool request: Pool overlaps with other one on this address space",
        );
        let base = || given("192.0.2.0/24");
        check(
            SubnetRequest {
                gateway: Some([192, 0, 3, 1].into()),
                ..base()
            },
            "gateway 192.0.3.1 is not in the network's subnet 192.0.2.0/24",
        );
        check(
            SubnetRequest {
                range: "192.0.3.0/25".parse().ok(),
                ..base()
            },
            "range 192.0.3.0 is not in the network's subnet 192.0.2.0/24",
        );
        check(
            SubnetRequest {
                auxiliary: [("a".to_owned(), [192, 0, 3, 1].into())].into(),
                ..base()
            },
            "auxiliary address 192.0.3.1 is not in the network's subnet 192.0.2.0/24",
        );
    }

    #[test]
    fn an_isolated_network_has_no_gateway() {
        let subnet: Subnet<Ipv6Addr> = subnet(
            SubnetRequest::default(),
            false,
            &[Pool::unique_local("x")],
            &Taken {
                networks: Vec::new(),
                host: Vec::new(),
            },
        )
        .expect("a subnet");
        assert_eq!(subnet.gateway, None);
    }
}
