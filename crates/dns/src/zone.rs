//! The names of one network: who has them, at which addresses.
//!
//! Written when a container joins or leaves, read by every query of the network's containers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

/// The names of a network's containers. Names are compared without regard to case.
#[derive(Debug)]
pub struct Zone {
    /// The network's name, in lower case: what may follow a container's name after a dot.
    suffix: String,
    /// As it is written: the end of the names that addresses are resolved to.
    name: String,
    records: RwLock<Records>,
}

#[derive(Debug, Default)]
struct Records {
    endpoints: HashMap<String, Arc<Endpoint>>,
    names: HashMap<String, Vec<Arc<Endpoint>>>,
    addresses: HashMap<IpAddr, Vec<Arc<Endpoint>>>,
}

/// A container in the network.
#[derive(Debug)]
struct Endpoint {
    id: String,
    /// As it is written.
    first: Option<String>,
    /// In lower case, each once.
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Zone {
    /// An empty zone for the network of this name.
    pub fn new(network: &str) -> Self {
        Self {
            suffix: network.to_ascii_lowercase(),
            name: network.to_owned(),
            records: RwLock::default(),
        }
    }

    /// An endpoint has these names at these addresses, and none that it had before. Its
    /// addresses are resolved to the first of the names. Several endpoints may share a name.
    pub fn insert(&self, endpoint: &str, names: &[String], addresses: &[IpAddr]) {
        let mut lower: Vec<String> = names.iter().map(|name| key(name)).collect();
        lower.sort();
        lower.dedup();
        let endpoint = Arc::new(Endpoint {
            id: endpoint.to_owned(),
            first: names.first().cloned(),
            names: lower,
            addresses: addresses.to_vec(),
        });
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        records.remove(&endpoint.id);
        for name in &endpoint.names {
            let all = records.names.entry(name.clone()).or_default();
            all.push(Arc::clone(&endpoint));
        }
        for address in &endpoint.addresses {
            let all = records.addresses.entry(*address).or_default();
            all.push(Arc::clone(&endpoint));
        }
        records.endpoints.insert(endpoint.id.clone(), endpoint);
    }

    /// The endpoint's names are gone. Without effect for one that is unknown.
    pub fn remove(&self, endpoint: &str) {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        records.remove(endpoint);
    }

    /// The name of the network, in lower case.
    pub(crate) fn suffix(&self) -> &str {
        &self.suffix
    }

    /// The addresses of all that have the name (in lower case), each once; `None` when nobody has
    /// it. Empty when whoever has it has no address of the family.
    pub(crate) fn find(&self, name: &str, family: Family) -> Option<Vec<IpAddr>> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let endpoints = records.names.get(name)?;
        let mut found: Vec<IpAddr> = endpoints
            .iter()
            .flat_map(|endpoint| &endpoint.addresses)
            .filter(|address| address.is_ipv4() == (family == Family::V4))
            .copied()
            .collect();
        drop(records);
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    /// Who has the address: its name, a dot, the network's name.
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<String> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let first = records.addresses.get(&address)?.first()?.first.as_ref()?;
        Some(format!("{first}.{}", self.name))
    }
}

impl Records {
    fn remove(&mut self, id: &str) {
        let Some(endpoint) = self.endpoints.remove(id) else {
            return;
        };
        for name in &endpoint.names {
            leave(&mut self.names, name, &endpoint);
        }
        for address in &endpoint.addresses {
            leave(&mut self.addresses, address, &endpoint);
        }
    }
}

fn leave<K: std::hash::Hash + Eq>(
    map: &mut HashMap<K, Vec<Arc<Endpoint>>>,
    key: &K,
    endpoint: &Arc<Endpoint>,
) {
    let Some(all) = map.get_mut(key) else { return };
    all.retain(|other| !Arc::ptr_eq(other, endpoint));
    if all.is_empty() {
        map.remove(key);
    }
}

/// What a name is looked up by.
pub(crate) fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_shared_name_has_the_addresses_of_all_and_loses_them_one_by_one() {
        let zone = Zone::new("app");
        zone.insert("a", &names(&["web1", "Web"]), &[address("10.0.0.2")]);
        zone.insert("b", &names(&["web2", "web"]), &[address("10.0.0.3")]);
        let both = vec![address("10.0.0.2"), address("10.0.0.3")];
        assert_eq!(zone.find("web", Family::V4), Some(both));
        zone.remove("a");
        assert_eq!(
            zone.find("web", Family::V4),
            Some(vec![address("10.0.0.3")])
        );
        assert_eq!(zone.find("web1", Family::V4), None);
        zone.remove("b");
        zone.remove("b");
        assert_eq!(zone.find("web", Family::V4), None);
        let records = zone.records.read().unwrap();
        assert!(records.names.is_empty() && records.addresses.is_empty());
    }

    #[test]
    fn what_is_inserted_again_replaces_what_was() {
        let zone = Zone::new("app");
        zone.insert("a", &names(&["old", "kept"]), &[address("10.0.0.2")]);
        zone.insert("a", &names(&["kept", "new"]), &[address("10.0.0.9")]);
        assert_eq!(zone.find("old", Family::V4), None);
        assert_eq!(
            zone.find("kept", Family::V4),
            Some(vec![address("10.0.0.9")])
        );
        assert_eq!(zone.name_of(address("10.0.0.2")), None);
    }

    #[test]
    fn a_name_without_an_address_of_the_family_is_known() {
        let zone = Zone::new("app");
        zone.insert("a", &names(&["web"]), &[address("10.0.0.2")]);
        assert_eq!(zone.find("web", Family::V6), Some(vec![]));
        assert_eq!(zone.find("other", Family::V6), None);
    }

    #[test]
    fn an_address_has_the_first_name_as_it_is_written() {
        let zone = Zone::new("App-Net");
        let addresses = [address("10.0.0.2"), address("fd00::2")];
        zone.insert("a", &names(&["Web", "alias"]), &addresses);
        for address in addresses {
            assert_eq!(zone.name_of(address).as_deref(), Some("Web.App-Net"));
        }
    }
}
