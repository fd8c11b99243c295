//! The writer thread: takes all changes that wait, commits them together, answers.

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};

use crate::sqlite::Database;
use crate::{Committed, Durability, Error, Options, Revision, Txn};

/// How many changes may wait; further callers block, which is the back-pressure.
const QUEUE: usize = 1024;
/// How many changes share one commit.
const BATCH: usize = 256;
/// How long an idle writer sleeps when nothing expires.
const IDLE: Duration = Duration::from_secs(3600);

pub(crate) enum Command {
    Txn {
        txn: Txn,
        reply: oneshot::Sender<Result<Committed, Error>>,
    },
    Compact {
        revision: Revision,
        reply: oneshot::Sender<Result<(), Error>>,
    },
}

pub(crate) struct Writer {
    queue: Option<SyncSender<Command>>,
    thread: Option<std::thread::JoinHandle<()>>,
    path: PathBuf,
}

impl Writer {
    pub fn start(
        path: PathBuf,
        database: Database,
        options: Options,
        publish: watch::Sender<Revision>,
    ) -> Result<Self, Error> {
        let (queue, commands) = mpsc::sync_channel(QUEUE);
        let worker = Worker {
            database,
            options,
            publish,
            path: path.clone(),
            next_expiry_ms: None,
        };
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || worker.run(&commands))
            .map_err(|error| Error::Unavailable {
                path: path.clone(),
                source: Some(rusqlite::Error::ToSqlConversionFailure(Box::new(error))),
            })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            path,
        })
    }

    pub fn send(&self, command: Command) -> Result<(), Error> {
        let unavailable = || Error::Unavailable {
            path: self.path.clone(),
            source: None,
        };
        let queue = self.queue.as_ref().ok_or_else(unavailable)?;
        queue.send(command).map_err(|_| unavailable())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the writer has been printed already; its callers got `Unknown`.
            let _ = thread.join();
        }
    }
}

struct Worker {
    database: Database,
    options: Options,
    publish: watch::Sender<Revision>,
    path: PathBuf,
    next_expiry_ms: Option<i64>,
}

impl Worker {
    fn run(mut self, commands: &mpsc::Receiver<Command>) {
        self.expire();
        loop {
            let first = match commands.recv_timeout(self.patience()) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut batch: Vec<Command> = first.into_iter().collect();
            while batch.len() < BATCH {
                match commands.try_recv() {
                    Ok(command) => batch.push(command),
                    Err(_) => break,
                }
            }
            self.perform(batch);
            if self.next_expiry_ms.is_some_and(|at| at <= self.now_ms()) {
                self.expire();
            }
            self.retain();
        }
    }

    fn perform(&mut self, batch: Vec<Command>) {
        let mut txns = Vec::new();
        for command in batch {
            match command {
                Command::Txn { txn, reply } => txns.push((txn, reply)),
                Command::Compact { revision, reply } => {
                    self.commit(std::mem::take(&mut txns));
                    let _ = reply.send(self.compact(revision));
                }
            }
        }
        self.commit(txns);
    }

    fn commit(&mut self, txns: Vec<(Txn, oneshot::Sender<Result<Committed, Error>>)>) {
        if txns.is_empty() {
            return;
        }
        let now_ms = self.now_ms();
        let synced = txns
            .iter()
            .any(|(txn, _)| txn.durability == Durability::Synced);
        let outcome = self.database.transaction(synced, |database| {
            txns.iter()
                .map(|(txn, _)| database.apply(txn, now_ms))
                .collect::<rusqlite::Result<Vec<_>>>()
        });
        // A caller that has gone away needs no answer, hence the ignored sends.
        match outcome {
            Ok(results) => {
                self.announce();
                if txns.iter().any(|(txn, _)| txn.ttl.is_some()) {
                    self.next_expiry_ms = self.database.next_expiry_ms().unwrap_or(None);
                }
                for ((_, reply), result) in txns.into_iter().zip(results) {
                    let _ = reply.send(result);
                }
            }
            Err(error) => {
                tracing::error!(path = %self.path.display(), error = %error, "commit to the store");
                let mut error = Some(error);
                for (_, reply) in txns {
                    let each = error.take().unwrap_or(Error::Unavailable {
                        path: self.path.clone(),
                        source: None,
                    });
                    let _ = reply.send(Err(each));
                }
            }
        }
    }

    fn expire(&mut self) {
        let now_ms = self.now_ms();
        match self
            .database
            .transaction(true, |database| database.expire(now_ms))
        {
            Ok(true) => self.announce(),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "expire keys of the store"),
        }
        self.next_expiry_ms = self.database.next_expiry_ms().unwrap_or(None);
    }

    fn compact(&mut self, revision: Revision) -> Result<(), Error> {
        let (current, compacted) = (self.database.revision(), self.database.compacted());
        if revision > current {
            return Err(Error::Future {
                requested: revision,
                current,
            });
        }
        if revision < compacted {
            return Err(Error::Compacted {
                requested: revision,
                compacted,
            });
        }
        self.database
            .transaction(false, |database| database.compact(revision))
    }

    /// Compacts by itself, in steps that are worth their cost.
    fn retain(&mut self) {
        let Some(retain) = self.options.retain_revisions else {
            return;
        };
        let (current, compacted) = (self.database.revision(), self.database.compacted());
        if current.saturating_sub(compacted) > retain.saturating_mul(2)
            && let Err(error) = self.compact(current - retain)
        {
            tracing::warn!(%error, "compact the store");
        }
    }

    fn announce(&self) {
        self.publish.send_replace(self.database.revision());
    }

    fn now_ms(&self) -> i64 {
        let since = (self.options.clock)()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    fn patience(&self) -> Duration {
        let Some(at) = self.next_expiry_ms else {
            return IDLE;
        };
        Duration::from_millis(u64::try_from(at - self.now_ms()).unwrap_or(0)).min(IDLE)
    }
}
