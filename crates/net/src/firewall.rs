//! The instance's nftables tables: which rules they have, and how networks and published ports
//! get into them.
//!
//! ```text
//! packet for a host's address ─► prerouting/output: maps `addressed`, `ports` ─► DNAT
//!                                forward:     what the administrator says in `user`; then to a
//!                                             bridge only established, DNAT, `open`, or from
//!                                             the same bridge
//!                                postrouting: masquerade what leaves, loopback and hairpins
//! ```
//!
//! A network is some elements of sets, and a published port one of a hash map, so that the
//! two-hundredth network and the ten-thousandth port cost a packet nothing. The rules are fixed
//! when the instance starts. One table is for IPv4, the other, which is there only while a
//! network has IPv6, for that.

use berth_sys::netlink::Error;
use berth_sys::netlink::Socket;
use berth_sys::nft::{self, Batch, Chain, Family, Map, Rule, Table};

use crate::endpoint::Endpoint;
use crate::network::Network;

mod elements;
mod firewalld;
pub mod foreign;
pub mod live;
mod obstacles;
mod parts;
mod plan;
mod tracked;

use elements::{include, network_elements, port_elements, refill};
pub use obstacles::{Obstacle, Obstacles};
pub use parts::FIRST;
pub use plan::plan;

/// The administrator's own rules, which come before ours. They are never changed from here, and
/// outlive the table's own.
const USER: &str = "user";

/// Published at one address: address, protocol, port to address, port.
const ADDRESSED: &str = "addressed";
/// Published at all addresses: protocol, port to address, port.
const PORTS: &str = "ports";
/// Reached without translation, in networks that are routed and by way of trusted interfaces:
/// address, protocol, port.
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
/// Bridges whose containers leave with an address that is given, and the address.
const SOURCES: &str = "sources";
/// Interfaces of the host by which what is published is reached without translation, each with
/// the bridge.
const TRUSTED: &str = "trusted";
/// Bridges whose containers are pinged from anywhere.
const ROUTED: &str = "routed";
/// Bridges whose containers are reached at all ports by whoever has a route.
const UNPROTECTED: &str = "unprotected";
const NETWORK_SETS: [&str; 9] = [
    BRIDGES,
    SAME,
    WITHIN,
    INTERNAL,
    MASQUERADED,
    SOURCES,
    ROUTED,
    TRUSTED,
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
    /// Their bridges that are not in the instance's link group, since it did not make them.
    pub foreign_bridges: Vec<String>,
    pub endpoints: Vec<Endpoint>,
}

/// Makes the table's chains and rules these, and its sets and maps as `fill` says: unless the
/// table is of another make, which begins anew. What an administrator has put into it stays.
pub fn apply(socket: &mut Socket, ruleset: &Ruleset, fill: Fill<'_>) -> Result<(), Error> {
    let table = ruleset.names();
    let make = |batch: &mut Batch, flush: bool| {
        batch.add_table(table);
        for chain in &ruleset.chains {
            batch.add_chain(table, chain);
            if flush && chain.hook.is_some() {
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
    take_down(socket, &mut anew, table)?;
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

/// Removes the table, or all that is ours of it if an administrator has rules in it. It is no
/// error if it is gone.
pub fn remove(socket: &mut Socket, family: Family, instance: &str) -> Result<(), Error> {
    let table = Table {
        family,
        name: instance,
    };
    let mut batch = Batch::new();
    batch.add_table(table);
    if is_used_by_others(socket, table)? {
        take_down(socket, &mut batch, table)?;
    } else {
        batch.delete_table(table);
    }
    batch.commit(socket)
}

/// Whether an administrator has rules in the table, or chains to hold some.
fn is_used_by_others(socket: &mut Socket, table: Table<'_>) -> Result<bool, Error> {
    let chains = nft::chains(socket, table.family)?;
    let own = |chain: &&nft::ChainInfo| chain.table == table.name && chain.hook.is_none();
    let mut theirs = chains.iter().filter(own);
    if theirs.any(|chain| chain.name != USER) {
        return Ok(true);
    }
    Ok(!nft::rules(socket, table.family, table.name, USER)?.is_empty())
}

/// Deletes the chains that hang on a hook, and the sets and maps that are named as ours.
fn take_down(socket: &mut Socket, batch: &mut Batch, table: Table<'_>) -> Result<(), Error> {
    let chains = nft::chains(socket, table.family)?;
    let hooked = |chain: &&nft::ChainInfo| chain.table == table.name && chain.hook.is_some();
    let hooked: Vec<_> = chains.iter().filter(hooked).collect();
    for chain in &hooked {
        batch.flush_chain(table, &chain.name);
    }
    for chain in &hooked {
        batch.delete_chain(table, &chain.name);
    }
    for map in nft::maps(socket, table)? {
        if NETWORK_SETS.iter().chain(&PORT_MAPS).any(|own| *own == map) {
            batch.delete_map(table, &map);
        }
    }
    Ok(())
}

/// Whether the table has all its rules.
pub fn is_whole(socket: &mut Socket, ruleset: &Ruleset) -> Result<bool, Error> {
    for chain in ruleset.chains.iter().filter(|chain| chain.hook.is_some()) {
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
