//! The runtime's error: a kind to branch on, and runc's sentence for people.
//!
//! Docker's clients derive the exit codes 125, 126 and 127 from the sentence, so its words are a
//! wire format: they follow runc's (`libcontainer` 1.2), without Docker's prefix
//! `OCI runtime create failed: `.

use serde::{Deserialize, Serialize};

/// What a caller branches on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Exit code 127.
    CommandNotFound,
    /// Exit code 126.
    CommandNotExecutable,
    /// What the caller asked for cannot be (a user, a directory, a capability).
    InvalidRequest,
    NotRunning,
    NotFound,
    Internal,
}

/// Why a container or a process in it could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    /// The whole sentence, for example `runc create failed: unable to start container process:
    /// error during container init: exec: "x": executable file not found in $PATH`.
    pub message: String,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The same error with words put before it.
    #[must_use]
    pub fn prefixed(self, prefix: &str) -> Self {
        Self {
            kind: self.kind,
            message: format!("{prefix}{}", self.message),
        }
    }
}

/// An errno in Go's words, which Docker's clients look for: `no such file or directory`.
pub(crate) fn errno_words(errno: rustix::io::Errno) -> String {
    io_words(&std::io::Error::from(errno))
}

/// As [`errno_words`], of an error of the standard library.
pub fn io_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = words.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_gos_words() {
        for (errno, words) in [
            (rustix::io::Errno::NOENT, "no such file or directory"),
            (rustix::io::Errno::ACCESS, "permission denied"),
            (rustix::io::Errno::NOTDIR, "not a directory"),
            (rustix::io::Errno::NOEXEC, "exec format error"),
            (rustix::io::Errno::ROFS, "read-only file system"),
        ] {
            assert_eq!(errno_words(errno), words);
        }
    }
}
