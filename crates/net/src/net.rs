//! The network of one instance.
//!
//! ```text
//! connect:     address ─► ports bound by the relay ─► veth pair ─► eth0 up ─► DNAT elements
//! disconnect:  DNAT elements ─► relay's sockets ─► port of the bridge silenced ─► reaper
//! ```
//!
//! The kernel's state follows from the endpoints alone, so whatever someone else took away (a
//! flushed table, a killed relay) is made again from them.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard};

use berth_sys::netlink::route::PortMode;
use berth_sys::netlink::{Socket, route};

use crate::address::Cidr;
use crate::bridge::{self, Bridge, failed, mac_of};
use crate::config::{Config, Firewall};
use crate::endpoint::{Endpoint, EndpointRequest, PortBinding, PortRequest};
use crate::error::Error;
use crate::firewall;
use crate::firewall::live::Live;
use crate::namespace::{Interface, Visitor};
use crate::ports;
use crate::reaper::Reaper;
use crate::relay::{Connected, Kept, Publication};

mod endpoints;
mod interface;

use endpoints::Endpoints;

/// The container's interface.
const INTERFACE: &str = "eth0";
const RELAY_SOCKET: &str = "relay.sock";

/// The network of one instance. Thread safe; calls may block for some milliseconds.
pub struct Net {
    config: Config,
    bridge: Bridge,
    guard: bool,
    warnings: Vec<String>,
    endpoints: Arc<Mutex<Endpoints>>,
    route: Mutex<Socket>,
    /// `None` without any rules of ours.
    firewall: Option<Live>,
    relay: Kept,
    visitor: Visitor,
    reaper: Reaper,
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

/// What a connection has made so far; taken back if a later step fails.
#[derive(Default)]
struct Made {
    bindings: Vec<PortBinding>,
    veth: Option<String>,
}

impl Net {
    /// Makes the bridge, the tables, the jump in foreign chains and the relay, or finds them as
    /// an earlier daemon left them. `start_relay` is handed the relay's listening socket and
    /// makes a process that runs [`crate::relay::main`] on it; it is called again whenever the
    /// relay ends.
    /// The network namespace is that of the calling thread.
    pub fn open(
        config: Config,
        start_relay: impl Fn(UnixListener) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Net, Error> {
        let opening = |error: io::Error| Error::Netlink {
            what: "open a netlink socket".to_owned(),
            source: error,
        };
        let mut route = Socket::route().map_err(opening)?;
        let mut netfilter = Socket::netfilter().map_err(opening)?;
        let visitor = Visitor::new().map_err(opening)?;
        let reaper = Reaper::start().map_err(opening)?;
        let mut warnings = Vec::new();
        let bridge = bridge::ensure(&mut route, &config, &mut warnings)?;
        let switched_on = config.ip_forward && bridge::forward()?;
        let instance = config.instance.as_str();
        let guard = switched_on
            || firewall::is_guarded(&mut netfilter, instance)
                .map_err(failed("look at the nftables table", instance))?;
        let endpoints: Arc<Mutex<Endpoints>> = Arc::default();
        let shared = endpoints.clone();
        let connected: Connected = Arc::new(move || lock(&shared).all());
        let mut live = None;
        if config.firewall != Firewall::Off {
            let inputs = firewall::Inputs {
                instance: config.instance.clone(),
                bridge: bridge.name.clone(),
                subnet: bridge.address.network(),
                icc: config.icc,
                masquerade: config.masquerade,
                guard,
            };
            let opened = Live::open(netfilter, &inputs, &config, connected.clone())?;
            // Only now, since it opens the host's loopback to the bridge but for our table.
            bridge::route_loopback(&bridge.name)?;
            warnings.extend(opened.warnings.iter().cloned());
            live = Some(opened);
        }
        let socket = config.exec_root.join(RELAY_SOCKET);
        let relay = Kept::open(socket, Box::new(start_relay), connected);
        let relay = relay.map_err(relayed("start it"))?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        Ok(Net {
            bridge,
            guard,
            warnings,
            endpoints,
            route: Mutex::new(route),
            firewall: live,
            relay,
            visitor,
            reaper,
            config,
        })
    }

    /// What the daemon should tell its user about the host: missing rules, with the remedy.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    pub fn bridge(&self) -> BridgeInfo {
        BridgeInfo {
            name: self.bridge.name.clone(),
            subnet: self.bridge.address.network(),
            gateway: self.bridge.address.address,
            mtu: self.bridge.mtu,
            icc: self.config.icc,
            masquerade: self.config.masquerade,
            user_managed: self.config.bridge.user_managed,
        }
    }

