//! From where published ports can be reached.
//!
//! Decided from the addresses of the machine and from what is known of its firewalls. What is not
//! known is said: rules of others are not evaluated, only named.

use std::net::{IpAddr, SocketAddr};

use berth_sys::netlink::route::{Link, Network};

use crate::endpoint::{OpenPort, PortBinding, Protocol};
use crate::error::Holder;

/// A published port, and who gets to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reachable {
    pub container_id: String,
    /// The id of the network.
    pub network: String,
    /// Where it is published; of a routed network, the container's own address and port.
    pub binding: PortBinding,
    pub target: SocketAddr,
    pub way: Transit,
    pub reach: Reach,
    /// The firewalls that may keep some of them out.
    pub behind: Vec<String>,
    /// The firewall that keeps out all but this machine.
    pub closed_by: Option<String>,
    /// Another program has taken the port.
    pub lost_to: Option<Holder>,
}

/// A port of the machine that somebody would publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedPort {
    pub protocol: Protocol,
    /// `None`: where the instance publishes by default.
    pub host_ip: Option<IpAddr>,
    pub port: u16,
}

/// How what arrives gets to the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transit {
    /// Translated by the kernel.
    Nat,
    /// Accepted on the host, and passed on by the port relay.
    Relay,
    /// As it is, at the container's own address.
    Routed,
}

/// Who gets there, as far as addresses decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    Nobody,
    /// The machine itself, with its containers.
    Machine,
    /// Also its neighbours: it has private addresses there.
    Network,
    Everybody,
}

/// The addresses of the machine, and where they are.
#[derive(Debug, Default)]
pub struct Addresses {
    own: Vec<IpAddr>,
    /// On interfaces that lead out of the machine.
    outside: Vec<IpAddr>,
}

impl Addresses {
    pub fn new(links: &[Link], addresses: &[Network]) -> Addresses {
        let leads_out = |address: &&Network| {
            let link = links.iter().find(|link| link.index == address.link);
            link.is_some_and(|link| link.up && link.name != "lo" && !is_inner(link, links))
        };
        let outside = addresses.iter().filter(leads_out);
        Addresses {
            own: addresses.iter().map(|it| it.address).collect(),
            outside: outside.map(|it| it.address).collect(),
        }
    }

    /// Who gets to something that is bound to this address.
    pub fn reach(&self, address: IpAddr) -> Reach {
        if address.is_loopback() {
            return Reach::Machine;
        }
        if address.is_unspecified() {
            let same_family = self
                .outside
                .iter()
                .filter(|it| it.is_ipv4() == address.is_ipv4());
            return same_family
                .map(|it| scope(*it))
                .max()
                .unwrap_or(Reach::Machine);
        }
        if self.outside.contains(&address) {
            scope(address)
        } else if self.own.contains(&address) {
            Reach::Machine
        } else {
            Reach::Nobody
        }
    }
}

/// A bridge of containers or virtual machines only, or a link that has no other end.
fn is_inner(link: &Link, links: &[Link]) -> bool {
    let kind = link.kind.as_deref();
    let mut ports = links.iter().filter(|port| port.master == Some(link.index));
    let is_virtual = |port: &Link| matches!(port.kind.as_deref(), Some("veth" | "tun"));
    kind == Some("dummy") || kind == Some("bridge") && ports.all(is_virtual)
}

/// Who knows a way to this address: neighbours, if it is a private one.
pub fn scope(address: IpAddr) -> Reach {
    let private = match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            // RFC 6598: behind a provider's translation.
            let shared = a == 100 && b & 0xc0 == 64;
            address.is_private() || address.is_link_local() || shared
        }
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    };
    if private {
        Reach::Network
    } else {
        Reach::Everybody
    }
}

/// An open port as what a published one would be.
pub fn as_binding(open: &OpenPort) -> PortBinding {
    PortBinding {
        protocol: open.protocol,
        container_port: open.port,
        host_ip: open.address,
        host_port: open.port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Option<&str>, master: Option<u32>) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            master,
            mtu: 1500,
            mac: Vec::new(),
            group: 0,
            up: true,
            running: true,
        }
    }

    fn addresses(list: &[(u32, &str)]) -> Addresses {
        let links = [
            link(1, "lo", None, None),
            link(2, "eth0", None, None),
            link(3, "br-app", Some("bridge"), None),
            link(4, "veth1", Some("veth"), Some(3)),
            // The machine's own interface is a port of this one.
            link(5, "br0", Some("bridge"), None),
            link(6, "eth1", None, Some(5)),
        ];
        let address = |(link, text): &(u32, &str)| Network {
            link: *link,
            address: text.parse().expect("an address"),
            prefix: 24,
        };
        Addresses::new(&links, &list.iter().map(address).collect::<Vec<_>>())
    }

    fn check(addresses: &Addresses, at: &str, expect: Reach) {
        let reach = addresses.reach(at.parse().expect("an address"));
        assert_eq!(reach, expect, "{at} of {addresses:?}");
    }

    #[test]
    fn addresses_decide_who_gets_there() {
        let home = addresses(&[
            (1, "127.0.0.1"),
            (1, "::1"),
            (2, "192.168.1.5"),
            (2, "fe80::1"),
            (3, "172.17.0.1"),
        ]);
        check(&home, "127.0.0.1", Reach::Machine);
        check(&home, "::1", Reach::Machine);
        check(&home, "0.0.0.0", Reach::Network);
        check(&home, "::", Reach::Network);
        check(&home, "192.168.1.5", Reach::Network);
        check(&home, "172.17.0.1", Reach::Machine);
        check(&home, "192.168.1.6", Reach::Nobody);
        let server = addresses(&[(2, "10.0.0.5"), (5, "8.8.8.8"), (2, "2a00:1::1")]);
        check(&server, "0.0.0.0", Reach::Everybody);
        check(&server, "10.0.0.5", Reach::Network);
        check(&server, "::", Reach::Everybody);
        let alone = addresses(&[(1, "127.0.0.1"), (3, "172.17.0.1")]);
        check(&alone, "0.0.0.0", Reach::Machine);
        check(&alone, "::", Reach::Machine);
    }
}
