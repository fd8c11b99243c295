//! The instance's nftables tables: which rules they have, and how networks and published ports
//! get into them.
//!
//! ```text
//! packet for a host's address ─► prerouting/output: maps `addressed`, `ports` ─► DNAT
//!                                forward:     to a bridge only established, DNAT, `open`, or
//!                                             from the same bridge
//!                                postrouting: masquerade what leaves, loopback and hairpins
//! ```
//!
//! A network is some elements of sets, and a published port one of a hash map, so that the
//! two-hundredth network and the ten-thousandth port cost a packet nothing. The rules are fixed
//! when the instance starts. One table is for IPv4, the other, which is there only while a
//! network has IPv6, for that.

use std::net::IpAddr;

use berth_sys::netlink::Error;
use berth_sys::netlink::Socket;
use berth_sys::nft::{
    self, Batch, Chain, Element, Expression, Family, Field, Hook, HookPoint, Map, MetaKey, Rule,
    Table, Verdict, concatenate, interface_name,
};

use crate::address::Address;
use crate::endpoint::{Endpoint, OpenPort};
use crate::network::{GatewayMode, Network};

mod firewalld;
pub mod foreign;
pub mod live;
mod parts;

pub use parts::FIRST;
use parts::*;

/// Published at one address: address, protocol, port to address, port.
const ADDRESSED: &str = "addressed";
/// Published at all addresses: protocol, port to address, port.
const PORTS: &str = "ports";
/// Reached without translation, in networks that are routed: address, protocol, port.
const OPEN: &str = "open";
/// All bridges.
const BRIDGES: &str = "bridges";
/// Each bridge with itself.
const SAME: &str = "same";
/// Those of them whose containers may reach each other.
const WITHIN: &str = "within";
/// Bridges that nothing passes, in or out.
const INTERNAL: &str = "internal";
/// Bridges whose containers leave with the host's address.
const MASQUERADED: &str = "masqueraded";
/// Bridges whose containers are pinged from anywhere.
const ROUTED: &str = "routed";
/// Bridges whose containers are reached at all ports by whoever has a route.
const UNPROTECTED: &str = "unprotected";
const NETWORK_SETS: [&str; 7] = [
    BRIDGES,
    SAME,
    WITHIN,
    INTERNAL,
    MASQUERADED,
    ROUTED,
    UNPROTECTED,
];
const PORT_MAPS: [&str; 3] = [ADDRESSED, PORTS, OPEN];
/// The comment of the rule that keeps the host from becoming a router.
const GUARD: &str = "the host does not route for others";

/// What a table's rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    pub instance: String,
    /// `Ip` or `Ip6`.
    pub family: Family,
    /// Forwarding was off before us: forward for bridges only, as Docker's `FORWARD policy drop`
    /// in that case, but sparing the bridges of others.
    pub guard: bool,
}

/// A table's content, without the networks and the published ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    pub table: String,
    pub family: Family,
    pub chains: Vec<Chain>,
    pub maps: Vec<Map>,
    pub rules: Vec<Rule>,
}

/// What the sets and maps are filled with.
#[derive(Debug, Default)]
pub struct Contents {
    pub networks: Vec<Network>,
    pub endpoints: Vec<Endpoint>,
}