    /// A new network namespace with its loopback up; it lives as long as the descriptor or a
    /// process in it.
    pub fn create_namespace(&self) -> Result<OwnedFd, Error> {
        let created = self.visitor.create();
        created.map_err(|source| Error::Netlink {
            what: "make a network namespace".to_owned(),
            source,
        })
    }

    /// Gives the namespace an `eth0` on the bridge, an address and a default route, and publishes
    /// the ports. All or nothing.
    pub fn connect(&self, request: EndpointRequest<'_>) -> Result<Endpoint, Error> {
        let container_id = request.container_id.to_owned();
        let wanted = request.ipv4;
        let ipv4 = lock(&self.endpoints).reserve(&container_id, wanted, self.bridge.address)?;
        let mut made = Made::default();
        let connected = self.build(request, ipv4, &mut made);
        match connected {
            Ok(endpoint) => Ok(endpoint),
            Err(error) => {
                lock(&self.endpoints).remove(&container_id);
                if !made.bindings.is_empty() {
                    self.release_ports(&container_id);
                }
                if let Some(veth) = made.veth {
                    self.drop_interface(veth);
                }
                lock(&self.endpoints).release(ipv4);
                Err(error)
            }
        }
    }

    /// Takes an endpoint away. Ports and rules are gone when it returns, the interface within two
    /// seconds. Unknown ids are no error.
    pub fn disconnect(&self, container_id: &str) -> Result<(), Error> {
        let Some(endpoint) = lock(&self.endpoints).remove(container_id) else {
            return Ok(());
        };
        let mut result = Ok(());
        if !endpoint.ports.is_empty() {
            result = self
                .firewall
                .as_ref()
                .map_or(Ok(()), |live| live.withdraw(&endpoint));
            self.release_ports(container_id);
        }
        self.drop_interface(endpoint.veth);
        lock(&self.endpoints).release(endpoint.ipv4);
        result
    }

    /// After a daemon's restart: makes the kernel's state exactly that of these endpoints.
    pub fn restore(&self, endpoints: &[Endpoint]) -> Result<(), Error> {
        lock(&self.endpoints).replace(endpoints);
        if let Some(live) = &self.firewall {
            live.publish_connected()?;
        }
        let adopted = self.relay.adopt_connected();
        adopted.map_err(relayed("hand it the ports"))?;
        self.drop_unknown_interfaces(endpoints)
    }

    /// Waits until the interfaces of all disconnected containers are gone.
    pub fn settle(&self) {
        self.reaper.settle();
    }

    /// Removes all that was made: bridge, tables, jump, relay. Legal with no endpoint left.
    pub fn close(self) -> Result<(), Error> {
        self.settle();
        let mut first = Ok(());
        let mut keep = |result: Result<(), Error>| {
            if first.is_ok() {
                first = result;
            } else if let Err(error) = result {
                tracing::warn!(%error, "close the network");
            }
        };
        keep(self.relay.quit().map_err(relayed("end it")));
        if let Some(live) = self.firewall {
            keep(live.close());
        }
        let name = self.bridge.name.as_str();
        let mut socket = lock(&self.route);
        if !self.config.bridge.user_managed {
            let removed = route::delete_link(&mut socket, self.bridge.index);
            keep(removed.map_err(failed("remove the bridge", name)));
        }
        if self.guard && !other_bridges(&mut socket) {
            keep(bridge::stop_forwarding());
        }
        first
    }

