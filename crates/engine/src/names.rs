//! What containers are called on networks of users' own, and the name server that each of them
//! asks.
//!
//! A container has a name server from the moment that it is on such a network until it ends, also
//! when it has left the network: its `resolv.conf` points there. The names on a network follow
//! from the containers on it alone, so nothing of this is recorded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use berth_base::Id;
use berth_dns::{
    Changes, Forwarder, Listening, Membership, Origin, Resolver, Sockets, Transport, Upstreams,
};
use berth_dns::{View, Zone};
use berth_docker::network::EndpointSettings;
use berth_net::files::Internal;
use berth_net::{Net, Protocol, RESOLVER, ResolverSockets};
use berth_tasks::Scope;

use crate::error::{Context, Result};
use crate::etc;
use crate::network::{Kind, Network, dns_names};
use crate::record::{Connected, Record};
use crate::shared::Shared;

const DNS: u16 = 53;

/// The name servers of all containers.
#[derive(Debug)]
pub struct Names {
    resolver: Resolver,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the network's id. A zone is there for as long as a container sees it.
    zones: HashMap<Id, Weak<Zone>>,
    seats: HashMap<Id, Seat>,
    /// Those of the host's servers, shared by all containers that ask the same ones.
    forwarders: Vec<Weak<Forwarder>>,
}

/// A container's name server, and the zones that have its names.
#[derive(Debug)]
struct Seat {
    listening: Listening,
    zones: Vec<Arc<Zone>>,
}

/// A container on a network.
struct Place<'a> {
    network: Arc<Network>,
    settings: EndpointSettings,
    connected: &'a Connected,
}

impl Names {
    /// The name servers' tasks belong to `scope`.
    pub fn new(scope: Scope) -> Self {
        Self {
            resolver: Resolver::new(scope),
            inner: Mutex::default(),
        }
    }

    /// The container is on these networks from now on: others find it there, and it finds them.
    /// Within a tokio runtime. Blocks.
    pub fn settle(
        &self,
        shared: &Shared,
        record: &Record,
        endpoints: &BTreeMap<String, Connected>,
        netns: BorrowedFd<'_>,
    ) -> Result<()> {
        let Some(net) = &shared.net else {
            return Ok(());
        };
        let places = places(shared, record, endpoints);
        let has_names = places.iter().any(|place| place.network.has_names());
        let has_seat = self.lock().seats.contains_key(&record.id);
        if !has_names && !has_seat {
            return Ok(());
        }
        let members = self.publish(record, &places);
        let zones = members.iter().map(|member| member.zone.clone()).collect();
        let (forwarder, ndots_set) = self.forwarder(shared, net, record, &places, netns)?;
        let view = View {
            networks: members,
            ndots_set,
            forwarder,
        };
        if has_seat {
            self.lock().show(&record.id, view, zones);
            return Ok(());
        }
        let listening = self.listen(net, netns, view);
        if listening.is_err() {
            withdraw(&record.id, &zones);
        }
        let seat = Seat {
            listening: listening?,
            zones,
        };
        self.lock().seats.insert(record.id.clone(), seat);
        Ok(())
    }

    /// The container has another name.
    pub fn rename(
        &self,
        shared: &Shared,
        record: &Record,
        endpoints: &BTreeMap<String, Connected>,
    ) {
        self.publish(record, &places(shared, record, endpoints));
    }

    /// The container has ended: nobody finds it, and nothing keeps its network namespace.
    pub fn forget(&self, id: &Id) {
        if let Some(seat) = self.lock().seats.remove(id) {
            withdraw(id, &seat.zones);
        }
    }

    /// Tells the zones, and returns them as the container sees them.
    fn publish(&self, record: &Record, places: &[Place<'_>]) -> Vec<Membership> {
        let named = places.iter().filter(|place| place.network.has_names());
        let tell = |place: &Place<'_>| {
            let zone = self.lock().zone(&place.network);
            let names = dns_names(record, &place.settings);
            zone.insert(record.id.as_str(), &names, &place.addresses());
            Membership::new(zone, links(&place.settings))
        };
        named.map(tell).collect()
    }

    fn listen(&self, net: &Net, netns: BorrowedFd<'_>, view: View) -> Result<Listening> {
        let opened = net.resolver_sockets(netns);
        let ResolverSockets { udp, tcp } = opened.context("make a name server")?;
        self.resolver
            .listen(Sockets { udp, tcp }, view)
            .context("start a name server")
    }

