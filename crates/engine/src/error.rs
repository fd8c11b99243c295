//! What the engine's callers are told when something cannot be done.
//!
//! The kind decides the status code on the wire (`docker-api` holds that table); the message is
//! the sentence that Docker's users know, complete with its cause.

use std::fmt;

use berth_base::Chain;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation was refused or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    NotFound,
    Conflict,
    Invalid,
    /// The object is already in the wanted state: 304, without a body.
    NotModified,
    Forbidden,
    Unavailable,
    NotImplemented,
    Internal,
}

/// A failed operation: its kind and the sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub fn not_modified(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotModified, message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An unexpected failure: what was tried, then the error with all its causes.
    pub fn failed(what: impl fmt::Display, cause: &(dyn std::error::Error + 'static)) -> Self {
        Self::internal(format!("{what}: {}", Chain(cause)))
    }

    /// The same failure, with what it interrupted named before it.
    #[must_use]
    pub fn while_doing(self, what: impl fmt::Display) -> Self {
        Self {
            kind: self.kind,
            message: format!("{what}: {}", self.message),
        }
    }

    pub(crate) fn no_such_container(reference: &str) -> Self {
        Self::not_found(format!("No such container: {reference}"))
    }

    pub(crate) fn no_such_exec(id: &str) -> Self {
        Self::not_found(format!("No such exec instance: {id}"))
    }

    pub(crate) fn not_running(id: &str) -> Self {
        Self::conflict(format!("container {id} is not running"))
    }
}

/// Turns a failure of another crate into an internal error that says what was tried.
pub(crate) trait Context<T> {
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: std::error::Error + 'static> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::failed(what, &error))
    }
}