/// Decides a table's rules.
pub fn plan(inputs: &Inputs) -> Ruleset {
    let family = inputs.family;
    let base = |name: &str, kind, point, priority| Chain {
        name: name.to_owned(),
        hook: Some(Hook {
            kind,
            point,
            priority,
            drop_by_default: false,
        }),
    };
    let chains = vec![
        base("martian", "filter", HookPoint::Prerouting, -300),
        base("prerouting", "nat", HookPoint::Prerouting, -100),
        base("output", "nat", HookPoint::Output, -100),
        base("postrouting", "nat", HookPoint::Postrouting, 100),
        base("forward", "filter", HookPoint::Forward, 0),
    ];
    let mut rules = Vec::new();
    let mut rule = |chain: &str, comment: Option<&str>, parts: &[Vec<Expression>]| {
        let comment = comment.map(str::to_owned);
        rules.push(Rule {
            chain: chain.to_owned(),
            expressions: parts.concat(),
            comment,
        });
    };

    if family == Family::Ip {
        // With route_localnet a container could reach the host's loopback, or pretend to be it.
        // The kernel itself never lets ::1 in or out.
        let foreign_loopback = Some("loopback addresses that did not come from lo");
        for match_loopback in [to(LOOPBACK), from(LOOPBACK)] {
            rule(
                "martian",
                foreign_loopback,
                &[not(input("lo")), match_loopback, verdict(Verdict::Drop)],
            );
        }
    }

    for chain in ["prerouting", "output"] {
        if family == Family::Ip6 {
            // Nothing else than the relay can answer with these.
            for unroutable in [LOOPBACK6, LINK_LOCAL6] {
                rule(chain, None, &[to(unroutable), verdict(Verdict::Accept)]);
            }
        }
        rule(chain, None, &[to_this_host(), look_up_addressed(family)]);
        rule(chain, None, &[to_this_host(), look_up_port(family)]);
    }

    let masquerade = || vec![Expression::Masquerade];
    let accept = || verdict(Verdict::Accept);
    let drop = || verdict(Verdict::Drop);
    if family == Family::Ip {
        // 127.0.0.1 means something else to the container.
        rule(
            "postrouting",
            None,
            &[from(LOOPBACK), output_among(BRIDGES), masquerade()],
        );
    }
    // A container that calls its own network's published port must get the answer by way of the
    // host.
    rule(
        "postrouting",
        None,
        &[among(SAME), translated(), masquerade()],
    );
    // With br_netfilter the bridge itself gives the packet back, which then came in by nothing.
    let bridged = Some("published ports, by way of a bridge that is filtered");
    rule(
        "postrouting",
        bridged,
        &[
            input(""),
            output_among(BRIDGES),
            translated(),
            not(from_this_host()),
            masquerade(),
        ],
    );
    rule("postrouting", None, &[among(SAME), accept()]);
    rule(
        "postrouting",
        None,
        &[input_among(MASQUERADED), masquerade()],
    );

    rule(
        "forward",
        None,
        &[output_among(BRIDGES), established(), accept()],
    );
    rule("forward", None, &[among(WITHIN), accept()]);
    let internal = Some("internal networks have no way out, and none in");
    rule("forward", internal, &[input_among(INTERNAL), drop()]);
    rule("forward", internal, &[output_among(INTERNAL), drop()]);
    rule(
        "forward",
        None,
        &[output_among(BRIDGES), translated(), accept()],
    );
    rule(
        "forward",
        None,
        &[output_among(BRIDGES), look_up_open(family), accept()],
    );
    rule(
        "forward",
        None,
        &[output_among(ROUTED), echo_request(family), accept()],
    );
    // From the world, not from other networks of ours.
    rule(
        "forward",
        None,
        &[input_among(BRIDGES), output_among(UNPROTECTED), drop()],
    );
    rule("forward", None, &[output_among(UNPROTECTED), accept()]);
    let unpublished = Some("ports that are not published");
    rule("forward", unpublished, &[output_among(BRIDGES), drop()]);
    rule("forward", None, &[input_among(BRIDGES), accept()]);
    if inputs.guard {
        rule(
            "forward",
            None,
            &[kind(MetaKey::InputKind, "bridge"), accept()],
        );
        rule(
            "forward",
            None,
            &[kind(MetaKey::OutputKind, "bridge"), accept()],
        );
        rule("forward", Some(GUARD), &[drop()]);
    }
    Ruleset {
        table: inputs.instance.clone(),
        family,
        chains,
        maps: maps(family),
        rules,
    }
}

fn maps(family: Family) -> Vec<Map> {
    let address = match family {
        Family::Ip6 => Field::Ipv6Address,
        Family::Ip | Family::Inet => Field::Ipv4Address,
    };
    let map = |name: &str, key: &[Field], data: &[Field]| Map {
        name: name.to_owned(),
        key: key.to_vec(),
        data: data.to_vec(),
    };
    let (one, two) = ([Field::Interface], [Field::Interface; 2]);
    vec![
        map(
            ADDRESSED,
            &[address, Field::Protocol, Field::Port],
            &[address, Field::Port],
        ),
        map(
            PORTS,
            &[Field::Protocol, Field::Port],
            &[address, Field::Port],
        ),
        map(OPEN, &[address, Field::Protocol, Field::Port], &[]),
        map(BRIDGES, &one, &[]),
        map(SAME, &two, &[]),
        map(WITHIN, &two, &[]),
        map(INTERNAL, &one, &[]),
        map(MASQUERADED, &one, &[]),
        map(ROUTED, &one, &[]),
        map(UNPROTECTED, &one, &[]),
    ]
}

/// Makes the table's chains and rules these. With `contents` the sets and maps are those of
/// exactly these; without, they stay, so that a restart is not noticed, and `network` is added:
/// unless the table is of another make.
pub fn apply(socket: &mut Socket, ruleset: &Ruleset, fill: Fill<'_>) -> Result<(), Error> {
    let table = ruleset.names();
    let make = |batch: &mut Batch, flush: bool| {
        batch.add_table(table);
        for chain in &ruleset.chains {
            batch.add_chain(table, chain);
            if flush {
                batch.flush_chain(table, &chain.name);
            }
        }
        for map in &ruleset.maps {
            batch.add_map(table, map);
        }
        for rule in &ruleset.rules {
            batch.add_rule(table, rule);
        }
        match fill {
            Fill::Beside(network) => include(batch, table, network),
            Fill::Exactly(contents) => refill(batch, table, contents),
        }
    };
    let mut kept = Batch::new();
    make(&mut kept, true);
    if kept.commit(socket).is_ok() {
        return Ok(());
    }
    let mut anew = Batch::new();
    anew.add_table(table);
    anew.delete_table(table);
    make(&mut anew, false);
    anew.commit(socket)
}

