//! Volumes.

mod copies;

pub use copies::{backup, clone, rename, restore, snapshot};

use berth_docker::volume::CreateRequest;
use http::StatusCode;

use crate::call::Call;
use crate::error::Error;
use crate::respond::{self, Answer};
use crate::version::Version;

const LIST_FILTERS: &[&str] = &["dangling", "driver", "label", "name"];
const PRUNE_FILTERS: &[&str] = &["all", "label", "label!"];

pub async fn list(call: Call) -> Answer {
    let filters = call.query.filters(LIST_FILTERS)?;
    respond::ok(&call.shared.engine.volume_list(&filters)?)
}

pub async fn create(mut call: Call) -> Answer {
    let request: CreateRequest = call.json().await?.unwrap_or_default();
    let engine = call.shared.engine.clone();
    let volume = call
        .finish(async move { engine.volume_create(request).await })
        .await?;
    Ok(respond::json(StatusCode::CREATED, &volume))
}

pub async fn inspect(call: Call) -> Answer {
    respond::ok(&call.shared.engine.volume_inspect(&call.name)?)
}

pub async fn remove(call: Call) -> Answer {
    let force = call.query.flag("force");
    let (engine, name) = (call.shared.engine.clone(), call.name.clone());
    call.finish(async move { engine.volume_remove(&name, force).await })
        .await?;
    respond::no_content()
}

/// Only the volumes of a cluster change, and a swarm is what would have them.
pub async fn update(_call: Call) -> Answer {
    Err(Error::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    ))
}

pub async fn prune(call: Call) -> Answer {
    let mut filters = call.query.filters(PRUNE_FILTERS)?;
    if call.version < Version(42) {
        // Until then not only anonymous ones were meant.
        filters.add("all", "true");
    }
    let engine = call.shared.engine.clone();
    respond::ok(
        &call
            .finish(async move { engine.volume_prune(&filters).await })
            .await?,
    )
}
