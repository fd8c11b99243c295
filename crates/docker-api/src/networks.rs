//! Networks: the three that there always are.

use berth_docker::network::PruneResponse;
use http::StatusCode;

use crate::call::Call;
use crate::error::Error;
use crate::respond::{self, Answer};
use crate::shapes;

const LIST_FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];
const PRUNE_FILTERS: &[&str] = &["label", "label!", "until"];

pub async fn list(call: Call) -> Answer {
    let filters = call.query.filters(LIST_FILTERS)?;
    let networks = call.shared.engine.network_list(&filters)?;
    let shaped = networks
        .iter()
        .map(|network| shapes::network(call.version, network));
    respond::ok(&shaped.collect::<Vec<_>>())
}

pub async fn inspect(call: Call) -> Answer {
    let network = call.shared.engine.network_inspect(&call.name)?;
    respond::ok(&shapes::network(call.version, &network))
}

/// The networks that there always are cannot be removed, and there are no others.
pub async fn remove(call: Call) -> Answer {
    let network = call.shared.engine.network_inspect(&call.name)?;
    Err(Error::new(
        StatusCode::FORBIDDEN,
        format!(
            "{} is a pre-defined network and cannot be removed",
            network.name
        ),
    ))
}

pub async fn prune(call: Call) -> Answer {
    call.query.filters(PRUNE_FILTERS)?;
    respond::ok(&PruneResponse::default())
}

pub async fn unsupported(_call: Call) -> Answer {
    Err(Error::new(
        StatusCode::NOT_IMPLEMENTED,
        "networks of one's own are not supported: there are bridge, host and none",
    ))
}
