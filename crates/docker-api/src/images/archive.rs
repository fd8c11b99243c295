//! Archives of images: loading and saving.

use std::io::Write;
use std::sync::Arc;

use berth_image::Reporter;
use http::StatusCode;

use super::{block, platform, publish};
use crate::call::Call;
use crate::error::Error;
use crate::pipe::{self, Reader};
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

async fn write(call: Call, names: Vec<String>) -> Answer {
    let platform = platform(&call)?;
    let shared = Arc::clone(&call.shared);
    let body = pipe::written(&call.shared.scope, "save images", |mut out| async move {
        block(&shared, move |images| {
            images.save(&names, platform.as_ref(), &mut out)?;
            // A client that has gone does not miss the end.
            out.flush().ok();
            Ok(())
        })
        .await
    });
    Ok(respond::respond(StatusCode::OK, respond::TAR, body.await?))
}
