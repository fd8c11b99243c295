//! A small HTTP/1.1 client: pooled connections, TLS, proxies, redirects, upgrades.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use berth_tasks::Scope;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;

use crate::body::Body;
use crate::connect::Connector;
use crate::error::Error;
use crate::proxy::Proxies;
use crate::stream::Stream;
use crate::tls;

mod pool;
mod redirect;

pub use redirect::FinalUri;

use pool::{Key, Pool};

/// How long a request that goes out on a kept connection waits for it to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// How a client reaches its servers.
#[derive(Clone)]
pub struct Config {
    /// The way to the server.
    pub via: Via,
    /// Trust and identity for `https`.
    pub tls: tls::Config,
    /// Proxies for the network; unix sockets never go through one.
    pub proxies: Proxies,
    /// Dials TCP and TLS.
    pub connector: Connector,
    /// How long a server may take to begin its answer; no limit for requests that wait for events.
    pub header_timeout: Option<Duration>,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How many idle connections are kept a host.
    pub idle_per_host: usize,
}

/// What dials on a caller's behalf.
pub type Dial =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>> + Send + Sync>;

/// The way to the server.
#[derive(Clone)]
pub enum Via {
    /// By the host and port of each request's URI.
    Network,
    /// Every request goes to this socket; the URI's host is only a header.
    Unix(PathBuf),
    /// Every request goes over streams that the caller makes (ssh).
    Dial(Dial),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            via: Via::Network,
            tls: tls::Config::default(),
            proxies: Proxies::default(),
            connector: Connector::default(),
            header_timeout: None,
            idle_timeout: Duration::from_secs(60),
            idle_per_host: 8,
        }
    }
}

/// A client. Clones share the pool.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    config: Config,
    scope: Scope,
    pool: Arc<Pool>,
    tls: OnceLock<Arc<ClientConfig>>,
}

/// Where a request goes.
struct Route {
    key: Key,
    /// The proxy, and whether requests are addressed to it (plain HTTP) rather than tunnelled.
    proxy: Option<Uri>,
}

impl Client {
    /// A client whose connections are driven by tasks of `scope`; they end with it.
    pub fn new(config: Config, scope: &Scope) -> Self {
        let pool = Pool::new(config.idle_timeout, config.idle_per_host);
        Self(Arc::new(Shared {
            config,
            scope: scope.clone(),
            pool: Arc::new(pool),
            tls: OnceLock::new(),
        }))
    }

    /// A client for a server on a unix socket.
    pub fn unix(path: impl Into<PathBuf>, scope: &Scope) -> Self {
        let config = Config {
            via: Via::Unix(path.into()),
            ..Config::default()
        };
        Self::new(config, scope)
    }

    /// Sends one request, and returns when the head of the response is here.
    ///
    /// The URI is absolute (`http://host/path`), also for unix sockets. A request that a kept
    /// connection lost before anything of it was written is sent again on a new one. Redirects are
    /// not followed. For an upgrade, see [`crate::upgrade::from_response`].
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Error> {
        let route = self.route(request.uri())?;
        let mut request = address(request, &route)?;
        if let Some(sender) = self.kept(&route.key).await {
            match self.exchange(sender, request, &route.key).await {
                Ok(response) => return Ok(response),
                Err(Lost::Unsent(unsent, _)) => request = *unsent,
                Err(Lost::Failed(error)) => return Err(error),
            }
        }
        let (sender, driver) = self.open(&route).await?;
        match self.exchange(sender, request, &route.key).await {
            Ok(response) => Ok(response),
            Err(Lost::Failed(error)) => Err(error),
            // The connection ended before the request went out.
            Err(Lost::Unsent(_, source)) => Err(match driver.await {
                Ok(Some(Some(better))) if tls::behind(&source).is_none() => {
                    broken(&route.key.host, better)
                }
                _ => broken(&route.key.host, source),
            }),
        }
    }

