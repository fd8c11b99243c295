//! One blob from a repository into the store: hashed and written on a thread of its own, readable
//! while it grows, and resumed where it broke off.

use std::time::Duration;

use berth_oci::{Descriptor, Digest};
use berth_tasks::{Backoff, Scope};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::failure::Failure;
use super::repository::Repository;
use crate::ingest::Ingest;

/// Pieces that wait for the disk; the network is not read meanwhile.
const QUEUE_PIECES: usize = 32;
/// A transfer that always moves on a little must end some day, too.
const ATTEMPTS_WITH_PROGRESS: u32 = 100;
const LONGEST_DELAY: Duration = Duration::from_secs(8);

/// How patient a download is.
#[derive(Debug, Clone)]
pub struct Patience {
    /// Attempts without a single byte more before giving up.
    pub attempts: u32,
    /// The pause before the second attempt; later ones double.
    pub first_delay: Duration,
    /// How long a transfer may stand still.
    pub stall: Duration,
}

/// What a download tells while it runs.
#[derive(Debug, Clone, Copy)]
pub enum Notice {
    /// So many bytes are here.
    At(u64),
    RetryIn(Duration),
}

/// What to fetch, from where.
pub struct Download<'a> {
    pub repository: &'a Repository,
    /// As messages call it: `filesystem layer` or `image`.
    pub what: &'static str,
    pub descriptor: &'a Descriptor,
    pub patience: &'a Patience,
    /// Notified when nobody needs the blob any more.
    pub stop: &'a Notify,
}

/// How a download ended that did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The blob is whole, verified, and in the lease.
    Whole,
    /// It was told to stop.
    Stopped,
}

impl Download<'_> {
    /// Fetches the blob into `ingest`.
    pub async fn run(
        &self,
        scope: &Scope,
        ingest: Ingest,
        notice: impl Fn(Notice),
    ) -> Result<Ended, Failure> {
        let mut writer = Writer::start(scope, ingest);
        let transferred = self.transfer(&mut writer, &notice).await;
        match transferred {
            Ok(Ended::Whole) => writer.finish().await.map_err(|error| self.failure(error))?,
            // What went wrong on the disk is the reason behind whatever else went wrong.
            other => {
                writer
                    .abandon()
                    .await
                    .map_err(|error| self.failure(error))?;
                return other;
            }
        }
        Ok(Ended::Whole)
    }

    /// Brings all bytes to the writer, over as many connections as it takes.
    async fn transfer(
        &self,
        writer: &mut Writer,
        notice: &impl Fn(Notice),
    ) -> Result<Ended, Failure> {
        let mut backoff = Backoff::new(self.patience.first_delay, LONGEST_DELAY);
        let mut fruitless = 0;
        for _ in 0..ATTEMPTS_WITH_PROGRESS {
            let before = writer.offset;
            let failure = match self.attempt(writer, notice).await {
                Ok(ended) => return Ok(ended),
                Err(failure) => failure,
            };
            if writer.offset > before {
                backoff.reset();
                fruitless = 0;
            } else {
                fruitless += 1;
            }
            if !failure.is_transient() || fruitless >= self.patience.attempts {
                return Err(failure);
            }
            let delay = backoff.next_delay();
            tracing::debug!(digest = %self.descriptor.digest, offset = writer.offset, %failure,
                "a download broke off");
            notice(Notice::RetryIn(delay));
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.stop.notified() => return Ok(Ended::Stopped),
            }
        }
        Err(self.broken("too many interruptions"))
    }

    /// One connection's worth of bytes.
    async fn attempt(
        &self,
        writer: &mut Writer,
        notice: &impl Fn(Notice),
    ) -> Result<Ended, Failure> {
        let expected = self.descriptor.size;
        let mut blob = self.repository.blob(self.descriptor, writer.offset).await?;
        if let Some(actual) = blob.total
            && actual != expected
        {
            return Err(self.wrong_size(actual));
        }
        // What came already comes again from a server without ranges.
        let mut skip = writer.offset - blob.start;
        loop {
            let next =
                tokio::time::timeout(self.patience.stall, berth_http::body::next(&mut blob.body));
            let next = tokio::select! {
                next = next => next.map_err(|_| self.broken("the transfer stood still"))?,
                () = self.stop.notified() => return Ok(Ended::Stopped),
            };
            let mut piece = match next {
                None => break,
                Some(Ok(piece)) => piece,
                Some(Err(error)) => return Err(self.broken(&error.to_string())),
            };
            let dropped = usize::try_from(skip).map_or(piece.len(), |skip| skip.min(piece.len()));
            skip -= dropped as u64;
            let piece = piece.split_off(dropped);
            if piece.is_empty() {
                continue;
            }
            if writer.offset + piece.len() as u64 > expected {
                return Err(self.wrong_size(writer.offset + piece.len() as u64));
            }
            if writer.write(piece).await.is_err() {
                return Ok(Ended::Stopped);
            }
            notice(Notice::At(writer.offset));
        }
        if writer.offset < expected {
            return Err(self.broken("unexpected EOF"));
        }
        Ok(Ended::Whole)
    }

    fn broken(&self, cause: &str) -> Failure {
        Failure::Broken {
            uri: self.repository.blob_uri(&self.descriptor.digest),
            cause: cause.to_owned(),
        }
    }

    fn wrong_size(&self, actual: u64) -> Failure {
        Failure::Size {
            what: self.what,
            digest: self.descriptor.digest.clone(),
            expected: self.descriptor.size,
            actual,
        }
    }

    fn failure(&self, error: crate::Error) -> Failure {
        match error {
            crate::Error::Digest { expected, .. } => Failure::Verification {
                what: self.what,
                digest: expected,
            },
            other => Failure::Image(other),
        }
    }
}

