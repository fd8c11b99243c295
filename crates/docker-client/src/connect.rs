//! Dialing a daemon: Unix sockets, TCP, TLS, and the standard streams of `ssh`.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use berth_http as http;
use berth_http::connect::Connector;
use berth_http::tls::{Identity, Trust};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::{Error, Host};

/// A connected byte stream to a daemon.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(crate) type Stream = Box<dyn Io>;

/// Whom to believe and who we are, as files in PEM.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Believe any certificate.
    pub skip_verify: bool,
}

pub(crate) async fn dial(host: &Host, tls: Option<&Tls>) -> Result<Stream, Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => Error::Denied {
            host: host.to_string(),
            source,
        },
        _ => Error::Unreachable {
            host: host.to_string(),
            source,
        },
    };
    match host {
        Host::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(failed)?;
            Ok(Box::new(stream))
        }
        Host::Tcp { authority, .. } => {
            let (name, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
            let port = port.parse().map_err(|_| {
                crate::host::InvalidHost(format!("invalid bind address format: {host}"))
            })?;
            let connector = Connector::default();
            let name = name.trim_start_matches('[').trim_end_matches(']');
            let stream = connector
                .tcp(name, port)
                .await
                .map_err(|error| match error {
                    http::Error::Dial { source, .. } => failed(source),
                    other => failed(io::Error::other(other)),
                })?;
            let Some(tls) = tls else {
                return Ok(Box::new(stream));
            };
            let config = http::tls::client_config(&tls.load()?).map_err(bad_tls)?;
            let stream = connector.tls(stream, name, config).await;
            Ok(Box::new(stream.map_err(Error::Tls)?))
        }
        Host::Ssh {
            user,
            host: name,
            port,
            socket,
        } => {
            let mut command = Command::new("ssh");
            if let Some(user) = user {
                command.arg("-l").arg(user);
            }
            if let Some(port) = port {
                command.arg("-p").arg(port.to_string());
            }
            command.args(["-o", "ConnectTimeout=30", "-T", "--", name, "docker"]);
            if let Some(socket) = socket {
                command.args(["--host", &format!("unix://{socket}")]);
            }
            command.args(["system", "dial-stdio"]);
            let child = Tunnel::start(command).map_err(failed)?;
            Ok(Box::new(child))
        }
    }
}

impl Tls {
    /// Reads the files. A client that names its authority believes no other.
    fn load(&self) -> Result<http::tls::Config, Error> {
        let mut config = http::tls::Config::default();
        if let Some(ca) = &self.ca {
            config.roots = http::tls::read_certificates(ca).map_err(bad_tls)?;
            config.trust = Trust::RootsOnly;
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            let identity = Identity::from_pem_files(cert, key).map_err(bad_tls)?;
            config.identity = Some(Arc::new(identity));
        }
        if self.skip_verify {
            config.trust = Trust::Anyone;
        }
        Ok(config)
    }
}

fn bad_tls(error: http::tls::Error) -> Error {
    Error::Tls(error.into())
}

/// A child process whose standard streams are the connection. It ends when this is dropped.
struct Tunnel {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    _child: Child,
}

impl Tunnel {
    fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        Ok(Self {
            stdin: Some(child.stdin.take().ok_or_else(closed)?),
            stdout: child.stdout.take().ok_or_else(closed)?,
            _child: child,
        })
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Closes the child's stdin, which is how the far end learns that no more will come.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}
