//! Message bodies: one boxed type for servers and clients, and the ways to make one.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// What a body can fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's or response's body, whatever makes it.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The writing end of [`channel`].
///
/// Dropping it ends the body normally; [`Sender::fail`] breaks the message off, so that the peer
/// sees that it is not whole.
#[derive(Debug, Clone)]
pub struct Sender(mpsc::Sender<Result<Bytes, BoxError>>);

/// The reader of the body has gone: nobody will see what is still sent.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the body has gone")]
pub struct Gone;

impl Sender {
    /// Sends one chunk, waiting while the queue is full.
    pub async fn send(&self, chunk: impl Into<Bytes>) -> Result<(), Gone> {
        self.0.send(Ok(chunk.into())).await.map_err(|_| Gone)
    }

    /// Sends one chunk from a thread outside the runtime, waiting while the queue is full.
    pub fn blocking_send(&self, chunk: impl Into<Bytes>) -> Result<(), Gone> {
        self.0.blocking_send(Ok(chunk.into())).map_err(|_| Gone)
    }

    /// Breaks the message off with `error`.
    pub async fn fail(self, error: impl Into<BoxError>) {
        // A reader that has gone does not need to learn of the failure.
        drop(self.0.send(Err(error.into())).await);
    }

    /// Waits until the reader has gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// A body without content.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is all here.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that is fed chunk by chunk; at most `capacity` chunks wait for the reader.
pub fn channel(capacity: usize) -> (Sender, Body) {
    let (sender, receiver) = mpsc::channel(capacity);
    (Sender(sender), Channel(receiver).boxed_unsync())
}

/// A body of the items of `stream`.
pub fn stream<S, E>(stream: S) -> Body
where
    S: futures_util::Stream<Item = Result<Bytes, E>> + Send + 'static,
    E: Into<BoxError> + 'static,
{
    use futures_util::TryStreamExt;
    let frames = stream.map_ok(Frame::data).map_err(Into::into);
    http_body_util::StreamBody::new(frames).boxed_unsync()
}

/// Any body in the one boxed type.
pub fn boxed<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// Why a body could not be read whole.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    #[error("the body broke off")]
    Broken(#[source] BoxError),
}

/// What can be read as a body: ours, hyper's incoming one, and references to them.
///
/// A bound `Error: Into<BoxError>` would be shorter, but the compiler then takes no future that
/// reads our own body for `Send`.
pub trait Source: Unpin {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>;
}

impl Source for Body {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        hyper::body::Body::poll_frame(Pin::new(self), cx)
    }
}

impl Source for hyper::body::Incoming {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        hyper::body::Body::poll_frame(Pin::new(self), cx)
            .map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }
}

impl<S: Source> Source for &mut S {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        (**self).poll_next(cx)
    }
}

/// The next piece of a body's data; `None` at its end. Trailers are passed over. Cancel safe.
pub async fn next(body: &mut impl Source) -> Option<Result<Bytes, BoxError>> {
    loop {
        match std::future::poll_fn(|cx| body.poll_next(cx)).await? {
            Ok(frame) => match frame.into_data() {
                Ok(data) => return Some(Ok(data)),
                Err(_trailers) => {}
            },
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Reads a whole body of at most `limit` bytes.
pub async fn read(mut body: impl Source, limit: usize) -> Result<Bytes, ReadError> {
    let mut first = Bytes::new();
    let mut rest = bytes::BytesMut::new();
    while let Some(data) = next(&mut body).await {
        let data = data.map_err(ReadError::Broken)?;
        if data.len() > limit - first.len() - rest.len() {
            return Err(ReadError::TooLong(limit));
        }
        // Most bodies come in one piece, which needs no copy.
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    if rest.is_empty() {
        return Ok(first);
    }
    let mut whole = bytes::BytesMut::with_capacity(first.len() + rest.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&rest);
    Ok(whole.freeze())
}

/// How much of a body that nobody wants is read to keep its connection, and for how long.
const DISCARD_LIMIT_BYTES: usize = 64 << 10;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads the rest of a body that nobody wants, so that its connection can be used again; a long or
/// slow one is left, which closes the connection.
pub async fn discard(body: impl Source) {
    // How it ends makes no difference.
    drop(tokio::time::timeout(DISCARD_TIMEOUT, read(body, DISCARD_LIMIT_BYTES)).await);
}

struct Channel(mpsc::Receiver<Result<Bytes, BoxError>>);

impl hyper::body::Body for Channel {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0
            .poll_recv(cx)
            .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
