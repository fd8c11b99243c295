//! Coming to be on a network, and leaving one, while the container runs or not (moby,
//! `daemon/container_operations.go`).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use berth_base::Chain;
use berth_docker::network::EndpointSettings;
use berth_net::{Gateway, PortRequest};

use super::Owner;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::network::{self, Network, Place};
use crate::record::{Connected, Phase, Record};
use crate::shared::Shared;
use crate::{etc, spec};

/// What a container has on each of its networks, by their names.
type Endpoints = BTreeMap<String, Connected>;

impl Owner {
    /// Puts the container on a network: at once if it runs, otherwise from its next start on.
    pub(super) async fn connect(
        &mut self,
        network: Arc<Network>,
        mut settings: EndpointSettings,
    ) -> Result<()> {
        self.check_not_leaving()?;
        let mode = self.record.host.network_mode.as_str();
        if spec::container_of(mode).is_some() {
            return Err(Error::invalid(
                "container sharing network namespace with another container or host cannot be \
                 connected to any other network",
            ));
        }
        network::check_settings(Some(&network), &network.name, &settings)?;
        network::check_attachable(&network)?;
        let others = self.networks();
        if let Some(why) = network::conflict(&network, mode, others.iter().map(AsRef::as_ref)) {
            return Err(Error::invalid(why));
        }
        let is_on = others.iter().any(|other| other.id == network.id);
        settings.network_id.clear();
        let Phase::Running { pid, .. } = self.state.phase else {
            // As Docker: what was asked for first stays.
            return match is_on {
                true => Ok(()),
                false => self.put(&network, settings).await,
            };
        };
        if is_on {
            let message = format!(
                "endpoint with name {} already exists in network {}",
                self.record.name, network.name
            );
            return Err(Error::new(ErrorKind::Forbidden, message));
        }
        let before = self.record.clone();
        // The intent first: a daemon that is killed in between finds out what it was about.
        self.put(&network, settings.clone()).await?;
        let joined = self.join_now(&network, &settings, pid).await;
        self.save_state().await;
        self.publish();
        match &joined {
            Ok(()) => {
                let id = &self.record.id;
                self.shared.network_event(&network, "connect", Some(id));
            }
            Err(_) => self.replace(before).await?,
        }
        joined
    }

    /// Takes the container off a network.
    pub(super) async fn disconnect(
        &mut self,
        name: &str,
        found: Option<Arc<Network>>,
    ) -> Result<()> {
        self.check_not_leaving()?;
        let name = found.as_ref().map_or(name, |network| network.name.as_str());
        let id = &self.record.id;
        let running = self.is_running();
        if running && name == "host" && self.record.host.network_mode == "host" {
            return Err(Error::invalid(
                "cannot disconnect container from host network - container was created in host \
                 network mode",
            ));
        }
        if !self.record.endpoints.contains_key(name) {
            let the = if running && found.is_some() {
                ""
            } else {
                "the "
            };
            return Err(Error::internal(format!(
                "container {id} is not connected to {the}network {name}"
            )));
        }
        // The intent first: a daemon that is killed in between finds out what it was about.
        let mut record = (*self.record).clone();
        record.endpoints.remove(name);
        self.replace(Arc::new(record)).await?;
        if let Some(connected) = self.state.endpoints.remove(name) {
            self.leave_now(connected).await;
            self.save_state().await;
            if let Some(network) = &found {
                self.shared
                    .network_event(network, "disconnect", Some(&self.record.id));
            }
        }
        self.publish();
        Ok(())
    }

    fn check_not_leaving(&self) -> Result<()> {
        match self.state.phase {
            Phase::Removing | Phase::Dead => Err(Error::internal(format!(
                "Container {} is marked for removal and cannot be connected or disconnected to \
                 the network",
                self.record.id
            ))),
            Phase::Starting => Err(Error::conflict(format!(
                "container {} is starting: connect it when it runs",
                self.record.id
            ))),
            Phase::Created | Phase::Running { .. } | Phase::Restarting | Phase::Exited => Ok(()),
        }
    }

