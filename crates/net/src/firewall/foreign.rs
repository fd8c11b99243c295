//! The firewalls of others: finding one that would drop what we forward, and asking it not to.
//!
//! An accept in our table does not overrule a drop in another. iptables (and ufw on it) gets one
//! commented jump at the end of FORWARD, which is taken away again; firewalld is the matter of
//! [`super::firewalld`]. iptables-nft is spoken to by netlink; iptables-legacy has no other
//! documented interface than its program, so that program is used if it is there.

use std::process::{Command, Stdio};

use berth_sys::netlink::{Error, Socket};
use berth_sys::nft::{
    self, Batch, Chain, ChainInfo, Effect, Expression, Family, Rule, RuleInfo, Table, Verdict,
};

use super::parts::{input, output, verdict};

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
pub const FILTER: &str = "filter";
pub const FORWARD: &str = "FORWARD";
/// `NF_INET_FORWARD`.
const HOOK_FORWARD: u32 = 2;
/// How the comments of our jumps begin.
const MADE_BY: &str = "made by ";
/// The tables of iptables-legacy that are loaded in this network namespace.
const LEGACY_TABLES: &str = "/proc/thread-self/net/ip_tables_names";
const LEGACY_PROGRAM: &str = "iptables-legacy";

/// What is to be let through, and under which name.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'a> {
    pub instance: &'a str,
    /// The link group of the bridges that the instance made.
    pub group: u32,
    /// All bridges.
    pub bridges: &'a [String],
    /// Those of them that are not in the group.
    pub beside: &'a [String],
    /// One of them has IPv6.
    pub v6: bool,
}

/// Interfaces that one pair of rules is for.
#[derive(Debug, Clone, Copy)]
enum Side<'a> {
    Group(u32),
    Bridge(&'a str),
}

