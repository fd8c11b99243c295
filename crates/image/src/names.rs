//! Names of images: records `images/<name>` in the store, each pointing at a target.

use std::collections::BTreeMap;
use std::fmt;

use berth_base::Timestamp;
use berth_oci::{Descriptor, Digest, Reference};
use berth_store::{Change, Item, Store, Txn};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::images::{Images, State};

const PREFIX: &str = "images/";
const DANGLING: &str = "dangling@";

/// What an image is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    Reference(Reference),
    /// Keeps an image that has lost its last name, or never had one.
    Dangling(Digest),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub target: Descriptor,
    pub created: Timestamp,
    /// When the name was last pointed at the target.
    pub updated: Timestamp,
}

/// One change of the table.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a handful, for a moment")]
pub(crate) enum Edit {
    Put(Name, Record),
    Delete(Name),
}

impl Name {
    pub(crate) fn is_dangling(&self) -> bool {
        matches!(self, Self::Dangling(_))
    }

    pub(crate) fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Reference(reference) => Some(reference),
            Self::Dangling(_) => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(DANGLING) {
            Some(digest) => Some(Self::Dangling(digest.parse().ok()?)),
            None => Some(Self::Reference(text.parse().ok()?)),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(reference) => reference.fmt(out),
            Self::Dangling(digest) => write!(out, "{DANGLING}{digest}"),
        }
    }
}

/// Reads the whole table, and tells whether all of it could be read.
pub(crate) fn load(store: &Store) -> Result<(BTreeMap<Name, Record>, bool)> {
    let mut names = BTreeMap::new();
    let mut is_whole = true;
    let read = |item: Item| {
        let name = item.key.strip_prefix(PREFIX).and_then(Name::parse);
        match (name, serde_json::from_slice(&item.value)) {
            (Some(name), Ok(record)) => drop(names.insert(name, record)),
            _ => {
                tracing::warn!(key = item.key, "skip an unreadable image record");
                is_whole = false;
            }
        }
    };
    store
        .each(PREFIX, read)
        .map_err(|source| failed(PREFIX, source))?;
    Ok((names, is_whole))
}

fn failed(name: &str, source: berth_store::Error) -> Error {
    Error::Store {
        name: name.to_owned(),
        source,
    }
}

/// Plans to let the names point at `target`: what they pointed at before keeps a dangling name if
/// it would lose its last one, and the target loses its own.
pub(crate) fn plan_point(
    state: &State,
    names: &[Reference],
    target: &Descriptor,
    now: Timestamp,
) -> Vec<Edit> {
    let mut edits = Vec::new();
    let record = |created| Record {
        target: target.clone(),
        created,
        updated: now,
    };
    let dangling = Name::Dangling(target.digest.clone());
    if names.is_empty() {
        if !state.is_named(&target.digest) {
            edits.push(Edit::Put(dangling, record(now)));
        }
        return edits;
    }
    let mut replaced: Vec<Record> = Vec::new();
    for name in names {
        let name = Name::Reference(name.clone());
        let before = state.names.get(&name);
        let same = before.is_some_and(|before| before.target.digest == target.digest);
        let created = before.filter(|_| same).map_or(now, |before| before.created);
        edits.push(Edit::Put(name, record(created)));
        replaced.extend(before.filter(|_| !same).cloned());
    }
    for old in replaced {
        let stays = state.names.iter().any(|(name, record)| {
            record.target.digest == old.target.digest
                && name.reference().is_none_or(|name| !names.contains(name))
        });
        if !stays {
            // First, so that a crash between the two writes does not lose the image.
            let name = Name::Dangling(old.target.digest.clone());
            edits.insert(0, Edit::Put(name, old));
        }
    }
    if state.names.contains_key(&dangling) {
        edits.push(Edit::Delete(dangling));
    }
    edits
}

impl Images {
    /// Performs edits in order: each is durable before it is visible. The caller holds `writes`.
    pub(crate) fn apply(&self, edits: Vec<Edit>) -> Result<()> {
        for edit in edits {
            let (name, change) = match &edit {
                Edit::Put(name, record) => {
                    let value = serde_json::to_vec(record).map_err(|source| Error::Io {
                        what: format!("encode the record of image {name}"),
                        source: source.into(),
                    })?;
                    (name, Change::Put(value))
                }
                Edit::Delete(name) => (name, Change::Delete),
            };
            let key = format!("{PREFIX}{name}");
            let txn = match change {
                Change::Put(value) => Txn::put(key, value),
                Change::Delete => Txn::delete(key),
            };
            self.store()
                .txn_blocking(txn)
                .map_err(|source| failed(&name.to_string(), source))?;
            let mut state = self.state();
            match edit {
                Edit::Put(name, record) => {
                    state.names.insert(name, record);
                }
                Edit::Delete(name) => {
                    state.names.remove(&name);
                }
            }
        }
        Ok(())
    }
}
