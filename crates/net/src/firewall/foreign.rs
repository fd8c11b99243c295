//! The firewalls of others: finding one that would drop what we forward, and asking it not to.
//!
//! An accept in our table does not overrule a drop in another. iptables (and ufw on it) gets one
//! commented jump at the end of FORWARD, which is taken away again; firewalld is the matter of
//! [`super::firewalld`]. iptables-nft is spoken to by netlink; iptables-legacy has no other
//! documented interface than its program, so that program is used if it is there.

use std::process::{Command, Stdio};

use berth_sys::netlink::{Error, Socket};
use berth_sys::nft::{self, BaseChain, Batch, Chain, Expression, Family, Rule, Table, Verdict};

use super::{input, output, verdict};

/// iptables' and ip6tables' own names.
const IPTABLES: [Table<'static>; 2] = [
    Table {
        family: Family::Ip,
        name: FILTER,
    },
    Table {
        family: Family::Ip6,
        name: FILTER,
    },
];
const FILTER: &str = "filter";
const FORWARD: &str = "FORWARD";
/// `NF_INET_FORWARD`.
const HOOK_FORWARD: u32 = 2;
/// The tables of iptables-legacy that are loaded in this network namespace.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";
const LEGACY_PROGRAM: &str = "iptables-legacy";

/// What is to be let through, and under which name.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'a> {
    pub instance: &'a str,
    pub bridges: &'a [String],
    /// One of them has IPv6.
    pub v6: bool,
}

/// Lets the bridges' traffic pass where iptables is in use, if `insert` is set. Returns what is
/// still missing, each with the command that remedies it.
pub fn open(socket: &mut Socket, passage: Passage<'_>, insert: bool) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    let forwards = |chain: &&BaseChain| chain.hook == HOOK_FORWARD;
    for table in IPTABLES.into_iter().take(if passage.v6 { 2 } else { 1 }) {
        for chain in nft::chains(socket, table.family)?.iter().filter(forwards) {
            let is_iptables = chain.table == FILTER && chain.name == FORWARD;
            if is_iptables && insert {
                insert_jump(socket, table, passage)?;
            } else if is_iptables && chain.drops_by_default {
                warnings.push(passage.advice(match table.family {
                    Family::Ip6 => "ip6tables",
                    Family::Ip | Family::Inet => "iptables",
                }));
            } else if chain.drops_by_default {
                warnings.push(passage.nft_advice(chain));
            }
        }
    }
    let both = nft::chains(socket, Family::Inet)?;
    let strict = both
        .iter()
        .filter(forwards)
        .filter(|chain| chain.drops_by_default);
    warnings.extend(strict.map(|chain| passage.nft_advice(chain)));
    Ok(warnings)
}

/// The same for iptables-legacy, whose changes nobody can listen to: done when a bridge comes or
/// goes.
pub fn open_legacy(passage: Passage<'_>, insert: bool) -> Option<String> {
    let passes = !legacy_is_used() || legacy_passes(passage) || insert && legacy_insert(passage);
    (!passes).then(|| passage.advice(LEGACY_PROGRAM))
}

/// Takes the jump away again.
pub fn close(socket: &mut Socket, passage: Passage<'_>) -> Result<(), Error> {
    if legacy_is_used() && legacy_jumps(passage) {
        legacy_remove(passage);
    }
    let removed = IPTABLES.map(|table| remove_jump(socket, table, passage));
    removed.into_iter().collect()
}

fn remove_jump(socket: &mut Socket, table: Table<'_>, passage: Passage<'_>) -> Result<(), Error> {
    let name = passage.chain();
    let rules = nft::rules(socket, table.family, table.name, FORWARD)?;
    let ours: Vec<u64> = rules
        .iter()
        .filter(|rule| passage.owns(rule))
        .map(|r| r.handle)
        .collect();
    if ours.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    for handle in ours {
        batch.delete_rule(table, FORWARD, handle);
    }
    batch.flush_chain(table, &name);
    batch.delete_chain(table, &name);
    batch.commit(socket)
}

