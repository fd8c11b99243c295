//! What goes wrong with images, in the words that Docker's users know.

use std::io;

use berth_oci::Digest;

/// How a caller reacts: which HTTP status, whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    NotFound,
    Conflict,
    /// What was given is broken: a name, an archive, a manifest.
    Invalid,
    Io,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Invalid(String),
    /// An archive that cannot be read, in the words of Go's `archive/tar`.
    #[error("{what}")]
    Archive {
        what: String,
        #[source]
        source: Option<io::Error>,
    },
    #[error("invalid manifest {digest}")]
    Manifest {
        digest: Digest,
        #[source]
        source: berth_oci::manifest::Error,
    },
    #[error("invalid image configuration {digest}")]
    Config {
        digest: Digest,
        #[source]
        source: serde_json::Error,
    },
    #[error("{what} does not match its digest: expected {expected}, got {actual}")]
    Digest {
        what: &'static str,
        expected: Digest,
        actual: Digest,
    },
    #[error("{what} {digest} has {actual} bytes where {expected} were announced")]
    Size {
        what: &'static str,
        digest: Digest,
        expected: u64,
        actual: u64,
    },
    #[error("failed to unpack layer {layer}")]
    Layer {
        layer: String,
        #[source]
        source: crate::unpack::Error,
    },
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("record of image {name}")]
    Store {
        name: String,
        #[source]
        source: berth_store::Error,
    },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound(_) => Kind::NotFound,
            Self::Conflict(_) => Kind::Conflict,
            Self::Invalid(_)
            | Self::Archive { .. }
            | Self::Manifest { .. }
            | Self::Config { .. }
            | Self::Digest { .. }
            | Self::Size { .. } => Kind::Invalid,
            Self::Layer { source, .. } if source.is_input() => Kind::Invalid,
            Self::Layer { .. } | Self::Io { .. } | Self::Store { .. } => Kind::Io,
        }
    }
}

impl From<crate::tar::Error> for Error {
    fn from(error: crate::tar::Error) -> Self {
        let what = error.to_string();
        let source = match error {
            crate::tar::Error::Read(source) => Some(source),
            _ => None,
        };
        Self::Archive { what, source }
    }
}

/// Adds what was tried to an I/O error.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            what: what(),
            source: source.into(),
        })
    }
}
