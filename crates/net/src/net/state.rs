//! The networks, who is connected to them, and the addresses that are taken.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::hosts::Hosts;
use crate::bridge::Link;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::network::Network;

/// Shared by the callers and by the threads that keep the firewall and the relay.
#[derive(Default)]
pub struct State {
    networks: HashMap<String, Known>,
    /// By container, in the order of connection.
    connected: HashMap<String, Vec<Endpoint>>,
    /// Container and network of those that are about to be connected.
    pending: HashSet<(String, String)>,
}

/// Of one endpoint.
pub type Addresses = (Option<Ipv4Addr>, Option<Ipv6Addr>);

/// A network with what is known of it here only.
#[derive(Clone)]
pub struct Known {
    pub network: Network,
    /// The bridge's; `None` of a network without one.
    pub link: Option<Link>,
    v4: Option<Hosts<Ipv4Addr>>,
    v6: Option<Hosts<Ipv6Addr>>,
}

/// What a connection has been given before anything is made.
#[derive(Debug, Clone)]
pub struct Place {
    pub network: Network,
    pub link: Option<Link>,
    pub v4: Option<Assigned<Ipv4Addr>>,
    pub v6: Option<Assigned<Ipv6Addr>>,
}

/// An address in its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned<A> {
    pub address: A,
    pub prefix: u8,
}

impl Known {
    pub fn new(network: Network, link: Option<Link>) -> Known {
        Known {
            v4: network.v4.as_ref().map(Hosts::new),
            v6: network.v6.as_ref().map(Hosts::new),
            network,
            link,
        }
    }

    fn release(&mut self, (v4, v6): Addresses) {
        if let (Some(hosts), Some(address)) = (&mut self.v4, v4) {
            hosts.release(address);
        }
        if let (Some(hosts), Some(address)) = (&mut self.v6, v6) {
            hosts.release(address);
        }
    }

    fn give_back(&mut self, (v4, v6): Addresses) {
        if let (Some(hosts), Some(address)) = (&mut self.v4, v4) {
            hosts.give_back(address);
        }
        if let (Some(hosts), Some(address)) = (&mut self.v6, v6) {
            hosts.give_back(address);
        }
    }
}

impl State {
    pub fn add_network(&mut self, known: Known) {
        self.networks.insert(known.network.id.clone(), known);
    }

    pub fn network(&self, id: &str) -> Option<&Known> {
        self.networks.get(id)
    }

    pub fn networks(&self) -> impl Iterator<Item = &Known> {
        self.networks.values()
    }

    /// The network's bridge is another link.
    pub fn set_link(&mut self, id: &str, link: &Link) {
        if let Some(known) = self.networks.get_mut(id) {
            known.link = Some(link.clone());
        }
    }

    /// Takes a network out that nobody is connected to.
    pub fn remove_network(&mut self, id: &str) -> Result<Known, Error> {
        let used = self.all().any(|endpoint| endpoint.network == id)
            || self.pending.iter().any(|(_, network)| network == id);
        if used {
            return Err(Error::NetworkInUse { id: id.to_owned() });
        }
        let removed = self.networks.remove(id);
        removed.ok_or_else(|| Error::UnknownNetwork { id: id.to_owned() })
    }

    /// The state is this, but for the networks that are not listed, which nobody is connected to.
    pub fn replace(&mut self, networks: Vec<Known>, endpoints: &[Endpoint]) {
        for known in networks {
            self.add_network(known);
        }
        for known in self.networks.values_mut() {
            *known = Known::new(known.network.clone(), known.link.clone());
        }
        self.connected.clear();
        for endpoint in endpoints {
            if let Some(known) = self.networks.get_mut(&endpoint.network) {
                if let (Some(hosts), Some(address)) = (&mut known.v4, endpoint.ipv4) {
                    hosts.take(address);
                }
                if let (Some(hosts), Some(address)) = (&mut known.v6, endpoint.ipv6) {
                    hosts.take(address);
                }
            }
            self.insert(endpoint.clone());
        }
    }

