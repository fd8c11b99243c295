//! One request on its way to its handler.

use std::sync::Arc;

use berth_http::body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use hyper::body::{Body as _, Incoming};
use serde::de::DeserializeOwned;

use crate::Shared;
use crate::error::Error;
use crate::query::Query;
use crate::version::Version;

/// The largest JSON body that is read, in bytes.
const MAX_JSON_BYTES: usize = 16 << 20;

/// A request that found its route.
pub struct Call {
    pub shared: Arc<Shared>,
    pub version: Version,
    /// What stands for the `{}` of the route.
    pub name: String,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Incoming,
}

impl Call {
    /// The body as JSON. `None` if there is none.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let declared_empty = self
            .headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length == "0");
        if declared_empty || self.body.is_end_stream() {
            return Ok(None);
        }
        self.check_json()?;
        let bytes = self.read().await?;
        Ok(Some(berth_docker::json::decode(&bytes)?))
    }

    /// Runs work that goes on to its end although the client leaves.
    pub async fn finish<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        E: Into<Error> + Send + 'static,
    {
        match self.shared.scope.spawn("request", work).await {
            Ok(Some(result)) => result.map_err(Into::into),
            Ok(None) | Err(_) => Err(Error::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the request failed unexpectedly: see the daemon's log",
            )),
        }
    }

    /// The rows and columns of a terminal.
    pub fn size(&self) -> Result<(u16, u16), Error> {
        let read = |name: &str, what: &str| {
            let text = self.query.text(name);
            text.parse::<u32>()
                .ok()
                .and_then(|value| u16::try_from(value).ok())
                .ok_or_else(|| {
                    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                    let why = if digits {
                        "value out of range"
                    } else {
                        "invalid syntax"
                    };
                    Error::invalid(format!("invalid resize {what} {text:?}: {why}"))
                })
        };
        Ok((read("h", "height")?, read("w", "width")?))
    }

    fn check_json(&self) -> Result<(), Error> {
        let Some(given) = self.headers.get(CONTENT_TYPE) else {
            return Err(Error::invalid(
                "malformed Content-Type header (): mime: no media type",
            ));
        };
        let given = String::from_utf8_lossy(given.as_bytes()).into_owned();
        let media_type = given.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/json") {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "unsupported Content-Type header ({given}): must be 'application/json'"
        )))
    }

    /// The whole body, which must be small.
    async fn read(&mut self) -> Result<Bytes, Error> {
        body::read(&mut self.body, MAX_JSON_BYTES)
            .await
            .map_err(|e| Error::invalid(format!("read the request's body: {e}")))
    }
}
