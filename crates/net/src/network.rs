//! A network: what is asked for, what it is, and the choice of its subnets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::address::{self, Address, Cidr, Pool};
use crate::error::Error;

/// The id of the bridge that every instance has, in this crate and in the records that the engine
/// keeps for it; other networks' are the engine's.
pub const DEFAULT_NETWORK: &str = "bridge";

/// A network as the engine records it; everything in the kernel follows from it and its
/// endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The full id, or [`DEFAULT_NETWORK`].
    pub id: String,
    /// The link's name.
    pub bridge: String,
    /// `None`: no IPv4 in this network.
    pub v4: Option<Subnet>,
    pub v6: Option<Subnet6>,
    /// `None` is the kernel's 1500.
    pub mtu: Option<u32>,
    /// No way out, and none in.
    pub internal: bool,
    /// The containers may reach each other.
    pub icc: bool,
    /// Containers leave with the host's address.
    pub masquerade: bool,
    pub gateway_modes: GatewayModes,
    /// Where ports are published if the request names no address; `None` is
    /// [`crate::Config::default_host_ip`].
    pub host_ip: Option<IpAddr>,
}

/// A network's addresses of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet<A = Ipv4Addr> {
    pub subnet: Cidr<A>,
    /// The bridge's own address; `None`: it has none, and containers have no default route.
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

/// What [`crate::Net::create_network`] is asked for.
#[derive(Debug, Clone)]
pub struct NetworkRequest {
    pub id: String,
    /// `None`: `br-` and the first twelve digits of the id.
    pub bridge: Option<String>,
    /// `None`: no IPv4.
    pub v4: Option<SubnetRequest>,
    /// `None`: no IPv6.
    pub v6: Option<SubnetRequest<Ipv6Addr>>,
    pub mtu: Option<u32>,
    pub internal: bool,
    pub icc: bool,
    pub masquerade: bool,
    pub gateway_modes: GatewayModes,
    pub host_ip: Option<IpAddr>,
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

impl NetworkRequest {
    /// Docker's defaults: IPv4 only, all of it chosen.
    pub fn new(id: &str) -> NetworkRequest {
        NetworkRequest {
            id: id.to_owned(),
            bridge: None,
            v4: Some(SubnetRequest::default()),
            v6: None,
            mtu: None,
            internal: false,
            icc: true,
            masquerade: true,
            gateway_modes: GatewayModes::default(),
            host_ip: None,
        }
    }

    pub(crate) fn bridge_name(&self) -> String {
        let digits = self.id.get(..12).unwrap_or(&self.id);
        self.bridge
            .clone()
            .unwrap_or_else(|| format!("br-{digits}"))
    }
}

impl Network {
    /// The gateway with the subnet, as the bridge has it.
    pub(crate) fn bridge_address(&self) -> Option<Cidr> {
        self.v4.as_ref()?.bridge_address()
    }

    pub(crate) fn bridge_address6(&self) -> Option<Cidr<Ipv6Addr>> {
        self.v6.as_ref()?.bridge_address()
    }

    /// Whether what leaves by IPv4 gets the host's address.
    pub(crate) fn masquerades_v4(&self) -> bool {
        self.translates(self.gateway_modes.v4) && self.v4.is_some()
    }

    pub(crate) fn masquerades_v6(&self) -> bool {
        self.translates(self.gateway_modes.v6) && self.v6.is_some()
    }

    /// How what is published at an address of this family reaches a container: by the way of its
    /// own family, or by the relay's, where the network lacks that.
    pub(crate) fn publication_mode(&self, host_ip: IpAddr) -> GatewayMode {
        let v6 = match host_ip {
            IpAddr::V4(_) => self.v4.is_none(),
            IpAddr::V6(_) => self.v6.is_some(),
        };
        if v6 {
            self.gateway_modes.v6
        } else {
            self.gateway_modes.v4
        }
    }

    fn translates(&self, mode: GatewayMode) -> bool {
        self.masquerade && !self.internal && mode.translates()
    }
}

impl<A: Address> Subnet<A> {
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
    mode: GatewayMode,
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
        Some(gateway) => gateway,
        None => {
            let within = request.range.unwrap_or(subnet);
            let mut hosts = (within.first()..=within.last()).map(A::from_number);
            let free = |host: &A| {
                subnet.is_host(*host) && request.auxiliary.values().all(|other| other != host)
            };
            hosts.find(free).ok_or(Error::NoFreeAddress {
                family: A::FAMILY,
                subnet: subnet.to_string(),
            })?
        }
    };
    Ok(Subnet {
        subnet,
        gateway: (mode != GatewayMode::Isolated).then_some(gateway),
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
        subnet(request, GatewayMode::Nat, &Pool::defaults(), &taken)
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
            GatewayMode::Isolated,
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
