//! One request on its way to its handler.

use std::sync::Arc;

use berth_http::body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::HeaderMap;
use hyper::body::{Body as _, Incoming};
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::query::Query;
use crate::version::Version;
use crate::Shared;

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
        let declared_empty =
            self.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
        if declared_empty || self.body.is_end_stream() {
            return Ok(None);
        }
        self.check_json()?;
        let bytes = self.read().await?;
        Ok(Some(berth_docker::json::decode(&bytes)?))
    }

    fn check_json(&self) -> Result<(), Error> {
        let Some(given) = self.headers.get(CONTENT_TYPE) else {
            return Err(Error::invalid("malformed Content-Type header (): mime: no media type"));
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