/// The thread that hashes and writes.
struct Writer {
    pieces: mpsc::Sender<Piece>,
    task: JoinHandle<Result<Option<Digest>, crate::Error>>,
    /// Bytes given to the thread.
    offset: u64,
}

enum Piece {
    Data(Bytes),
    End,
}

/// The thread has ended early: [`Writer::abandon`] tells why.
struct Ceased;

impl Writer {
    fn start(scope: &Scope, ingest: Ingest) -> Self {
        let (pieces, receiver) = mpsc::channel(QUEUE_PIECES);
        Self {
            pieces,
            offset: ingest.offset(),
            task: scope.spawn_blocking(move || write(ingest, receiver)),
        }
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), Ceased> {
        let length = piece.len() as u64;
        let sent = self.pieces.send(Piece::Data(piece)).await;
        sent.map_err(|_| Ceased)?;
        self.offset += length;
        Ok(())
    }

    /// Waits until everything is written and verified.
    async fn finish(self) -> Result<(), crate::Error> {
        // A thread that has ended early says why below.
        drop(self.pieces.send(Piece::End).await);
        drop(self.pieces);
        join(self.task).await.map(|_| ())
    }

    /// Gives the blob up; the error is one that the thread ran into itself.
    async fn abandon(self) -> Result<(), crate::Error> {
        drop(self.pieces);
        join(self.task).await.map(|_| ())
    }
}

/// Runs on the writer's thread; `None` when the blob was given up.
fn write(
    mut ingest: Ingest,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<Option<Digest>, crate::Error> {
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Data(bytes) => ingest.write(&bytes)?,
            Piece::End => return ingest.commit().map(Some),
        }
    }
    Ok(None)
}

/// The outcome of blocking work; a panic there becomes an error here.
pub async fn join<T>(task: JoinHandle<Result<T, crate::Error>>) -> Result<T, crate::Error> {
    task.await.unwrap_or_else(|error| {
        Err(crate::Error::Io {
            what: "work on a blob".to_owned(),
            source: std::io::Error::other(error),
        })
    })
}
