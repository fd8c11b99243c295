//! Answers.

use berth_docker::error::ErrorResponse;
use berth_http::Body;
use berth_http::body;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::error::Error;

pub type Answer = Result<Response<Body>, Error>;

pub const JSON: &str = "application/json";
pub const TAR: &str = "application/x-tar";
pub const TEXT: &str = "text/plain; charset=utf-8";
pub const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
pub const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";

/// How many chunks of a streamed answer may wait for a slow client.
pub const QUEUED_CHUNKS: usize = 16;

/// JSON and a line feed, as Go's encoder writes it.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    respond(status, JSON, body::full(line(value)))
}

pub fn ok<T: Serialize>(value: &T) -> Answer {
    Ok(json(StatusCode::OK, value))
}

pub fn no_content() -> Answer {
    Ok(status(StatusCode::NO_CONTENT))
}

/// A status without a body.
pub fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    response
}

pub fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A failure; one without content (304) has no body.
pub fn error(error: &Error) -> Response<Body> {
    if error.status == StatusCode::NOT_MODIFIED {
        return status(error.status);
    }
    json(
        error.status,
        &ErrorResponse {
            message: error.message.clone(),
        },
    )
}

/// One value as a line of JSON.
pub fn line<T: Serialize>(value: &T) -> Bytes {
    let mut line = serde_json::to_vec(value)
        .expect("wire types have string keys and no failing implementation of Serialize");
    line.push(b'\n');
    line.into()
}
