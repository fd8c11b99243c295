//! Coming to be on a network, and leaving one, while the container runs or not (moby,
//! `daemon/container_operations.go`).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use berth_base::Chain;
use berth_docker::network::EndpointSettings;
use berth_net::Gateway;

use super::Owner;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::network::{self, Network, Place};
use crate::record::{Connected, Phase, Record};
use crate::shared::Shared;
use crate::{etc, spec};

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
        match self.join_now(&network, &settings, pid).await {
            Ok(connected) => {
                let name = network.name.clone();
                self.state.endpoints.insert(name, connected);
                self.save_state().await;
                self.publish();
                self.shared
                    .network_event(&network, "connect", Some(&self.record.id));
                Ok(())
            }
            Err(error) => {
                self.replace(before).await?;
                Err(error)
            }
        }
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
            let the = if running && found.is_some() { "" } else { "the " };
            return Err(Error::internal(format!(
                "container {id} is not connected to {the}network {name}"
            )));
        }
        if let Some(connected) = self.state.endpoints.remove(name) {
            self.leave_now(connected).await;
            self.save_state().await;
            if let Some(network) = &found {
                self.shared
                    .network_event(network, "disconnect", Some(&self.record.id));
            }
        }
        let mut record = (*self.record).clone();
        record.endpoints.remove(name);
        self.replace(Arc::new(record)).await
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

    async fn join_now(
        &mut self,
        network: &Arc<Network>,
        settings: &EndpointSettings,
        pid: i32,
    ) -> Result<Connected> {
        let taken: Vec<String> = self
            .state
            .endpoints
            .values()
            .map(|it| it.endpoint.interface.clone())
            .collect();
        let leads = self.gateways();
        let leads = [leads.v4, leads.v6].contains(&Some(network.id.clone()));
        // Ports stay where they are published: only a container that has none of them gets them.
        let published = self.state.endpoints.values();
        let published = published
            .into_iter()
            .any(|it| !it.endpoint.ports.is_empty());
        let ports = match leads && !published {
            true => network::ports(&self.record)?,
            false => Vec::new(),
        };
        // Where the default routes lead is settled when the interface is there.
        let place = Gateway::default();
        let place = Place::new(&self.record, network, settings, place, &ports, &taken)?;
        let (shared, record) = (self.shared.clone(), self.record.clone());
        let mut all = self.state.endpoints.clone();
        let network = network.clone();
        let work = self.shared.scope.spawn_blocking(move || {
            let netns = network::open_namespace(pid)
                .context(format!("open the network of container {}", record.id))?;
            let connected = place.connect(&shared, &record, netns.as_fd())?;
            all.insert(network.name.clone(), connected.clone());
            let written = etc::add_to_hosts(&shared, &record, &connected)
                .and_then(|()| lead(&shared, &record, pid, &all))
                .and_then(|()| settle_names(&shared, &record, &all, netns.as_fd()));
            if written.is_err() {
                detach(&shared, &record, &connected);
                all.remove(&network.name);
                if let Err(error) = shared.names.settle(&shared, &record, &all, netns.as_fd()) {
                    tracing::warn!(container = %record.id, %error, "take its names back");
                }
            }
            written.map(|()| connected)
        });
        work.await
            .unwrap_or_else(|_| Err(Error::internal("connecting to a network panicked")))
    }

    /// Where the default routes of the running container are to lead.
    fn gateways(&self) -> network::Gateways {
        let networks = self.networks();
        let ranked = networks.iter().map(|network| {
            let settings = self.record.endpoints.get(&network.name);
            (network.as_ref(), settings.map_or(0, |it| it.gw_priority))
        });
        network::gateways(ranked)
    }

    /// Failures are reported: the container is off the network whatever they are.
    async fn leave_now(&mut self, connected: Connected) {
        let (shared, record) = (self.shared.clone(), self.record.clone());
        let rest = self.state.endpoints.clone();
        let pid = self.state.phase.pid();
        let work = self.shared.scope.spawn_blocking(move || {
            detach(&shared, &record, &connected);
            if let Err(error) = etc::take_from_hosts(&shared, &record, &connected) {
                tracing::warn!(container = %record.id, %error, "take a network out of its hosts");
            }
            if let Some(pid) = pid
                && let Err(error) = lead(&shared, &record, pid, &rest)
            {
                tracing::warn!(container = %record.id, %error, "lead its default route");
            }
            if let Some(pid) = pid
                && let Err(error) = network::open_namespace(pid)
                    .context("open its network")
                    .and_then(|netns| settle_names(&shared, &record, &rest, netns.as_fd()))
            {
                tracing::warn!(container = %record.id, %error, "take its names off a network");
            }
        });
        if work.await.is_err() {
            tracing::error!(container = %self.record.id, "leaving a network panicked");
        }
    }
}

/// Takes a running container's interface away. Blocks.
fn detach(shared: &Shared, record: &Record, connected: &Connected) {
    if let Some(net) = &shared.net
        && let Err(error) = net.detach(record.id.as_str(), &connected.endpoint.network)
    {
        tracing::error!(container = %record.id, error = %Chain(&error), "leave a network");
    }
}

/// Where others find a running container, and whom it finds, is what it is on now. Blocks.
fn settle_names(
    shared: &Shared,
    record: &Record,
    endpoints: &BTreeMap<String, Connected>,
    netns: BorrowedFd<'_>,
) -> Result<()> {
    shared.names.settle(shared, record, endpoints, netns)?;
    let networks = &shared.networks;
    let has_names = |name| networks.find(name).is_ok_and(|network| network.has_names());
    if endpoints.keys().any(|name| has_names(name)) {
        etc::point_to_resolver(shared, record)?;
    }
    Ok(())
}

/// Leads the default routes to the networks that are left. Blocks.
fn lead(
    shared: &Shared,
    record: &Record,
    pid: i32,
    rest: &BTreeMap<String, Connected>,
) -> Result<()> {
    let Some(net) = &shared.net else {
        return Ok(());
    };
    let all = shared.networks.all();
    let links = |network: &&Arc<Network>| {
        let link = network.link();
        rest.values()
            .any(|it| Some(it.endpoint.network.as_str()) == link)
    };
    let left: Vec<&Arc<Network>> = all.iter().filter(links).collect();
    let ranked = left.iter().map(|network| {
        let settings = record.endpoints.get(&network.name);
        (network.as_ref(), settings.map_or(0, |it| it.gw_priority))
    });
    let leads = network::gateways(ranked);
    let link = |id: &Option<berth_base::Id>| {
        let found = left.iter().find(|network| Some(&network.id) == id.as_ref());
        found.and_then(|network| network.link())
    };
    let netns = network::open_namespace(pid).context("open the container's network")?;
    net.set_gateway(
        record.id.as_str(),
        netns.as_fd(),
        link(&leads.v4),
        link(&leads.v6),
    )
    .context("set the default route")
}
