//! A container's place in the network: what is asked for, and what was made.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What [`crate::Net::connect`] is asked for.
#[derive(Debug)]
pub struct EndpointRequest<'a> {
    pub container_id: &'a str,
    /// From [`crate::Net::create_namespace`]; gets the interface `eth0`.
    pub netns: BorrowedFd<'a>,
    /// `None` derives it from the address, so that a neighbour's cache never goes stale.
    pub mac: Option<[u8; 6]>,
    /// `None` takes the lowest free address.
    pub ipv4: Option<Ipv4Addr>,
    pub ports: Vec<PortRequest>,
}

/// One port to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRequest {
    pub protocol: Protocol,
    pub container_port: u16,
    /// `None` is [`crate::Config::default_host_ip`]; its `0.0.0.0` means `[::]` too.
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

/// A connected container. The engine keeps it as a record and hands it to
/// [`crate::Net::restore`] after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub container_id: String,
    pub ipv4: Ipv4Addr,
    /// Length of the subnet's prefix.
    pub prefix: u8,
    pub gateway: Ipv4Addr,
    pub mac: [u8; 6],
    pub ports: Vec<PortBinding>,
    /// The host's end of the pair.
    pub veth: String,
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
    /// The address as Docker prints it: `02:42:ac:11:00:02`.
    pub fn mac_string(&self) -> String {
        let [a, b, c, d, e, f] = self.mac;
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
