//! What can go wrong, in Docker's words where its users know them.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::address::Cidr;
use crate::endpoint::Protocol;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another container of this instance has the port.
    #[error("Bind for {host} failed: port is already allocated{}", held(.holder))]
    PortAllocated {
        host: SocketAddr,
        protocol: Protocol,
        holder: Option<Holder>,
    },
    /// Something else on the machine has the port.
    #[error("failed to bind host port {host}/{protocol}: address already in use{}", held(.holder))]
    PortInUse {
        host: SocketAddr,
        protocol: Protocol,
        holder: Option<Holder>,
    },
    /// The address is not one of this host's, or binding is not permitted.
    #[error("failed to bind host port {host}/{protocol}")]
    Bind {
        host: SocketAddr,
        protocol: Protocol,
        source: io::Error,
    },
    #[error("all ports of the range {first}-{last}/{protocol} on {host_ip} are taken")]
    RangeExhausted {
        host_ip: std::net::IpAddr,
        protocol: Protocol,
        first: u16,
        last: u16,
    },
    #[error("Address already in use")]
    AddressInUse { address: Ipv4Addr },
    #[error("address {address} is not in the bridge's subnet {subnet}")]
    AddressOutside { address: Ipv4Addr, subnet: Cidr },
    #[error("no available IPv4 addresses on this network's address pools: bridge ({subnet})")]
    NoFreeAddress { subnet: Cidr },
    #[error("all predefined address pools have been fully subnetted")]
    PoolsExhausted,
    #[error("bridge device with non default name {name} must be created manually")]
    BridgeMissing { name: String },
    #[error(
        "bridge {name} has no IPv4 address; give it one, for example: ip address add 172.17.0.1/16 dev {name}"
    )]
    BridgeWithoutAddress { name: String },
    #[error("{name} exists and is not a bridge")]
    NotABridge { name: String },
    #[error("container {container_id} is connected already")]
    Connected { container_id: String },
    #[error("{what}")]
    Netlink { what: String, source: io::Error },
    #[error("firewalld: {what}")]
    Firewalld {
        what: &'static str,
        source: berth_sys::dbus::Error,
    },
    #[error("{what} {}", .path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the port relay: {what}")]
    Relay {
        what: &'static str,
        source: io::Error,
    },
}

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    Container { id: String },
    Process { pid: i32, name: String },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Container { id } => write!(f, "container {}", id.get(..12).unwrap_or(id)),
            Holder::Process { pid, name } => write!(f, "process {pid} ({name})"),
        }
    }
}

fn held(holder: &Option<Holder>) -> String {
    holder
        .as_ref()
        .map(|holder| format!(" (held by {holder})"))
        .unwrap_or_default()
}