    /// The networks that are there of those that the container shall be on.
    fn networks(&self) -> Vec<Arc<Network>> {
        let names = self.record.endpoints.keys();
        names
            .filter_map(|name| self.shared.networks.find(name).ok())
            .collect()
    }

    async fn put(&mut self, network: &Network, settings: EndpointSettings) -> Result<()> {
        let mut record = (*self.record).clone();
        record.endpoints.insert(network.name.clone(), settings);
        self.replace(Arc::new(record)).await
    }

    async fn replace(&mut self, record: Arc<Record>) -> Result<()> {
        record.save(&self.shared.store).await?;
        self.record = record;
        self.publish();
        Ok(())
    }

    /// Makes the container's interface; what it has on its networks is up to date afterwards,
    /// whether or not that could be done.
    async fn join_now(
        &mut self,
        network: &Arc<Network>,
        settings: &EndpointSettings,
        pid: i32,
    ) -> Result<()> {
        let taken: Vec<String> = self
            .state
            .endpoints
            .values()
            .map(|it| it.endpoint.interface.clone())
            .collect();
        // Where the default routes lead and what publishes ports is settled when all is there.
        let gateway = Gateway::default();
        let place = Place::new(&self.record, network, settings, gateway, &[], &taken)?;
        let (shared, record) = (self.shared.clone(), self.record.clone());
        let mut on = self.state.endpoints.clone();
        let work = self.shared.scope.spawn_blocking(move || {
            let joined = join(&shared, &record, &place, pid, &mut on);
            (on, joined)
        });
        let panicked = || Error::internal("connecting to a network panicked");
        let (on, joined) = work.await.map_err(|_| panicked())?;
        self.state.endpoints = on;
        joined
    }

    /// Failures are reported: the container is off the network whatever they are.
    async fn leave_now(&mut self, left: Connected) {
        let (shared, record) = (self.shared.clone(), self.record.clone());
        let mut on = self.state.endpoints.clone();
        let pid = self.state.phase.pid();
        let work = self.shared.scope.spawn_blocking(move || {
            let netns = pid.map(|pid| network::open_namespace(pid).context("open its network"));
            // Without a namespace there is none to take an interface from.
            match &netns {
                Some(Ok(netns)) => detach(&shared, &record, &left, netns.as_fd()),
                Some(Err(_)) | None => shared.disconnect(&record.id, [&left]),
            }
            if let Err(error) = etc::take_from_hosts(&shared, &record, &left) {
                tracing::warn!(container = %record.id, %error, "take a network out of its hosts");
            }
            let settled = netns.map(|netns| settle(&shared, &record, &mut on, netns?.as_fd()));
            if let Some(Err(error)) = settled {
                tracing::warn!(container = %record.id, %error, "settle what is left to it");
            }
            on
        });
        match work.await {
            Ok(on) => self.state.endpoints = on,
            Err(_) => {
                tracing::error!(container = %self.record.id, "leaving a network panicked");
            }
        }
    }
}

/// Puts a running container on one more network: wholly, or not at all. Blocks.
fn join(
    shared: &Shared,
    record: &Record,
    place: &Place,
    pid: i32,
    on: &mut Endpoints,
) -> Result<()> {
    let netns = network::open_namespace(pid)
        .context(format!("open the network of container {}", record.id))?;
    let connected = place.connect(shared, record, netns.as_fd())?;
    let name = &place.network.name;
    on.insert(name.clone(), connected.clone());
    let settled = etc::add_to_hosts(shared, record, &connected)
        .and_then(|()| settle(shared, record, on, netns.as_fd()));
    if settled.is_err() {
        detach(shared, record, &connected, netns.as_fd());
        on.remove(name);
        let back = etc::take_from_hosts(shared, record, &connected)
            .and_then(|()| settle(shared, record, on, netns.as_fd()));
        if let Err(error) = back {
            tracing::warn!(container = %record.id, %error, "take a connection back");
        }
    }
    settled
}

