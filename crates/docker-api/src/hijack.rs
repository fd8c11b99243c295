//! Attach and exec: the client's connection leaves HTTP and becomes the container's stream.
//!
//! A client that sends `Upgrade` gets a 101, one that does not a 200 without a length; from then
//! on both talk to the container. What can be refused is refused before, with an ordinary answer.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;

use berth_docker::error::ErrorResponse;
use berth_docker::exec::StartRequest;
use berth_engine::{AttachOptions, ExecStartOptions};
use berth_http::upgrade::{self, Connection};
use berth_tasks::Scope;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE, USER_AGENT};
use http::{Response, StatusCode};
use hyper::ext::ReasonPhrase;

use crate::call::Call;
use crate::error::Error;
use crate::respond::{self, Answer};
use crate::shapes;

/// How long a command waits for a careless client to read the head, and how often it looks.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);
const HEAD_POLL: Duration = Duration::from_millis(1);

pub async fn attach(call: Call) -> Answer {
    let options = AttachOptions {
        stdin: call.query.flag("stdin"),
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr"),
        logs: call.query.flag("logs"),
        stream: call.query.flag("stream"),
        detach_keys: call.query.some("detachKeys").map(str::to_owned),
        greeting: Vec::new(),
    };
    let target = call.shared.engine.attach_target(&call.name)?;
    let head = head(&call, target.tty);
    // The log so far is there at once.
    let waits = options.logs && is_careless(&call);
    let shared = call.shared;
    Ok(upgrade::hijack_before_head(
        &head,
        move |connection, greeting| async move {
            let Some(client) = take_over(connection, &shared.scope) else {
                return;
            };
            let (Ok(refused), Ok(greeted)) = (client.try_clone(), client.try_clone()) else {
                return;
            };
            let greeting = if waits {
                // One short answer onto an empty connection. A client that has gone misses it.
                std::fs::File::from(greeted).write_all(&greeting).ok();
                until_read(&client).await;
                Vec::new()
            } else {
                greeting
            };
            let options = AttachOptions {
                greeting,
                ..options
            };
            if let Err(error) = shared.engine.attach(&target.id, options, client).await {
                tracing::debug!(%error, container = target.id, "attach a client");
                refuse(refused, &error.into());
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
    let careless = is_careless(&call);
    let shared = call.shared;
    Ok(upgrade::hijack(
        head,
        move |connection: Connection| async move {
            let client = match connection.into_fd(&shared.scope) {
                Ok(client) => client,
                Err(error) => return tracing::debug!(%error, "take over a client's connection"),
            };
            if careless {
                until_read(&client).await;
            }
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

/// Whether a client loses what arrives together with the head. docker-py does: its HTTP library
/// reads ahead into a buffer, past which docker-py then reads the socket.
fn is_careless(call: &Call) -> bool {
    call.headers
        .get(USER_AGENT)
        .is_some_and(|agent| agent.as_bytes().starts_with(b"docker-sdk-python"))
}

/// Waits until a client has read the head, within [`HEAD_PATIENCE`]: dockerd is too slow to start
/// anything before that.
async fn until_read(client: &OwnedFd) {
    let read = async {
        while berth_sys::socket::is_drained(client).is_ok_and(|drained| !drained) {
            tokio::time::sleep(HEAD_POLL).await;
        }
    };
    // Later than that, the client's loss is its own.
    tokio::time::timeout(HEAD_PATIENCE, read).await.ok();
}

fn take_over(connection: Connection, scope: &Scope) -> Option<OwnedFd> {
    connection
        .into_fd(scope)
        .inspect_err(|error| tracing::debug!(%error, "take over a client's connection"))
        .ok()
}

/// Answers in HTTP after all, on a connection that has not been greeted.
fn refuse(client: OwnedFd, error: &Error) {
    let body = respond::line(&ErrorResponse {
        message: error.message.clone(),
    });
    let reason = error.status.canonical_reason().unwrap_or_default();
    let mut answer = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        error.status.as_u16(),
        respond::JSON,
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    // One short answer onto an empty connection. A client that has gone misses it.
    std::fs::File::from(client).write_all(&answer).ok();
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
