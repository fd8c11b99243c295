//! Publishing ports: with a connection, and later, when another network leads out.

use std::net::IpAddr;

use super::{Net, lock, relayed};
use crate::endpoint::{Endpoint, PortBinding, PortRequest};
use crate::error::Error;
use crate::network::Network;
use crate::ports;
use crate::relay::{self, Publication, Wanted};

impl Net {
    /// What a running container publishes in one of its networks becomes this; what it published
    /// there before is free. Returns the endpoint as it is now; after a failure it publishes
    /// nothing.
    pub fn set_ports(
        &self,
        container_id: &str,
        network: &str,
        requests: &[PortRequest],
    ) -> Result<Endpoint, Error> {
        let state = lock(&self.state);
        let endpoints = state.of_container(container_id);
        let endpoint = endpoints.iter().find(|it| it.network == network).cloned();
        let known = state.network(network).map(|known| known.network.clone());
        drop(state);
        let (Some(mut endpoint), Some(network)) = (endpoint, known) else {
            return Err(Error::NotConnected {
                container_id: container_id.to_owned(),
                network: network.to_owned(),
            });
        };
        let before = endpoint.clone();
        (endpoint.ports, endpoint.open) = (Vec::new(), Vec::new());
        lock(&self.state).update(&endpoint);
        self.close_ports(&before)?;

        let addresses = endpoint.addresses();
        let Some(first) = addresses.first().copied() else {
            return Ok(endpoint);
        };
        let default = self.config.default_host_ip;
        let plan = ports::plan(requests, &network, default, &addresses);
        let relay = self.relay.generation();
        let mut published = endpoint.clone();
        published.ports = self.bind(container_id, &network, first, plan.bound)?;
        published.open = plan.open;
        lock(&self.state).update(&published);
        let publishes = !published.ports.is_empty();
        let mode = match (&published.veth, network.bridge()) {
            (Some(veth), Some(bridge)) => self.set_mode_of(veth, bridge, publishes),
            _ => Ok(()),
        };
        let opened = mode.and_then(|()| self.open_ports(&published, relay));
        if let Err(error) = opened {
            lock(&self.state).update(&endpoint);
            if let Err(error) = self.close_ports(&published) {
                tracing::warn!(%error, container_id, "take back the ports");
            }
            return Err(error);
        }
        Ok(published)
    }

    /// Has the relay bind all of it, or nothing.
    pub(super) fn bind(
        &self,
        container_id: &str,
        network: &Network,
        target: IpAddr,
        ports: Vec<Wanted>,
    ) -> Result<Vec<PortBinding>, Error> {
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        let publication = Publication {
            container_id: relay::holder_name(container_id, &network.id),
            target,
            ports,
        };
        let answer = self.relay.publish(publication);
        let answer = answer.map_err(relayed("bind ports"))?;
        answer.map_err(ports::refused)
    }

    /// Opens the firewall for an endpoint that is among the connected ones. `relay` is the
    /// generation of the relay that its ports were bound by.
    pub(super) fn open_ports(&self, endpoint: &Endpoint, relay: u64) -> Result<(), Error> {
        if self.relay.generation() != relay {
            // A relay that was started meanwhile does not know these ports.
            let adopted = self.relay.adopt_connected();
            adopted.map_err(relayed("hand it the ports"))?;
        }
        match &self.firewall {
            Some(live) if endpoint.is_published() => live.publish(endpoint),
            _ => Ok(()),
        }
    }

    /// Takes back what the endpoint publishes, which is not among the connected ones any more, or
    /// without its ports.
    pub(super) fn close_ports(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let closed = match &self.firewall {
            Some(live) if endpoint.is_published() => live.withdraw(endpoint),
            _ => Ok(()),
        };
        if !endpoint.ports.is_empty() {
            self.release_ports(&endpoint.container_id, &endpoint.network);
        }
        closed
    }

    /// The endpoint is going away whatever the relay says; a later start of the relay leaves its
    /// ports out.
    pub(super) fn release_ports(&self, container_id: &str, network: &str) {
        let holder = relay::holder_name(container_id, network);
        if let Err(error) = self.relay.withdraw(&holder) {
            tracing::warn!(%error, holder, "release the ports");
        }
    }
}
