//! Networks, and containers on them.

use berth_docker::network::{ConnectRequest, CreateRequest, DisconnectRequest};
use http::StatusCode;

use crate::call::Call;
use crate::respond::{self, Answer};
use crate::shapes;

const LIST_FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];
const PRUNE_FILTERS: &[&str] = &["label", "label!", "until"];

pub async fn list(call: Call) -> Answer {
    let filters = call.query.filters(LIST_FILTERS)?;
    let detailed = shapes::lists_containers_of_networks(call.version);
    let networks = call.shared.engine.network_list(&filters, detailed)?;
    let shaped = networks
        .iter()
        .map(|network| shapes::network(call.version, network));
    respond::ok(&shaped.collect::<Vec<_>>())
}

/// `GET /berth/ports`
pub async fn ports(call: Call) -> Answer {
    let engine = call.shared.engine.clone();
    respond::ok(&call.finish(async move { engine.ports().await }).await?)
}

pub async fn inspect(call: Call) -> Answer {
    let network = call.shared.engine.network_inspect(&call.name)?;
    respond::ok(&shapes::network(call.version, &network))
}

pub async fn create(mut call: Call) -> Answer {
    let mut request: CreateRequest = call.json().await?.unwrap_or_default();
    shapes::network_create_request(call.version, &mut request);
    let engine = call.shared.engine.clone();
    let created = call
        .finish(async move { engine.network_create(request).await })
        .await?;
    Ok(respond::json(StatusCode::CREATED, &created))
}

pub async fn remove(call: Call) -> Answer {
    let (engine, name) = (call.shared.engine.clone(), call.name.clone());
    call.finish(async move { engine.network_remove(&name).await })
        .await?;
    respond::no_content()
}

pub async fn connect(mut call: Call) -> Answer {
    let mut request: ConnectRequest = call.json().await?.unwrap_or_default();
    shapes::network_connect_request(call.version, &mut request);
    let (engine, name) = (call.shared.engine.clone(), call.name.clone());
    call.finish(async move { engine.network_connect(&name, request).await })
        .await?;
    Ok(respond::status(StatusCode::OK))
}

pub async fn disconnect(mut call: Call) -> Answer {
    let request: DisconnectRequest = call.json().await?.unwrap_or_default();
    let (engine, name) = (call.shared.engine.clone(), call.name.clone());
    call.finish(async move { engine.network_disconnect(&name, request).await })
        .await?;
    Ok(respond::status(StatusCode::OK))
}

pub async fn prune(call: Call) -> Answer {
    let filters = call.query.filters(PRUNE_FILTERS)?;
    let engine = call.shared.engine.clone();
    respond::ok(
        &call
            .finish(async move { engine.network_prune(&filters).await })
            .await?,
    )
}