    /// A kept connection that is ready for a request.
    async fn kept(&self, key: &Key) -> Option<SendRequest<Body>> {
        while let Some(mut sender) = self.0.pool.take(key, Instant::now()) {
            let ready = tokio::time::timeout(READY_TIMEOUT, sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                return Some(sender);
            }
        }
        None
    }

    async fn exchange(
        &self,
        mut sender: SendRequest<Body>,
        request: Request<Body>,
        key: &Key,
    ) -> Result<Response<Body>, Lost> {
        let answer = sender.try_send_request(request);
        let answer = match self.0.config.header_timeout {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| {
                Lost::Failed(Error::Timeout {
                    what: "the answer",
                    limit,
                })
            })?,
        };
        match answer {
            Ok(response) => {
                let pool = Arc::clone(&self.0.pool);
                Ok(response.map(|body| pool::returning(body, sender, pool, key.clone())))
            }
            Err(mut error) => Err(match error.take_message() {
                Some(request) => Lost::Unsent(Box::new(request), error.into_error()),
                None => Lost::Failed(broken(&key.host, error.into_error())),
            }),
        }
    }

    fn route(&self, uri: &Uri) -> Result<Route, Error> {
        let key = match self.0.config.via {
            Via::Network => Key::of(uri)?,
            Via::Unix(_) | Via::Dial(_) => Key::only(),
        };
        let proxy = match self.0.config.via {
            Via::Network => self
                .0
                .config
                .proxies
                .pick(key.secure, &key.host, key.port)
                .cloned(),
            Via::Unix(_) | Via::Dial(_) => None,
        };
        Ok(Route { key, proxy })
    }

    async fn open(&self, route: &Route) -> Result<(SendRequest<Body>, Driver), Error> {
        let stream = match &self.0.config.via {
            Via::Unix(path) => crate::connect::unix(path).await?,
            Via::Dial(dial) => dial().await.map_err(|source| Error::Dial {
                network: "tcp",
                address: "ssh".to_owned(),
                source,
            })?,
            Via::Network => self.dial(route).await?,
        };
        self.handshake(stream, &route.key.host).await
    }

    /// A stream on which requests of `route` can be written.
    async fn dial(&self, route: &Route) -> Result<Stream, Error> {
        let key = &route.key;
        let connector = &self.0.config.connector;
        let stream = match &route.proxy {
            None => connector.tcp(&key.host, key.port).await?,
            Some(proxy) => {
                let near = Key::of(proxy)?;
                let mut stream = connector.tcp(&near.host, near.port).await?;
                if near.secure {
                    stream = connector.tls(stream, &near.host, self.tls()?).await?;
                }
                if !key.secure {
                    return Ok(stream);
                }
                self.tunnel(stream, proxy, key).await?
            }
        };
        if key.secure {
            connector.tls(stream, &key.host, self.tls()?).await
        } else {
            Ok(stream)
        }
    }

    /// Asks a proxy to connect through to the server (RFC 9110 section 9.3.6).
    async fn tunnel(&self, stream: Stream, proxy: &Uri, key: &Key) -> Result<Stream, Error> {
        let target = format!("{}:{}", key.host, key.port);
        let mut request = Request::new(crate::body::empty());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = parse_uri(&target)?;
        let host = HeaderValue::from_str(&target).map_err(|_| bad_uri(&target, "bad host"))?;
        request.headers_mut().insert(header::HOST, host);
        if let Some(value) = proxy_authorization(proxy) {
            request
                .headers_mut()
                .insert(header::PROXY_AUTHORIZATION, value);
        }
        let name = crate::proxy::without_credentials(proxy);
        let failed = |source| Error::Http {
            host: name.clone(),
            source,
        };
        let (mut sender, _) = self.handshake(stream, &name).await?;
        // The proxy dials meanwhile, and may be as patient about that as it likes.
        let limit = self.0.config.connector.connect_timeout;
        let answer = tokio::time::timeout(limit, sender.send_request(request)).await;
        let answer = answer.map_err(|_| Error::Timeout {
            what: "the proxy's answer",
            limit,
        })?;
        let mut response = answer.map_err(failed)?;
        if !response.status().is_success() {
            return Err(Error::Proxy {
                proxy: name,
                status: response.status(),
            });
        }
        let through = crate::upgrade::from_response(&mut response)
            .await
            .map_err(failed)?;
        let (stream, buffered) = through.into_parts();
        if buffered.is_empty() {
            return Ok(stream);
        }
        Ok(Stream::other(crate::upgrade::Connection::new(
            stream, buffered,
        )))
    }

    /// Begins HTTP on a stream and starts the task that drives it.
    async fn handshake(
        &self,
        stream: Stream,
        host: &str,
    ) -> Result<(SendRequest<Body>, Driver), Error> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|source| Error::Http {
                    host: host.to_owned(),
                    source,
                })?;
        let shutdown = self.0.scope.shutdown();
        let driver = self.0.scope.spawn("http connection", async move {
            tokio::select! {
                () = shutdown.requested() => None,
                result = connection.with_upgrades() => result.err(),
            }
        });
        Ok((sender, driver))
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, Error> {
        if let Some(config) = self.0.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = tls::client_config(&self.0.config.tls)?;
        Ok(Arc::clone(self.0.tls.get_or_init(|| config)))
    }
}

