//! The embedded back end's tables and queries, on SQLite in WAL mode.
//!
//! `log` has a row for each revision; `current` points every living key at its row. Compaction
//! removes the rows that no reader at or after the compacted revision can see.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::{At, Change, Committed, Error, Event, EventKind, Expect, Item, Page, Revision, Txn};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS log (
    rev INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    value BLOB,            -- NULL: the key was deleted
    create_rev INTEGER NOT NULL,
    version INTEGER NOT NULL,
    prev_rev INTEGER       -- the row that this one replaced
) STRICT;
CREATE INDEX IF NOT EXISTS log_by_key ON log (key, rev);
CREATE TABLE IF NOT EXISTS current (
    key TEXT PRIMARY KEY,
    rev INTEGER NOT NULL,
    expires_at_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS current_by_expiry ON current (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
";

/// Marks the file as ours and names the version of its tables (`PRAGMA user_version`).
const SCHEMA_VERSION: i64 = 1;
/// Each connection's page cache; the operating system caches the file as well.
const CACHE_KIB: i64 = 1024;

const ITEM: &str = "l.key, l.value, l.create_rev, l.rev, l.version";

/// The writing connection.
pub(crate) struct Database {
    connection: Connection,
    path: PathBuf,
    revision: Revision,
    compacted: Revision,
}

/// The reading connection.
pub(crate) struct Reader {
    connection: Connection,
    path: PathBuf,
}

impl Database {
    pub fn open(path: &Path) -> Result<Self, Error> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|error| Error::Unavailable {
                path: path.to_owned(),
                source: Some(rusqlite::Error::ToSqlConversionFailure(Box::new(error))),
            })?;
        }
        let failed = |source| classify(path, source);
        let connection = Connection::open(path).map_err(failed)?;
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(failed)?;
        connection
            .pragma_update(None, "cache_size", -CACHE_KIB)
            .map_err(failed)?;
        let version: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(failed)?;
        // Only then: writing even the same version costs three waits for the disk, and a full one
        // may have no room for it.
        if version != SCHEMA_VERSION {
            connection.execute_batch(SCHEMA).map_err(failed)?;
            connection
                .pragma_update(None, "user_version", SCHEMA_VERSION)
                .map_err(failed)?;
        }
        let compacted = compacted(&connection).map_err(failed)?;
        let revision = last_revision(&connection).map_err(failed)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            revision,
            compacted,
        })
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    /// Runs `work` in one transaction. On an error nothing of it has happened.
    pub fn transaction<T>(
        &mut self,
        synced: bool,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        let before = (self.revision, self.compacted);
        let outcome = self.try_transaction(synced, work);
        outcome.map_err(|source| {
            (self.revision, self.compacted) = before;
            // Fails if SQLite has rolled back by itself, which is what is wanted.
            let _ = self.connection.execute_batch("ROLLBACK");
            classify(&self.path, source)
        })
    }

    fn try_transaction<T>(
        &mut self,
        synced: bool,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let level = if synced { "FULL" } else { "NORMAL" };
        self.connection.pragma_update(None, "synchronous", level)?;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let value = work(self)?;
        self.connection.execute_batch("COMMIT")?;
        Ok(value)
    }

    /// Applies a change inside a transaction. The inner error is the change's own (a conflict).
    pub fn apply(&mut self, txn: &Txn, now_ms: i64) -> rusqlite::Result<Result<Committed, Error>> {
        let previous = get(&self.connection, &txn.key)?;
        let expected = match txn.expect {
            Expect::Any => true,
            Expect::Absent => previous.is_none(),
            Expect::Revision(revision) => previous
                .as_ref()
                .is_some_and(|item| item.mod_revision == revision),
        };
        if !expected {
            let current = previous.map(Box::new);
            return Ok(Err(Error::Conflict {
                key: txn.key.clone(),
                current,
            }));
        }
        let value = match &txn.change {
            Change::Delete if previous.is_none() => {
                return Ok(Ok(Committed {
                    revision: self.revision,
                    previous,
                }));
            }
            Change::Delete => None,
            Change::Put(value) => Some(value.as_slice()),
        };
        let expires_at_ms = txn
            .ttl
            .map(|ttl| now_ms.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)));
        self.append(&txn.key, value, previous.as_ref(), expires_at_ms)?;
        Ok(Ok(Committed {
            revision: self.revision,
            previous,
        }))
    }

    fn append(
        &mut self,
        key: &str,
        value: Option<&[u8]>,
        previous: Option<&Item>,
        expires_at_ms: Option<i64>,
    ) -> rusqlite::Result<()> {
        let revision = self.revision + 1;
        let create = previous.map_or(revision, |item| item.create_revision);
        let version = previous.map_or(0, |item| item.version) + 1;
        self.connection
            .prepare_cached("INSERT INTO log (rev, key, value, create_rev, version, prev_rev) VALUES (?, ?, ?, ?, ?, ?)")?
            .execute(params![revision, key, value, create, version, previous.map(|item| item.mod_revision)])?;
        match value {
            Some(_) => self
                .connection
                .prepare_cached("INSERT INTO current (key, rev, expires_at_ms) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE SET rev = ?2, expires_at_ms = ?3")?
                .execute(params![key, revision, expires_at_ms])?,
            None => self
                .connection
                .prepare_cached("DELETE FROM current WHERE key = ?")?
                .execute(params![key])?,
        };
        self.revision = revision;
        Ok(())
    }

    /// Deletes what has expired; returns whether anything has.
    pub fn expire(&mut self, now_ms: i64) -> rusqlite::Result<bool> {
        let keys: Vec<String> = self
            .connection
            .prepare_cached(
                "SELECT key FROM current WHERE expires_at_ms <= ? ORDER BY expires_at_ms, key",
            )?
            .query_map([now_ms], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for key in &keys {
            let previous = get(&self.connection, key)?;
            self.append(key, None, previous.as_ref(), None)?;
        }
        Ok(!keys.is_empty())
    }

    /// When the next key expires, in milliseconds since the epoch.
    pub fn next_expiry_ms(&self) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached(
                "SELECT min(expires_at_ms) FROM current WHERE expires_at_ms IS NOT NULL",
            )?
            .query_row([], |row| row.get(0))
    }

    pub fn compact(&mut self, revision: Revision) -> rusqlite::Result<()> {
        self.connection.execute(
            "DELETE FROM log WHERE rev <= ?1 AND (value IS NULL OR EXISTS
                (SELECT 1 FROM log newer WHERE newer.key = log.key AND newer.rev > log.rev AND newer.rev <= ?1))",
            [revision],
        )?;
        // The highest revision must outlive its row, which may have been a deletion's.
        for (name, value) in [("compacted", revision), ("revision", self.revision)] {
            self.connection.execute(
                "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2",
                params![name, value],
            )?;
        }
        self.compacted = revision;
        Ok(())
    }
}

