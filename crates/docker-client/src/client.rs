//! Requests and answers.

use std::fmt;
use std::sync::{Arc, Mutex};

use berth_docker::error::ErrorResponse;
use berth_tasks::Scope;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::OnceCell;

use crate::connect::{self, Stream, Tls, Verdict};
use crate::{Error, Host, Messages, Query};

/// The newest version of the API that this client speaks, and the oldest.
pub const MAX_VERSION: &str = "1.51";
pub const MIN_VERSION: &str = "1.24";

/// The largest error body that is read.
const ERROR_LIMIT_BYTES: usize = 1 << 20;
/// What one read of an uploaded stream takes.
const UPLOAD_CHUNK_BYTES: usize = 64 * 1024;

/// What docker's clients call the far end of a tunnel.
pub(crate) const SSH_AUTHORITY: &str = "docker.example.com";

/// The one connection that is kept for the next request.
type Idle = Arc<Mutex<Option<SendRequest<Body>>>>;

pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// How to reach a daemon.
#[derive(Debug, Clone)]
pub struct Options {
    pub host: Host,
    pub tls: Option<Tls>,
    /// A fixed API version; otherwise it is negotiated.
    pub version: Option<String>,
    /// Headers sent with each request, from the caller's configuration.
    pub headers: Vec<(String, String)>,
    pub user_agent: String,
}

/// A daemon seen from outside. Requests may run concurrently; each has a connection to itself.
pub struct Client {
    options: Options,
    idle: Idle,
    version: OnceCell<String>,
    tasks: Scope,
    verdict: Verdict,
}

/// What `/_ping` tells.
#[derive(Debug, Clone, Default)]
pub struct Ping {
    pub api_version: String,
    pub os_type: String,
    pub builder_version: String,
    pub experimental: bool,
}

/// A request below the API's version prefix.
pub struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    body: Body,
}

/// An answer that was no refusal; the body is still to be read.
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    action: Action,
    /// The connection, which is free again when the body has been read.
    connection: Option<(SendRequest<Body>, Idle)>,
}

impl Request {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Query::new(),
            headers: HeaderMap::new(),
            body: Empty::new().map_err(|never| match never {}).boxed(),
        }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn head(path: impl Into<String>) -> Self {
        Self::new(Method::HEAD, path)
    }

    pub fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    #[must_use]
    pub fn query(mut self, query: Query) -> Self {
        self.query = query;
        self
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// A JSON body.
    pub fn json(mut self, value: &impl Serialize) -> Result<Self, Error> {
        let bytes = serde_json::to_vec(value).map_err(Error::Encode)?;
        self.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        self.body = Full::from(bytes).map_err(|never| match never {}).boxed();
        Ok(self)
    }

    /// A body that is read while it is sent, of a length that nobody needs to know.
    #[must_use]
    pub fn stream(
        mut self,
        content_type: &'static str,
        reader: impl AsyncRead + Send + Sync + Unpin + 'static,
    ) -> Self {
        let chunks = futures_util::stream::try_unfold(reader, |mut reader| async move {
            let mut chunk = Vec::with_capacity(UPLOAD_CHUNK_BYTES);
            match reader.read_buf(&mut chunk).await? {
                0 => Ok(None),
                _ => Ok(Some((Frame::data(Bytes::from(chunk)), reader))),
            }
        });
        self.headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body = StreamBody::new(chunks).boxed();
        self
    }
}

/// What was asked of whom, as Go's clients tell it: `Get "http://engine:2375/v1.51/info"`.
#[derive(Debug, Clone)]
pub(crate) struct Action {
    method: Method,
    url: String,
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, rest) = self.method.as_str().split_at(1);
        write!(out, "{first}{} {:?}", rest.to_lowercase(), self.url)
    }
}

