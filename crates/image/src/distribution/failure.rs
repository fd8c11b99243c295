//! What a pull can fail with, and the one place that says it in Docker's words.
//!
//! Docker's users know the texts of Go's libraries (`dial tcp 10.0.0.1:443: connect: connection
//! refused`), and search for them: transport errors are spelt so.

use std::io;

use berth_http::resolve;
use berth_oci::{Digest, Platform, Reference};

use super::refusal::{Code, Refusal};

/// A failed pull. Its text is what Docker's daemon says.
#[derive(Debug, thiserror::Error)]
#[error("{}", sentence(reference, failure))]
pub struct Error {
    pub reference: Box<Reference>,
    pub failure: Failure,
}

/// What failed, without saying for which image.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A request came to no answer, or was not even sent.
    #[error("{method} \"{uri}\": {cause}")]
    Request {
        /// As Go spells it: `Get`, `Head`, `Post`.
        method: &'static str,
        uri: String,
        cause: Box<Cause>,
    },
    /// The registry refused.
    #[error("{0}")]
    Refused(Refusal),
    /// An answer broke off, and going on where it ended did not help.
    #[error("{uri}: {cause}")]
    Broken { uri: String, cause: String },
    /// What came is not what was asked for.
    #[error("{what} verification failed for digest {digest}")]
    Verification { what: &'static str, digest: Digest },
    /// A blob has more or fewer bytes than its manifest says.
    #[error(
        "{what} verification failed for digest {digest}: the registry sends {actual} bytes where the manifest says {expected}"
    )]
    Size {
        what: &'static str,
        digest: Digest,
        expected: u64,
        actual: u64,
    },
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(Box<Platform>),
    #[error("its platform ({actual}) does not match the specified platform ({wanted})")]
    OtherPlatform {
        wanted: Box<Platform>,
        actual: Box<Platform>,
    },
    #[error("unsupported media type {0}")]
    NotAnImage(String),
    #[error("manifest is larger than {limit_bytes} bytes")]
    ManifestTooLarge { limit_bytes: u64 },
    #[error("invalid manifest: {0}")]
    Manifest(berth_oci::manifest::Error),
    #[error("invalid image configuration: {0}")]
    Config(String),
    /// The configuration of this host is unusable.
    #[error("{0}")]
    Setup(String),
    /// Storing or unpacking failed.
    #[error("{}", berth_base::Chain(.0))]
    Image(crate::Error),
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error("{}", transport(.0))]
    Transport(berth_http::Error),
    #[error("no basic auth credentials")]
    NoCredentials,
    /// The token server refused.
    #[error("{0}")]
    Token(Refusal),
    #[error("{0}")]
    Other(String),
    /// Asking the token server failed.
    #[error("{0}")]
    Nested(Box<Failure>),
}

impl Error {
    /// How a caller reacts.
    pub fn kind(&self) -> crate::Kind {
        match &self.failure {
            Failure::Refused(Refusal::Coded { code, .. }) => match code {
                Code::Denied | Code::ManifestUnknown | Code::NameUnknown => crate::Kind::NotFound,
                Code::Unauthorized | Code::TooManyRequests | Code::Other(_) => crate::Kind::Io,
            },
            Failure::NoPlatform(_) | Failure::OtherPlatform { .. } => crate::Kind::NotFound,
            Failure::NotAnImage(_) => crate::Kind::Invalid,
            Failure::Image(error) => error.kind(),
            _ => crate::Kind::Io,
        }
    }
}

impl Failure {
    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Request { cause, .. } => match cause.as_ref() {
                // A port that nobody listens on does not come to life within a pull.
                Cause::Transport(berth_http::Error::Dial { source, .. }) => {
                    source.kind() != io::ErrorKind::ConnectionRefused
                }
                Cause::Transport(error) => error.is_transient(),
                Cause::Nested(failure) => failure.is_transient(),
                Cause::NoCredentials | Cause::Token(_) | Cause::Other(_) => false,
            },
            Self::Refused(refusal) => refusal.is_transient(),
            Self::Broken { .. } => true,
            _ => false,
        }
    }

    /// Whether another endpoint of the same registry (plain HTTP) may do better: not once this
    /// one has answered, whatever it said, as in Docker.
    pub fn may_be_the_endpoints(&self) -> bool {
        matches!(self, Self::Request { cause, .. } if matches!(**cause, Cause::Transport(_)))
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Self::Image(error)
    }
}

fn sentence(reference: &Reference, failure: &Failure) -> String {
    match failure {
        Failure::Refused(refusal @ Refusal::Coded { code, .. }) => match code {
            Code::Denied => format!(
                "pull access denied for {}, repository does not exist or may require 'docker login': {refusal}",
                reference.familiar_name()
            ),
            Code::ManifestUnknown => {
                format!("manifest for {} not found: {refusal}", reference.familiar())
            }
            Code::NameUnknown => {
                format!(
                    "repository {} not found: {refusal}",
                    reference.familiar_name()
                )
            }
            Code::Unauthorized | Code::TooManyRequests | Code::Other(_) => refusal.to_string(),
        },
        Failure::OtherPlatform { .. } => format!(
            "image with reference {} was found but {failure}",
            reference.familiar()
        ),
        other => other.to_string(),
    }
}

/// A transport error as Go's net/http spells it.
fn transport(error: &berth_http::Error) -> String {
    use berth_http::Error as E;
    match error {
        E::Lookup { host, source } => match source {
            resolve::Error::NotFound { server } => {
                format!("dial tcp: lookup {host} on {server}: no such host")
            }
            resolve::Error::Unanswered { server, .. } => {
                format!("dial tcp: lookup {host} on {server}: server misbehaving")
            }
            resolve::Error::Configuration(_) => format!("dial tcp: lookup {host}: no such host"),
        },
        E::Dial {
            network,
            address,
            source,
        } if source.kind() == io::ErrorKind::TimedOut => {
            format!("dial {network} {address}: i/o timeout")
        }
        E::Dial {
            network,
            address,
            source,
        } => {
            format!("dial {network} {address}: connect: {}", errno_words(source))
        }
        E::Tls { source, .. } => berth_http::tls::words(source),
        E::TlsBroken { source, .. } => match source.kind() {
            io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
            _ => format!("read: {}", errno_words(source)),
        },
        E::NotTls { .. } => "http: server gave HTTP response to HTTPS client".to_owned(),
        E::TlsSetup(error) => berth_base::Chain(error).to_string(),
        E::Proxy { status, .. } => status
            .canonical_reason()
            .unwrap_or("proxy error")
            .to_owned(),
        E::Http { source, .. } => http_words(source),
        E::Timeout {
            what: "TLS handshake",
            ..
        } => "net/http: TLS handshake timeout".to_owned(),
        E::Timeout { .. } => "net/http: timeout awaiting response headers".to_owned(),
        E::Uri { uri, reason } => format!("{reason} in {uri:?}"),
        E::Redirects(limit) => format!("stopped after {limit} redirects"),
    }
}

fn http_words(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    if error.is_parse() {
        return "net/http: HTTP/1.x transport connection broken: malformed HTTP response"
            .to_owned();
    }
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        if let Some(error) = source.downcast_ref::<io::Error>() {
            return format!("read: {}", errno_words(error));
        }
        next = source.source();
    }
    error.to_string()
}

/// The text of an errno in Go's spelling: the C library's, beginning in lower case.
fn errno_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_ascii_lowercase().to_string() + characters.as_str(),
        None => String::new(),
    }
}