impl Reader {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| classify(path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection
            .pragma_update(None, "cache_size", -CACHE_KIB)
            .map_err(failed)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
        })
    }

    pub fn get(&self, key: &str) -> Result<Option<Item>, Error> {
        get(&self.connection, key).map_err(|source| classify(&self.path, source))
    }

    pub fn range(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: At,
    ) -> Result<Page, Error> {
        self.snapshot(|connection| {
            let latest = last_revision(connection)?;
            let revision = match at {
                At::Latest => latest,
                At::Exact(requested) => {
                    if let Err(error) = check_readable(connection, requested, latest)? {
                        return Ok(Err(error));
                    }
                    requested
                }
            };
            let rows = match at {
                At::Latest => format!(
                    "SELECT {ITEM} FROM current c JOIN log l ON l.rev = c.rev
                     WHERE c.key >= ?1 AND c.key > ?2 AND substr(c.key, 1, ?3) = ?1 AND ?5 = ?5
                     ORDER BY c.key LIMIT ?4"
                ),
                At::Exact(_) => format!(
                    "SELECT {ITEM} FROM log l
                     WHERE l.key >= ?1 AND l.key > ?2 AND substr(l.key, 1, ?3) = ?1 AND l.value IS NOT NULL
                       AND l.rev = (SELECT max(rev) FROM log m WHERE m.key = l.key AND m.rev <= ?5)
                     ORDER BY l.key LIMIT ?4"
                ),
            };
            let length = i64::try_from(prefix.chars().count()).unwrap_or(i64::MAX);
            let ask = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
            let mut statement = connection.prepare_cached(&rows)?;
            let mut items: Vec<Item> = statement
                .query_map(params![prefix, after.unwrap_or(""), length, ask, revision], item)?
                .collect::<Result<_, _>>()?;
            let more = items.len() > limit;
            items.truncate(limit);
            Ok(Ok(Page { items, revision, more }))
        })
    }

    /// The changes of revisions `from..=until`, at most `limit` of them.
    pub fn changes(
        &self,
        prefix: &str,
        from: Revision,
        until: Revision,
        limit: usize,
    ) -> Result<Vec<Event>, Error> {
        self.snapshot(|connection| {
            let compacted = compacted(connection)?;
            if from <= compacted && compacted > 0 {
                return Ok(Err(Error::Compacted { requested: from, compacted }));
            }
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {ITEM}, p.key, p.value, p.create_rev, p.rev, p.version
                 FROM log l LEFT JOIN log p ON p.rev = l.prev_rev
                 WHERE l.rev >= ?1 AND l.rev <= ?2 AND substr(l.key, 1, ?3) = ?4 ORDER BY l.rev LIMIT ?5"
            ))?;
            let length = i64::try_from(prefix.chars().count()).unwrap_or(i64::MAX);
            let ask = i64::try_from(limit).unwrap_or(i64::MAX);
            let events = statement
                .query_map(params![from, until, length, prefix, ask], event)?
                .collect::<Result<Vec<_>, _>>()?;
            Ok(Ok(events))
        })
    }

    /// Runs queries that all see the same state.
    fn snapshot<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<Result<T, Error>>,
    ) -> Result<T, Error> {
        let failed = |source| classify(&self.path, source);
        let transaction = self.connection.unchecked_transaction().map_err(failed)?;
        work(&transaction).map_err(failed)?
    }
}

