//! What Docker has no operations for, below `/berth` (`docs/volumes.md`).

use std::io::Write;

use berth_engine::CopyKind;
use berth_http::body;
use http::StatusCode;
use tokio::sync::oneshot;

use crate::call::Call;
use crate::error::Error;
use crate::pipe::{Reader, Writer};
use crate::respond::{self, Answer};

/// `POST /berth/volumes/NAME/snapshot?name=&pause=`
pub async fn snapshot(call: Call) -> Answer {
    copy(call, CopyKind::Snapshot).await
}

/// `POST /berth/volumes/NAME/clone?name=&pause=`
pub async fn clone(call: Call) -> Answer {
    new_name(&call)?;
    copy(call, CopyKind::Clone).await
}

async fn copy(call: Call, kind: CopyKind) -> Answer {
    let (engine, source) = (call.shared.engine.clone(), call.name.clone());
    let (name, pause) = (call.query.text("name").to_owned(), pause(&call));
    let copied = call
        .finish(async move { engine.volume_copy(&source, kind, &name, pause).await })
        .await?;
    Ok(respond::json(StatusCode::CREATED, &copied))
}

/// `POST /berth/volumes/NAME/rename?name=`
pub async fn rename(call: Call) -> Answer {
    let new = new_name(&call)?;
    let (engine, old) = (call.shared.engine.clone(), call.name.clone());
    let renamed = call
        .finish(async move { engine.volume_rename(&old, &new).await })
        .await?;
    respond::ok(&renamed)
}

/// `GET /berth/volumes/NAME/archive?pause=`: what goes wrong after the first byte breaks the answer
/// off.
pub async fn backup(call: Call) -> Answer {
    let (engine, name, pause) = (call.shared.engine.clone(), call.name.clone(), pause(&call));
    let backup = call
        .finish(async move { engine.volume_backup(&name, pause).await })
        .await?;
    let (sender, body) = body::channel(respond::QUEUED_CHUNKS);
    let (started, mut first_bytes) = oneshot::channel();
    let failing = sender.clone();
    let scope = &call.shared.scope;
    let mut work = scope.spawn_blocking(move || {
        let mut out = Writer::new(sender, started);
        backup.write(&mut out)?;
        // A client that has gone does not miss the end.
        out.flush().ok();
        Ok(())
    });
    let ended = tokio::select! {
        biased;
        Ok(()) = &mut first_bytes => None,
        ended = &mut work => Some(ended),
    };
    let panicked = || berth_engine::Error::internal("writing the archive panicked");
    if let Some(ended) = ended {
        ended.unwrap_or_else(|_| Err(panicked()))?;
    } else {
        scope.spawn("write an archive", async move {
            if let Err(error) = work.await.unwrap_or_else(|_| Err(panicked())) {
                tracing::warn!(%error, "break a backup off");
                failing.fail(error).await;
            }
        });
    }
    Ok(respond::respond(StatusCode::OK, respond::TAR, body))
}

/// `PUT /berth/volumes/NAME/archive?force=` with an archive, plain or compressed, as the body.
pub async fn restore(call: Call) -> Answer {
    let force = call.query.flag("force");
    let shared = call.shared.clone();
    let archive = Reader::new(&shared.scope, call.body);
    let (engine, name) = (shared.engine.clone(), call.name);
    let work = async move { engine.volume_restore(&name, archive, force).await };
    match shared.scope.spawn("restore a volume", work).await {
        Ok(Some(restored)) => respond::ok(&restored?),
        Ok(None) | Err(_) => Err(Error::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "restoring the volume failed unexpectedly: see the daemon's log",
        )),
    }
}

/// Containers that write are paused unless it is said otherwise.
fn pause(call: &Call) -> bool {
    call.query.some("pause").is_none() || call.query.flag("pause")
}

fn new_name(call: &Call) -> Result<String, Error> {
    match call.query.some("name") {
        Some(name) => Ok(name.to_owned()),
        None => Err(Error::invalid(
            "the new volume's name is missing: name is needed",
        )),
    }
}
