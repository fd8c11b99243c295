//! A client that has closed its side, and waits for its answer.
//!
//! hyper gives a request up as soon as the client's side has ended, or, with `half_close`, never: then
//! one that is gone could not be told from one that only has nothing more to ask, as `docker system
//! dial-stdio` has at its input's end. So while an answer is being made the end is passed on later.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::stream::Stream;

/// How long an answer may take for a client whose side has ended.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Patient {
    inner: Stream,
    /// An answer is being made.
    answering: Arc<AtomicBool>,
    /// Since the end was seen.
    patience: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    pub fn new(inner: Stream, answering: Arc<AtomicBool>) -> Self {
        Self {
            inner,
            answering,
            patience: None,
        }
    }

    /// The stream, which tells its end again.
    pub fn into_inner(self) -> Stream {
        self.inner
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        let is_end = matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before;
        if !is_end || !this.answering.load(Ordering::Acquire) {
            return read;
        }
        let patience = this
            .patience
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        patience.as_mut().poll(cx).map(Ok)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
