//! The serve loop: HTTP/1.1 on a listener, one supervised task a connection, and a drain.
//!
//! ```text
//! accepting --scope cancelled--> draining --idle or answered--> closed
//!                                    '------deadline------------> cut off
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_tasks::{Scope, Shutdown};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::sync::{Semaphore, oneshot};

use crate::Body;
use crate::listen::{Listener, Peer};
use crate::stream::Stream;
use crate::upgrade::{Connection, Takeover};

mod patience;

use patience::Patient;

/// How long to wait after `accept` failed, for instance for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The limits of one serve loop.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections served at a time; more wait in the backlog.
    pub connections: usize,
    /// How long a TLS handshake, and then a request's head, may take to arrive.
    pub header_timeout: Duration,
    /// How long requests may go on after the scope was cancelled.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            header_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(5),
        }
    }
}

/// Serves `listener` until `scope` is cancelled, and then until the connections have drained.
///
/// Each request reaches `service` with its [`Peer`] as an extension. The service's future is
/// dropped soon after the client has gone away before the answer: work that must be finished belongs into a
/// task. A response made by [`crate::upgrade::hijack`] takes the connection over.
///
/// Dropping the listener, at the end of the drain, removes a unix socket's file.
pub async fn serve<S, F>(listener: Listener, scope: Scope, limits: Limits, service: S)
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let connections = scope.child();
    let cut_off = Scope::new();
    let slots = Arc::new(Semaphore::new(limits.connections));
    let shutdown = scope.shutdown();
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, stream, peer) = tokio::select! {
            () = shutdown.requested() => break,
            (slot, accepted) = accepted => match accepted {
                Ok((stream, peer)) => (slot, stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            }
        };
        let task = Task {
            tls: listener.tls().cloned(),
            header_timeout: limits.header_timeout,
            drain: connections.shutdown(),
            cut_off: cut_off.shutdown(),
        };
        let service = service.clone();
        connections.spawn("connection", async move {
            task.run(stream, peer, service).await;
            drop(slot);
        });
    }
    if !connections.drain(limits.drain).await {
        tracing::debug!(connections = connections.len(), "cut off at the deadline");
        cut_off.cancel();
    }
}

/// What one connection's task needs to know.
struct Task {
    tls: Option<Arc<ServerConfig>>,
    header_timeout: Duration,
    drain: Shutdown,
    cut_off: Shutdown,
}

impl Task {
    async fn run<S, F>(self, stream: Stream, peer: Peer, service: S)
    where
        S: Fn(Request<Incoming>) -> F + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let cut_off = self.cut_off.clone();
        tokio::select! {
            () = cut_off.requested() => {}
            result = self.greet_and_exchange(stream, peer, service) => if let Err(error) = result {
                tracing::debug!(%error, ?peer, "a connection broke");
            }
        }
    }

    async fn greet_and_exchange<S, F>(
        self,
        stream: Stream,
        peer: Peer,
        service: S,
    ) -> io::Result<()>
    where
        S: Fn(Request<Incoming>) -> F + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let stream = match (stream, &self.tls) {
            (Stream::Tcp(stream), Some(config)) => {
                let config = Arc::clone(config);
                crate::tls::accept(stream, config, self.header_timeout).await?
            }
            (stream, _) => stream,
        };
        self.exchange(stream, peer, service).await
    }

    /// Serves requests until the connection ends or is taken over.
    async fn exchange<S, F>(self, stream: Stream, peer: Peer, service: S) -> io::Result<()>
    where
        S: Fn(Request<Incoming>) -> F + Send + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let (sender, mut takeover) = oneshot::channel();
        let sender = Arc::new(Mutex::new(Some(sender)));
        let answering = Arc::new(AtomicBool::new(false));
        let is_answering = Arc::clone(&answering);
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let answer = service(request);
            let sender = Arc::clone(&sender);
            let is_answering = Arc::clone(&is_answering);
            is_answering.store(true, Ordering::Release);
            async move {
                let mut response = answer.await;
                is_answering.store(false, Ordering::Release);
                if let Some(takeover) = crate::upgrade::requested(&mut response) {
                    // Answered by `Takeover::run`; this future ends with hyper's connection.
                    if let Some(sender) = take(&sender) {
                        drop(sender.send(takeover));
                    }
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            // As Go's servers print them: what people compare with, and what old scripts grep.
            .title_case_headers(true)
            .serve_connection(TokioIo::new(Patient::new(stream, answering)), service);
        let mut draining = false;
        let takeover: Takeover = loop {
            tokio::select! {
                biased;
                Ok(takeover) = &mut takeover => break takeover,
                result = &mut connection => return result.map_err(io::Error::other),
                () = self.drain.requested(), if !draining => {
                    draining = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        let parts = connection.into_parts();
        let raw = Connection::new(parts.io.into_inner().into_inner(), parts.read_buf);
        takeover.run(raw).await
    }
}

/// The way to ask for a takeover; only one request of a connection can ever use it.
fn take(sender: &Mutex<Option<oneshot::Sender<Takeover>>>) -> Option<oneshot::Sender<Takeover>> {
    sender.lock().ok()?.take()
}
