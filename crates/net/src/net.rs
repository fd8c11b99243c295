//! The network of one instance.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use crate::address::Cidr;
use crate::config::Config;
use crate::endpoint::{Endpoint, EndpointRequest};
use crate::error::Error;

/// The network of one instance. Thread safe; calls may block for some milliseconds.
pub struct Net {
    info: BridgeInfo,
}

/// What `network inspect bridge` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeInfo {
    pub name: String,
    pub subnet: Cidr,
    pub gateway: Ipv4Addr,
    pub mtu: u32,
    pub icc: bool,
    pub masquerade: bool,
    pub user_managed: bool,
}

impl Net {
    /// Makes the bridge, the tables, the jump in foreign chains and the relay, or finds them as
    /// an earlier daemon left them. `start_relay` is handed the relay's listening socket and
    /// makes a process that runs `relay::main` on it; it is called again should the relay die.
    pub fn open(
        config: Config,
        start_relay: impl Fn(UnixListener) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Net, Error> {
        let _ = (config, start_relay);
        Err(unfinished())
    }

    /// What the daemon should tell its user about the host: missing rules, with the remedy.
    pub fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    pub fn bridge(&self) -> BridgeInfo {
        self.info.clone()
    }

    /// A new network namespace with its loopback up; it lives as long as the descriptor or a
    /// process in it.
    pub fn create_namespace(&self) -> Result<OwnedFd, Error> {
        Err(unfinished())
    }

    /// Gives the namespace an `eth0` on the bridge, an address and a default route, and publishes
    /// the ports. All or nothing.
    pub fn connect(&self, request: EndpointRequest<'_>) -> Result<Endpoint, Error> {
        let _ = request;
        Err(unfinished())
    }

    /// Takes an endpoint away. Ports and rules are gone when it returns, the interface within two
    /// seconds. Unknown ids are no error.
    pub fn disconnect(&self, container_id: &str) -> Result<(), Error> {
        let _ = container_id;
        Err(unfinished())
    }

    /// After a daemon's restart: makes the kernel's state exactly that of these endpoints.
    pub fn restore(&self, endpoints: &[Endpoint]) -> Result<(), Error> {
        let _ = endpoints;
        Err(unfinished())
    }

    /// Removes all that was made: bridge, tables, jump, relay. Legal with no endpoint left.
    pub fn close(self) -> Result<(), Error> {
        Err(unfinished())
    }
}

fn unfinished() -> Error {
    Error::Netlink {
        what: "the network is being built".to_owned(),
        source: io::Error::from(io::ErrorKind::Unsupported),
    }
}
