//! A container's files: `docker cp` and `docker export`.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_docker::container::PathStat;
use berth_engine::ExtractOptions;
use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::call::Call;
use crate::error::Error;
use crate::pipe::{self, Reader};
use crate::respond::{self, Answer};

const PATH_STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

fn path(call: &Call) -> Result<String, Error> {
    match call.query.some("path") {
        Some(path) => Ok(path.to_owned()),
        None => Err(Error::invalid("bad parameter: path cannot be empty")),
    }
}

pub async fn stat(call: Call) -> Answer {
    let stat = call
        .shared
        .engine
        .path_stat(&call.name, &path(&call)?)
        .await?;
    let mut response = respond::respond(StatusCode::OK, respond::JSON, berth_http::body::empty());
    describe(&mut response, &stat);
    Ok(response)
}

fn describe<B>(response: &mut Response<B>, stat: &PathStat) {
    let json = respond::line(stat);
    let encoded = STANDARD.encode(json.trim_ascii_end());
    let value = HeaderValue::from_str(&encoded).expect("base64 is ASCII without controls");
    response.headers_mut().insert(PATH_STAT, value);
}

pub async fn read(call: Call) -> Answer {
    let (engine, name, path) = (call.shared.engine.clone(), call.name.clone(), path(&call)?);
    let stat: Arc<OnceLock<PathStat>> = Arc::default();
    let told = stat.clone();
    let body = pipe::written(&call.shared.scope, "archive a path", |out| async move {
        let sink = move |stat| {
            told.get_or_init(|| stat);
            out
        };
        Ok(engine.archive(&name, &path, sink).await?)
    });
    let mut response = respond::respond(StatusCode::OK, respond::TAR, body.await?);
    if let Some(stat) = stat.get() {
        describe(&mut response, stat);
    }
    Ok(response)
}

pub async fn write(call: Call) -> Answer {
    let path = path(&call)?;
    let options = ExtractOptions {
        keep_kinds: call.query.flag("noOverwriteDirNonDir"),
        as_user: call.query.flag("copyUIDGID"),
    };
    let shared = call.shared.clone();
    let archive = Reader::new(&shared.scope, call.body);
    let engine = shared.engine.clone();
    let work = async move { engine.extract(&call.name, &path, options, archive).await };
    match shared.scope.spawn("extract an archive", work).await {
        Ok(Some(done)) => done?,
        Ok(None) | Err(_) => {
            return Err(Error::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the request failed unexpectedly: see the daemon's log",
            ));
        }
    }
    Ok(respond::status(StatusCode::OK))
}

pub async fn changes(call: Call) -> Answer {
    let changes = call.shared.engine.changes(&call.name).await?;
    // Go's encoder tells an empty list so.
    respond::ok(&Some(changes).filter(|changes| !changes.is_empty()))
}

pub async fn export(call: Call) -> Answer {
    let (engine, name) = (call.shared.engine.clone(), call.name.clone());
    let body = pipe::written(&call.shared.scope, "export a container", |out| async move {
        Ok(engine.export(&name, out).await?)
    });
    let octets = "application/octet-stream";
    Ok(respond::respond(StatusCode::OK, octets, body.await?))
}