/// Takes a running container's interface away. Blocks.
fn detach(shared: &Shared, record: &Record, connected: &Connected, netns: BorrowedFd<'_>) {
    if let Some(net) = &shared.net
        && let Err(error) = net.detach(record.id.as_str(), netns, &connected.endpoint.network)
    {
        tracing::error!(container = %record.id, error = %Chain(&error), "leave a network");
    }
}

/// Makes default routes, published ports and names those of a container on these networks.
/// Blocks.
fn settle(
    shared: &Shared,
    record: &Record,
    on: &mut Endpoints,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    lead(shared, record, on, netns)?;
    move_ports(shared, record, on)?;
    settle_names(shared, record, on, netns)
}

/// Where others find a running container, and whom it finds, is what it is on now. Blocks.
fn settle_names(
    shared: &Shared,
    record: &Record,
    on: &Endpoints,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    shared.names.settle(shared, record, on, netns)?;
    let networks = &shared.networks;
    let has_names = |name| networks.find(name).is_ok_and(|network| network.has_names());
    if on.keys().any(|name| has_names(name)) {
        etc::point_to_resolver(shared, record)?;
    }
    Ok(())
}

/// Which of these networks the default routes of IPv4 and of IPv6 are to lead to.
fn leading(shared: &Shared, record: &Record, on: &Endpoints) -> [Option<String>; 2] {
    let networks: Vec<Arc<Network>> = on
        .keys()
        .filter_map(|name| shared.networks.find(name).ok())
        .collect();
    let ranked = networks.iter().map(|network| {
        let settings = record.endpoints.get(&network.name);
        (network.as_ref(), settings.map_or(0, |it| it.gw_priority))
    });
    let leads = network::gateways(ranked);
    [leads.v4, leads.v6].map(|id| {
        let found = networks.iter().find(|it| Some(&it.id) == id.as_ref());
        found.map(|network| network.name.clone())
    })
}

/// Leads the default routes to where they are to lead. Blocks.
fn lead(shared: &Shared, record: &Record, on: &Endpoints, netns: BorrowedFd<'_>) -> Result<()> {
    let Some(net) = &shared.net else {
        return Ok(());
    };
    let leads = leading(shared, record, on);
    let [v4, v6] = leads.each_ref().map(|name| {
        let connected = on.get(name.as_ref()?)?;
        Some(connected.endpoint.network.as_str())
    });
    net.set_gateway(record.id.as_str(), netns, v4, v6)
        .context("set the default route")
}

/// Publishes the container's ports on the network that leads out, and on no other. Blocks.
fn move_ports(shared: &Shared, record: &Record, on: &mut Endpoints) -> Result<()> {
    let ports = network::ports(record)?;
    if ports.is_empty() {
        return Ok(());
    }
    let [v4, v6] = leading(shared, record, on);
    let leader = v4.or(v6);
    for (name, connected) in on.iter_mut() {
        if Some(name) != leader.as_ref() && connected.endpoint.is_published() {
            set_ports(shared, record, connected, &[])?;
        }
    }
    let connected = leader.and_then(|leader| on.get_mut(&leader));
    match connected.filter(|connected| !connected.endpoint.is_published()) {
        Some(connected) => set_ports(shared, record, connected, &ports),
        None => Ok(()),
    }
}

fn set_ports(
    shared: &Shared,
    record: &Record,
    connected: &mut Connected,
    ports: &[PortRequest],
) -> Result<()> {
    let Some(net) = &shared.net else {
        return Ok(());
    };
    let set = net.set_ports(record.id.as_str(), &connected.endpoint.network, ports);
    match set {
        Ok(endpoint) => {
            connected.endpoint = endpoint;
            Ok(())
        }
        Err(error) => {
            connected.endpoint.ports.clear();
            connected.endpoint.open.clear();
            Err(network::publish_error(&error, record, &connected.id))
        }
    }
}
