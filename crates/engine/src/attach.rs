//! What a client that attaches is told before the container's own output: the greeting, and the
//! log so far.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use berth_keeper::protocol::{self, ReplyBody, RequestBody};
use berth_tasks::Scope;
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

use crate::container::Handle;
use crate::error::{Context, Error, Result};
use crate::logs::{self, LogStream, Query};

/// Writes the log so far onto the client's connection, on a thread that may block. If the container
/// runs, and the client wants the stream (`join`), its keeper takes the connection over exactly
/// where the log ends here; `true` if so.
pub async fn replay(
    scope: &Scope,
    handle: &Arc<Handle>,
    query: Query,
    join: Option<protocol::AttachOptions>,
    client: &OwnedFd,
) -> Result<bool> {
    let (joined, hold) = oneshot::channel();
    let joining = {
        let (handle, client) = (handle.clone(), client.try_clone());
        async move {
            let (Some(options), Ok(client)) = (join, client) else {
                return None;
            };
            let body = RequestBody::Join { options };
            // Otherwise it is not running, or its keeper is an older one.
            let Ok(ReplyBody::Joined { client, log }) = handle.ask_keeper(body, vec![client]).await
            else {
                return None;
            };
            joined.send(client).ok();
            Some(log)
        }
    };
    let log = logs::read_to(scope, query, joining);
    let written = write_all(log, client).await;
    // The log's reader has ended, and with it whoever could still join.
    let Ok(client) = hold.await else {
        return written.map(|()| false);
    };
    let body = RequestBody::Release { client };
    // A keeper that has ended needs no word.
    handle.ask_keeper(body, Vec::new()).await.ok();
    if let Err(error) = written {
        tracing::warn!(container = %handle.id, %error, "a client misses a part of the log");
    }
    Ok(true)
}

async fn write_all(mut log: LogStream, client: &OwnedFd) -> Result<()> {
    let mut client = client.try_clone().context("replay the log")?;
    while let Some(piece) = log.next().await {
        let piece = piece?;
        let write = tokio::task::spawn_blocking(move || write(&client, &piece).map(|()| client));
        client = match write.await {
            Ok(Ok(client)) => client,
            // The client has gone, or does not read.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(Error::internal("replaying the log panicked")),
        };
    }
    Ok(())
}

/// Writes a few bytes onto a fresh connection, which has room for them.
pub fn greet(client: &OwnedFd, greeting: &[u8]) -> Result<()> {
    if greeting.is_empty() {
        return Ok(());
    }
    match rustix::io::write(client, greeting) {
        Ok(count) if count == greeting.len() => Ok(()),
        Ok(_) => Err(Error::internal(
            "greet a client: it has no room for an answer's head",
        )),
        Err(error) => Err(Error::failed("greet a client", &io::Error::from(error))),
    }
}

/// How long a client may leave its connection full.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes all, onto a connection that may be in non-blocking mode. Blocks.
fn write(client: &OwnedFd, bytes: &Bytes) -> io::Result<()> {
    let deadline = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        match rustix::io::write(client, rest) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(client.as_fd(), PollFlags::OUT)];
                if poll(&mut fds, Some(&deadline))? == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
