//! Networks and published ports as elements of a table's sets and maps.

use std::net::IpAddr;

use berth_sys::nft::{Batch, Element, Family, Table, concatenate, interface_name};

use super::{
    ADDRESSED, BRIDGES, Contents, INTERNAL, MASQUERADED, NETWORK_SETS, OPEN, PORT_MAPS, PORTS,
    ROUTED, SAME, SOURCES, TRUSTED, UNPROTECTED, WITHIN,
};
use crate::address::Address;
use crate::endpoint::{Endpoint, OpenPort};
use crate::network::{GatewayMode, Network};

pub fn include(batch: &mut Batch, table: Table<'_>, network: &Network) {
    for (set, element) in network_elements(table.family, network) {
        batch.include_elements(table, set, &[element]);
    }
}

pub fn refill(batch: &mut Batch, table: Table<'_>, contents: &Contents) {
    for name in NETWORK_SETS.iter().chain(&PORT_MAPS) {
        batch.flush_map(table, name);
    }
    for network in &contents.networks {
        include(batch, table, network);
    }
    for (map, elements) in port_elements(table.family, &contents.endpoints) {
        batch.add_elements(table, map, &elements);
    }
}

/// What a network is in the sets of this family's table.
pub fn network_elements(family: Family, network: &Network) -> Vec<(&'static str, Element)> {
    // Only what goes over a bridge comes here.
    let Some(bridge) = network.bridge() else {
        return Vec::new();
    };
    let (masquerades, mode) = match family {
        Family::Ip6 => (network.masquerades_v6(), bridge.gateway_modes.v6),
        Family::Ip | Family::Inet => (network.masquerades_v4(), bridge.gateway_modes.v4),
    };
    let name = interface_name(&bridge.name);
    let twice = concatenate(&[&name, &name]);
    let key = |key: &[u8]| Element {
        key: key.to_vec(),
        data: Vec::new(),
    };
    let sets = [
        (true, BRIDGES, key(&name)),
        (true, SAME, key(&twice)),
        (bridge.icc, WITHIN, key(&twice)),
        (network.internal, INTERNAL, key(&name)),
        (masquerades, MASQUERADED, key(&name)),
        (mode == GatewayMode::Routed, ROUTED, key(&name)),
        (mode == GatewayMode::NatUnprotected, UNPROTECTED, key(&name)),
    ];
    let wanted = sets.into_iter().filter(|(wanted, ..)| *wanted);
    let mut elements: Vec<_> = wanted.map(|(_, set, element)| (set, element)).collect();
    let source = match family {
        Family::Ip6 => bridge.source_v6.map(Address::bytes),
        Family::Ip | Family::Inet => bridge.source_v4.map(Address::bytes),
    };
    elements.extend(source.filter(|_| masquerades).map(|source| {
        let element = Element {
            key: name.to_vec(),
            data: source,
        };
        (SOURCES, element)
    }));
    let trusted = bridge.trusted_interfaces.iter();
    elements.extend(trusted.map(|interface| {
        let pair = concatenate(&[&interface_name(interface), &name]);
        (TRUSTED, key(&pair))
    }));
    elements
}

/// What published ports are in the maps of this family's table.
pub fn port_elements(family: Family, endpoints: &[Endpoint]) -> [(&'static str, Vec<Element>); 3] {
    let (mut addressed, mut ports, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for endpoint in endpoints {
        let own = match family {
            Family::Ip6 => endpoint.ipv6.map(Address::bytes),
            Family::Ip | Family::Inet => endpoint.ipv4.map(Address::bytes),
        };
        // What comes by a family that the container lacks is the relay's.
        let Some(own) = own else { continue };
        for binding in &endpoint.ports {
            if binding.host_ip.is_ipv6() != (family == Family::Ip6) {
                continue;
            }
            let protocol = [binding.protocol.number()];
            let port = binding.host_port.to_be_bytes();
            let target = binding.container_port.to_be_bytes();
            let data = concatenate(&[&own, &target]);
            if binding.host_ip.is_unspecified() {
                let key = concatenate(&[&protocol, &port]);
                ports.push(Element { key, data });
            } else {
                let host = match binding.host_ip {
                    IpAddr::V4(host) => host.bytes(),
                    IpAddr::V6(host) => host.bytes(),
                };
                let key = concatenate(&[&host, &protocol, &port]);
                addressed.push(Element { key, data });
            }
        }
        let is_own = |it: &&OpenPort| it.address.is_ipv6() == (family == Family::Ip6);
        for OpenPort { protocol, port, .. } in endpoint.open.iter().filter(is_own) {
            let key = concatenate(&[&own, &[protocol.number()], &port.to_be_bytes()]);
            let data = Vec::new();
            open.push(Element { key, data });
        }
    }
    [(ADDRESSED, addressed), (PORTS, ports), (OPEN, open)]
}
