//! What can go wrong between a caller and a daemon, in the words that docker's users know.

use http::StatusCode;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error("Cannot connect to the Docker daemon at {host}. Is the docker daemon running?")]
    Unreachable {
        host: String,
        source: std::io::Error,
    },
    #[error("permission denied while trying to connect to the docker API at {host}")]
    Denied {
        host: String,
        source: std::io::Error,
    },
    /// The address is none.
    #[error("{0}")]
    Host(#[from] crate::host::InvalidHost),
    /// The daemon refused.
    #[error("Error response from daemon: {message}")]
    Daemon { status: StatusCode, message: String },
    /// The connection broke, or what came over it is no HTTP.
    #[error("error during connect: {action}")]
    Transport {
        action: String,
        source: hyper::Error,
    },
    /// The program that was the connection failed.
    #[error("error during connect: {action}: {verdict}")]
    Tunnel { action: String, verdict: String },
    #[error("error during connect: {action}")]
    Io {
        action: String,
        source: std::io::Error,
    },
    /// One side does not believe the other.
    #[error("error during connect: {action}: {words}")]
    Tls { action: String, words: String },
    /// The certificates or keys that the caller gave are unusable.
    #[error("error during connect")]
    TlsSetup(#[from] berth_http::tls::Error),
    #[error("error during connect: {action}")]
    Handshake {
        action: String,
        source: berth_http::Error,
    },
    /// The daemon's answer has another shape than the API says.
    #[error("decode the daemon's answer to {action}")]
    Decode {
        action: String,
        source: serde_json::Error,
    },
    #[error("encode the request")]
    Encode(#[source] serde_json::Error),
    #[error("encode the request")]
    Request(#[from] http::Error),
    /// The daemon answered, but not with the stream that was asked for.
    #[error("unable to upgrade to {protocol}, received {status}")]
    Upgrade { protocol: String, status: u16 },
}

impl Error {
    /// The status with which the daemon refused.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Daemon { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// The daemon's words without the prefix, for those callers that add their own.
    pub fn daemon_message(&self) -> Option<&str> {
        match self {
            Self::Daemon { message, .. } => Some(message),
            _ => None,
        }
    }
}
