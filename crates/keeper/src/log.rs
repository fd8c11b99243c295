//! A container's log. The keeper is its only writer.
//!
//! Output goes through [`Lines`](lines::Lines), which cuts it into Docker's records, into a batch
//! in memory, and from there with one `write` for each turn of the keeper's loop into the file.
//! Nothing here ever makes the container wait: what the disk does not take is dropped, and the
//! caller is told.

use crate::protocol::{LogPosition, LogTarget};

mod escape;
pub mod file;
mod lines;
mod rotate;
mod stamp;

pub use file::JsonFile;

/// Which of a process's outputs a piece came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    pub fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open the log {path}")]
    Open {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("write to the log {path}: records are dropped until it takes them again")]
    Write {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("rotate the log {path}")]
    Rotate {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
}

/// Where a container's output is kept.
#[derive(Debug)]
pub enum Log {
    None,
    JsonFile(Box<JsonFile>),
}

impl Log {
    pub fn open(target: &LogTarget) -> Result<Self, Error> {
        match target {
            LogTarget::None => Ok(Self::None),
            LogTarget::JsonFile {
                path,
                max_size_bytes,
                max_files,
                compress,
                attrs,
            } => {
                let limits = rotate::Limits {
                    max_size_bytes: *max_size_bytes,
                    max_files: *max_files,
                    compress: *compress,
                };
                Ok(Self::JsonFile(Box::new(JsonFile::open(
                    path, limits, attrs,
                )?)))
            }
        }
    }

    /// Takes a piece of output that arrived at `now_ns` (since the epoch).
    pub fn write(&mut self, stream: Stream, piece: &[u8], now_ns: i64) -> Result<(), Error> {
        match self {
            Self::None => Ok(()),
            Self::JsonFile(file) => file.write(stream, piece, now_ns),
        }
    }

    /// Brings the whole records to the file.
    pub fn flush(&mut self) -> Result<(), Error> {
        match self {
            Self::None => Ok(()),
            Self::JsonFile(file) => file.flush(),
        }
    }

    /// Where the next record goes, after a flush. `None`: nothing is kept.
    pub fn position(&self) -> std::io::Result<Option<LogPosition>> {
        match self {
            Self::None => Ok(None),
            Self::JsonFile(file) => file.position().map(Some),
        }
    }

    /// What has come of a stream's next record, which is not complete.
    pub fn begun(&self, stream: Stream) -> &[u8] {
        match self {
            Self::None => &[],
            Self::JsonFile(file) => file.begun(stream),
        }
    }

    /// The outputs have ended: also records what has no line end.
    pub fn finish(&mut self) -> Result<(), Error> {
        match self {
            Self::None => Ok(()),
            Self::JsonFile(file) => file.finish(),
        }
    }

    /// How many records were dropped since this was asked last; 0 while records are being dropped,
    /// unless that is final.
    pub fn take_dropped(&mut self, is_final: bool) -> u64 {
        match self {
            Self::None => 0,
            Self::JsonFile(file) => file.take_dropped(is_final),
        }
    }

    /// Whether the last write failed.
    pub fn is_failing(&self) -> bool {
        match self {
            Self::None => false,
            Self::JsonFile(file) => file.is_failing(),
        }
    }

    /// Gives up the memory that a burst needed.
    pub fn rest(&mut self) {
        if let Self::JsonFile(file) = self {
            file.rest();
        }
    }
}