/// Lets the bridges' traffic pass where iptables is in use, if `insert` is set. Returns what is
/// still missing, each with the command that remedies it.
pub fn open(socket: &mut Socket, passage: Passage<'_>, insert: bool) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    let forwards = |chain: &&ChainInfo| chain.hook == Some(HOOK_FORWARD);
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

/// The same for iptables-legacy, whose changes nobody can listen to.
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

/// By the link group, so that neither a packet nor a new network pays for the number of bridges;
/// where the kernel has no match for that, by the bridges' names.
fn insert_jump(socket: &mut Socket, table: Table<'_>, passage: Passage<'_>) -> Result<(), Error> {
    let chain = passage.chain();
    let jump = place_jump(socket, table, passage)?;
    let there = nft::rules(socket, table.family, table.name, &chain)?;
    let there: Vec<_> = there.into_iter().filter_map(|rule| rule.comment).collect();
    let ways = [passage.by_group(), passage.by_name()];
    let planned = ways.map(|sides| sides.into_iter().flat_map(Side::rules).collect::<Vec<_>>());
    let is_there =
        |rules: &Vec<(String, Vec<Expression>)>| rules.iter().map(|rule| &rule.0).eq(&there);
    if jump == Jump::default() && planned.iter().any(is_there) {
        return Ok(());
    }
    let mut result = Ok(());
    for rules in planned {
        result = fill_chain(socket, table, passage, rules, &jump);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// What is to be done so that the jump is where it belongs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Jump {
    delete: Vec<u64>,
    /// Before the rule of this handle; `Some(None)` at the end.
    add: Option<Option<u64>>,
}

/// The jump stands behind all that decides (`ufw route deny`, a chain DOCKER-USER), and before
/// what closes the chain (`-A FORWARD -j REJECT`). The jumps of other instances count for nothing,
/// or two of them would push each other away.
fn place_jump(socket: &mut Socket, table: Table<'_>, passage: Passage<'_>) -> Result<Jump, Error> {
    let rules = nft::rules(socket, table.family, table.name, FORWARD)?;
    let is_jump = |rule: &&RuleInfo| {
        let comment = rule.comment.as_deref();
        comment.is_some_and(|comment| comment.starts_with(MADE_BY))
    };
    let mut closing = None;
    for rule in rules.iter().filter(|rule| !is_jump(rule)) {
        if closes(socket, table, &rule.effect)? {
            closing = Some(rule.handle);
            break;
        }
    }
    let own = rules.iter().position(|rule| passage.owns(rule));
    let next = own.and_then(|own| rules[own + 1..].iter().find(|rule| !is_jump(rule)));
    if own.is_some() && next.map(|rule| rule.handle) == closing {
        return Ok(Jump::default());
    }
    let owned = rules.iter().filter(|rule| passage.owns(rule));
    Ok(Jump {
        delete: owned.map(|rule| rule.handle).collect(),
        add: Some(closing),
    })
}

/// Whether nothing gets past a rule, or past the first one of the chain that it leads to.
fn closes(socket: &mut Socket, table: Table<'_>, effect: &Effect) -> Result<bool, Error> {
    let Effect::Jumps(chain) = effect else {
        return Ok(*effect == Effect::Closes);
    };
    let rules = nft::rules(socket, table.family, table.name, chain)?;
    let first = rules.first();
    Ok(first.is_some_and(|rule| rule.effect == Effect::Closes))
}

fn fill_chain(
    socket: &mut Socket,
    table: Table<'_>,
    passage: Passage<'_>,
    rules: Vec<(String, Vec<Expression>)>,
    jump: &Jump,
) -> Result<(), Error> {
    let name = passage.chain();
    let mut batch = Batch::new();
    batch.add_chain(
        table,
        &Chain {
            name: name.clone(),
            hook: None,
        },
    );
    batch.flush_chain(table, &name);
    let rule = |chain: &str, comment, condition: Vec<Expression>, then| Rule {
        chain: chain.to_owned(),
        expressions: [condition, vec![Expression::Counter], verdict(then)].concat(),
        comment: Some(comment),
    };
    for (comment, condition) in rules {
        batch.add_rule(table, &rule(&name, comment, condition, Verdict::Accept));
    }
    for handle in &jump.delete {
        batch.delete_rule(table, FORWARD, *handle);
    }
    if let Some(before) = jump.add {
        let then = Verdict::Jump(name.clone());
        let jump = rule(FORWARD, passage.comment(), Vec::new(), then);
        batch.add_rule_before(table, &jump, before);
    }
    batch.commit(socket)
}

impl<'a> Side<'a> {
    /// What comes in from it and what goes out to it, each with a comment that says so.
    fn rules(self) -> [(String, Vec<Expression>); 2] {
        match self {
            Side::Group(group) => [
                (
                    "from containers".to_owned(),
                    vec![Expression::InputGroup(group)],
                ),
                (
                    "to containers".to_owned(),
                    vec![Expression::OutputGroup(group)],
                ),
            ],
            Side::Bridge(bridge) => [
                (format!("from {bridge}"), input(bridge)),
                (format!("to {bridge}"), output(bridge)),
            ],
        }
    }

    /// The same as iptables' options.
    fn options(self) -> [Vec<String>; 2] {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self {
            Side::Group(group) => ["--src-group", "--dst-group"]
                .map(|side| words(&["-m", "devgroup", side, &format!("{group:#x}")])),
            Side::Bridge(bridge) => ["-i", "-o"].map(|side| words(&[side, bridge])),
        }
    }

    /// The same as nft's words.
    fn words(self) -> [String; 2] {
        match self {
            Side::Group(group) => ["iifgroup", "oifgroup"].map(|side| format!("{side} {group:#x}")),
            Side::Bridge(bridge) => ["iifname", "oifname"].map(|side| format!("{side} {bridge}")),
        }
    }
}

impl<'a> Passage<'a> {
    fn by_group(&self) -> Vec<Side<'a>> {
        let beside = self.beside.iter().map(|bridge| Side::Bridge(bridge));
        [Side::Group(self.group)]
            .into_iter()
            .chain(beside)
            .collect()
    }

    fn by_name(&self) -> Vec<Side<'a>> {
        let bridges = self.bridges.iter();
        bridges.map(|bridge| Side::Bridge(bridge)).collect()
    }

    fn chain(&self) -> String {
        let mut name = self.instance.to_ascii_uppercase();
        name.truncate(19);
        name + "-FORWARD"
    }

    fn comment(&self) -> String {
        format!("{MADE_BY}{}", self.instance)
    }

    /// Whether the rule is the jump of this instance.
    pub fn owns(&self, rule: &nft::RuleInfo) -> bool {
        rule.comment.as_deref() == Some(self.comment().as_str())
    }

    fn advice(&self, program: &str) -> String {
        let sides = self.by_group().into_iter().flat_map(Side::options);
        let rule =
            |options: Vec<String>| format!("{program} -A FORWARD {} -j ACCEPT", options.join(" "));
        let rules: Vec<String> = sides.map(rule).collect();
        format!(
            "{program} may drop the containers' traffic. To let it pass: {}",
            rules.join("; ")
        )
    }

    fn nft_advice(&self, chain: &ChainInfo) -> String {
        let (table, name) = (&chain.table, &chain.name);
        let sides = self.by_group().into_iter().flat_map(Side::words);
        let rules: Vec<String> = sides
            .map(|words| format!("nft add rule TABLE {name} {words} accept"))
            .collect();
        format!(
            "nftables chain {name} of table {table} drops forwarded packets by default. To let the \
             containers' pass: {} (TABLE: family and name of {table})",
            rules.join("; ")
        )
    }
}