fn insert_jump(socket: &mut Socket, table: Table<'_>, passage: Passage<'_>) -> Result<(), Error> {
    let name = passage.chain();
    let rules = nft::rules(socket, table.family, table.name, FORWARD)?;
    let jumps = rules.iter().any(|rule| passage.owns(rule));
    let there = nft::rules(socket, table.family, table.name, &name)?.len();
    if jumps && there == 2 * passage.bridges.len() {
        return Ok(());
    }
    let mut batch = Batch::new();
    batch.add_chain(
        table,
        &Chain {
            name: name.clone(),
            hook: None,
        },
    );
    batch.flush_chain(table, &name);
    let counter = || vec![Expression::Counter];
    let sides = |bridge: &String| [input(bridge), output(bridge)];
    for interface in passage.bridges.iter().flat_map(sides) {
        let expressions = [interface, counter(), verdict(Verdict::Accept)].concat();
        batch.add_rule(
            table,
            &Rule {
                chain: name.clone(),
                expressions,
                comment: None,
            },
        );
    }
    if !jumps {
        let expressions = [counter(), verdict(Verdict::Jump(name))].concat();
        let comment = Some(passage.comment());
        batch.add_rule(
            table,
            &Rule {
                chain: FORWARD.to_owned(),
                expressions,
                comment,
            },
        );
    }
    batch.commit(socket)
}

impl<'a> Passage<'a> {
    /// Each bridge as what packets come in by and go out by, as iptables' options.
    fn sides(&self) -> impl Iterator<Item = [&'a str; 2]> + use<'a> {
        let both = |bridge: &'a String| [["-i", bridge.as_str()], ["-o", bridge.as_str()]];
        self.bridges.iter().flat_map(both)
    }

    /// iptables allows 28 characters.
    fn chain(&self) -> String {
        let mut name = self.instance.to_ascii_uppercase();
        name.truncate(19);
        name + "-FORWARD"
    }

    fn comment(&self) -> String {
        format!("made by {}", self.instance)
    }

    fn owns(&self, rule: &nft::RuleInfo) -> bool {
        rule.comment.as_deref() == Some(self.comment().as_str())
    }

    /// For each bridge what `say` makes of its name.
    fn each(&self, say: impl Fn(&str) -> String) -> String {
        let said: Vec<String> = self.bridges.iter().map(|bridge| say(bridge)).collect();
        said.join("; ")
    }

    fn advice(&self, program: &str) -> String {
        let rules = self.each(|bridge| {
            format!(
                "{program} -A FORWARD -i {bridge} -j ACCEPT; \
                 {program} -A FORWARD -o {bridge} -j ACCEPT"
            )
        });
        format!("{program} may drop the containers' traffic. To let it pass: {rules}")
    }

    fn nft_advice(&self, chain: &BaseChain) -> String {
        let (table, name) = (&chain.table, &chain.name);
        let rules = self.each(|bridge| {
            format!(
                "nft add rule TABLE {name} iifname {bridge} accept; \
                 nft add rule TABLE {name} oifname {bridge} accept"
            )
        });
        format!(
            "nftables chain {name} of table {table} drops forwarded packets by default. To let the \
             containers' pass: {rules} (TABLE: family and name of {table})"
        )
    }
}

fn legacy_is_used() -> bool {
    let names = std::fs::read_to_string(LEGACY_TABLES).unwrap_or_default();
    names.lines().any(|name| name == "filter")
}

fn legacy_passes(passage: Passage<'_>) -> bool {
    let chain = passage.chain();
    let passes =
        |[side, bridge]: [&str; 2]| legacy(&["-C", &chain, side, bridge, "-j", "ACCEPT"], &[]);
    legacy_jumps(passage) && passage.sides().all(passes)
}

fn legacy_jumps(passage: Passage<'_>) -> bool {
    legacy(&["-C", FORWARD], &jump(passage))
}

fn legacy_insert(passage: Passage<'_>) -> bool {
    let chain = passage.chain();
    // Left over, or absent: both are fine.
    let _ = legacy(&["-N", &chain], &[]);
    let accept =
        |[side, bridge]: [&str; 2]| legacy(&["-A", &chain, side, bridge, "-j", "ACCEPT"], &[]);
    legacy(&["-F", &chain], &[])
        && passage.sides().all(accept)
        && (legacy_jumps(passage) || legacy(&["-A", FORWARD], &jump(passage)))
}

fn legacy_remove(passage: Passage<'_>) {
    let chain = passage.chain();
    let gone = legacy(&["-D", FORWARD], &jump(passage));
    let gone = gone && legacy(&["-F", &chain], &[]) && legacy(&["-X", &chain], &[]);
    if !gone {
        tracing::warn!(chain, "{LEGACY_PROGRAM} did not take our chain away");
    }
}

fn jump(passage: Passage<'_>) -> Vec<String> {
    let comment = passage.comment();
    [
        "-m",
        "comment",
        "--comment",
        &comment,
        "-j",
        &passage.chain(),
    ]
    .map(str::to_owned)
    .to_vec()
}

fn legacy(first: &[&str], rest: &[String]) -> bool {
    const WAIT_SECONDS: &str = "-w5";
    let mut command = Command::new(LEGACY_PROGRAM);
    command.arg(WAIT_SECONDS).args(first).args(rest);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
