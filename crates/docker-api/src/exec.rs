//! Commands in running containers: all but the start, which takes the connection over.

use berth_docker::exec::CreateRequest;
use http::StatusCode;

use crate::call::Call;
use crate::error::Error;
use crate::respond::{self, Answer};
use crate::shapes;

pub async fn create(mut call: Call) -> Answer {
    let mut request: CreateRequest = call.json().await?.unwrap_or_default();
    if request.cmd.as_ref().is_none_or(|words| words.is_empty()) {
        return Err(Error::invalid("No exec command specified"));
    }
    shapes::exec_create_request(call.version, &mut request);
    let created = call.shared.engine.exec_create(&call.name, request).await?;
    Ok(respond::json(StatusCode::CREATED, &created))
}

pub async fn inspect(call: Call) -> Answer {
    respond::ok(&call.shared.engine.exec_inspect(&call.name).await?)
}

pub async fn resize(call: Call) -> Answer {
    let (rows, columns) = call.size()?;
    call.shared
        .engine
        .exec_resize(&call.name, rows, columns)
        .await?;
    Ok(respond::status(StatusCode::OK))
}
