//! A blob that is being written: hashed as it comes, readable while it grows, named when whole.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use berth_oci::{Algorithm, Digest, Hasher};

use crate::error::{Context, Error, Result};

/// Receives the bytes of one blob. Dropping it before [`Ingest::commit`] leaves nothing behind,
/// and readers of its [`Tail`] get an error.
#[derive(Debug)]
pub struct Ingest {
    growing: Arc<Growing>,
    path: PathBuf,
    hasher: Hasher,
    expected: Option<Digest>,
    size_bytes: Option<u64>,
    offset: u64,
    committed: bool,
    keep: Keep,
}

/// Where a whole blob goes: the lease that the ingest belongs to.
type Keep = Arc<crate::lease::Held>;

#[derive(Debug)]
struct Growing {
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy)]
struct State {
    written: u64,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Whole,
    Broken,
}

impl Ingest {
    pub(crate) fn new(
        file: File,
        path: PathBuf,
        expected: Option<Digest>,
        size_bytes: Option<u64>,
        keep: Keep,
    ) -> Self {
        let algorithm = expected
            .as_ref()
            .map_or(Algorithm::Sha256, Digest::algorithm);
        Self {
            growing: Arc::new(Growing {
                file,
                state: Mutex::new(State {
                    written: 0,
                    end: End::Open,
                }),
                changed: Condvar::new(),
            }),
            path,
            hasher: Hasher::new(algorithm),
            expected,
            size_bytes,
            offset: 0,
            committed: false,
            keep,
        }
    }

    /// How many bytes are written: where an interrupted transfer goes on.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// More bytes than were announced are refused.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.offset + bytes.len() as u64;
        if let (Some(expected), Some(digest)) = (self.size_bytes, &self.expected)
            && end > expected
        {
            return Err(Error::Size {
                what: "blob",
                digest: digest.clone(),
                expected,
                actual: end,
            });
        }
        self.growing
            .file
            .write_all_at(bytes, self.offset)
            .context(|| format!("write {}", self.path.display()))?;
        self.hasher.update(bytes);
        self.offset = end;
        self.growing.set(State {
            written: end,
            end: End::Open,
        });
        Ok(())
    }

    /// A reader of everything from the first byte, which waits for what is not written yet and
    /// ends when the blob is committed.
    pub fn tail(&self) -> Tail {
        Tail {
            growing: self.growing.clone(),
            position: 0,
        }
    }

    /// Verifies size and digest, and gives the blob to the lease.
    pub fn commit(mut self) -> Result<Digest> {
        let actual = self.hasher.clone().finish();
        let expected = self.expected.clone().unwrap_or_else(|| actual.clone());
        if let Some(size_bytes) = self.size_bytes
            && size_bytes != self.offset
        {
            return Err(Error::Size {
                what: "blob",
                digest: expected,
                expected: size_bytes,
                actual: self.offset,
            });
        }
        if actual != expected {
            return Err(Error::Digest {
                what: "blob",
                expected,
                actual,
            });
        }
        self.committed = true;
        self.keep
            .hold(actual.clone(), std::mem::take(&mut self.path), self.offset);
        self.growing.set(State {
            written: self.offset,
            end: End::Whole,
        });
        Ok(actual)
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        self.growing.set(State {
            written: self.offset,
            end: End::Broken,
        });
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "remove an unfinished blob");
        }
    }
}

impl Growing {
    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.changed.notify_all();
    }

    /// Waits until there is more than `position`, or no more to come.
    fn beyond(&self, position: u64) -> State {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *self
            .changed
            .wait_while(state, |state| {
                state.written <= position && state.end == End::Open
            })
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a blob while it grows. See [`Ingest::tail`].
#[derive(Debug)]
pub struct Tail {
    growing: Arc<Growing>,
    position: u64,
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.growing.beyond(self.position);
        if state.end == End::Broken {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the transfer of the blob was given up",
            ));
        }
        let available = usize::try_from(state.written - self.position).unwrap_or(usize::MAX);
        let length = available.min(buffer.len());
        if length == 0 {
            return Ok(0);
        }
        let read = self
            .growing
            .file
            .read_at(&mut buffer[..length], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}
