//! A revisioned key-value store with watch.
//!
//! One global revision counts every change. A change names one key, may demand the state that it
//! expects to find (compare-and-swap), and may expire. Readers see the latest state or an exact
//! revision; watchers see every change in order, from any revision that was not compacted.
//!
//! ```text
//! txn ──▶ queue ──▶ writer thread ── one SQLite transaction for all that wait ──▶ revision published
//!                                                                                   │
//! range ──▶ reader connection (never waits for the writer)          watch ◀── reads the log from there
//! ```
//!
//! A watcher holds no queue of its own: it keeps the revision that it has seen and reads the log
//! from there, so a slow watcher costs nothing and loses nothing. The form of the contract is
//! etcd's (`etcd` API guarantees: revisions, `Compacted`, progress), so that etcd can stand behind
//! the same functions; `tests/contract.rs` is what every back end has to pass.

mod sqlite;
mod watch;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

pub use watch::{Batch, Event, EventKind, Watch};

/// A point in the store's history; the first change makes revision 1.
pub type Revision = u64;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 4096;
/// The largest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 16 << 20;
/// How many items [`Store::each`] has in memory.
const PAGE_ITEMS: usize = 500;

/// A key with its value at some revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub key: String,
    pub value: Vec<u8>,
    /// The revision that created the key (again, after a deletion).
    pub create_revision: Revision,
    /// The revision that wrote this value.
    pub mod_revision: Revision,
    /// How often the key was written since its creation; 1 at first.
    pub version: u64,
}

/// A part of a range, in the order of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub items: Vec<Item>,
    /// The revision that the items were read at.
    pub revision: Revision,
    /// Whether more keys follow the last item.
    pub more: bool,
}

/// Which state a read sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Latest,
    Exact(Revision),
}

/// What a change expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Any,
    /// The key does not exist.
    Absent,
    /// The key's `mod_revision`.
    Revision(Revision),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Put(Vec<u8>),
    /// Deleting a key that does not exist changes nothing and consumes no revision.
    Delete,
}

/// What has happened when a change is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives the death of the process, but perhaps not a power failure.
    Written,
    /// It was synced to the disk.
    Synced,
}

/// A change of one key.
#[derive(Debug, Clone)]
pub struct Txn {
    pub key: String,
    pub expect: Expect,
    pub change: Change,
    /// The key is deleted this long after the change, unless it is written again.
    pub ttl: Option<Duration>,
    pub durability: Durability,
}

/// The outcome of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The revision of the change, or the current one if nothing changed.
    pub revision: Revision,
    pub previous: Option<Item>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The history up to this revision is gone: read the latest state and watch from there.
    #[error("revision {requested} is compacted; history begins after {compacted}")]
    Compacted {
        requested: Revision,
        compacted: Revision,
    },
    #[error("revision {requested} is in the future; the store is at {current}")]
    Future {
        requested: Revision,
        current: Revision,
    },
    #[error("the key {key:?} is not as expected")]
    Conflict {
        key: String,
        current: Option<Box<Item>>,
    },
    #[error("{what} of {size_bytes} bytes is larger than the limit of {limit_bytes}")]
    TooLarge {
        what: &'static str,
        size_bytes: usize,
        limit_bytes: usize,
    },
    /// Nothing was changed.
    #[error("the store at {path} is unavailable")]
    Unavailable {
        path: PathBuf,
        #[source]
        source: Option<rusqlite::Error>,
    },
    /// The change may or may not have been committed.
    #[error("the store at {path} ended before it answered")]
    Unknown { path: PathBuf },
    #[error(
        "open the store at {path}: it is damaged; move it away to start with an empty one, or restore a copy"
    )]
    Corrupt {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// Compact by itself, so that about this many revisions of history stay. `None`: never.
    pub retain_revisions: Option<u64>,
    /// Where expiry takes the time from.
    pub clock: fn() -> SystemTime,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retain_revisions: Some(10_000),
            clock: SystemTime::now,
        }
    }
}

/// The embedded store, in one directory. Clones share it; the last one to go closes it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    reader: Mutex<sqlite::Reader>,
    writer: writer::Writer,
    committed: tokio::sync::watch::Receiver<Revision>,
}