impl Client {
    /// Connects to nothing yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            idle: Idle::default(),
            version: OnceCell::new(),
            tasks: Scope::new(),
            verdict: Verdict::default(),
        }
    }

    pub fn host(&self) -> &Host {
        &self.options.host
    }

    /// A raw connection.
    pub(crate) async fn stream(&self, action: &Action) -> Result<Stream, Error> {
        let Options { host, tls, .. } = &self.options;
        connect::dial(host, tls.as_ref(), action, &self.verdict).await
    }

    pub(crate) fn action(&self, prefix: &str, request: &Request) -> Action {
        let (authority, base) = match &self.options.host {
            Host::Unix(path) => {
                let path = path.to_string_lossy();
                (path.replace('/', "%2F"), "")
            }
            Host::Tcp { authority, path } => (authority.clone(), path.as_str()),
            Host::Ssh { .. } => (SSH_AUTHORITY.to_owned(), ""),
        };
        let scheme = if self.options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let path = request.query.append_to(&request.path);
        Action {
            method: request.method.clone(),
            url: format!("{scheme}://{authority}{base}{prefix}{path}"),
        }
    }

    /// The error of a broken exchange: what became of the tunnel says more than HTTP does.
    pub(crate) fn broken(&self, action: &Action, source: hyper::Error) -> Error {
        let action = action.to_string();
        if let Some(verdict) = self.verdict.get() {
            let verdict = verdict.clone();
            return Error::Tunnel { action, verdict };
        }
        // In TLS 1.3 a server refuses a client's certificate only after the handshake.
        match berth_http::tls::behind(&source) {
            Some(error) => Error::Tls {
                action,
                words: berth_http::tls::words(error),
            },
            None => Error::Transport { action, source },
        }
    }

    /// Asks the daemon what it is. Unversioned, so any daemon can answer.
    pub async fn ping(&self) -> Result<Ping, Error> {
        let request = Request::new(Method::HEAD, "/_ping");
        let response = match self.send_to(String::new(), request).await {
            // A refused HEAD says nothing, and what is no daemon may refuse it.
            Err(Error::Daemon { .. }) => {
                self.send_to(String::new(), Request::get("/_ping")).await?
            }
            response => response?,
        };
        let header = |name: &str| {
            let value = response.headers.get(name).and_then(|v| v.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let ping = Ping {
            api_version: header("api-version"),
            os_type: header("ostype"),
            builder_version: header("builder-version"),
            experimental: header("docker-experimental") == "true",
        };
        Ok(ping)
    }

    /// The version that both sides speak; asked for once.
    pub async fn version(&self) -> Result<&str, Error> {
        let version = self
            .version
            .get_or_try_init(|| async {
                if let Some(fixed) = &self.options.version {
                    return Ok::<_, Error>(fixed.trim_start_matches('v').to_owned());
                }
                Ok(negotiate(&self.ping().await?.api_version))
            })
            .await?;
        Ok(version)
    }

    /// Whether the agreed version is at least this one.
    pub async fn speaks(&self, version: &str) -> Result<bool, Error> {
        Ok(!is_older(self.version().await?, version))
    }

    /// Sends a request and turns a refusal into an error.
    pub async fn send(&self, request: Request) -> Result<Response, Error> {
        let prefix = format!("/v{}", self.version().await?);
        self.send_to(prefix, request).await
    }

    /// Sends a request and decodes the answer.
    pub async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T, Error> {
        self.send(request).await?.json().await
    }

    /// Sends a request whose answer has no body worth reading.
    pub async fn tell(&self, request: Request) -> Result<(), Error> {
        let mut response = self.send(request).await?;
        while response.chunk().await?.is_some() {}
        Ok(())
    }

    async fn send_to(&self, prefix: String, request: Request) -> Result<Response, Error> {
        let action = self.action(&prefix, &request);
        let mut sender = self.connection(&action).await?;
        let request = self.assemble(&prefix, request)?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|source| self.broken(&action, source))?;
        let (head, body) = answer.into_parts();
        let mut response = Response::of(head, body, action);
        response.connection = Some((sender, Arc::clone(&self.idle)));
        if hyper::body::Body::is_end_stream(&response.body) {
            response.release();
        }
        response.refused().await
    }

    /// An idle connection, or a new one.
    async fn connection(&self, action: &Action) -> Result<SendRequest<Body>, Error> {
        let idle = self.idle.lock().map_or(None, |mut idle| idle.take());
        if let Some(mut sender) = idle
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        self.connect(action).await
    }

    /// A new connection with HTTP on it.
    pub(crate) async fn connect(&self, action: &Action) -> Result<SendRequest<Body>, Error> {
        let stream = self.stream(action).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.broken(action, source))?;
        self.tasks.spawn("connection", async move {
            // Its failure reaches whoever waits for the answer.
            connection.with_upgrades().await.ok();
        });
        Ok(sender)
    }

    pub(crate) fn assemble(
        &self,
        prefix: &str,
        request: Request,
    ) -> Result<http::Request<Body>, Error> {
        let (authority, base) = match &self.options.host {
            Host::Tcp { authority, path } => (authority.as_str(), path.as_str()),
            // What docker sends where a host has no meaning.
            Host::Unix(_) => ("api.moby.localhost", ""),
            Host::Ssh { .. } => (SSH_AUTHORITY, ""),
        };
        let path = format!("{base}{prefix}{}", request.path);
        let mut built = http::Request::builder()
            .method(request.method)
            .uri(request.query.append_to(&path))
            .header(header::HOST, authority)
            .header(header::USER_AGENT, &self.options.user_agent);
        for (name, value) in &self.options.headers {
            built = built.header(name, value);
        }
        let mut built = built.body(request.body)?;
        built.headers_mut().extend(request.headers);
        Ok(built)
    }
}

