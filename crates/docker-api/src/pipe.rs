//! Between bodies and code that blocks: archives are read and written by threads.

use std::io::{self, Read, Write};

use berth_http::body::{BoxError, Sender};
use berth_tasks::Scope;
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot};

/// How many chunks of a request's body may wait for the thread that reads them.
const QUEUED_CHUNKS: usize = 16;
/// How much is written into one chunk of an answer.
const CHUNK_BYTES: usize = 256 << 10;

/// A request's body as a blocking reader. Ends with an error if the client breaks off.
pub struct Reader {
    chunks: mpsc::Receiver<Result<Bytes, BoxError>>,
    current: Bytes,
}

impl Reader {
    /// Starts to receive; what nobody reads any more is not received any further.
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

/// A blocking writer of an answer's body. What is left at the end needs a flush.
pub struct Writer {
    body: Sender,
    buffer: BytesMut,
    /// Told before the first chunk.
    started: Option<oneshot::Sender<()>>,
}

impl Writer {
    pub fn new(body: Sender, started: oneshot::Sender<()>) -> Self {
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
