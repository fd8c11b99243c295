//! Operations on containers that are one question and one answer.

use berth_docker::container::{Config, CreateRequest, HostConfig};
use berth_engine::{ListOptions, RemoveOptions, StartOptions, StopOptions};
use http::StatusCode;
use http::header::CONTENT_LENGTH;

use crate::call::Call;
use crate::error::Error;
use crate::respond::{self, Answer};
use crate::shapes;

const LIST_FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const PRUNE_FILTERS: &[&str] = &["label", "label!", "until"];

/// The longest body of a start that old clients may send: `{}` or `null` with white space.
const MAX_START_BODY_BYTES: u64 = 7;

pub async fn list(call: Call) -> Answer {
    let limit = call.query.number("limit")?;
    let options = ListOptions {
        all: call.query.flag("all"),
        limit: limit
            .and_then(|limit| usize::try_from(limit).ok())
            .filter(|limit| *limit > 0),
        size: call.query.flag("size"),
        filters: call.query.filters(LIST_FILTERS)?,
    };
    let rows = call.shared.engine.list(options).await?;
    respond::ok(&shapes::container_summaries(call.version, rows))
}

pub async fn create(mut call: Call) -> Answer {
    let mut request: CreateRequest = call
        .json()
        .await?
        .ok_or_else(|| Error::from(berth_docker::json::Error::Empty))?;
    if request.config == Config::default() {
        return Err(Error::invalid(
            "config cannot be empty in order to create a container",
        ));
    }
    if let Some(names) = shapes::too_many_networks(call.version, &request) {
        return Err(Error::invalid(format!(
            "Container cannot be created with multiple network endpoints: {names}"
        )));
    }
    shapes::create_request(call.version, &mut request)?;
    let name = call.query.some("name").map(str::to_owned);
    let platform = call.query.some("platform").map(str::to_owned);
    let warning = shapes::create_warning(call.version, &request);
    let engine = call.shared.engine.clone();
    let mut created = call
        .finish(async move {
            Box::pin(engine.create(name.as_deref(), request, platform.as_deref())).await
        })
        .await?;
    created.warnings.extend(warning.map(str::to_owned));
    Ok(respond::json(StatusCode::CREATED, &created))
}

pub async fn inspect(call: Call) -> Answer {
    let inspect = call
        .shared
        .engine
        .inspect(&call.name, call.query.flag("size"))
        .await?;
    respond::ok(&shapes::container_inspect(call.version, inspect))
}

pub async fn top(call: Call) -> Answer {
    let args = call.query.some("ps_args").unwrap_or("-ef");
    respond::ok(&call.shared.engine.top(&call.name, args).await?)
}

pub async fn start(call: Call) -> Answer {
    let length = call
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    if length.and_then(|value| value.parse().ok()) > Some(MAX_START_BODY_BYTES) {
        return Err(Error::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and \
             removed in v1.24",
        ));
    }
    if call.query.some("checkpoint").is_some() {
        return Err(Error::invalid("checkpoint is not supported"));
    }
    let options = StartOptions {
        detach_keys: call.query.some("detachKeys").map(str::to_owned),
        console_size: None,
    };
    let (engine, name) = (call.shared.engine.clone(), call.name.clone());
    call.finish(async move { engine.start(&name, options).await })
        .await?;
    respond::no_content()
}

pub async fn stop(call: Call) -> Answer {
    let options = stop_options(&call)?;
    let (engine, name) = (call.shared.engine.clone(), call.name.clone());
    call.finish(async move { engine.stop(&name, options).await })
        .await?;
    respond::no_content()
}

pub async fn restart(call: Call) -> Answer {
    let options = stop_options(&call)?;
    let (engine, name) = (call.shared.engine.clone(), call.name.clone());
    call.finish(async move { engine.restart(&name, options).await })
        .await?;
    respond::no_content()
}

fn stop_options(call: &Call) -> Result<StopOptions, Error> {
    Ok(StopOptions {
        signal: shapes::stop_signal(call.version, &call.query),
        timeout_s: call.query.number("t")?,
    })
}

pub async fn kill(call: Call) -> Answer {
    let signal = call.query.some("signal");
    call.shared.engine.kill(&call.name, signal).await?;
    respond::no_content()
}

pub async fn pause(call: Call) -> Answer {
    call.shared.engine.pause(&call.name).await?;
    respond::no_content()
}

pub async fn unpause(call: Call) -> Answer {
    call.shared.engine.unpause(&call.name).await?;
    respond::no_content()
}

pub async fn rename(call: Call) -> Answer {
    let name = call.query.text("name");
    if name.trim_start_matches('/').is_empty() {
        return Err(Error::invalid("Neither old nor new names may be empty"));
    }
    call.shared.engine.rename(&call.name, name).await?;
    respond::no_content()
}

pub async fn update(mut call: Call) -> Answer {
    let update: HostConfig = call.json().await?.unwrap_or_default();
    respond::ok(&call.shared.engine.update(&call.name, update).await?)
}

pub async fn resize(call: Call) -> Answer {
    let (rows, columns) = call.size()?;
    call.shared.engine.resize(&call.name, rows, columns).await?;
    Ok(respond::status(StatusCode::OK))
}

pub async fn remove(call: Call) -> Answer {
    let options = RemoveOptions {
        force: call.query.flag("force"),
        volumes: call.query.flag("v"),
        link: call.query.flag("link"),
    };
    let (engine, name) = (call.shared.engine.clone(), call.name.clone());
    call.finish(async move { engine.remove(&name, options).await })
        .await?;
    respond::no_content()
}

pub async fn prune(call: Call) -> Answer {
    let filters = call.query.filters(PRUNE_FILTERS)?;
    let engine = call.shared.engine.clone();
    respond::ok(
        &call
            .finish(async move { engine.prune(&filters).await })
            .await?,
    )
}
