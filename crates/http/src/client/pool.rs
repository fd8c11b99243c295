//! Kept connections by server, and the body that gives its connection back when it ends.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Uri;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;

use crate::body::{Body, BoxError};
use crate::error::Error;

/// A server, as far as connections to it are interchangeable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub secure: bool,
    pub host: String,
    pub port: u16,
}

impl Key {
    /// The server of an absolute URI.
    pub fn of(uri: &Uri) -> Result<Self, Error> {
        let bad = |reason| Error::Uri {
            uri: uri.to_string(),
            reason,
        };
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(bad("unsupported protocol scheme")),
            None => return Err(bad("no scheme")),
        };
        let host = uri.host().filter(|host| !host.is_empty());
        Ok(Self {
            secure,
            host: host.ok_or_else(|| bad("no host"))?.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
        })
    }

    /// The one server of a client that has only one.
    pub fn only() -> Self {
        Self {
            secure: false,
            host: "localhost".to_owned(),
            port: 0,
        }
    }
}

/// Idle connections.
pub(super) struct Pool {
    idle: Mutex<HashMap<Key, Vec<Idle>>>,
    timeout: Duration,
    per_host: usize,
}

struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

impl Pool {
    pub fn new(timeout: Duration, per_host: usize) -> Self {
        Self {
            idle: Mutex::default(),
            timeout,
            per_host,
        }
    }

    /// The connection to `key` that was used last, if one is still good.
    pub fn take(&self, key: &Key, now: Instant) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(key)?;
        self.prune(kept, now);
        kept.pop().map(|idle| idle.sender)
    }

    /// Keeps a connection whose response has been read to its end.
    fn put(&self, key: Key, sender: SendRequest<Body>, now: Instant) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, kept| {
            self.prune(kept, now);
            !kept.is_empty()
        });
        let kept = idle.entry(key).or_default();
        if kept.len() < self.per_host {
            kept.push(Idle { sender, since: now });
        }
    }

    fn prune(&self, kept: &mut Vec<Idle>, now: Instant) {
        kept.retain(|idle| {
            !idle.sender.is_closed() && now.duration_since(idle.since) < self.timeout
        });
    }
}

/// A response's body that gives the connection back at its end; dropped earlier, it closes it.
pub(super) fn returning(
    body: Incoming,
    sender: SendRequest<Body>,
    pool: Arc<Pool>,
    key: Key,
) -> Body {
    let mut returning = Returning {
        body,
        home: Some((sender, pool, key)),
    };
    if returning.body.is_end_stream() {
        returning.give_back();
    }
    returning.boxed_unsync()
}

struct Returning {
    body: Incoming,
    home: Option<(SendRequest<Body>, Arc<Pool>, Key)>,
}

impl Returning {
    fn give_back(&mut self) {
        if let Some((sender, pool, key)) = self.home.take() {
            pool.put(key, sender, Instant::now());
        }
    }
}

impl hyper::body::Body for Returning {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || (matches!(frame, Some(Ok(_))) && self.body.is_end_stream()) {
            self.give_back();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
