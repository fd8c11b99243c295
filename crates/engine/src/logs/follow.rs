//! The waiting side: backlog first, then each time that the file changes.

use std::io;
use std::time::Duration;

use berth_base::Timestamp;
use berth_keeper::protocol::LogPosition;
use berth_tasks::Scope;
use bytes::Bytes;
use rustix::fs::inotify;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::Query;
use super::read::{self, Cursor, Output};
use crate::error::Error;

/// Changes are not reported by every file system (FUSE, some network ones): look anyway.
const LOOK_ANYWAY: Duration = Duration::from_secs(5);

/// Reads the backlog, and then up to the place that `join` names, or to the end.
pub async fn run_to(
    scope: Scope,
    query: Query,
    join: impl Future<Output = Option<LogPosition>> + Send,
    sender: mpsc::Sender<Result<Bytes, Error>>,
) -> io::Result<()> {
    let (cursor, mut output) = read_backlog(&scope, query, sender).await?;
    let position = join.await;
    let Some(mut cursor) = cursor else {
        return Ok(());
    };
    blocking(&scope, move || {
        match position {
            Some(position) => cursor.advance_to(position, &mut output)?,
            None => cursor.advance(&mut output)?,
        };
        Ok(())
    })
    .await
}

async fn read_backlog(
    scope: &Scope,
    query: Query,
    sender: mpsc::Sender<Result<Bytes, Error>>,
) -> io::Result<(Option<Cursor>, Output)> {
    let mut output = Output::new(query.render, sender);
    blocking(scope, move || {
        let cursor = read::backlog(&query, &mut output)?;
        output.flush();
        Ok((cursor, output))
    })
    .await
}

/// Reads the backlog and, if `ended` is given, what is written until it completes.
pub async fn run(
    scope: Scope,
    query: Query,
    ended: Option<impl Future<Output = ()> + Send>,
    sender: mpsc::Sender<Result<Bytes, Error>>,
) -> io::Result<()> {
    // Watching begins before reading, so that no change falls between the two.
    let watch = match (&ended, query.path.parent()) {
        (Some(_), Some(directory)) => Some(Watch::new(directory)?),
        _ => None,
    };
    let until = query.render.until;
    let cursor = read_backlog(&scope, query, sender.clone()).await?;
    let ((Some(mut cursor), mut output), Some(ended), Some(watch)) = (cursor, ended, watch) else {
        return Ok(());
    };
    let mut ended = std::pin::pin!(ended);
    let mut deadline = std::pin::pin!(past(until));
    let mut last = false;
    loop {
        let (flow, back) = blocking(&scope, move || {
            let flow = cursor.advance(&mut output)?;
            Ok((flow, (cursor, output)))
        })
        .await?;
        (cursor, output) = back;
        if last || flow == read::Flow::Finished {
            return Ok(());
        }
        tokio::select! {
            changed = watch.changed() => changed?,
            () = tokio::time::sleep(LOOK_ANYWAY) => {}
            () = &mut ended => last = true,
            () = &mut deadline => last = true,
            () = sender.closed() => return Ok(()),
        }
    }
}

async fn blocking<T: Send + 'static>(
    scope: &Scope,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    scope.spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Completes when that time has passed.
async fn past(until: Option<Timestamp>) {
    match until {
        // From now to then: zero when it has passed.
        Some(until) => tokio::time::sleep(Timestamp::now().elapsed_at(until)).await,
        None => std::future::pending().await,
    }
}

/// Changes of a directory's files. An inotify descriptor is read like a pipe.
struct Watch(pipe::Receiver);

impl Watch {
    fn new(directory: &std::path::Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(
            &fd,
            directory,
            inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO,
        )?;
        Ok(Self(pipe::Receiver::from_owned_fd_unchecked(fd)?))
    }

    /// Waits for a change, and forgets all that are queued.
    async fn changed(&self) -> io::Result<()> {
        let mut space = [0u8; 4096];
        let mut seen = false;
        while !seen {
            self.0.readable().await?;
            loop {
                match self.0.try_read(&mut space) {
                    Ok(_) => seen = true,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
