//! A small registry in memory, which a test's hook can make misbehave.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use berth_http::listen::Peer;
use berth_http::{Body, Listener, serve};
use berth_tasks::Scope;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};

use crate::built::{Blob, Built};

/// What a request was.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub peer: Peer,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub fn is_blob(&self, blob: &Blob) -> bool {
        self.path
            .ends_with(&format!("/blobs/{}", blob.descriptor.digest))
    }
}

type Hook = Box<dyn Fn(&Seen) -> Option<Response<Body>> + Send + Sync>;

#[derive(Default)]
struct State {
    /// By path below `/v2/`: media type and bytes.
    content: HashMap<String, (String, Bytes)>,
    seen: Vec<Seen>,
}

/// The registry. Serves until it is dropped.
pub struct Fake {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    scope: Scope,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

impl Fake {
    pub async fn start() -> Self {
        Self::with(|_| None).await
    }

    /// With a hook that answers in the registry's place where it wants to.
    pub async fn with(
        hook: impl Fn(&Seen) -> Option<Response<Body>> + Send + Sync + 'static,
    ) -> Self {
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let scope = Scope::new();
        let state = Arc::<Mutex<State>>::default();
        let hook: Arc<Hook> = Arc::new(Box::new(hook));
        let service = {
            let state = Arc::clone(&state);
            move |request: http::Request<_>| {
                let (state, hook) = (Arc::clone(&state), Arc::clone(&hook));
                async move { answer(&state, &hook, &request) }
            }
        };
        let serving = serve::serve(listener, scope.clone(), serve::Limits::default(), service);
        scope.spawn("fake registry", serving);
        Self {
            address,
            state,
            scope,
        }
    }

    /// The name of a repository here.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    /// Serves an image under a tag.
    pub fn push(&self, repository: &str, tag: &str, image: &Built) {
        self.put_image(repository, image);
        self.put(&format!("{repository}/manifests/{tag}"), &image.manifest);
    }

    /// Serves an index and its images under a tag.
    pub fn push_index(&self, repository: &str, tag: &str, index: &Blob, images: &[&Built]) {
        for image in images {
            self.put_image(repository, image);
        }
        self.put(&format!("{repository}/manifests/{tag}"), index);
        let digest = &index.descriptor.digest;
        self.put(&format!("{repository}/manifests/{digest}"), index);
    }

    pub fn put(&self, path: &str, blob: &Blob) {
        let value = (
            blob.descriptor.media_type.clone(),
            Bytes::from(blob.bytes.clone()),
        );
        self.state
            .lock()
            .unwrap()
            .content
            .insert(path.to_owned(), value);
    }

    fn put_image(&self, repository: &str, image: &Built) {
        let digest = &image.manifest.descriptor.digest;
        self.put(&format!("{repository}/manifests/{digest}"), &image.manifest);
        for blob in image.layers.iter().chain([&image.config]) {
            let digest = &blob.descriptor.digest;
            self.put(&format!("{repository}/blobs/{digest}"), blob);
        }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// The requests for a blob.
    pub fn asked(&self, blob: &Blob) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|seen| seen.is_blob(blob));
        seen
    }
}

fn answer(
    state: &Mutex<State>,
    hook: &Hook,
    request: &http::Request<hyper::body::Incoming>,
) -> Response<Body> {
    let seen = Seen {
        method: request.method().clone(),
        path: request.uri().to_string(),
        headers: request.headers().clone(),
        peer: *request.extensions().get().unwrap(),
    };
    state.lock().unwrap().seen.push(seen.clone());
    if let Some(response) = hook(&seen) {
        return response;
    }
    let path = seen.path.trim_start_matches("/v2/");
    if path.is_empty() {
        return json(StatusCode::OK, "{}");
    }
    let content = state.lock().unwrap().content.get(path).cloned();
    match content {
        Some((media_type, bytes)) => {
            let digest = berth_oci::Digest::of(&bytes);
            let mut response = part(bytes, seen.header("range"));
            let headers = response.headers_mut();
            headers.insert("content-type", media_type.parse().unwrap());
            let digest = digest.to_string().parse().unwrap();
            headers.insert("docker-content-digest", digest);
            response
        }
        None if path.contains("/manifests/") => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
        None => error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
    }
}

/// The bytes, or the part of them that a range asks for.
pub fn part(bytes: Bytes, range: &str) -> Response<Body> {
    let from = range
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-'));
    let total = bytes.len();
    let Some(from) = from.map(|from| from.parse::<usize>().unwrap()) else {
        return Response::new(berth_http::body::full(bytes));
    };
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header(
            "content-range",
            format!("bytes {from}-{}/{total}", total - 1),
        )
        .body(berth_http::body::full(bytes.slice(from..)))
        .unwrap()
}

/// Announces all of `bytes` but breaks off after `length` of them.
pub fn cut(bytes: &[u8], range: &str, length: usize) -> Response<Body> {
    let whole = part(Bytes::copy_from_slice(bytes), range);
    let (mut head, _) = whole.into_parts();
    let from = range
        .strip_prefix("bytes=")
        .map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
    let rest = bytes.len() - from;
    head.headers.insert("content-length", rest.into());
    let shown = Bytes::copy_from_slice(&bytes[from..][..length.min(rest)]);
    // The server flushes what it has when the body makes it wait.
    let failure = async {
        tokio::task::yield_now().await;
        Err(std::io::Error::other("cut off by the test"))
    };
    let pieces = futures_util::stream::iter([Ok(shown)]);
    let failure = futures_util::stream::once(failure);
    let body = berth_http::body::stream(futures_util::StreamExt::chain(pieces, failure));
    Response::from_parts(head, body)
}

pub fn json(status: StatusCode, text: &str) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(berth_http::body::full(text.to_owned()))
        .unwrap()
}

/// A registry's error without a message.
pub fn error(status: StatusCode, code: &str) -> Response<Body> {
    json(status, &format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#))
}

/// A demand for authorization.
pub fn unauthorized(challenge: &str) -> Response<Body> {
    let mut response = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED");
    let challenge = challenge.parse().unwrap();
    response.headers_mut().insert("www-authenticate", challenge);
    response
}
