//! What a client's exchange can fail with, in terms that callers can branch on.

use std::io;
use std::time::Duration;

/// A request that got no response.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has no address.
    #[error("look up {host}")]
    Lookup {
        host: String,
        source: crate::resolve::Error,
    },
    /// No connection came about.
    #[error("dial {network} {address}")]
    Dial {
        /// `tcp` or `unix`.
        network: &'static str,
        address: String,
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {host}")]
    Tls {
        host: String,
        source: Box<rustls::Error>,
    },
    /// The connection broke in the TLS handshake.
    #[error("TLS handshake with {host}")]
    TlsBroken { host: String, source: io::Error },
    /// The server speaks plain HTTP on a port where TLS was expected.
    #[error("{host} answered a TLS handshake with plain HTTP")]
    NotTls { host: String },
    /// Certificates or keys of the configuration are unusable.
    #[error("set up TLS")]
    TlsSetup(#[from] crate::tls::Error),
    /// The proxy refused.
    #[error("connect through the proxy {proxy}: {status}")]
    Proxy {
        proxy: String,
        status: http::StatusCode,
    },
    /// The exchange broke.
    #[error("exchange with {host}")]
    Http { host: String, source: hyper::Error },
    /// Something took longer than allowed.
    #[error("{what} took longer than {limit:?}")]
    Timeout { what: &'static str, limit: Duration },
    /// The URI cannot be requested.
    #[error("cannot request {uri}: {reason}")]
    Uri { uri: String, reason: &'static str },
    /// Redirected too often.
    #[error("stopped after {0} redirects")]
    Redirects(usize),
}

impl Error {
    /// Whether the same request may succeed when tried again a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Lookup { source, .. } => source.is_transient(),
            Self::Dial { .. }
            | Self::TlsBroken { .. }
            | Self::Http { .. }
            | Self::Timeout { .. } => true,
            Self::Tls { .. }
            | Self::NotTls { .. }
            | Self::TlsSetup(_)
            | Self::Proxy { .. }
            | Self::Uri { .. }
            | Self::Redirects(_) => false,
        }
    }
}
