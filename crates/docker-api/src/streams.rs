//! Answers that come in pieces: logs, and the end of a wait.

use berth_docker::container::{WaitError, WaitResponse};
use berth_engine::{Condition, LogOptions};
use berth_http::body;
use http::StatusCode;

use crate::call::Call;
use crate::error::Error;
use crate::respond::{self, Answer};
use crate::shapes;
use crate::system::time;

pub async fn logs(call: Call) -> Answer {
    let (stdout, stderr) = (call.query.flag("stdout"), call.query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Error::invalid(
            "Bad parameters: you must choose at least one stream",
        ));
    }
    let options = LogOptions {
        stdout,
        stderr,
        since: time(&call, "since")?,
        until: time(&call, "until")?,
        timestamps: call.query.flag("timestamps"),
        // As dockerd: all that is no number, `all` among them, is all.
        tail: call.query.text("tail").parse().ok(),
        follow: call.query.flag("follow"),
        details: call.query.flag("details"),
    };
    let target = call.shared.engine.logs_target(&call.name)?;
    let mut logs = call.shared.engine.logs(&target.id, options)?;
    let (sender, body) = body::channel(respond::QUEUED_CHUNKS);
    call.shared.scope.spawn("logs of a client", async move {
        loop {
            let piece = tokio::select! {
                piece = logs.next() => piece,
                () = sender.closed() => return,
            };
            let sent = match piece {
                None => return,
                Some(Ok(bytes)) => sender.send(bytes).await,
                Some(Err(error)) => {
                    tracing::warn!(%error, "end a client's logs");
                    return sender.fail(error).await;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    });
    let content_type = shapes::stream_type(call.version, target.tty);
    Ok(respond::respond(StatusCode::OK, content_type, body))
}

/// The headers go out as soon as the wait has begun: a client that has seen them may start the
/// container, and will not miss its end.
pub async fn wait(call: Call) -> Answer {
    let condition = match call.query.text("condition") {
        "" | "not-running" => Condition::NotRunning,
        "next-exit" => Condition::NextExit,
        "removed" => Condition::Removed,
        other => return Err(Error::invalid(format!("invalid condition: {other:?}"))),
    };
    let waiter = call.shared.engine.wait(&call.name, condition)?;
    let (sender, body) = body::channel(1);
    call.shared.scope.spawn("wait of a client", async move {
        let waited = tokio::select! {
            waited = waiter.done() => waited,
            () = sender.closed() => return,
        };
        let response = WaitResponse {
            status_code: waited.exit_code,
            error: waited.error.map(|message| WaitError { message }),
        };
        // A client that has gone need not know.
        sender.send(respond::line(&response)).await.ok();
    });
    Ok(respond::respond(StatusCode::OK, respond::JSON, body))
}