/// What a table's sets and maps have after [`apply`].
#[derive(Debug, Clone, Copy)]
pub enum Fill<'a> {
    /// What they had, and this network.
    Beside(&'a Network),
    Exactly(&'a Contents),
}

/// Removes the table. It is no error if it is gone.
pub fn remove(socket: &mut Socket, family: Family, instance: &str) -> Result<(), Error> {
    let table = Table {
        family,
        name: instance,
    };
    let mut batch = Batch::new();
    batch.add_table(table);
    batch.delete_table(table);
    batch.commit(socket)
}

/// Whether the table has all its rules.
pub fn is_whole(socket: &mut Socket, ruleset: &Ruleset) -> Result<bool, Error> {
    for chain in &ruleset.chains {
        let there = nft::rules(socket, ruleset.family, &ruleset.table, &chain.name)?.len();
        let planned = ruleset
            .rules
            .iter()
            .filter(|rule| rule.chain == chain.name)
            .count();
        if there != planned {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the instance's table keeps the host from routing: it was made when forwarding was off.
pub fn is_guarded(socket: &mut Socket, family: Family, instance: &str) -> Result<bool, Error> {
    let rules = nft::rules(socket, family, instance, "forward")?;
    Ok(rules
        .iter()
        .any(|rule| rule.comment.as_deref() == Some(GUARD)))
}

/// Adds a network.
pub fn add_network(socket: &mut Socket, ruleset: &Ruleset, network: &Network) -> Result<(), Error> {
    let mut batch = Batch::new();
    include(&mut batch, ruleset.names(), network);
    batch.commit(socket)
}

/// Takes a network's elements back.
pub fn remove_network(
    socket: &mut Socket,
    ruleset: &Ruleset,
    network: &Network,
) -> Result<(), Error> {
    let table = ruleset.names();
    let mut batch = Batch::new();
    for (set, element) in network_elements(table.family, network) {
        batch.delete_elements(table, set, &[element]);
    }
    batch.commit(socket)
}

/// Publishes the endpoint's ports.
pub fn publish(socket: &mut Socket, ruleset: &Ruleset, endpoint: &Endpoint) -> Result<(), Error> {
    let table = ruleset.names();
    let mut batch = Batch::new();
    for (map, elements) in port_elements(table.family, std::slice::from_ref(endpoint)) {
        batch.add_elements(table, map, &elements);
    }
    batch.commit(socket)
}

/// Takes the endpoint's ports back.
pub fn withdraw(socket: &mut Socket, ruleset: &Ruleset, endpoint: &Endpoint) -> Result<(), Error> {
    let table = ruleset.names();
    let mut batch = Batch::new();
    for (map, elements) in port_elements(table.family, std::slice::from_ref(endpoint)) {
        batch.delete_elements(table, map, &elements);
    }
    batch.commit(socket)
}

/// Makes networks and published ports exactly these, in one step.
pub fn fill(socket: &mut Socket, ruleset: &Ruleset, contents: &Contents) -> Result<(), Error> {
    let mut batch = Batch::new();
    refill(&mut batch, ruleset.names(), contents);
    batch.commit(socket)
}

impl Ruleset {
    fn names(&self) -> Table<'_> {
        Table {
            family: self.family,
            name: &self.table,
        }
    }
}

fn include(batch: &mut Batch, table: Table<'_>, network: &Network) {
    for (set, element) in network_elements(table.family, network) {
        batch.include_elements(table, set, &[element]);
    }
}

fn refill(batch: &mut Batch, table: Table<'_>, contents: &Contents) {
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
fn network_elements(family: Family, network: &Network) -> Vec<(&'static str, Element)> {
    let (masquerades, mode) = match family {
        Family::Ip6 => (network.masquerades_v6(), network.gateway_modes.v6),
        Family::Ip | Family::Inet => (network.masquerades_v4(), network.gateway_modes.v4),
    };
    let name = interface_name(&network.bridge);
    let twice = concatenate(&[&name, &name]);
    let key = |key: &[u8]| Element {
        key: key.to_vec(),
        data: Vec::new(),
    };
    let sets = [
        (true, BRIDGES, key(&name)),
        (true, SAME, key(&twice)),
        (network.icc, WITHIN, key(&twice)),
        (network.internal, INTERNAL, key(&name)),
        (masquerades, MASQUERADED, key(&name)),
        (mode == GatewayMode::Routed, ROUTED, key(&name)),
        (mode == GatewayMode::NatUnprotected, UNPROTECTED, key(&name)),
    ];
    let wanted = sets.into_iter().filter(|(wanted, ..)| *wanted);
    wanted.map(|(_, set, element)| (set, element)).collect()
}

/// What published ports are in the maps of this family's table.
fn port_elements(family: Family, endpoints: &[Endpoint]) -> [(&'static str, Vec<Element>); 3] {
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
