//! Removing networks that no container is on.

use std::sync::Arc;

use berth_base::id::SHORT_LENGTH;
use berth_base::{Chain, Timestamp};
use berth_docker::filters::{Error as FilterError, Filters};
use berth_docker::network::PruneResponse;

use super::{Kind, Network, describe};
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Shared;

/// Removes a network: its bridge and its record are gone when this returns.
pub async fn remove(shared: &Arc<Shared>, reference: &str) -> Result<()> {
    let network = shared.networks.find(reference)?;
    if !network.is_own() {
        return Err(Error::new(
            ErrorKind::Forbidden,
            format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            ),
        ));
    }
    check_unused(shared, &network)?;
    // From here on nobody finds it, so that nobody new comes to be on it.
    let Some(network) = shared.networks.hide(&network.id) else {
        return Err(Error::not_found(format!("network {reference} not found")));
    };
    if let Err(error) = take_away(shared, &network).await {
        shared.networks.insert(network.as_ref().clone());
        return Err(error.while_doing("error while removing network"));
    }
    shared.networks.release(&network.name);
    if matches!(network.kind, Kind::Own { .. }) {
        shared.network_event(&network, "destroy", None);
    }
    Ok(())
}

/// The kernel's part goes first: what is left of an interrupted removal is a whole network.
async fn take_away(shared: &Arc<Shared>, network: &Network) -> Result<()> {
    remove_link(shared, network).await?;
    network.delete(&shared.store).await
}

pub async fn remove_link(shared: &Arc<Shared>, network: &Network) -> Result<()> {
    let (Some(net), Some(link)) = (shared.net.clone(), network.link()) else {
        return Ok(());
    };
    let link = link.to_owned();
    let work = shared
        .scope
        .spawn_blocking(move || net.remove_network(&link));
    match work.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(berth_net::Error::NetworkInUse { .. })) => Err(in_use(shared, network)),
        Ok(Err(error)) => Err(Error::internal(Chain(&error).to_string())),
        Err(_) => Err(Error::internal("removing a network panicked")),
    }
}

fn check_unused(shared: &Shared, network: &Network) -> Result<()> {
    let context = |error: Error| error.while_doing("error while removing network");
    let users = shared.networks.all();
    let copies = |other: &&Arc<Network>| {
        let from = other.request().and_then(|it| it.config_from.as_ref());
        from.is_some_and(|from| from.network == network.name)
    };
    if matches!(network.kind, Kind::Configuration { .. }) && users.iter().any(|it| copies(&it)) {
        let message = format!("configuration network {:?} is in use", network.name);
        return Err(context(Error::new(ErrorKind::Forbidden, message)));
    }
    match describe::members(shared, network).is_empty() {
        true => Ok(()),
        false => Err(context(in_use(shared, network))),
    }
}

fn in_use(shared: &Shared, network: &Network) -> Error {
    let members = describe::members(shared, network);
    let endpoints: Vec<String> = members
        .values()
        .map(|member| {
            let id = &member.endpoint_id;
            let short = id.get(..SHORT_LENGTH).unwrap_or(id);
            format!("name:{:?} id:{short:?}", member.name)
        })
        .collect();
    let message = format!(
        "network {} has active endpoints ({})",
        network.name,
        endpoints.join(", ")
    );
    Error::new(ErrorKind::Forbidden, message)
}

/// Removes the networks that no container is on; tells their names.
pub async fn prune(shared: &Arc<Shared>, filters: &Filters) -> Result<PruneResponse> {
    let invalid = |error: FilterError| Error::invalid(error.to_string());
    filters
        .accept(&["label", "label!", "until"])
        .map_err(invalid)?;
    let until = crate::prune::until(filters, Timestamp::now())?;
    let used = describe::used(shared);
    let mut response = PruneResponse::default();
    for network in shared.networks.all() {
        let (Kind::Own { request, .. }, Some(link)) = (&network.kind, network.link()) else {
            continue;
        };
        let labels = request.labels.clone().unwrap_or_default();
        let chosen = !used.contains(link)
            && until.is_none_or(|until| network.created <= until)
            && crate::prune::matches_labels(filters, &labels);
        // It may have come to be used meanwhile: then it is not pruned.
        if chosen && remove(shared, network.id.as_str()).await.is_ok() {
            let deleted = response.networks_deleted.get_or_insert_default();
            deleted.push(network.name.clone());
        }
    }
    let attributes = [("reclaimed".to_owned(), "0".to_owned())].into();
    shared.events.publish("network", "prune", "", attributes);
    Ok(response)
}
