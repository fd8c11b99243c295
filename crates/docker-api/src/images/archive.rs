//! Archives of images: loading and saving.

use std::io::Write;
use std::sync::Arc;

use berth_http::body;
use berth_image::Reporter;
use http::StatusCode;
use tokio::sync::oneshot;

use super::{block, platform, publish};
use crate::call::Call;
use crate::error::Error;
use crate::pipe::{Reader, Writer};
use crate::progress;
use crate::respond::{self, Answer};

/// The words that load or import print at their end are streams; the rest is progress.
fn without_progress(reporter: Reporter) -> Reporter {
    Arc::new(move |message| {
        if message.stream.is_some() {
            reporter(message);
        }
    })
}

pub async fn load(call: Call) -> Answer {
    let platform = platform(&call)?;
    let quiet = call.query.flag("quiet");
    let shared = Arc::clone(&call.shared);
    let archive = Reader::new(&call.shared.scope, call.body);
    Ok(progress::stream_failures(
        &call.shared.scope,
        move |reporter| async move {
            let reporter = if quiet {
                without_progress(reporter)
            } else {
                reporter
            };
            let loaded = block(&shared, move |images| {
                images.load(archive, platform.as_ref(), &reporter)
            })
            .await?;
            for image in loaded {
                let id = image.id.to_string();
                publish(&shared, "load", &id, &id);
            }
            Ok(())
        },
    ))
}

pub async fn save(call: Call) -> Answer {
    let names = vec![call.name.clone()];
    write(call, names).await
}

pub async fn save_several(call: Call) -> Answer {
    let names: Vec<String> = call.query.all("names").map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Error::invalid("no images are named: names is needed"));
    }
    write(call, names).await
}

/// An unknown name is refused before the first byte; what fails later breaks the answer off.
async fn write(call: Call, names: Vec<String>) -> Answer {
    let platform = platform(&call)?;
    let (sender, body) = body::channel(respond::QUEUED_CHUNKS);
    let (started, mut first_bytes) = oneshot::channel();
    let (ended, result) = oneshot::channel();
    let shared = Arc::clone(&call.shared);
    let failing = sender.clone();
    call.shared.scope.spawn("save images", async move {
        let saved = block(&shared, move |images| {
            let mut out = Writer::new(sender, started);
            images.save(&names, platform.as_ref(), &mut out)?;
            // A client that has gone does not miss the end.
            out.flush().ok();
            Ok(())
        })
        .await;
        // The receiver waits only until the first bytes.
        if let Err(Err(error)) = ended.send(saved) {
            tracing::warn!(%error, "save images");
            failing.fail(error).await;
        }
    });
    tokio::select! {
        biased;
        Ok(()) = &mut first_bytes => {}
        ended = result => if let Ok(Err(error)) = ended {
            return Err(error);
        },
    }
    Ok(respond::respond(StatusCode::OK, respond::TAR, body))
}
