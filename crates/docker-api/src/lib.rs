//! The Docker Engine API over HTTP: requests become calls of the engine, and its answers and
//! errors become what dockerd would say.
//!
//! [`Api::handle`] is the service that a listener serves. One request goes: path to version and
//! route ([`route`]), route to handler (one module for each kind of object), engine, answer. What
//! differs between the versions of the API is in `shapes`, what statuses errors have in `error`.

mod archive;
mod auth;
mod call;
mod containers;
mod error;
mod exec;
mod hijack;
mod images;
mod networks;
mod ordered;
mod pipe;
mod progress;
mod query;
mod respond;
mod route;
mod routes;
mod shapes;
mod streams;
mod swarm;
mod system;
mod version;
mod volumes;

use std::sync::Arc;

use berth_engine::Engine;
use berth_http::Body;
use berth_image::Images;
use berth_image::distribution::Distribution;
use berth_tasks::Scope;
use http::header::{HeaderMap, HeaderName, HeaderValue, SERVER};
use http::{Request, Response};
use hyper::body::Incoming;

use call::Call;
use error::Error;
use query::Query;
use route::Route;
use version::Version;

/// The API of one engine. Clones share it.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
    routes: Arc<[Route]>,
    /// What every answer of a known path carries.
    headers: HeaderMap,
}

/// What an API is made of.
pub struct Parts {
    pub engine: Engine,
    pub images: Images,
    pub distribution: Distribution,
    /// Streams to clients, and work that goes on although its client has left, are its tasks.
    pub scope: Scope,
    /// Names the server in the header `Server`: `Berth/0.1.0 (linux)`.
    pub product: String,
}

/// What handlers work with.
struct Shared {
    engine: Engine,
    images: Images,
    distribution: Distribution,
    scope: Scope,
}

impl Api {
    pub fn new(parts: Parts) -> Self {
        let mut headers = HeaderMap::new();
        let product = HeaderValue::from_str(&parts.product)
            .unwrap_or_else(|_| HeaderValue::from_static("Berth (linux)"));
        headers.insert(SERVER, product);
        let version = HeaderValue::from_static(berth_docker::API_VERSION);
        headers.insert(HeaderName::from_static("api-version"), version);
        for (name, value) in [("docker-experimental", "false"), ("ostype", "linux")] {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let shared = Shared {
            engine: parts.engine,
            images: parts.images,
            distribution: parts.distribution,
            scope: parts.scope,
        };
        Self {
            shared: Arc::new(shared),
            routes: routes::all().into(),
            headers,
        }
    }

    /// Answers one request; never fails.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let (version, path) = split_version(parts.uri.path());
        let Some((route, name)) = route::find(&self.routes, &parts.method, path) else {
            return respond::error(&Error::page_not_found());
        };
        let answer = match version {
            Err(error) => Err(error),
            Ok(version) => {
                let call = Call {
                    shared: Arc::clone(&self.shared),
                    version,
                    name,
                    query: Query::parse(parts.uri.query().unwrap_or("")),
                    headers: parts.headers,
                    body,
                };
                (route.handler)(call).await
            }
        };
        let mut response = answer.unwrap_or_else(|error| {
            tracing::debug!(method = %parts.method, path, status = %error.status, %error, "refused");
            respond::error(&error)
        });
        for (name, value) in &self.headers {
            response
                .headers_mut()
                .entry(name)
                .or_insert_with(|| value.clone());
        }
        response
    }
}

/// The version that a path asks for (the highest if it names none), and the rest of the path.
fn split_version(path: &str) -> (Result<Version, Error>, &str) {
    let rest = path.strip_prefix('/').unwrap_or(path);
    let first = rest.split('/').next().unwrap_or_default();
    match Version::from_segment(first) {
        Some(version) => (version, &rest[first.len()..]),
        None => (Ok(Version::MAX), path),
    }
}
