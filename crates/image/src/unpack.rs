//! Unpacks a layer: its tar stream becomes a directory in the form that overlayfs reads.
//!
//! ```text
//! source ─ decompress, hash (thread) ─ bounded channel ─ read entries, apply them (caller)
//! ```
//!
//! Nothing is believed: every path is resolved beneath the layer's directory by the kernel
//! (`openat2`), and the whole stream has to have the diff id.

mod apply;
pub(crate) mod decompress;
mod entry;
mod path;

use std::io::Read;
use std::path::{Path, PathBuf};

use berth_oci::Digest;

use crate::tar::reader::Reader;

pub(crate) use apply::{At, Rules, Target};
pub(crate) use decompress::{Compression, decoder, sniff};
pub(crate) use entry::{Data, proc_path};

/// Overlayfs' mark of a directory that shows nothing of the layers below.
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Archive(String, #[source] Option<std::io::Error>),
    #[error("{0} is not supported: use gzip, zstd or no compression")]
    Compression(&'static str),
    #[error("{path:?}: {problem}")]
    Entry { path: String, problem: &'static str },
    #[error("cannot overwrite {existing} {path:?} with {new} {into:?}")]
    Kept {
        path: String,
        /// The directory that the archive is extracted into.
        into: String,
        existing: &'static str,
        new: &'static str,
    },
    #[error("{operation} {path:?}")]
    Apply {
        operation: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("layer does not match its diff id: expected {expected}, got {actual}")]
    DiffId { expected: Digest, actual: Digest },
    #[error("open the layer's directory {path}")]
    Root {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the reading thread ended early")]
    Lost,
}

impl Error {
    /// Whether the archive is at fault, and not this machine.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Apply { source, .. } => matches!(
                rustix::io::Errno::from_io_error(source),
                Some(
                    rustix::io::Errno::NAMETOOLONG
                        | rustix::io::Errno::NOTDIR
                        | rustix::io::Errno::INVAL
                        | rustix::io::Errno::EXIST
                        | rustix::io::Errno::LOOP
                        | rustix::io::Errno::FBIG
                        | rustix::io::Errno::TOOBIG
                        | rustix::io::Errno::RANGE
                )
            ),
            Self::Root { .. } | Self::Lost => false,
            _ => true,
        }
    }
}

impl From<crate::tar::Error> for Error {
    fn from(error: crate::tar::Error) -> Self {
        let text = error.to_string();
        match error {
            crate::tar::Error::Read(source) => Self::Archive(text, Some(source)),
            _ => Self::Archive(text, None),
        }
    }
}

/// What a layer turned out to be.
#[derive(Debug)]
pub(crate) struct Summary {
    pub diff_id: Digest,
    /// Disk usage, in whole blocks.
    pub size_bytes: u64,
    /// Directories that entries needed but the archive did not describe, parents first; the empty
    /// path is the root. Their owner and mode are the lower layers' matter.
    pub implied: Vec<PathBuf>,
}

/// Unpacks `source` into the empty directory `root`. On an error the directory's content is
/// unspecified; the caller removes it.
pub(crate) fn unpack(source: impl Read + Send, root: &Path) -> Result<Summary, Error> {
    let mut target = apply::Target::open(root)?;
    let diff_id = apply_all(source, &mut target)?;
    let (size_bytes, implied) = target.finish()?;
    Ok(Summary {
        diff_id,
        size_bytes,
        implied,
    })
}

/// Applies all members of an archive, whatever it is compressed by. Returns the digest of the plain
/// archive, also of what follows its end.
pub(crate) fn apply_all(source: impl Read + Send, target: &mut Target) -> Result<Digest, Error> {
    decompress::pipeline(source, |stream| {
        let mut reader = Reader::new(stream);
        while let Some(entry) = reader.next_entry()? {
            target.apply(&entry, &mut reader)?;
        }
        reader.drain()?;
        Ok::<_, Error>(())
    })
}
