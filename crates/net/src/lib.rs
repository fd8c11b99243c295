//! Bridges, endpoints, address management, port publishing and the firewall.
//!
//! [`Net`] owns the network of one instance: its bridge, its nftables tables, the addresses of
//! its containers and their published ports. Everything is synchronous and thread safe; nothing
//! here knows about containers beyond their id.
//!
//! What the kernel needs is decided by pure functions ([`firewall::plan`], [`address::choose`],
//! [`files::resolv_conf`]) and done by thin code above `berth_sys::{netlink, nft}`.

pub mod address;
mod bridge;
mod child;
mod config;
mod endpoint;
mod error;
pub mod files;
pub mod firewall;
mod namespace;
mod net;
mod network;
mod ports;
mod reach;
mod reaper;
pub mod relay;
mod resolver;
pub mod sockets;
mod watch;

pub use berth_sys::netlink::route::{ChildKind, IpvlanFlag, IpvlanMode, MacvlanMode, Way};
pub use child::Child;
pub use config::{BridgeConfig, Config, Firewall};
pub use endpoint::{
    Endpoint, EndpointRequest, Gateway, OpenPort, PortBinding, PortRequest, Protocol,
};
pub use error::{Error, Holder};
pub use net::{BridgeInfo, Net};
pub use network::{
    Bridge, DEFAULT_GATEWAYS, DEFAULT_NETWORK, Driver, GatewayMode, GatewayModes, Network,
    NetworkRequest, Subnet, Subnet6, SubnetRequest, Ways,
};
pub use reach::{Reach, Reachable, Transit, WantedPort};
pub use resolver::{RESOLVER, ResolverSockets};
