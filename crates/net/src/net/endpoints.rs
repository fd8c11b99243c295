//! The connected containers, and the addresses that are taken.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::address::Cidr;
use crate::endpoint::Endpoint;
use crate::error::Error;

/// Shared by the callers and by the thread that keeps the firewall.
#[derive(Default)]
pub struct Endpoints {
    connected: HashMap<String, Endpoint>,
    /// Each address with the container that has it, or is about to.
    addresses: HashMap<Ipv4Addr, String>,
}

impl Endpoints {
    pub fn replace(&mut self, endpoints: &[Endpoint]) {
        let id = |endpoint: &Endpoint| endpoint.container_id.clone();
        self.connected = endpoints.iter().map(|one| (id(one), one.clone())).collect();
        self.addresses = endpoints.iter().map(|one| (one.ipv4, id(one))).collect();
    }

    pub fn all(&self) -> Vec<Endpoint> {
        self.connected.values().cloned().collect()
    }

    /// Takes the address that was asked for, or the lowest free one, for this container.
    /// `bridge` is the gateway with its subnet.
    pub fn reserve(
        &mut self,
        container_id: &str,
        wanted: Option<Ipv4Addr>,
        bridge: Cidr,
    ) -> Result<Ipv4Addr, Error> {
        let pending = self.addresses.values().any(|holder| holder == container_id);
        if pending || self.connected.contains_key(container_id) {
            return Err(Error::Connected {
                container_id: container_id.to_owned(),
            });
        }
        let (gateway, subnet) = (bridge.address, bridge.network());
        let is_host = |address: Ipv4Addr| {
            let edges = [subnet.first(), subnet.last()];
            subnet.contains(address) && !edges.contains(&u32::from(address))
        };
        let is_free =
            |address: &Ipv4Addr| *address != gateway && !self.addresses.contains_key(address);
        let address = match wanted {
            Some(address) if !is_host(address) => {
                return Err(Error::AddressOutside { address, subnet });
            }
            Some(address) if !is_free(&address) => return Err(Error::AddressInUse { address }),
            Some(address) => address,
            None => subnet
                .hosts()
                .find(is_free)
                .ok_or(Error::NoFreeAddress { subnet })?,
        };
        self.addresses.insert(address, container_id.to_owned());
        Ok(address)
    }

    /// The endpoint whose address was reserved is complete.
    pub fn insert(&mut self, endpoint: Endpoint) {
        self.connected
            .insert(endpoint.container_id.clone(), endpoint);
    }

    /// The endpoint goes; its address stays taken until [`Endpoints::release`].
    pub fn remove(&mut self, container_id: &str) -> Option<Endpoint> {
        self.connected.remove(container_id)
    }

    pub fn release(&mut self, address: Ipv4Addr) {
        self.addresses.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_address_is_taken_until_none_is_left() {
        let bridge: Cidr = "10.0.0.2/29".parse().expect("a subnet");
        let mut endpoints = Endpoints::default();
        let mut take = |id: &str| endpoints.reserve(id, None, bridge).map(|ip| ip.octets()[3]);
        let taken: Vec<u8> = ["a", "b", "c", "d", "e"]
            .map(|id| take(id).expect("free"))
            .to_vec();
        assert_eq!(taken, [1, 3, 4, 5, 6]);
        assert!(matches!(take("f"), Err(Error::NoFreeAddress { .. })));
        assert!(matches!(take("a"), Err(Error::Connected { .. })));
        endpoints.release([10, 0, 0, 4].into());
        assert_eq!(
            endpoints.reserve("f", None, bridge).expect("free").octets()[3],
            4
        );
    }

    #[test]
    fn the_edges_of_a_subnet_are_no_hosts() {
        let bridge: Cidr = "10.0.0.1/29".parse().expect("a subnet");
        let mut endpoints = Endpoints::default();
        for last in [0, 7, 8] {
            let refused = endpoints.reserve("a", Some([10, 0, 0, last].into()), bridge);
            assert!(
                matches!(refused, Err(Error::AddressOutside { .. })),
                "{last}"
            );
        }
    }
}