impl Response {
    /// The next piece of the body.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| Error::Transport {
                action: self.action.to_string(),
                source,
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        self.release();
        Ok(None)
    }

    /// Gives the connection back for the next request.
    fn release(&mut self) {
        if let Some((sender, idle)) = self.connection.take()
            && let Ok(mut idle) = idle.lock()
        {
            *idle = Some(sender);
        }
    }

    /// The whole body.
    pub async fn bytes(mut self) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all)
    }

    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let action = self.action.clone();
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Decode {
            action: action.to_string(),
            source,
        })
    }

    /// The body as a stream of JSON values.
    pub fn messages<T: DeserializeOwned>(self) -> Messages<T> {
        Messages::new(self.body, self.action.to_string())
    }

    /// Reads a refusal's message.
    pub(crate) async fn refused(mut self) -> Result<Self, Error> {
        if self.status.as_u16() < 400 {
            return Ok(self);
        }
        let mut body = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > ERROR_LIMIT_BYTES {
                break;
            }
        }
        let message = match serde_json::from_slice::<ErrorResponse>(&body) {
            Ok(error) if !error.message.is_empty() => error.message.trim().to_owned(),
            _ => match String::from_utf8_lossy(&body).trim() {
                "" => format!(
                    "request returned {} for API route and version {}, \
                     check if the server supports the requested API version",
                    self.status, self.action.url
                ),
                text => text.to_owned(),
            },
        };
        Err(Error::Daemon {
            status: self.status,
            message,
        })
    }
}

impl Response {
    pub(crate) fn of(parts: http::response::Parts, body: Incoming, action: Action) -> Self {
        Self {
            status: parts.status,
            headers: parts.headers,
            body,
            action,
            connection: None,
        }
    }
}

/// The older of ours and the daemon's; daemons that do not say are older than all.
fn negotiate(theirs: &str) -> String {
    match theirs {
        "" => MIN_VERSION.to_owned(),
        theirs if is_older(theirs, MAX_VERSION) => theirs.to_owned(),
        _ => MAX_VERSION.to_owned(),
    }
}

/// Compares versions of the form `1.24`.
pub fn is_older(one: &str, other: &str) -> bool {
    let parts = |text: &str| -> Vec<u32> {
        text.split('.')
            .map(|part| part.parse().unwrap_or(0))
            .collect()
    };
    parts(one) < parts(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_version_is_spoken() {
        assert_eq!(negotiate(""), "1.24");
        assert_eq!(negotiate("1.41"), "1.41");
        assert_eq!(negotiate("1.99"), MAX_VERSION);
        assert!(is_older("1.9", "1.24"));
        assert!(!is_older("1.24", "1.24"));
    }
}
