//! What can go wrong, in Docker's words where its users know them.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
        host_ip: IpAddr,
        protocol: Protocol,
        first: u16,
        last: u16,
    },
    #[error("Address already in use")]
    AddressInUse { address: IpAddr },
    #[error("address {address} is not in the network's subnet {subnet}")]
    AddressOutside { address: IpAddr, subnet: String },
    #[error("no available {family} addresses on this network's address pools: {subnet}")]
    NoFreeAddress {
        family: &'static str,
        subnet: String,
    },
    /// Of a network of this instance.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    SubnetOverlaps { subnet: String },
    #[error("{what} {address} is not in the network's subnet {subnet}")]
    NotInSubnet {
        what: &'static str,
        address: String,
        subnet: String,
    },
    #[error("gateway mode 'isolated' can only be used for an internal network")]
    IsolatedNotInternal,
    #[error("network {id} has no {family}")]
    FamilyMissing { id: String, family: &'static str },
    #[error("network {id} not found")]
    UnknownNetwork { id: String },
    #[error("network {id} is there already")]
    NetworkExists { id: String },
    #[error("bridge name {name} is another network's")]
    BridgeTaken { name: String },
    #[error("network {id} has active endpoints")]
    NetworkInUse { id: String },
    #[error("interface {name} is there already")]
    InterfaceExists { name: String },
    #[error("container {container_id} is not connected to network {network}")]
    NotConnected {
        container_id: String,
        network: String,
    },
    #[error("all predefined address pools have been fully subnetted")]
    PoolsExhausted,
    #[error("bridge device with non default name {name} must be created manually")]
    BridgeMissing { name: String },
    #[error(
        "bridge {name} has no IPv4 address; give it one, for example: ip address add 172.17.0.1/16 dev {name}"
    )]
    BridgeWithoutAddress { name: String },
    /// Of a network whose interfaces are children of a link of the host's.
    #[error("{why}")]
    Parent { why: String },
    #[error("{name} exists and is not a bridge")]
    NotABridge { name: String },
    #[error("container {container_id} is connected to network {network} already")]
    Connected {
        container_id: String,
        network: String,
    },
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
    Container {
        id: String,
    },
    Process {
        pid: i32,
        name: String,
    },
    /// One that cannot be seen from here.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Container { id } => write!(f, "container {}", id.get(..12).unwrap_or(id)),
            Holder::Process { pid, name } => write!(f, "process {pid} ({name})"),
            Holder::Unknown => f.write_str("another program"),
        }
    }
}

fn held(holder: &Option<Holder>) -> String {
    holder
        .as_ref()
        .map(|holder| format!(" (held by {holder})"))
        .unwrap_or_default()
}
