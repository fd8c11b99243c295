//! A container's place in the network: what is asked for, and what was made.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::network::DEFAULT_NETWORK;

/// A container's first interface.
const FIRST_INTERFACE: &str = "eth0";

/// What [`crate::Net::connect`] is asked for.
#[derive(Debug)]
pub struct EndpointRequest<'a> {
    pub container_id: &'a str,
    /// From [`crate::Net::create_namespace`].
    pub netns: BorrowedFd<'a>,
    /// The id of the network.
    pub network: &'a str,
    /// The interface's name in the container.
    pub interface: &'a str,
    /// `None` derives it from the address, so that a neighbour's cache never goes stale.
    pub mac: Option<[u8; 6]>,
    /// `None` takes a free address; those that were freed come last.
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    /// Which default routes lead here.
    pub gateway: Gateway,
    /// Further addresses of the interface, for this link only.
    pub link_local: Vec<IpAddr>,
    /// Settings of the interface: the path below `/proc/sys`, with `IFNAME` for its name, and the
    /// value (`com.docker.network.endpoint.sysctls`).
    pub sysctls: Vec<(String, String)>,
    pub ports: Vec<PortRequest>,
}

/// For which families an endpoint takes the default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gateway {
    pub v4: bool,
    pub v6: bool,
}

impl<'a> EndpointRequest<'a> {
    /// An `eth0` on the default bridge, all of it chosen, without ports.
    pub fn new(container_id: &'a str, netns: BorrowedFd<'a>) -> EndpointRequest<'a> {
        EndpointRequest {
            container_id,
            netns,
            network: DEFAULT_NETWORK,
            interface: FIRST_INTERFACE,
            mac: None,
            ipv4: None,
            ipv6: None,
            gateway: Gateway { v4: true, v6: true },
            link_local: Vec::new(),
            sysctls: Vec::new(),
            ports: Vec::new(),
        }
    }
}

/// One port to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    pub protocol: Protocol,
    pub container_port: u16,
    /// `None` is the network's, or [`crate::Config::default_host_ip`]; its `0.0.0.0` means `[::]`
    /// too.
    pub host_ip: Option<IpAddr>,
    /// The first free one is taken; `None` takes one of the kernel's ephemeral range.
    pub host_ports: Option<RangeInclusive<u16>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A container's place in one network. The engine keeps it as a record and hands it to
/// [`crate::Net::restore`] after a restart; those of older daemons are the default bridge's
/// `eth0`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub container_id: String,
    /// The id of the network.
    #[serde(default = "default_network")]
    pub network: String,
    /// The interface's name in the container.
    #[serde(default = "first_interface")]
    pub interface: String,
    /// `None` in a network without IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// Length of the IPv4 subnet's prefix.
    pub prefix: u8,
    /// The way out of the network, whether or not the container's default route leads there.
    pub gateway: Option<Ipv4Addr>,
    /// `None` in a network without IPv6.
    #[serde(default)]
    pub ipv6: Option<Ipv6Addr>,
    #[serde(default)]
    pub prefix6: u8,
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    /// `None` where the interface has that of the link below it.
    pub mac: Option<[u8; 6]>,
    pub ports: Vec<PortBinding>,
    /// What is reached without translation, in a network that is routed.
    #[serde(default)]
    pub open: Vec<OpenPort>,
    /// The host's end of the pair; `None` where the interface is a child of a link of the host's.
    #[serde(default)]
    pub veth: Option<String>,
}

fn default_network() -> String {
    DEFAULT_NETWORK.to_owned()
}

fn first_interface() -> String {
    FIRST_INTERFACE.to_owned()
}

/// A port that is open at the container's own address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpenPort {
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

/// A published port. A request for all addresses gives two of them: `0.0.0.0` and `::`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    pub protocol: Protocol,
    pub container_port: u16,
    pub host_ip: IpAddr,
    pub host_port: u16,
}

impl Endpoint {
    /// Its own, IPv4 first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let v4 = self.ipv4.map(IpAddr::V4);
        v4.into_iter().chain(self.ipv6.map(IpAddr::V6)).collect()
    }

    /// Whether the firewall lets anything in.
    pub fn is_published(&self) -> bool {
        !self.ports.is_empty() || !self.open.is_empty()
    }

    /// The address as Docker prints it, `02:42:ac:11:00:02`; nothing where there is none of its own.
    pub fn mac_string(&self) -> String {
        let Some([a, b, c, d, e, f]) = self.mac else {
            return String::new();
        };
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl Protocol {
    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Protocol, ()> {
        match text {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_an_older_daemon_is_the_default_bridges_eth0() {
        let text = r#"{"container_id":"c","ipv4":"172.17.0.2","prefix":16,
            "gateway":"172.17.0.1","mac":[2,66,172,17,0,2],"ports":[],"veth":"veth1"}"#;
        let endpoint: Endpoint = serde_json::from_str(text).expect("a record");
        assert_eq!(endpoint.network, DEFAULT_NETWORK);
        assert_eq!(endpoint.interface, "eth0");
        assert_eq!(endpoint.ipv4, Some([172, 17, 0, 2].into()));
        assert_eq!(endpoint.gateway, Some([172, 17, 0, 1].into()));
        assert_eq!(endpoint.ipv6, None);
        assert_eq!(endpoint.mac_string(), "02:42:ac:11:00:02");
        assert_eq!(endpoint.veth.as_deref(), Some("veth1"));
    }
}