    pub fn all(&self) -> impl Iterator<Item = &Endpoint> {
        self.connected.values().flatten()
    }

    pub fn of_container(&self, container_id: &str) -> &[Endpoint] {
        self.connected.get(container_id).map_or(&[], Vec::as_slice)
    }

    /// Takes the addresses that were asked for, or the next free ones, for this container.
    pub fn reserve(
        &mut self,
        container_id: &str,
        network: &str,
        (ipv4, ipv6): Addresses,
    ) -> Result<Place, Error> {
        let key = (container_id.to_owned(), network.to_owned());
        let connected = self.of_container(container_id);
        if connected.iter().any(|it| it.network == network) || self.pending.contains(&key) {
            return Err(Error::Connected {
                container_id: key.0,
                network: key.1,
            });
        }
        let missing = |family| Error::FamilyMissing {
            id: network.to_owned(),
            family,
        };
        let known = self.networks.get_mut(network);
        let known = known.ok_or_else(|| Error::UnknownNetwork {
            id: network.to_owned(),
        })?;
        if ipv4.is_some() && known.v4.is_none() {
            return Err(missing("IPv4"));
        }
        if ipv6.is_some() && known.v6.is_none() {
            return Err(missing("IPv6"));
        }
        let assigned = known.v4.as_mut().map(|hosts| assign(hosts, ipv4));
        let v4 = assigned.transpose()?;
        let assigned = known.v6.as_mut().map(|hosts| assign(hosts, ipv6));
        let v6 = match assigned.transpose() {
            Ok(v6) => v6,
            Err(error) => {
                known.give_back((v4.map(|it| it.address), None));
                return Err(error);
            }
        };
        let place = Place {
            network: known.network.clone(),
            link: known.link.clone(),
            v4,
            v6,
        };
        self.pending.insert(key);
        Ok(place)
    }

    /// The endpoint whose addresses were reserved is complete.
    pub fn insert(&mut self, endpoint: Endpoint) {
        let key = (endpoint.container_id.clone(), endpoint.network.clone());
        self.pending.remove(&key);
        self.connected.entry(key.0).or_default().push(endpoint);
    }

    /// The endpoint, if it is still connected, is like this now.
    pub fn update(&mut self, endpoint: &Endpoint) {
        let endpoints = self.connected.get_mut(&endpoint.container_id);
        let mut own = endpoints.into_iter().flatten();
        if let Some(own) = own.find(|own| own.network == endpoint.network) {
            own.clone_from(endpoint);
        }
    }

    /// The endpoint goes; its addresses stay taken until [`State::release`].
    pub fn remove(&mut self, container_id: &str, network: &str) -> Option<Endpoint> {
        let endpoints = self.connected.get_mut(container_id)?;
        let at = endpoints.iter().position(|it| it.network == network)?;
        let endpoint = endpoints.remove(at);
        if endpoints.is_empty() {
            self.connected.remove(container_id);
        }
        Some(endpoint)
    }

    /// What a container had in a network is free again.
    pub fn release(&mut self, network: &str, addresses: Addresses) {
        if let Some(known) = self.networks.get_mut(network) {
            known.release(addresses);
        }
    }

    /// What was reserved for a container is not used.
    pub fn cancel(&mut self, container_id: &str, network: &str, addresses: Addresses) {
        let key = (container_id.to_owned(), network.to_owned());
        self.pending.remove(&key);
        if let Some(known) = self.networks.get_mut(network) {
            known.give_back(addresses);
        }
    }
}

fn assign<A: crate::address::Address>(
    hosts: &mut Hosts<A>,
    wanted: Option<A>,
) -> Result<Assigned<A>, Error> {
    Ok(Assigned {
        address: hosts.reserve(wanted)?,
        prefix: hosts.prefix(),
    })
}
