//! Connections that stop being HTTP: attach, exec and `dial-stdio`.

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client::Response;
use crate::connect;
use crate::{Client, Error, Request};

/// A raw stream in both directions. Shutting the writer down is the half close that tells a
/// container that its stdin has ended.
pub struct Hijacked {
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// What the daemon says about the stream: multiplexed frames, or a terminal's bytes.
    pub media_type: String,
}

impl Client {
    /// Sends a request that makes the connection the caller's own.
    pub async fn hijack(&self, request: Request) -> Result<Hijacked, Error> {
        let prefix = format!("/v{}", self.version().await?);
        let request = request
            .header(CONNECTION, HeaderValue::from_static("Upgrade"))
            .header(UPGRADE, HeaderValue::from_static("tcp"));
        let action = self.action(&prefix, &request);
        let mut sender = self.connect(&action).await?;
        let transport = |source| self.broken(&action, source);
        let request = self.assemble(&prefix, request)?;
        let mut answer = sender.send_request(request).await.map_err(transport)?;
        let status = answer.status();
        if status != http::StatusCode::SWITCHING_PROTOCOLS {
            let (parts, body) = answer.into_parts();
            Response::of(parts, body, action.clone()).refused().await?;
            return Err(Error::Upgrade {
                protocol: "tcp".into(),
                status: status.as_u16(),
            });
        }
        let media_type = answer
            .headers()
            .get(http::header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let upgraded = hyper::upgrade::on(&mut answer).await.map_err(transport)?;
        Ok(split(upgraded, media_type))
    }

    /// A raw connection to the daemon, with nothing sent on it.
    pub async fn dial(
        &self,
    ) -> Result<
        (
            impl AsyncRead + Unpin + use<>,
            impl AsyncWrite + Unpin + use<>,
        ),
        Error,
    > {
        let stream = self.stream(&self.action("", &Request::get("/"))).await?;
        Ok(tokio::io::split(stream))
    }
}

/// Takes hyper's wrapping off, so that bytes flow without it; keeps what it had read ahead.
fn split(upgraded: Upgraded, media_type: String) -> Hijacked {
    match upgraded.downcast::<TokioIo<connect::Stream>>() {
        Ok(parts) => {
            let (reader, writer) = tokio::io::split(parts.io.into_inner());
            Hijacked {
                reader: Box::new(ReadAhead::new(parts.read_buf, reader)),
                writer: Box::new(writer),
                media_type,
            }
        }
        Err(upgraded) => {
            let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
            Hijacked {
                reader: Box::new(reader),
                writer: Box::new(writer),
                media_type,
            }
        }
    }
}

/// First the bytes that came with the head of the answer, then the stream.
struct ReadAhead<R> {
    bytes: Bytes,
    reader: R,
}

impl<R> ReadAhead<R> {
    fn new(bytes: Bytes, reader: R) -> Self {
        Self { bytes, reader }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for ReadAhead<R> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if self.bytes.is_empty() {
            return std::pin::Pin::new(&mut self.reader).poll_read(cx, buf);
        }
        let length = self.bytes.len().min(buf.remaining());
        buf.put_slice(&self.bytes.split_to(length));
        std::task::Poll::Ready(Ok(()))
    }
}
