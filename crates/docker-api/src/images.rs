//! Operations on images.

mod archive;
mod commit;
mod create;

use std::collections::BTreeMap;

use berth_base::Timestamp;
use berth_docker::event::{Actor, Message};
use berth_docker::filters::Filters;
use berth_docker::image::{DeleteItem, PruneResponse, Summary};
use berth_image::{Images, list};
use berth_oci::{Digest, Platform, Reference};
use http::StatusCode;

use crate::Shared;
use crate::call::Call;
use crate::error::Error;
use crate::respond::{self, Answer};
use crate::shapes;

pub use archive::{load, save, save_several};
pub use commit::commit;
pub use create::create;

const PRUNE_FILTERS: &[&str] = &["dangling", "label", "label!", "until"];

pub async fn list(call: Call) -> Answer {
    let options = list::Options {
        filters: Filters::parse(call.query.text("filters"))?,
        shared_size: call.query.flag("shared-size"),
        manifests: call.query.flag("manifests"),
    };
    let usage = call.shared.engine.image_usages();
    let rows = block(&call.shared, move |images| images.list(&options, &usage)).await?;
    respond::ok(&shapes::image_summaries(call.version, rows))
}

/// All images, with all that costs time to find out.
pub async fn for_disk_usage(shared: &Shared) -> Result<Vec<Summary>, Error> {
    let options = list::Options {
        shared_size: true,
        ..list::Options::default()
    };
    let usage = shared.engine.image_usages();
    block(shared, move |images| images.list(&options, &usage)).await
}

pub async fn inspect(call: Call) -> Answer {
    let (name, platform) = (call.name.clone(), platform(&call)?);
    let manifests = call.query.flag("manifests");
    if manifests && platform.is_some() {
        return Err(Error::invalid(
            "conflicting options: manifests and platform options cannot both be set",
        ));
    }
    let usage = call.shared.engine.image_usages();
    let inspect = block(&call.shared, move |images| {
        images.inspect(&name, platform.as_ref(), manifests, &usage)
    })
    .await?;
    respond::ok(&shapes::image_inspect(call.version, inspect))
}

pub async fn history(call: Call) -> Answer {
    let (name, platform) = (call.name.clone(), platform(&call)?);
    respond::ok(
        &block(&call.shared, move |images| {
            images.history(&name, platform.as_ref())
        })
        .await?,
    )
}

pub async fn tag(call: Call) -> Answer {
    let name = named(call.query.text("repo"), call.query.text("tag"))?;
    if name.digest().is_some() {
        return Err(Error::invalid(
            "refusing to create a tag with a digest reference",
        ));
    }
    let (source, target) = (call.name.clone(), name.clone());
    let id = block(&call.shared, move |images| images.tag(&source, &target)).await?;
    publish(
        &call.shared,
        "tag",
        &id.to_string(),
        &name.or_latest().familiar(),
    );
    Ok(respond::status(StatusCode::CREATED))
}

pub async fn remove(call: Call) -> Answer {
    let (name, force) = (call.name.clone(), call.query.flag("force"));
    let usage = call.shared.engine.image_usages();
    let removed = block(&call.shared, move |images| {
        images.remove(&name, force, &usage)
    })
    .await?;
    tell_removed(&call.shared, &removed.items, &removed.id.to_string());
    respond::ok(&removed.items)
}

pub async fn prune(call: Call) -> Answer {
    let filters = call.query.filters(PRUNE_FILTERS)?;
    let all = filters.flag("dangling")? == Some(false);
    let until = until(&filters)?;
    let usage = call.shared.engine.image_usages();
    let (items, freed) = block(&call.shared, move |images| {
        images.prune(all, &usage, |summary| is_wanted(summary, &filters, until))
    })
    .await?;
    tell_removed(&call.shared, &items, "");
    call.shared.engine.publish(Message {
        kind: "image".into(),
        action: "prune".into(),
        actor: Actor {
            id: String::new(),
            attributes: BTreeMap::from([("reclaimed".to_owned(), freed.to_string())]),
        },
        ..Message::default()
    });
    respond::ok(&PruneResponse {
        images_deleted: Some(items).filter(|items| !items.is_empty()),
        space_reclaimed: freed,
    })
}

fn until(filters: &Filters) -> Result<Option<Timestamp>, Error> {
    let Some(text) = filters.get("until").next() else {
        return Ok(None);
    };
    Timestamp::parse_docker(text, Timestamp::now())
        .map(Some)
        .map_err(|_| Error::invalid(format!("invalid filter 'until={text}'")))
}

fn is_wanted(summary: &Summary, filters: &Filters, until: Option<Timestamp>) -> bool {
    let none = BTreeMap::new();
    let labels = summary.labels.as_ref().unwrap_or(&none);
    let refused = filters.contains("label!") && filters.matches_labels("label!", labels);
    filters.matches_labels("label", labels)
        && !refused
        && until.is_none_or(|until| summary.created < until.unix_seconds())
}

/// A name of two parameters; the second may be empty.
fn named(repository: &str, tag: &str) -> Result<Reference, Error> {
    let named: Reference = repository.parse()?;
    if tag.is_empty() {
        return Ok(named);
    }
    match tag.parse::<Digest>() {
        Ok(digest) => Ok(named.with_digest(digest)),
        Err(_) => Ok(named.with_tag(tag)?),
    }
}

/// The platform that a parameter names: as `os/architecture`, or as JSON, which 1.48 began with.
fn platform(call: &Call) -> Result<Option<Platform>, Error> {
    let Some(text) = call.query.some("platform") else {
        return Ok(None);
    };
    if text.starts_with('{') {
        let platform: berth_docker::image::Platform = berth_docker::json::decode(text.as_bytes())?;
        let full = [platform.os, platform.architecture, platform.variant];
        let full: Vec<String> = full.into_iter().filter(|part| !part.is_empty()).collect();
        return parse_platform(&full.join("/")).map(Some);
    }
    parse_platform(text).map(Some)
}

fn parse_platform(text: &str) -> Result<Platform, Error> {
    text.parse()
        .map_err(|e: berth_oci::platform::InvalidPlatform| Error::invalid(e.to_string()))
}

/// Work on the store blocks on the disk: it runs on a thread, and to its end.
async fn block<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce(&Images) -> Result<T, berth_image::Error> + Send + 'static,
) -> Result<T, Error> {
    let images = shared.images.clone();
    match shared.scope.spawn_blocking(move || work(&images)).await {
        Ok(result) => result.map_err(Error::from),
        Err(_) => Err(Error::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the request failed unexpectedly: see the daemon's log",
        )),
    }
}

fn tell_removed(shared: &Shared, items: &[DeleteItem], id: &str) {
    for item in items {
        if item.deleted.is_empty() {
            let id = if id.is_empty() { &item.untagged } else { id };
            publish(shared, "untag", id, id);
        } else {
            publish(shared, "delete", &item.deleted, &item.deleted);
        }
    }
}

/// Tells the listeners of events what happened to an image.
fn publish(shared: &Shared, action: &str, id: &str, name: &str) {
    shared.engine.publish(Message {
        kind: "image".into(),
        action: action.into(),
        actor: Actor {
            id: id.into(),
            attributes: BTreeMap::from([("name".to_owned(), name.to_owned())]),
        },
        ..Message::default()
    });
}