    fn build(
        &self,
        request: EndpointRequest<'_>,
        ipv4: Ipv4Addr,
        made: &mut Made,
    ) -> Result<Endpoint, Error> {
        let EndpointRequest {
            container_id,
            netns,
            mac,
            ports,
            ..
        } = request;
        let relay = self.relay.generation();
        if !ports.is_empty() {
            made.bindings = self.bind(container_id, ipv4, &ports)?;
        }
        let address = mac.unwrap_or_else(|| mac_of(ipv4));
        let veth = self.create_veth(netns, address)?;
        made.veth = Some(veth.clone());
        // A container that calls its own published port is routed to the bridge and back; with
        // br_netfilter the bridge does that itself, and must give the frame back where it came
        // from. Isolation is the bridge's, since the firewall sees only what is routed.
        let mode = PortMode {
            hairpin: !made.bindings.is_empty(),
            isolated: !self.config.icc,
        };
        if mode != PortMode::default() {
            self.set_port_mode(&veth, mode)?;
        }
        let endpoint = Endpoint {
            container_id: container_id.to_owned(),
            ipv4,
            prefix: self.bridge.address.prefix,
            gateway: self.bridge.address.address,
            mac: address,
            ports: made.bindings.clone(),
            veth,
        };
        let interface = Interface {
            name: INTERFACE,
            address: ipv4,
            prefix: endpoint.prefix,
            gateway: endpoint.gateway,
            announce: mac.is_some(),
        };
        self.visitor
            .configure(netns, interface)
            .map_err(|source| Error::Netlink {
                what: format!("set up {INTERFACE} in the container"),
                source,
            })?;
        self.await_carrier(&endpoint.veth)?;
        self.await_carrier(&self.bridge.name)?;
        if mac.is_some() {
            // The host may remember the address's last holder.
            let forgotten =
                route::forget_neighbour(&mut lock(&self.route), self.bridge.index, ipv4);
            forgotten.map_err(failed("forget the neighbour on", &self.bridge.name))?;
        }
        lock(&self.endpoints).insert(endpoint.clone());
        if self.relay.generation() != relay {
            // A relay that was started meanwhile does not know these ports.
            let adopted = self.relay.adopt_connected();
            adopted.map_err(relayed("hand it the ports"))?;
        }
        if let Some(live) = self
            .firewall
            .as_ref()
            .filter(|_| !endpoint.ports.is_empty())
        {
            live.publish(&endpoint)?;
        }
        Ok(endpoint)
    }

    fn bind(
        &self,
        container_id: &str,
        target: Ipv4Addr,
        requests: &[PortRequest],
    ) -> Result<Vec<PortBinding>, Error> {
        let default = self.config.default_host_ip;
        let ports = requests
            .iter()
            .map(|request| ports::wanted(request, default))
            .collect();
        let publication = Publication {
            container_id: container_id.to_owned(),
            target,
            ports,
        };
        let answer = self.relay.publish(publication);
        let answer = answer.map_err(relayed("bind ports"))?;
        answer.map_err(ports::refused)
    }

    /// The endpoint is going away whatever the relay says; a later start of the relay leaves its
    /// ports out.
    fn release_ports(&self, container_id: &str) {
        if let Err(error) = self.relay.withdraw(container_id) {
            tracing::warn!(%error, container_id, "release the ports");
        }
    }
}

fn relayed(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Relay { what, source }
}

/// Someone else may need forwarding by now.
fn other_bridges(socket: &mut Socket) -> bool {
    let links = route::links(socket);
    links.map_or(true, |links| {
        links
            .iter()
            .any(|link| link.kind.as_deref() == Some("bridge"))
    })
}

/// A panic while a lock is held leaves no half-made state behind it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
