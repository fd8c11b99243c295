//! The daemon itself: ping, version, information, events, disk usage.

use berth_base::Timestamp;
use berth_docker::filters::Filters;
use berth_engine::EventOptions;
use berth_http::body;
use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, PRAGMA};

use crate::call::Call;
use crate::error::Error;
use crate::images;
use crate::respond::{self, Answer};
use crate::shapes;

/// What a client may ask the disk usage for, since version 1.42.
const DISK_USAGE_TYPES: &[&str] = &["container", "image", "volume", "build-cache"];

pub async fn ping(_call: Call) -> Answer {
    let mut response = respond::respond(StatusCode::OK, respond::TEXT, body::full("OK"));
    let headers = response.headers_mut();
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    // 1 is the classic builder: clients then do not ask for BuildKit's session.
    for (name, value) in [("builder-version", "1"), ("swarm", "inactive")] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    Ok(response)
}

pub async fn version(call: Call) -> Answer {
    respond::ok(&call.shared.engine.version())
}

pub async fn info(call: Call) -> Answer {
    let info = call.shared.engine.info().await?;
    respond::ok(&shapes::info(call.version, info))
}

pub async fn events(call: Call) -> Answer {
    let options = EventOptions {
        since: time(&call, "since")?,
        until: time(&call, "until")?,
        // The engine knows which filters there are.
        filters: Filters::parse(call.query.text("filters"))?,
    };
    let mut events = call.shared.engine.events(options)?;
    let (sender, body) = body::channel(respond::QUEUED_CHUNKS);
    call.shared.scope.spawn("events of a client", async move {
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = sender.closed() => return,
            };
            let Some(event) = event else { return };
            if sender.send(respond::line(&event)).await.is_err() {
                return;
            }
        }
    });
    Ok(respond::respond(StatusCode::OK, respond::JSON, body))
}

pub async fn disk_usage(call: Call) -> Answer {
    let types: Vec<&str> = call.query.all("type").collect();
    if let Some(unknown) = types.iter().find(|kind| !DISK_USAGE_TYPES.contains(kind)) {
        return Err(Error::invalid(format!("unknown object type: {unknown}")));
    }
    let mut usage = call.shared.engine.disk_usage().await?;
    let wanted = |kind| types.is_empty() || types.contains(&kind);
    if !wanted("container") {
        usage.containers = None;
    }
    if wanted("image") {
        usage.images = Some(images::for_disk_usage(&call.shared).await?);
    } else {
        usage.images = None;
        usage.layers_size = 0;
    }
    if !wanted("volume") {
        usage.volumes = None;
    }
    if !wanted("build-cache") {
        usage.build_cache = None;
    }
    respond::ok(&shapes::disk_usage(call.version, usage))
}

/// Plugins are not served; clients that list them find none.
pub async fn plugins(_call: Call) -> Answer {
    respond::ok(&[(); 0])
}

/// There is no builder's cache yet; `docker system prune` asks for it.
pub async fn build_prune(_call: Call) -> Answer {
    respond::ok(&serde_json::json!({ "CachesDeleted": null, "SpaceReclaimed": 0 }))
}

/// A point in time that a parameter names; 0 is as good as none.
pub fn time(call: &Call, name: &str) -> Result<Option<Timestamp>, Error> {
    let Some(text) = call.query.some(name).filter(|text| *text != "0") else {
        return Ok(None);
    };
    Timestamp::parse_docker(text, Timestamp::now())
        .map(Some)
        .map_err(|_| {
            Error::invalid(format!(
                "invalid value for {name:?}: failed to parse value as time: {text:?}"
            ))
        })
}
