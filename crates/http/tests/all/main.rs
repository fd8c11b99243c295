//! The crate's servers and clients against each other and against hand-written peers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod hijack;
mod listen;
mod serving;

use std::future::Future;
use std::net::SocketAddr;

use berth_http::{Body, Listener, serve};
use berth_tasks::Scope;
use http::{Request, Response};
use hyper::body::Incoming;

/// Serves on a free port of the loopback until `scope` ends.
async fn start<S, F>(scope: &Scope, service: S) -> SocketAddr
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = serve::Limits::default();
    scope.spawn(
        "server",
        serve::serve(listener, scope.clone(), limits, service),
    );
    address
}

fn text(text: impl Into<bytes::Bytes>) -> Response<Body> {
    Response::new(berth_http::body::full(text))
}

async fn read(response: Response<Body>) -> String {
    let bytes = berth_http::body::read(response.into_body(), 1 << 20)
        .await
        .unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn get(uri: &str) -> Request<Body> {
    let mut request = Request::new(berth_http::body::empty());
    *request.uri_mut() = uri.parse().unwrap();
    request
}
