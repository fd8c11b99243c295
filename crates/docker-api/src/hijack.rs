//! Attach and exec: the client's connection leaves HTTP and becomes the container's stream.
//!
//! A client that sends `Upgrade` gets a 101, one that does not a 200 without a length; from then
//! on both talk to the container. What can be refused is refused before, with an ordinary answer.

use berth_docker::exec::StartRequest;
use berth_engine::{AttachOptions, ExecStartOptions};
use berth_http::upgrade::{self, Connection};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper::ext::ReasonPhrase;

use crate::call::Call;
use crate::respond::{self, Answer};
use crate::shapes;

pub async fn attach(call: Call) -> Answer {
    let options = AttachOptions {
        stdin: call.query.flag("stdin"),
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr"),
        logs: call.query.flag("logs"),
        stream: call.query.flag("stream"),
        detach_keys: call.query.some("detachKeys").map(str::to_owned),
    };
    let target = call.shared.engine.attach_target(&call.name)?;
    let head = head(&call, target.tty);
    let shared = call.shared;
    Ok(upgrade::hijack(
        head,
        move |connection: Connection| async move {
            let client = match connection.into_fd(&shared.scope) {
                Ok(client) => client,
                Err(error) => return tracing::debug!(%error, "take over a client's connection"),
            };
            if let Err(error) = shared.engine.attach(&target.id, options, client).await {
                tracing::warn!(%error, container = target.id, "attach a client");
            }
        },
    ))
}

pub async fn exec_start(mut call: Call) -> Answer {
    let request: StartRequest = call.json().await?.unwrap_or_default();
    let target = call.shared.engine.exec_target(&call.name)?;
    let options = ExecStartOptions {
        detach: request.detach,
        console_size: shapes::console_size(call.version, &request),
    };
    if request.detach {
        let engine = call.shared.engine.clone();
        call.finish(async move { engine.exec_start(&target.id, options, None).await })
            .await?;
        return Ok(respond::status(StatusCode::OK));
    }
    let head = head(&call, request.tty);
    let shared = call.shared;
    Ok(upgrade::hijack(
        head,
        move |connection: Connection| async move {
            let client = match connection.into_fd(&shared.scope) {
                Ok(client) => client,
                Err(error) => return tracing::debug!(%error, "take over a client's connection"),
            };
            if let Err(error) = shared
                .engine
                .exec_start(&target.id, options, Some(client))
                .await
            {
                // The client has been told on its stream.
                tracing::debug!(%error, exec = target.id, "start an exec");
            }
        },
    ))
}

/// The last that the client hears in HTTP.
fn head(call: &Call, tty: bool) -> Response<()> {
    let mut head = Response::new(());
    let upgraded = call.headers.contains_key(UPGRADE);
    let content_type = if upgraded {
        shapes::stream_type(call.version, tty)
    } else {
        respond::RAW_STREAM
    };
    head.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if upgraded {
        *head.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        head.extensions_mut()
            .insert(ReasonPhrase::from_static(b"UPGRADED"));
        head.headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers_mut()
            .insert(UPGRADE, HeaderValue::from_static("tcp"));
    }
    head
}
