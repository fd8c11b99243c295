//! What Docker has no operations for, below `/berth` (`docs/volumes.md`).

use berth_engine::CopyKind;
use http::StatusCode;

use crate::call::Call;
use crate::error::Error;
use crate::pipe::{self, Reader};
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
    let scope = call.shared.scope.clone();
    let body = pipe::written(&call.shared.scope, "back a volume up", |out| async move {
        let panicked = |_| berth_engine::Error::internal("writing the archive panicked");
        let written = scope.spawn_blocking(move || backup.write(out)).await;
        Ok(written.map_err(panicked)??)
    });
    Ok(respond::respond(StatusCode::OK, respond::TAR, body.await?))
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
