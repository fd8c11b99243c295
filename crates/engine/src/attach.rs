//! What a client that attaches is told before the container's own output: the greeting, and the
//! log so far.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::engine::Engine;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::options::{AttachOptions, LogOptions, StreamTarget};

/// Writes the log so far onto the client's connection, on a thread that may block.
pub async fn replay(
    engine: &Engine,
    target: &StreamTarget,
    options: &AttachOptions,
    client: &OwnedFd,
) -> Result<()> {
    let wanted = LogOptions {
        stdout: options.stdout,
        stderr: options.stderr,
        ..LogOptions::default()
    };
    let mut log = match engine.logs(&target.id, wanted) {
        Ok(log) => log,
        // A driver that keeps nothing has nothing to replay.
        Err(error) if error.kind == ErrorKind::NotImplemented => return Ok(()),
        Err(error) => return Err(error),
    };
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
