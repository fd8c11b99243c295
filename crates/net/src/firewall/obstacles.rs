//! What others' firewalls may keep from a published port.
//!
//! Their rules are not evaluated: a chain that has any may drop, and is named; one that has none
//! and drops by default lets nothing pass.

use berth_sys::netlink::{Error, Socket};
use berth_sys::nft::{self, ChainInfo, Family};

use super::USER;
use super::foreign::{self, FILTER, FORWARD, Passage};

/// The chains that a packet passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// To a container, after its address was translated or as it is.
    Forward,
    /// To the port relay.
    Input,
}

/// A firewall in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub name: String,
    /// It lets nothing pass, rather than something that we do not know.
    pub closes: bool,
}

/// Of both families, IPv4 first.
#[derive(Debug, Default)]
pub struct Obstacles {
    forward: [Vec<Obstacle>; 2],
    input: [Vec<Obstacle>; 2],
}

impl Obstacles {
    pub fn find(socket: &mut Socket, passage: Passage<'_>) -> Result<Obstacles, Error> {
        let mut all = Obstacles::default();
        for (at, family) in [Family::Ip, Family::Ip6].into_iter().enumerate() {
            all.forward[at] = find(socket, passage, family, Path::Forward)?;
            all.input[at] = find(socket, passage, family, Path::Input)?;
        }
        Ok(all)
    }

    /// firewalld rejects what is to or from interfaces that no zone has.
    pub fn firewalld_closes(&mut self) {
        let forward = self.forward.iter_mut().flatten();
        for obstacle in forward.filter(|obstacle| obstacle.name == FIREWALLD) {
            obstacle.closes = true;
        }
    }

    /// What is forwarded to containers.
    pub fn forward(&self, v6: bool) -> &[Obstacle] {
        &self.forward[usize::from(v6)]
    }

    /// What arrives at the machine itself.
    pub fn input(&self, v6: bool) -> &[Obstacle] {
        &self.input[usize::from(v6)]
    }
}

const FIREWALLD: &str = super::firewalld::TABLE.name;
/// The tables of instances of ours: each drops only what is to or from its own bridges.
const OWN_TABLES: &str = "berth";
/// What ufw's jump leads to, in the table of each family.
const UFW: [&str; 2] = ["ufw-before-forward", "ufw6-before-forward"];

/// What stands in the way of packets of a family, `Ip` or `Ip6`.
fn find(
    socket: &mut Socket,
    passage: Passage<'_>,
    family: Family,
    path: Path,
) -> Result<Vec<Obstacle>, Error> {
    let mut found = Vec::new();
    if path == Path::Forward && !nft::rules(socket, family, passage.instance, USER)?.is_empty() {
        let name = format!("the chain {USER} of {}", passage.instance);
        found.push(Obstacle {
            name,
            closes: false,
        });
    }
    for table in [family, Family::Inet] {
        let chains = nft::chains(socket, table)?;
        for chain in chains.iter().filter(|chain| is_in_the_way(chain, path)) {
            if chain.table == passage.instance || chain.table.starts_with(OWN_TABLES) {
                continue;
            }
            let rules = nft::rules(socket, table, &chain.table, &chain.name)?;
            let jumps = rules.iter().filter(|rule| passage.owns(rule)).count();
            let others = rules.len() - jumps;
            if others > 0 || chain.drops_by_default && jumps == 0 {
                found.push(Obstacle {
                    name: name(table, chain, &chains),
                    closes: others == 0,
                });
            }
        }
    }
    if family == Family::Ip
        && let Some(closes) = foreign::legacy_obstacle(passage, path == Path::Forward)
    {
        let name = "iptables-legacy".to_owned();
        found.push(Obstacle { name, closes });
    }
    Ok(found)
}

fn is_in_the_way(chain: &ChainInfo, path: Path) -> bool {
    // `NF_INET_*`.
    const LOCAL_IN: u32 = 1;
    const FORWARDED: u32 = 2;
    let hook = match path {
        Path::Forward => FORWARDED,
        Path::Input => LOCAL_IN,
    };
    chain.hook == Some(hook) && chain.kind == "filter"
}

fn name(family: Family, chain: &ChainInfo, all: &[ChainInfo]) -> String {
    let is_ufw = |it: &ChainInfo| it.table == FILTER && UFW.contains(&it.name.as_str());
    match (family, chain.table.as_str()) {
        (Family::Ip | Family::Ip6, FILTER) if all.iter().any(is_ufw) => "ufw".to_owned(),
        (Family::Ip, FILTER) if is_iptables(chain) => "iptables".to_owned(),
        (Family::Ip6, FILTER) if is_iptables(chain) => "ip6tables".to_owned(),
        (Family::Inet, FIREWALLD) => FIREWALLD.to_owned(),
        (_, table) => format!("the nftables table {table}"),
    }
}

fn is_iptables(chain: &ChainInfo) -> bool {
    [FORWARD, "INPUT"].contains(&chain.name.as_str())
}