/// The task that drives a connection, and how that ended.
type Driver = tokio::task::JoinHandle<Option<Option<hyper::Error>>>;

/// The error of a broken exchange. In TLS 1.3 a server refuses a client's certificate only after
/// the handshake, so that looks like one.
fn broken(host: &str, source: hyper::Error) -> Error {
    let host = host.to_owned();
    match tls::behind(&source) {
        Some(inner) => Error::Tls {
            source: Box::new(inner.clone()),
            host,
        },
        None => Error::Http { host, source },
    }
}

/// A request that got no response.
enum Lost {
    /// Nothing of it went out: it may be sent again.
    Unsent(Box<Request<Body>>, hyper::Error),
    Failed(Error),
}

/// Puts the request's target into the form that the other end expects, with a `Host` header.
fn address(mut request: Request<Body>, route: &Route) -> Result<Request<Body>, Error> {
    let uri = request.uri().clone();
    if !request.headers().contains_key(header::HOST) {
        let authority = uri.authority().map_or("localhost", |a| a.as_str());
        let host = authority.rsplit('@').next().unwrap_or(authority);
        let value = HeaderValue::from_str(host).map_err(|_| bad_uri(host, "bad host"))?;
        request.headers_mut().insert(header::HOST, value);
    }
    match &route.proxy {
        // A proxy for plain HTTP needs the absolute form (RFC 9112 section 3.2.2).
        Some(proxy) if !route.key.secure => {
            if let Some(value) = proxy_authorization(proxy) {
                request
                    .headers_mut()
                    .insert(header::PROXY_AUTHORIZATION, value);
            }
        }
        _ => {
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = parse_uri(path)?;
        }
    }
    Ok(request)
}

/// Basic credentials from the user part of a proxy's URI, where they are percent-encoded.
fn proxy_authorization(proxy: &Uri) -> Option<HeaderValue> {
    let (user, _) = proxy.authority()?.as_str().rsplit_once('@')?;
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let mut plain: Vec<u8> = percent_encoding::percent_decode_str(name).collect();
    plain.push(b':');
    plain.extend(percent_encoding::percent_decode_str(password));
    let encoded = base64::engine::general_purpose::STANDARD.encode(plain);
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn parse_uri(text: &str) -> Result<Uri, Error> {
    text.parse().map_err(|_| bad_uri(text, "not a URI"))
}

fn bad_uri(uri: &str, reason: &'static str) -> Error {
    Error::Uri {
        uri: uri.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_credentials_are_decoded_before_they_are_sent() {
        let check = |uri: &str, plain: &str| {
            let sent = proxy_authorization(&uri.parse().unwrap()).unwrap();
            let encoded = base64::engine::general_purpose::STANDARD.encode(plain);
            assert_eq!(sent, format!("Basic {encoded}"));
        };
        check("http://me:p%40ss@proxy:3128", "me:p@ss");
        check("http://me@proxy", "me:");
    }
}