fn check_readable(
    connection: &Connection,
    requested: Revision,
    current: Revision,
) -> rusqlite::Result<Result<(), Error>> {
    let compacted = compacted(connection)?;
    Ok(if requested < compacted {
        Err(Error::Compacted {
            requested,
            compacted,
        })
    } else if requested > current {
        Err(Error::Future { requested, current })
    } else {
        Ok(())
    })
}

fn get(connection: &Connection, key: &str) -> rusqlite::Result<Option<Item>> {
    connection
        .prepare_cached(&format!(
            "SELECT {ITEM} FROM current c JOIN log l ON l.rev = c.rev WHERE c.key = ?"
        ))?
        .query_row([key], item)
        .optional()
}

fn compacted(connection: &Connection) -> rusqlite::Result<Revision> {
    connection
        .prepare_cached("SELECT coalesce(max(value), 0) FROM meta WHERE name = 'compacted'")?
        .query_row([], |row| row.get(0))
}

fn last_revision(connection: &Connection) -> rusqlite::Result<Revision> {
    connection
        .prepare_cached(
            "SELECT max((SELECT coalesce(max(rev), 0) FROM log),
                        (SELECT coalesce(max(value), 0) FROM meta WHERE name = 'revision'))",
        )?
        .query_row([], |row| row.get(0))
}

fn item(row: &Row<'_>) -> rusqlite::Result<Item> {
    item_at(row, 0)
}

fn item_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Item> {
    Ok(Item {
        key: row.get(column)?,
        value: row
            .get::<_, Option<Vec<u8>>>(column + 1)?
            .unwrap_or_default(),
        create_revision: row.get(column + 2)?,
        mod_revision: row.get(column + 3)?,
        version: row.get(column + 4)?,
    })
}

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let deleted = row.get_ref(1)? == rusqlite::types::ValueRef::Null;
    let had_previous = row.get_ref(5)? != rusqlite::types::ValueRef::Null;
    Ok(Event {
        kind: if deleted {
            EventKind::Delete
        } else {
            EventKind::Put
        },
        item: item_at(row, 0)?,
        previous: if had_previous {
            Some(item_at(row, 5)?)
        } else {
            None
        },
    })
}

fn classify(path: &Path, source: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => Error::Corrupt { path, source },
        _ => Error::Unavailable {
            path,
            source: Some(source),
        },
    }
}