/// Whether iptables-legacy has rules of others there, or drops by default: `Some(true)` if it lets
/// nothing pass.
pub fn legacy_obstacle(passage: Passage<'_>, forward: bool) -> Option<bool> {
    if !legacy_is_used() {
        return None;
    }
    let chain = if forward { FORWARD } else { "INPUT" };
    let listed = legacy_output(&["-S", chain], &[])?;
    let jumps = usize::from(forward && legacy_jumps(passage));
    let rules = listed.lines().filter(|line| line.starts_with("-A")).count();
    let drops = listed
        .lines()
        .any(|line| line == format!("-P {chain} DROP"));
    let others = rules - rules.min(jumps);
    (others > 0 || drops && jumps == 0).then_some(others == 0)
}

/// Whether iptables-legacy is in use and another program took our jump away.
pub fn legacy_lacks_jump(instance: &str) -> bool {
    let passage = Passage {
        instance,
        group: 0,
        bridges: &[],
        beside: &[],
        v6: false,
    };
    legacy_is_used() && !legacy_jumps(passage)
}

fn legacy_is_used() -> bool {
    let names = std::fs::read_to_string(LEGACY_TABLES).unwrap_or_default();
    names.lines().any(|name| name == "filter")
}

fn legacy_passes(passage: Passage<'_>) -> bool {
    let chain = passage.chain();
    let there = legacy_output(&["-S", &chain], &[]).unwrap_or_default();
    let there = there.lines().filter(|line| line.starts_with("-A")).count();
    let passes = |sides: Vec<Side<'_>>| {
        let mut options = sides.iter().copied().flat_map(Side::options);
        there == 2 * sides.len() && options.all(|it| legacy(&["-C", &chain], &accept(it)))
    };
    legacy_jumps(passage) && (passes(passage.by_group()) || passes(passage.by_name()))
}

fn legacy_jumps(passage: Passage<'_>) -> bool {
    legacy(&["-C", FORWARD], &jump(passage))
}

fn legacy_insert(passage: Passage<'_>) -> bool {
    let chain = passage.chain();
    // Left over, or absent: both are fine.
    let _ = legacy(&["-N", &chain], &[]);
    let fill = |sides: Vec<Side<'_>>| {
        let mut options = sides.into_iter().flat_map(Side::options);
        legacy(&["-F", &chain], &[])
            && options.all(|options| legacy(&["-A", &chain], &accept(options)))
    };
    (fill(passage.by_group()) || fill(passage.by_name()))
        && (legacy_jumps(passage) || legacy(&["-I", FORWARD, &legacy_position()], &jump(passage)))
}

/// The number that the jump gets: that of the rule which closes the chain, or one more than there
/// are.
fn legacy_position() -> String {
    let listed = legacy_output(&["-S", FORWARD], &[]).unwrap_or_default();
    let rules: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with("-A"))
        .collect();
    let is_closing = |rule: &&str| {
        rule.starts_with("-A FORWARD -j DROP") || rule.starts_with("-A FORWARD -j REJECT")
    };
    let at = rules.iter().position(is_closing).unwrap_or(rules.len());
    (at + 1).to_string()
}

fn accept(mut options: Vec<String>) -> Vec<String> {
    options.extend(["-j", "ACCEPT"].map(str::to_owned));
    options
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
    legacy_output(first, rest).is_some()
}

/// What the program prints; `None` if it fails.
fn legacy_output(first: &[&str], rest: &[String]) -> Option<String> {
    const WAIT_SECONDS: &str = "-w5";
    let mut command = Command::new(LEGACY_PROGRAM);
    command.arg(WAIT_SECONDS).args(first).args(rest);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(printed)
}
