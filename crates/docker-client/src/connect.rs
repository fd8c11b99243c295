//! Dialing a daemon: Unix sockets, TCP, TLS, and the standard streams of `ssh`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use berth_http as http;
use berth_http::connect::Connector;
use berth_http::tls::{Identity, Trust};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use crate::client::Action;
use crate::{Error, Host};

mod tunnel;

pub(crate) use tunnel::Verdict;
use tunnel::{Target, Tunnel};

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

/// Connects, for the sake of `action`. Where `verdict` is set afterwards, the stream broke for that reason.
pub(crate) async fn dial(
    host: &Host,
    tls: Option<&Tls>,
    action: &Action,
    verdict: &Verdict,
) -> Result<Stream, Error> {
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
                crate::host::InvalidHost::Address(format!("invalid bind address format: {host}"))
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
            let config = http::tls::client_config(&tls.load()?)?;
            let stream = connector.tls(stream, name, config).await;
            Ok(Box::new(stream.map_err(|source| {
                let action = action.to_string();
                let words = match &source {
                    http::Error::NotTls { .. } => {
                        "http: server gave HTTP response to HTTPS client".to_owned()
                    }
                    _ => match http::tls::behind(&source) {
                        Some(error) => http::tls::words(error),
                        None => return Error::Handshake { action, source },
                    },
                };
                Error::Tls { action, words }
            })?))
        }
        Host::Ssh {
            user,
            host: name,
            port,
            socket,
        } => {
            let target = Target {
                user: user.as_deref(),
                host: name,
                port: *port,
                socket: socket.as_deref(),
            };
            let child = Tunnel::start(target, verdict).map_err(|source| Error::Io {
                action: "start ssh".to_owned(),
                source,
            })?;
            Ok(Box::new(child))
        }
    }
}

impl Tls {
    /// Reads the files. A client that names its authority believes no other.
    fn load(&self) -> Result<http::tls::Config, Error> {
        let mut config = http::tls::Config::default();
        if let Some(ca) = &self.ca {
            config.roots = http::tls::read_certificates(ca)?;
            config.trust = Trust::RootsOnly;
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            let identity = Identity::from_pem_files(cert, key)?;
            config.identity = Some(Arc::new(identity));
        }
        if self.skip_verify {
            config.trust = Trust::Anyone;
        }
        Ok(config)
    }
}
