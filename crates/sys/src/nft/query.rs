//! What is there: tables, chains and rules, of this and of other owners.

use super::{Family, NFNL_SUBSYS_NFTABLES, Table, header};
use crate::netlink::attributes::{be32, be64, find, iterate, put_text, text};
use crate::netlink::{Error, Messages, NLM_F_DUMP, NLM_F_REQUEST, Reply, Socket};

const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_GETSET: u16 = 10;
const HEADER_BYTES: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainInfo {
    pub table: String,
    pub name: String,
    /// `NF_INET_*`; `None` of a chain that others jump to.
    pub hook: Option<u32>,
    pub drops_by_default: bool,
    /// `filter`, `nat` or `route`.
    pub kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleInfo {
    pub chain: String,
    pub handle: u64,
    pub comment: Option<String>,
    pub effect: Effect,
}

/// What a rule does with every packet that comes to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Drops or rejects it.
    Closes,
    /// Leads it to another chain.
    Jumps(String),
    /// Anything else, or what it does depends on the packet.
    Other,
}

/// The table's handle: another one after it was removed and made again. `None` if there is none.
pub fn table_handle(socket: &mut Socket, table: Table<'_>) -> Result<Option<u64>, Error> {
    let replies = dump(socket, NFT_MSG_GETTABLE, table.family, |_| {})?;
    let ours = |reply: &&Reply| attribute(reply, 1).map(text).as_deref() == Some(table.name);
    let found = replies.iter().find(ours);
    Ok(found.and_then(|reply| attribute(reply, 4)).and_then(be64))
}

/// The family's chains, of all tables.
pub fn chains(socket: &mut Socket, family: Family) -> Result<Vec<ChainInfo>, Error> {
    const POLICY_DROP: u32 = 0;
    let replies = dump(socket, NFT_MSG_GETCHAIN, family, |_| {})?;
    let parse = |reply: &Reply| {
        let hook = attribute(reply, 4);
        Some(ChainInfo {
            table: text(attribute(reply, 1)?),
            name: text(attribute(reply, 3)?),
            hook: hook.and_then(|hook| find(hook, 1)).and_then(be32),
            drops_by_default: attribute(reply, 5).and_then(be32) == Some(POLICY_DROP),
            kind: attribute(reply, 7).map(text).unwrap_or_default(),
        })
    };
    Ok(replies.iter().filter_map(parse).collect())
}

/// The names of a table's sets and maps. A missing table has none.
pub fn maps(socket: &mut Socket, table: Table<'_>) -> Result<Vec<String>, Error> {
    let replies = dump(socket, NFT_MSG_GETSET, table.family, |out| {
        put_text(out, 1, table.name);
    });
    let replies = match replies {
        Err(error) if error.is(libc::ENOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let name = |reply: &Reply| attribute(reply, 2).map(text);
    Ok(replies.iter().filter_map(name).collect())
}

/// The rules of a chain, in order. A missing table or chain has none.
pub fn rules(
    socket: &mut Socket,
    family: Family,
    table: &str,
    chain: &str,
) -> Result<Vec<RuleInfo>, Error> {
    let replies = dump(socket, NFT_MSG_GETRULE, family, |out| {
        put_text(out, 1, table);
        put_text(out, 2, chain);
    });
    let replies = match replies {
        Err(error) if error.is(libc::ENOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let parse = |reply: &Reply| {
        Some(RuleInfo {
            chain: text(attribute(reply, 2)?),
            handle: attribute(reply, 3).and_then(be64)?,
            comment: attribute(reply, 7).and_then(comment),
            effect: attribute(reply, 4).map_or(Effect::Other, effect),
        })
    };
    Ok(replies
        .iter()
        .filter_map(parse)
        .filter(|rule| rule.chain == chain)
        .collect())
}

fn effect(expressions: &[u8]) -> Effect {
    const TARGET_NAME: u16 = 1;
    let mut effect = Effect::Other;
    for (_, expression) in iterate(expressions) {
        let name = find(expression, 1).map(text).unwrap_or_default();
        let data = find(expression, 2).unwrap_or_default();
        effect = match name.as_str() {
            "counter" | "log" => continue,
            "immediate" => verdict(data),
            "reject" => Effect::Closes,
            "target" => match find(data, TARGET_NAME).map(text).as_deref() {
                Some("REJECT" | "DROP") => Effect::Closes,
                Some("LOG") => continue,
                _ => Effect::Other,
            },
            _ => return Effect::Other,
        };
    }
    effect
}

fn verdict(immediate: &[u8]) -> Effect {
    const DROP: u32 = 0;
    let verdict = find(immediate, 2).and_then(|data| find(data, 2));
    let verdict = verdict.unwrap_or_default();
    match (find(verdict, 1).and_then(be32), find(verdict, 2)) {
        (Some(DROP), _) => Effect::Closes,
        (_, Some(chain)) => Effect::Jumps(text(chain)),
        _ => Effect::Other,
    }
}

fn comment(user_data: &[u8]) -> Option<String> {
    let [0, length, value @ ..] = user_data else {
        return None;
    };
    Some(text(value.get(..usize::from(*length))?))
}

fn attribute(reply: &Reply, kind: u16) -> Option<&[u8]> {
    find(reply.payload.get(HEADER_BYTES..)?, kind)
}

fn dump(
    socket: &mut Socket,
    kind: u16,
    family: Family,
    write: impl FnOnce(&mut Vec<u8>),
) -> Result<Vec<Reply>, Error> {
    let mut messages = Messages::new();
    messages.push(
        NFNL_SUBSYS_NFTABLES << 8 | kind,
        NLM_F_REQUEST | NLM_F_DUMP,
        |out| {
            out.extend(header(family));
            write(out);
        },
    );
    socket.dump(messages)
}
