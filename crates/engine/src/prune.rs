//! Removing the containers that do not run; the filters of all that is pruned.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_base::Timestamp;
use berth_docker::container::PruneResponse;
use berth_docker::filters::Filters;

use crate::container::Command;
use crate::error::{Error, Result};
use crate::shared::Shared;

pub async fn containers(shared: &Arc<Shared>, filters: &Filters) -> Result<PruneResponse> {
    let invalid = |error: berth_docker::filters::Error| Error::invalid(error.to_string());
    filters
        .accept(&["label", "label!", "until"])
        .map_err(invalid)?;
    let until = until(filters, Timestamp::now())?;
    let mut response = PruneResponse::default();
    for handle in shared.table.all() {
        let view = handle.view();
        let labels = view.record.config.labels.clone().unwrap_or_default();
        let chosen = !view.state.phase.is_active()
            && until.is_none_or(|until| view.record.created < until)
            && matches_labels(filters, &labels);
        if !chosen {
            continue;
        }
        let (other, id) = (shared.clone(), handle.id.clone());
        let size = shared
            .scope
            .spawn_blocking(move || other.images.snapshot_size(id.as_str()).unwrap_or(0))
            .await
            .unwrap_or(0);
        // It may have been started or removed meanwhile: then it is not pruned.
        if handle
            .ask(|reply| Command::Remove {
                volumes: false,
                reply,
            })
            .await
            .is_ok()
        {
            response.space_reclaimed += size;
            response
                .containers_deleted
                .get_or_insert_default()
                .push(handle.id.to_string());
        }
    }
    Ok(response)
}

/// The filter `until`: what was made later stays.
pub fn until(filters: &Filters, now: Timestamp) -> Result<Option<Timestamp>> {
    let mut given = filters.get("until");
    let Some(text) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(Error::invalid("more than one until filter specified"));
    }
    let parsed = Timestamp::parse_docker(text, now);
    let failed = |_| format!("failed to parse value as time or duration: {text:?}");
    parsed
        .map(Some)
        .map_err(|error| Error::invalid(failed(error)))
}

/// The filters `label` and `label!`.
pub fn matches_labels(filters: &Filters, labels: &BTreeMap<String, String>) -> bool {
    filters.matches_labels("label", labels)
        && (!filters.contains("label!") || !filters.matches_labels("label!", labels))
}