    /// Where names elsewhere are asked, and whether the container's `resolv.conf` has an `ndots`.
    fn forwarder(
        &self,
        shared: &Shared,
        net: &Arc<Net>,
        record: &Record,
        places: &[Place<'_>],
        netns: BorrowedFd<'_>,
    ) -> Result<(Option<Arc<Forwarder>>, bool)> {
        let settings = etc::internal_resolv_conf(shared, record);
        let upstreams = upstreams_of(&settings);
        let forwarder = if upstreams.servers.is_empty() {
            None
        } else if settings.servers_are_own {
            let netns = netns.try_clone_to_owned().context("keep its network")?;
            let net = net.clone();
            let origin = Origin::Namespace(Arc::new(move |transport, server| {
                let protocol = match transport {
                    Transport::Udp => Protocol::Udp,
                    Transport::Tcp => Protocol::Tcp,
                };
                net.socket(netns.as_fd(), protocol, server)
            }));
            Some(self.resolver.forwarder(upstreams, None, origin))
        } else if places.iter().any(Place::leads_out) {
            let changes = etc::host_changes(shared, record);
            let changes = move || changes().map(|settings| upstreams_of(&settings));
            Some(
                self.lock()
                    .forwarder(&self.resolver, upstreams, Box::new(changes)),
            )
        } else {
            // What is cut off from the world learns nothing of it by way of the host's servers.
            None
        };
        Ok((forwarder, settings.ndots_set))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn zone(&mut self, network: &Network) -> Arc<Zone> {
        if let Some(zone) = self.zones.get(&network.id).and_then(Weak::upgrade) {
            return zone;
        }
        self.zones.retain(|_, zone| zone.strong_count() > 0);
        let zone = Arc::new(Zone::new(&network.name));
        self.zones.insert(network.id.clone(), Arc::downgrade(&zone));
        zone
    }

    /// One for all whose servers are these: the host's, whose changes they share.
    fn forwarder(
        &mut self,
        resolver: &Resolver,
        upstreams: Upstreams,
        changes: Box<Changes>,
    ) -> Arc<Forwarder> {
        let mut all = self.forwarders.iter().filter_map(Weak::upgrade);
        if let Some(found) = all.find(|it| *it.upstreams() == upstreams) {
            return found;
        }
        drop(all);
        self.forwarders.retain(|it| it.strong_count() > 0);
        let made = resolver.forwarder(upstreams, Some(changes), Origin::Host);
        self.forwarders.push(Arc::downgrade(&made));
        made
    }

    fn show(&mut self, id: &Id, view: View, zones: Vec<Arc<Zone>>) {
        let Some(seat) = self.seats.get_mut(id) else {
            return;
        };
        let is_kept = |old: &Arc<Zone>| zones.iter().any(|zone| Arc::ptr_eq(zone, old));
        let (_, left): (Vec<_>, Vec<_>) = seat.zones.drain(..).partition(is_kept);
        withdraw(id, &left);
        seat.zones = zones;
        seat.listening.show(view);
    }
}

/// The servers of a container's name server, and how they are asked.
fn upstreams_of(settings: &Internal) -> Upstreams {
    let servers: Vec<SocketAddr> = settings
        .servers
        .iter()
        // It would ask itself.
        .filter(|server| !settings.servers_are_own || **server != IpAddr::from(RESOLVER))
        .map(|server| SocketAddr::from((*server, DNS)))
        .collect();
    Upstreams::new(&servers, settings.options.iter().map(String::as_str))
}

impl Place<'_> {
    fn addresses(&self) -> Vec<IpAddr> {
        let endpoint = &self.connected.endpoint;
        let both = [endpoint.ipv4.map(IpAddr::V4), endpoint.ipv6.map(IpAddr::V6)];
        both.into_iter().flatten().collect()
    }

    fn leads_out(&self) -> bool {
        !self.is_internal() && self.families() > 0
    }

    fn is_internal(&self) -> bool {
        match &self.network.kind {
            Kind::Own { made, .. } => made.internal,
            Kind::Default | Kind::Host | Kind::None | Kind::Configuration { .. } => false,
        }
    }

    /// For how many families there is a way out.
    fn families(&self) -> usize {
        let leads = self.network.leads_out();
        usize::from(leads.v4) + usize::from(leads.v6)
    }
}

/// The container's networks in the order in which Docker asks them (moby,
/// `libnetwork/sandbox.go`, `Endpoint.Less`).
fn places<'a>(
    shared: &Shared,
    record: &Record,
    endpoints: &'a BTreeMap<String, Connected>,
) -> Vec<Place<'a>> {
    let place = |(name, connected): (&String, &'a Connected)| {
        Some(Place {
            network: shared.networks.find(name).ok()?,
            settings: record.endpoints.get(name).cloned().unwrap_or_default(),
            connected,
        })
    };
    let mut places: Vec<Place<'_>> = endpoints.iter().filter_map(place).collect();
    // Those that are equal in all of it stay in the order of their names.
    places.sort_by_key(|place| {
        let priority = Reverse(place.settings.gw_priority);
        (priority, place.is_internal(), Reverse(place.families()))
    });
    places
}

/// `NAME:ALIAS` each; without an alias the name is its own.
fn links(settings: &EndpointSettings) -> Vec<(String, String)> {
    let pair = |link: &String| {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        (name.to_owned(), alias.to_owned())
    };
    settings.links.iter().flatten().map(pair).collect()
}

fn withdraw(id: &Id, zones: &[Arc<Zone>]) {
    for zone in zones {
        zone.remove(id.as_str());
    }
}
