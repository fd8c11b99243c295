//! nftables over `NETLINK_NETFILTER`: batches of changes, each applied wholly or not at all.
//!
//! An encoder of our own for the few messages that are needed, after
//! `<linux/netfilter/nf_tables.h>`; the libraries at hand are GPL or drive the `nft` program.

use crate::netlink::attributes::{nest, put, put_be32, put_be64, put_text};
use crate::netlink::{
    Error, Messages, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, Socket,
};

mod expression;
mod query;

pub use expression::{Expression, MetaKey, Verdict};
pub use query::{ChainInfo, Effect, RuleInfo, chains, maps, rules, table_handle};

/// The multicast group of changes to the ruleset (`NFNLGRP_NFTABLES`).
pub const CHANGES: u32 = 7;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_DELSET: u16 = 11;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;

// Each message names its table in attribute 1.
const TABLE: u16 = 1;

/// Elements a message carries at most: an attribute ends at 64 KiB, an element is 56 bytes.
const ELEMENTS_PER_MESSAGE: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Inet,
    Ip,
    Ip6,
}

/// The names of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table<'a> {
    pub family: Family,
    pub name: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    /// `None` is a chain that others jump to.
    pub hook: Option<Hook>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    pub point: HookPoint,
    pub priority: i32,
    pub drop_by_default: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub chain: String,
    pub expressions: Vec<Expression>,
    pub comment: Option<String>,
}

/// A map from a concatenation of fields to another; without `data`, a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    pub name: String,
    pub key: Vec<Field>,
    pub data: Vec<Field>,
}

/// A field of a concatenation; each takes a multiple of four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Ipv4Address,
    Ipv6Address,
    Protocol,
    Port,
    /// An interface's name, padded by [`interface_name`].
    Interface,
}

/// Key and data of a map's element, encoded by [`concatenate`]. A set's has no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    pub data: Vec<u8>,
}

/// A name as the kernel compares it.
pub fn interface_name(name: &str) -> Vec<u8> {
    const IFNAMSIZ: usize = 16;
    let mut padded = name.as_bytes().to_vec();
    padded.resize(IFNAMSIZ, 0);
    padded
}

/// Joins fields as the kernel compares them: each padded to four bytes.
pub fn concatenate(fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        out.extend_from_slice(field);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// Changes that are applied together.
pub struct Batch {
    messages: Messages,
    pending: Option<Pending>,
    sets: u32,
}

struct Pending {
    kind: u16,
    flags: u16,
    payload: Vec<u8>,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch::new()
    }
}

impl Batch {
    pub fn new() -> Batch {
        let mut messages = Messages::new();
        push_border(&mut messages, NFNL_MSG_BATCH_BEGIN);
        Batch {
            messages,
            pending: None,
            sets: 0,
        }
    }

    /// Makes the table unless it is there.
    pub fn add_table(&mut self, table: Table<'_>) {
        self.push(NFT_MSG_NEWTABLE, NLM_F_CREATE, table, |_| {});
    }

    pub fn delete_table(&mut self, table: Table<'_>) {
        self.push(NFT_MSG_DELTABLE, 0, table, |_| {});
    }

    /// Makes the chain unless it is there.
    pub fn add_chain(&mut self, table: Table<'_>, chain: &Chain) {
        self.push(NFT_MSG_NEWCHAIN, NLM_F_CREATE, table, |out| {
            put_text(out, 3, &chain.name);
            if let Some(hook) = &chain.hook {
                nest(out, 4, |out| {
                    put_be32(out, 1, hook.point.number());
                    put(out, 2, &hook.priority.to_be_bytes());
                });
                put_be32(out, 5, u32::from(!hook.drop_by_default));
                put_text(out, 7, hook.kind);
            }
        });
    }

    pub fn delete_chain(&mut self, table: Table<'_>, chain: &str) {
        self.push(NFT_MSG_DELCHAIN, 0, table, |out| put_text(out, 3, chain));
    }

    /// Appends the rule to its chain.
    pub fn add_rule(&mut self, table: Table<'_>, rule: &Rule) {
        self.add_rule_before(table, rule, None);
    }

    /// Puts the rule before the one of this handle; `None` appends it.
    pub fn add_rule_before(&mut self, table: Table<'_>, rule: &Rule, before: Option<u64>) {
        let append = if before.is_none() { NLM_F_APPEND } else { 0 };
        self.push(NFT_MSG_NEWRULE, NLM_F_CREATE | append, table, |out| {
            if let Some(handle) = before {
                put_be64(out, 6, handle);
            }
            put_text(out, 2, &rule.chain);
            nest(out, 4, |out| {
                for expression in &rule.expressions {
                    expression.write(out);
                }
            });
            if let Some(comment) = &rule.comment {
                put(out, 7, &comment_bytes(comment));
            }
        });
    }

    pub fn delete_rule(&mut self, table: Table<'_>, chain: &str, handle: u64) {
        self.push(NFT_MSG_DELRULE, 0, table, |out| {
            put_text(out, 2, chain);
            put_be64(out, 3, handle);
        });
    }

    /// Deletes all rules of a chain.
    pub fn flush_chain(&mut self, table: Table<'_>, chain: &str) {
        self.push(NFT_MSG_DELRULE, 0, table, |out| put_text(out, 2, chain));
    }

