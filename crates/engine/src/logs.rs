//! Reading containers' json-file logs: the backlog from the end or the beginning, then what is
//! written next.
//!
//! The keeper writes the file and rotates it (`log`, `log.1`, `log.2.gz`, …); here it is only
//! read. The backlog is read on a thread of the blocking pool, in large pieces that are rendered
//! as the client wants them (headers included), so that reading back gigabytes costs little more
//! than copying them. Following is told of changes by inotify.

pub mod files;
mod follow;
pub mod read;
pub mod record;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use berth_keeper::protocol::LogPosition;
use berth_tasks::Scope;
use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
pub use record::Render;

/// How many rendered pieces may wait for a slow client.
const QUEUED_PIECES: usize = 4;

/// Which log is read, and how much of it.
#[derive(Debug)]
pub struct Query {
    pub path: PathBuf,
    pub render: Render,
    /// How many records from the end; `None` is all.
    pub tail: Option<u64>,
}

/// Rendered pieces of a log, in order. Ends at the end of the log, or, when following, when the
/// container has ended and everything was read.
#[derive(Debug)]
pub struct LogStream(mpsc::Receiver<Result<Bytes>>);

impl LogStream {
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        self.0.recv().await
    }
}

impl Stream for LogStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Reads what is there, then asks `join` where the reader's own way begins, and reads up to there
/// (without a place, to the end).
pub fn read_to(
    scope: &Scope,
    query: Query,
    join: impl Future<Output = Option<LogPosition>> + Send + 'static,
) -> LogStream {
    start(scope, move |blocking, sender| {
        follow::run_to(blocking, query, join, sender)
    })
}

/// Starts reading. With `ended`, goes on until that completes; it is asked only after the
/// backlog, and all that was written before it completed is delivered.
pub fn read(
    scope: &Scope,
    query: Query,
    ended: Option<impl Future<Output = ()> + Send + 'static>,
) -> LogStream {
    start(scope, move |blocking, sender| {
        follow::run(blocking, query, ended, sender)
    })
}

fn start<F>(
    scope: &Scope,
    reader: impl FnOnce(Scope, mpsc::Sender<Result<Bytes>>) -> F + Send + 'static,
) -> LogStream
where
    F: Future<Output = io::Result<()>> + Send,
{
    let (sender, receiver) = mpsc::channel(QUEUED_PIECES);
    let blocking = scope.clone();
    scope.spawn("log reader", async move {
        if let Err(error) = reader(blocking, sender.clone()).await {
            let error = Error::failed("read the container's log", &error);
            // The client may have gone; then nobody needs to know.
            sender.send(Err(error)).await.ok();
        }
    });
    LogStream(receiver)
}
