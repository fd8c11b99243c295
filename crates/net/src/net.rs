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
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard};

use berth_sys::netlink::route::PortMode;
use berth_sys::netlink::{Socket, route};
use berth_sys::nft::Family;

use crate::address::Cidr;
use crate::bridge::{self, failed, mac_of};
use crate::config::{Config, Firewall};
use crate::endpoint::{Endpoint, EndpointRequest, PortBinding, Protocol};
use crate::error::Error;
use crate::firewall::live::{Live, Present};
use crate::firewall::{self, Contents};
use crate::namespace::{self, Visitor};
use crate::network::{Bridge, DEFAULT_NETWORK, Driver, Network, Ways};
use crate::ports;
use crate::reaper::Reaper;
use crate::relay::{Connected, Kept};
use crate::resolver::{self, ResolverSockets};

mod gateway;
mod hosts;
mod interface;
mod networks;
mod order;
mod published;
mod reachable;
mod state;

use state::{Known, Place, State};

const RELAY_SOCKET: &str = "relay.sock";

/// The network of one instance. Thread safe; calls may block for some milliseconds.
pub struct Net {
    config: Config,
    guard: bool,
    warnings: Vec<String>,
    state: Arc<Mutex<State>>,
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

/// How a container's interface is known.
enum Interface {
    /// By the host's end of its pair.
    Veth(String),
    /// By the name that it has in the container.
    Child,
}

/// What a connection has made so far; taken back if a later step fails.
#[derive(Default)]
struct Made {
    bindings: Vec<PortBinding>,
    interface: Option<Interface>,
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
        let (network, bridge) = bridge::ensure(&mut route, &config, &mut warnings)?;
        let switched_on = config.ip_forward && bridge::forward()?;
        let instance = config.instance.as_str();
        let guard = switched_on
            || firewall::is_guarded(&mut netfilter, Family::Ip, instance)
                .map_err(failed("look at the nftables table", instance))?;
        let state: Arc<Mutex<State>> = Arc::default();
        lock(&state).add_network(Known::new(network.clone(), Some(bridge)));
        let mut live = None;
        if config.firewall != Firewall::Off {
            let inputs = firewall::Inputs {
                instance: config.instance.clone(),
                family: Family::Ip,
                guard,
            };
            let present = present(&state, bridge::group(instance));
            let opened = Live::open(netfilter, &inputs, &config, &network, present)?;
            // Only now, since it opens the host's loopback to the bridge but for our table.
            bridge::route_loopback(&config.bridge.name)?;
            warnings.extend(opened.warnings.iter().cloned());
            live = Some(opened);
        }
        let shared = state.clone();
        let connected: Connected = Arc::new(move || lock(&shared).all().cloned().collect());
        let socket = config.exec_root.join(RELAY_SOCKET);
        let relay = Kept::open(socket, Box::new(start_relay), connected);
        let relay = relay.map_err(relayed("start it"))?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        Ok(Net {
            guard,
            warnings,
            state,
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

    /// The default bridge.
    pub fn bridge(&self) -> BridgeInfo {
        let state = lock(&self.state);
        let known = state.network(DEFAULT_NETWORK);
        let known = known.expect("the default bridge is added at the start and never removed");
        let address = known.network.bridge_address();
        let address = address.expect("the default bridge always has an address");
        let (link, bridge) = (known.link.as_ref(), known.network.bridge());
        let both = link.zip(bridge);
        let (link, bridge) = both.expect("the default network is a bridge");
        BridgeInfo {
            name: link.name.clone(),
            subnet: address.network(),
            gateway: address.address,
            mtu: link.mtu,
            icc: bridge.icc,
            masquerade: bridge.masquerade,
            user_managed: self.config.bridge.user_managed,
        }
    }

    /// A network as it was made; `None` if there is none of this id.
    pub fn network(&self, id: &str) -> Option<Network> {
        let state = lock(&self.state);
        state.network(id).map(|known| known.network.clone())
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

    /// Sockets on [`crate::RESOLVER`] in a container's namespace, with port 53 led to them by
    /// rules inside it; 53 itself stays free there. A later call, of a restarted daemon, makes
    /// them anew, with the same ports if it can.
    pub fn resolver_sockets(&self, netns: BorrowedFd<'_>) -> Result<ResolverSockets, Error> {
        let opened = self.visitor.visit(netns, resolver::open);
        opened.map_err(|source| Error::Netlink {
            what: "open the resolver's sockets in the container".to_owned(),
            source,
        })
    }

    /// A new socket in the namespace for an address of this one's family, neither bound nor
    /// connected: what the container's name server asks the container's own servers with.
    pub fn socket(
        &self,
        netns: BorrowedFd<'_>,
        protocol: Protocol,
        towards: SocketAddr,
    ) -> io::Result<OwnedFd> {
        self.visitor
            .visit(netns, move || resolver::socket(protocol, towards))
    }

    /// Gives the namespace an interface in the network, with addresses and default routes, and
    /// publishes the ports. All or nothing.
    pub fn connect(&self, request: EndpointRequest<'_>) -> Result<Endpoint, Error> {
        let (container_id, network) = (request.container_id, request.network);
        let wanted = (request.ipv4, request.ipv6);
        let place = lock(&self.state).reserve(container_id, network, wanted)?;
        let mut made = Made::default();
        let error = match self.build(&request, &place, &mut made) {
            Ok(endpoint) => return Ok(endpoint),
            Err(error) => error,
        };
        lock(&self.state).remove(container_id, network);
        if !made.bindings.is_empty() {
            self.release_ports(container_id, network);
        }
        match made.interface {
            Some(Interface::Veth(veth)) => self.drop_interface(veth),
            Some(Interface::Child) => {
                if let Err(error) = self.delete_child(request.netns, request.interface) {
                    tracing::warn!(%error, container_id, "take back an interface");
                }
            }
            None => {}
        }
        let addresses = (place.v4.map(|v4| v4.address), place.v6.map(|v6| v6.address));
        lock(&self.state).cancel(container_id, network, addresses);
        Err(error)
    }

    /// Takes an endpoint away, of a container that ends: ports and rules are gone when it
    /// returns, the interface within two seconds. Unknown ids are no error.
    pub fn disconnect(&self, container_id: &str, network: &str) -> Result<(), Error> {
        self.leave(container_id, network, |endpoint| {
            // A child of another link goes with the namespace.
            if let Some(veth) = &endpoint.veth {
                self.drop_interface(veth.clone());
            }
            Ok(())
        })
    }

    /// The same of a container that goes on: the interface is gone as well.
    pub fn detach(
        &self,
        container_id: &str,
        netns: BorrowedFd<'_>,
        network: &str,
    ) -> Result<(), Error> {
        self.leave(container_id, network, |endpoint| match &endpoint.veth {
            Some(veth) => self.delete_interface(veth.clone()),
            None => self.delete_child(netns, &endpoint.interface),
        })
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
        keep(self.end_v6());
        keep(self.relay.quit().map_err(relayed("end it")));
        if let Some(live) = self.firewall {
            keep(live.close());
        }
        let mut socket = lock(&self.route);
        let group = bridge::group(&self.config.instance);
        keep(
            route::delete_group(&mut socket, group)
                .map_err(failed("remove the links of", &self.config.instance)),
        );
        if self.guard && !other_bridges(&mut socket) {
            keep(bridge::stop_forwarding());
        }
        first
    }

    fn leave(
        &self,
        container_id: &str,
        network: &str,
        end: impl FnOnce(&Endpoint) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(endpoint) = lock(&self.state).remove(container_id, network) else {
            return Ok(());
        };
        let result = self.close_ports(&endpoint);
        if let Some(live) = &self.firewall {
            live.forget(&endpoint);
        }
        let ended = end(&endpoint);
        let addresses = (endpoint.ipv4, endpoint.ipv6);
        lock(&self.state).release(network, addresses);
        result.and(ended)
    }

    fn build(
        &self,
        request: &EndpointRequest<'_>,
        place: &Place,
        made: &mut Made,
    ) -> Result<Endpoint, Error> {
        let EndpointRequest {
            container_id,
            netns,
            interface,
            mac,
            ..
        } = *request;
        let network = &place.network;
        let relay = self.relay.generation();
        let addresses: Vec<IpAddr> = [
            place.v4.map(|v4| IpAddr::V4(v4.address)),
            place.v6.map(|v6| IpAddr::V6(v6.address)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let first = addresses.first().copied();
        let first = first.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let default = self.config.default_host_ip;
        let ports = ports::plan(&request.ports, network, default, &addresses);
        made.bindings = self.bind(container_id, network, first, ports.bound)?;
        let address = mac.unwrap_or_else(|| mac_of(first));
        let (mut mac, mut veth) = (Some(address), None);
        match (&network.driver, &place.link) {
            (Driver::Child(child), _) => {
                mac = child.mac(request.mac);
                self.create_child(child, network.mtu, netns, interface, mac)?;
                made.interface = Some(Interface::Child);
            }
            (Driver::Bridge(bridge), link) => {
                let link = link.as_ref();
                let made_veth = self.create_port(network, link, netns, interface, address)?;
                made.interface = Some(Interface::Veth(made_veth.clone()));
                self.set_mode_of(&made_veth, bridge, !made.bindings.is_empty())?;
                veth = Some(made_veth);
            }
        }
        let ways = network.ways();
        let endpoint = Endpoint {
            container_id: container_id.to_owned(),
            network: network.id.clone(),
            interface: interface.to_owned(),
            ipv4: place.v4.map(|v4| v4.address),
            prefix: place.v4.map_or(0, |v4| v4.prefix),
            gateway: place.v4.and(ways.gateway_v4()),
            ipv6: place.v6.map(|v6| v6.address),
            prefix6: place.v6.map_or(0, |v6| v6.prefix),
            gateway6: place.v6.and(ways.gateway_v6()),
            mac,
            ports: made.bindings.clone(),
            open: ports.open,
            veth,
        };
        self.configure(netns, &interface_of(request, &endpoint, ways))?;
        if let (Some(veth), Some(bridge)) = (&endpoint.veth, network.bridge()) {
            self.await_carrier(veth)?;
            self.await_carrier(&bridge.name)?;
            if request.mac.is_some() {
                for address in addresses {
                    self.forget_neighbour(&bridge.name, address)?;
                }
            }
        }
        lock(&self.state).insert(endpoint.clone());
        self.open_ports(&endpoint, relay)?;
        Ok(endpoint)
    }

    /// A container that calls its own published port is routed to the bridge and back; with
    /// br_netfilter the bridge does that itself, and must give the frame back where it came from.
    /// Isolation is the bridge's, since the firewall sees only what is routed.
    fn set_mode_of(&self, veth: &str, bridge: &Bridge, publishes: bool) -> Result<(), Error> {
        let mode = PortMode {
            hairpin: publishes,
            isolated: !bridge.icc,
        };
        if mode == PortMode::default() {
            return Ok(());
        }
        self.set_port_mode(veth, mode)
    }
}

fn present(state: &Arc<Mutex<State>>, group: u32) -> Present {
    let shared = state.clone();
    Arc::new(move || {
        let state = lock(&shared);
        Contents {
            networks: state
                .networks()
                .map(|known| known.network.clone())
                .collect(),
            foreign_bridges: state
                .networks()
                .filter_map(|known| known.link.as_ref())
                .filter(|link| link.group != group)
                .map(|link| link.name.clone())
                .collect(),
            endpoints: state.all().cloned().collect(),
        }
    })
}

/// What the container's end of the pair is given.
fn interface_of(
    request: &EndpointRequest<'_>,
    endpoint: &Endpoint,
    ways: Ways,
) -> namespace::Interface {
    let v4 = endpoint
        .ipv4
        .map(|ipv4| (IpAddr::V4(ipv4), endpoint.prefix));
    let v6 = endpoint
        .ipv6
        .map(|ipv6| (IpAddr::V6(ipv6), endpoint.prefix6));
    let for_link = request.link_local.iter().map(|address| {
        let prefix = if address.is_ipv4() { 16 } else { 64 };
        (*address, prefix)
    });
    let ways = [
        ways.v4.filter(|_| request.gateway.v4),
        ways.v6.filter(|_| request.gateway.v6),
    ];
    namespace::Interface {
        name: endpoint.interface.clone(),
        addresses: v4.into_iter().chain(v6).chain(for_link).collect(),
        ways: ways.into_iter().flatten().collect(),
        // A child with an address of its own has a random one.
        announce: request.mac.is_some() || (endpoint.veth.is_none() && endpoint.mac.is_some()),
        sysctls: request.sysctls.clone(),
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
