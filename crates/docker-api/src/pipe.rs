//! Between bodies and code that blocks: archives are read and written by threads.

use std::io::{self, Read, Write};
use std::time::Duration;

use berth_http::Body;
use berth_http::body::{self, BoxError, Sender};
use berth_tasks::Scope;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;
use crate::respond;

/// How many chunks of a request's body may wait for the thread that reads them.
const QUEUED_CHUNKS: usize = 16;
/// How much is written into one chunk of an answer.
const CHUNK_BYTES: usize = 256 << 10;

/// How much of a body that nobody reads any more is received still, and for how long: a client that
/// is cut off while it sends never sees the answer (as Go's servers do).
const DRAINED_BYTES: usize = 256 << 10;
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// A request's body as a blocking reader. Ends with an error if the client breaks off.
pub struct Reader {
    chunks: mpsc::Receiver<Result<Bytes, BoxError>>,
    current: Bytes,
}

impl Reader {
    /// Starts to receive.
    pub fn new(scope: &Scope, mut body: Incoming) -> Self {
        let (sender, chunks) = mpsc::channel(QUEUED_CHUNKS);
        scope.spawn("request body", async move {
            while let Some(frame) = body.frame().await {
                let chunk = match frame {
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => Ok(data),
                        // Trailers say nothing here.
                        Err(_) => continue,
                    },
                    Err(error) => Err(error.into()),
                };
                if sender.send(chunk).await.is_err() {
                    // In vain for a client that stops: then nothing is left to receive.
                    tokio::time::timeout(DRAIN_TIME, drain(&mut body))
                        .await
                        .ok();
                    return;
                }
            }
        });
        Self {
            chunks,
            current: Bytes::new(),
        }
    }
}

async fn drain(body: &mut Incoming) {
    let mut left = DRAINED_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error));
                }
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// The body that work writes, once it has begun to. What fails later breaks it off.
///
/// # Errors
/// Of work that fails before its first byte.
pub async fn written<F>(
    scope: &Scope,
    name: &'static str,
    work: impl FnOnce(Writer) -> F,
) -> Result<Body, Error>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (sender, body) = body::channel(respond::QUEUED_CHUNKS);
    let (started, mut first_bytes) = oneshot::channel();
    let (ended, result) = oneshot::channel();
    let failing = sender.clone();
    let work = work(Writer::new(sender, started));
    scope.spawn(name, async move {
        // Nobody takes the result any more after the first bytes.
        if let Err(Err(error)) = ended.send(work.await) {
            tracing::warn!(%error, "{name}: broken off");
            failing.fail(error).await;
        }
    });
    tokio::select! {
        biased;
        Ok(()) = &mut first_bytes => {}
        ended = result => if let Ok(Err(error)) = ended {
            return Err(error);
        },
    }
    Ok(body)
}

/// A blocking writer of an answer's body. What is left at the end needs a flush.
pub struct Writer {
    body: Sender,
    buffer: BytesMut,
    /// Told before the first chunk.
    started: Option<oneshot::Sender<()>>,
}

impl Writer {
    fn new(body: Sender, started: oneshot::Sender<()>) -> Self {
        Self {
            body,
            buffer: BytesMut::with_capacity(CHUNK_BYTES),
            started: Some(started),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if let Some(started) = self.started.take() {
            // Nobody waits for it any more if the client has gone.
            started.send(()).ok();
        }
        let chunk = self.buffer.split().freeze();
        self.body
            .blocking_send(chunk)
            .map_err(|gone| io::Error::new(io::ErrorKind::BrokenPipe, gone))
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            self.send()
        }
    }
}
