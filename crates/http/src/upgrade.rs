//! Taking the raw connection over from HTTP: hijacks on the server, upgrades on the client.
//!
//! A server's handler returns [`hijack`]'s response. The serve loop then takes the connection
//! apart, writes the given head itself, and hands the raw connection to the handler's closure.
//! hyper's own upgrade was rejected for the server: it demands an `Upgrade` header and a 101, and
//! Docker's clients may hijack with neither (a plain `200` with a raw stream behind it).

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use berth_tasks::Scope;
use bytes::{Buf, Bytes};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;

use crate::Body;
use crate::stream::Stream;

/// A connection that has left HTTP: the stream, and what was already read from it.
///
/// Reading yields the bytes already read first.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    buffered: Bytes,
}

impl Connection {
    /// Wraps a stream of which `buffered` was already read.
    pub fn new(stream: Stream, buffered: Bytes) -> Self {
        Self { stream, buffered }
    }

    /// The stream, and the bytes that were already read from it and belong before it.
    pub fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.buffered)
    }

    /// A descriptor that is this connection: a connected stream socket in non-blocking mode.
    ///
    /// The socket itself when it is a bare one and nothing was read ahead, so that whoever gets it
    /// talks to the peer without this process. Otherwise one end of a socketpair, with a task in
    /// `scope` that copies both ways, passes half-closes on, and first delivers what was read ahead.
    pub fn into_fd(self, scope: &Scope) -> io::Result<OwnedFd> {
        let Self { stream, buffered } = self;
        let stream = if buffered.is_empty() {
            match stream.into_socket() {
                Ok(socket) => return socket,
                Err(stream) => stream,
            }
        } else {
            stream
        };
        let (near, far) = UnixStream::pair()?;
        let connection = Self { stream, buffered };
        scope.spawn("hijack proxy", copy_both_ways(connection, near));
        far.into_std().map(OwnedFd::from)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.buffered.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.buffered.len().min(buf.remaining());
        buf.put_slice(&self.buffered[..count]);
        self.buffered.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Server: the answer that takes the connection over.
///
/// `head` is written as it is (its status, reason phrase and headers, nothing added), then `then`
/// gets the connection. The request's body must have been read before: what follows it on the wire
/// belongs to the raw stream. `then` runs in the connection's task and holds up a drain until its
/// deadline; give a long exchange away (see [`Connection::into_fd`]) or spawn it.
///
/// Any status may be used; a handler needs no `Upgrade` header in the request.
pub fn hijack<F, Fut>(head: http::Response<()>, then: F) -> http::Response<Body>
where
    F: FnOnce(Connection) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let then: Then = Box::new(move |connection| Box::pin(then(connection)));
    let takeover = Takeover {
        head: render(&head),
        then,
    };
    let mut response = head.map(|()| crate::body::empty());
    response
        .extensions_mut()
        .insert(Slot(Arc::new(Mutex::new(Some(takeover)))));
    response
}

/// Server: like [`hijack`], but `then` gets the head's bytes too, and has to write them itself.
///
/// For whoever must arrange something between taking the connection and telling the client so;
/// it can still answer something else, a whole response with `Connection: close`.
pub fn hijack_before_head<F, Fut>(head: &http::Response<()>, then: F) -> http::Response<Body>
where
    F: FnOnce(Connection, Vec<u8>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let bytes = render(head);
    let then: Then = Box::new(move |connection| Box::pin(then(connection, bytes)));
    let takeover = Takeover {
        head: Vec::new(),
        then,
    };
    let mut response = http::Response::new(crate::body::empty());
    response
        .extensions_mut()
        .insert(Slot(Arc::new(Mutex::new(Some(takeover)))));
    response
}

/// Client: the raw connection behind a response with status 101 (or any other that upgrades).
pub async fn from_response<B>(
    response: &mut http::Response<B>,
) -> Result<Connection, hyper::Error> {
    let upgraded = hyper::upgrade::on(response).await?;
    Ok(match upgraded.downcast::<TokioIo<Stream>>() {
        Ok(parts) => Connection::new(parts.io.into_inner(), parts.read_buf),
        // Not one of our streams: still a stream.
        Err(upgraded) => Connection::new(Stream::other(TokioIo::new(upgraded)), Bytes::new()),
    })
}

type Then =
    Box<dyn FnOnce(Connection) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + 'static>;

/// A hijack that a handler asked for.
pub(crate) struct Takeover {
    head: Vec<u8>,
    then: Then,
}

impl Takeover {
    /// Writes the head and runs the handler's closure to its end.
    pub(crate) async fn run(self, mut connection: Connection) -> io::Result<()> {
        connection.stream.write_all(&self.head).await?;
        connection.stream.flush().await?;
        (self.then)(connection).await;
        Ok(())
    }
}

/// Carries the takeover in the extensions of a response, which must be `Clone`.
#[derive(Clone)]
struct Slot(Arc<Mutex<Option<Takeover>>>);

/// The takeover that `response` asks for.
pub(crate) fn requested(response: &mut http::Response<Body>) -> Option<Takeover> {
    let slot = response.extensions_mut().remove::<Slot>()?;
    slot.0.lock().ok()?.take()
}

/// The head as it goes over the wire, header names spelt as Go's servers spell them.
fn render(head: &http::Response<()>) -> Vec<u8> {
    let status = head.status();
    let reason = match head.extensions().get::<hyper::ext::ReasonPhrase>() {
        Some(phrase) => String::from_utf8_lossy(phrase.as_bytes()).into_owned(),
        None => status.canonical_reason().unwrap_or_default().to_owned(),
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(text, "HTTP/1.1 {} {reason}\r\n", status.as_u16());
    let mut bytes = text.into_bytes();
    for (name, value) in head.headers() {
        let mut start = true;
        for byte in name.as_str().bytes() {
            bytes.push(if start {
                byte.to_ascii_uppercase()
            } else {
                byte
            });
            start = byte == b'-';
        }
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Copies until both directions have ended; a broken peer ends it.
async fn copy_both_ways(mut connection: Connection, mut near: UnixStream) {
    if let Err(error) = tokio::io::copy_bidirectional(&mut connection, &mut near).await {
        tracing::debug!(%error, "a hijacked connection broke");
    }
}