impl Txn {
    /// An unconditional, synced write.
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self::new(key.into(), Change::Put(value.into()))
    }

    /// An unconditional, synced deletion.
    pub fn delete(key: impl Into<String>) -> Self {
        Self::new(key.into(), Change::Delete)
    }

    fn new(key: String, change: Change) -> Self {
        Self {
            key,
            expect: Expect::Any,
            change,
            ttl: None,
            durability: Durability::Synced,
        }
    }

    pub fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }
}

impl Store {
    /// Opens the store in `directory` (made if it does not exist).
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a file that is no store, [`Error::Unavailable`] for what the system
    /// refuses.
    pub fn open(directory: &Path, options: Options) -> Result<Self, Error> {
        let path = directory.join("store.db");
        let database = sqlite::Database::open(&path)?;
        let reader = Mutex::new(sqlite::Reader::open(&path)?);
        let (publish, committed) = tokio::sync::watch::channel(database.revision());
        let writer = writer::Writer::start(path.clone(), database, options, publish)?;
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                reader,
                writer,
                committed,
            }),
        })
    }

    /// The latest revision that watchers may see.
    pub fn revision(&self) -> Revision {
        *self.inner.committed.borrow()
    }

    pub fn get(&self, key: &str) -> Result<Option<Item>, Error> {
        self.read(|reader| reader.get(key))
    }

    /// The keys that begin with `prefix` and come after `after`, at most `limit` of them.
    pub fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: At,
    ) -> Result<Page, Error> {
        self.read(|reader| reader.range(prefix, after, limit, at))
    }

    /// Gives `each` the latest item of every key that begins with `prefix`, in the order of the
    /// keys. What changes meanwhile may be seen or not.
    pub fn each(&self, prefix: &str, mut each: impl FnMut(Item)) -> Result<(), Error> {
        let mut after: Option<String> = None;
        loop {
            let page = self.range(prefix, after.as_deref(), PAGE_ITEMS, At::Latest)?;
            after = page.items.last().map(|item| item.key.clone());
            page.items.into_iter().for_each(&mut each);
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Performs a change; the answer comes when it is as durable as was asked.
    ///
    /// # Errors
    /// [`Error::Conflict`] with the current item if the expectation fails.
    pub async fn txn(&self, txn: Txn) -> Result<Committed, Error> {
        let answer = self.submit(txn)?;
        answer.await.unwrap_or_else(|_| {
            Err(Error::Unknown {
                path: self.inner.path.clone(),
            })
        })
    }

    /// [`Store::txn`] for callers outside of async code.
    pub fn txn_blocking(&self, txn: Txn) -> Result<Committed, Error> {
        let answer = self.submit(txn)?;
        answer.blocking_recv().unwrap_or_else(|_| {
            Err(Error::Unknown {
                path: self.inner.path.clone(),
            })
        })
    }

    /// Every change of a key with this prefix, beginning with the revision `from`
    /// (`revision() + 1` for what is new only).
    pub fn watch(&self, prefix: impl Into<String>, from: Revision) -> Watch {
        Watch::new(self.clone(), prefix.into(), from)
    }

    /// Forgets the history before `revision`, which itself stays readable.
    pub async fn compact(&self, revision: Revision) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.inner
            .writer
            .send(writer::Command::Compact { revision, reply })?;
        answer.await.unwrap_or_else(|_| {
            Err(Error::Unknown {
                path: self.inner.path.clone(),
            })
        })
    }

    fn submit(&self, txn: Txn) -> Result<oneshot::Receiver<Result<Committed, Error>>, Error> {
        check_size("a key", txn.key.len(), MAX_KEY_BYTES)?;
        if let Change::Put(value) = &txn.change {
            check_size("a value", value.len(), MAX_VALUE_BYTES)?;
        }
        let (reply, answer) = oneshot::channel();
        self.inner
            .writer
            .send(writer::Command::Txn { txn, reply })?;
        Ok(answer)
    }

    fn read<T>(&self, query: impl FnOnce(&sqlite::Reader) -> Result<T, Error>) -> Result<T, Error> {
        // A panic inside a query leaves the connection usable: reads hold no state in it.
        let reader = self
            .inner
            .reader
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        query(&reader)
    }
}

fn check_size(what: &'static str, size_bytes: usize, limit_bytes: usize) -> Result<(), Error> {
    if size_bytes > limit_bytes {
        return Err(Error::TooLarge {
            what,
            size_bytes,
            limit_bytes,
        });
    }
    Ok(())
}
