//! Attaching with the log replayed first.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

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
    let mut client = UnixStream::from(client.try_clone().context("replay the log")?);
    while let Some(piece) = log.next().await {
        let piece = piece?;
        let write = tokio::task::spawn_blocking(move || client.write_all(&piece).map(|()| client));
        client = match write.await {
            Ok(Ok(client)) => client,
            // The client has gone.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(Error::internal("replaying the log panicked")),
        };
    }
    Ok(())
}