    /// Makes the map or the set unless it is there.
    pub fn add_map(&mut self, table: Table<'_>, map: &Map) {
        const NFT_SET_MAP: u32 = 8;
        self.sets += 1;
        let id = self.sets;
        let bytes = |fields: &[Field]| fields.iter().map(|field| field.bytes()).sum();
        self.push(NFT_MSG_NEWSET, NLM_F_CREATE, table, |out| {
            let flags = if map.data.is_empty() { 0 } else { NFT_SET_MAP };
            put_text(out, 2, &map.name);
            put_be32(out, 3, flags);
            put_be32(out, 4, data_type(&map.key));
            put_be32(out, 5, bytes(&map.key));
            if !map.data.is_empty() {
                put_be32(out, 6, data_type(&map.data));
                put_be32(out, 7, bytes(&map.data));
            }
            put_be32(out, 10, id);
            if map.key == [Field::Interface] {
                // For the `nft` program: a type-length-value that says that the key has the
                // host's byte order, without which it shows names as empty.
                put(out, 13, &[&[0, 4][..], &1u32.to_ne_bytes()].concat());
            }
        });
    }

    /// With its elements. Fails with `EBUSY` while a rule names it.
    pub fn delete_map(&mut self, table: Table<'_>, map: &str) {
        self.push(NFT_MSG_DELSET, 0, table, |out| put_text(out, 2, map));
    }

    /// Adds elements of a set that may be there already.
    pub fn include_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) {
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.push(NFT_MSG_NEWSETELEM, NLM_F_CREATE, table, |out| {
                write_elements(out, set, part, true);
            });
        }
    }

    /// Fails with `EEXIST` if an element is there with other data.
    pub fn add_elements(&mut self, table: Table<'_>, map: &str, elements: &[Element]) {
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.push(
                NFT_MSG_NEWSETELEM,
                NLM_F_CREATE | NLM_F_EXCL,
                table,
                |out| {
                    write_elements(out, map, part, true);
                },
            );
        }
    }

    /// Fails with `ENOENT` if an element is not there.
    pub fn delete_elements(&mut self, table: Table<'_>, map: &str, elements: &[Element]) {
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.push(NFT_MSG_DELSETELEM, 0, table, |out| {
                write_elements(out, map, part, false);
            });
        }
    }

    pub fn flush_map(&mut self, table: Table<'_>, map: &str) {
        self.push(NFT_MSG_DELSETELEM, 0, table, |out| put_text(out, 2, map));
    }

    /// Applies the changes. An empty batch does nothing.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), Error> {
        let Some(last) = self.pending.take() else {
            return Ok(());
        };
        self.messages
            .push(last.kind, last.flags | NLM_F_ACK, |out| {
                out.extend(last.payload)
            });
        push_border(&mut self.messages, NFNL_MSG_BATCH_END);
        socket.execute_batch(self.messages)
    }

    /// The last message is held back, since only that one asks for an acknowledgement.
    fn push(&mut self, kind: u16, flags: u16, table: Table<'_>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut payload = header(table.family);
        put_text(&mut payload, TABLE, table.name);
        write(&mut payload);
        let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
        let next = Pending {
            kind,
            flags: flags | NLM_F_REQUEST,
            payload,
        };
        if let Some(previous) = self.pending.replace(next) {
            let Pending {
                kind,
                flags,
                payload,
            } = previous;
            self.messages.push(kind, flags, |out| out.extend(payload));
        }
    }
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Ip6 => 10,
        }
    }
}

impl Field {
    fn bytes(self) -> u32 {
        match self {
            Field::Ipv4Address | Field::Protocol | Field::Port => 4,
            Field::Ipv6Address | Field::Interface => 16,
        }
    }

    /// nft's number of the type. The kernel only stores it, so that the `nft` program can show
    /// the map.
    fn number(self) -> u32 {
        match self {
            Field::Ipv4Address => 7,
            Field::Ipv6Address => 8,
            Field::Protocol => 12,
            Field::Port => 13,
            Field::Interface => 41,
        }
    }
}

impl HookPoint {
    fn number(self) -> u32 {
        match self {
            HookPoint::Prerouting => 0,
            HookPoint::Input => 1,
            HookPoint::Forward => 2,
            HookPoint::Output => 3,
            HookPoint::Postrouting => 4,
        }
    }
}

/// `struct nfgenmsg`: family, version, resource.
fn header(family: Family) -> Vec<u8> {
    vec![family.number(), 0, 0, 0]
}

fn push_border(messages: &mut Messages, kind: u16) {
    messages.push(kind, NLM_F_REQUEST, |out| {
        out.extend([0, 0]);
        out.extend(NFNL_SUBSYS_NFTABLES.to_be_bytes());
    });
}

/// nft's number of a concatenated type: six bits a field.
fn data_type(fields: &[Field]) -> u32 {
    let join = |joined: u32, field: &Field| joined << 6 | field.number();
    fields.iter().fold(0, join)
}

fn write_elements(out: &mut Vec<u8>, map: &str, elements: &[Element], with_data: bool) {
    const DATA_VALUE: u16 = 1;
    put_text(out, 2, map);
    nest(out, 3, |out| {
        for element in elements {
            nest(out, 1, |out| {
                nest(out, 1, |out| put(out, DATA_VALUE, &element.key));
                if with_data && !element.data.is_empty() {
                    nest(out, 2, |out| put(out, DATA_VALUE, &element.data));
                }
            });
        }
    });
}

/// The user data of a rule as `nft` and `iptables-nft` read it: type 0 is the comment.
fn comment_bytes(comment: &str) -> Vec<u8> {
    const LONGEST: usize = 127;
    let end = comment.floor_char_boundary(LONGEST);
    let mut bytes = vec![0, u8::try_from(end + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(&comment.as_bytes()[..end]);
    bytes.push(0);
    bytes
}
