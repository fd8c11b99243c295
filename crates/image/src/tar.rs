//! The tar formats of layers and archives: v7, ustar, PAX and GNU, with sparse files.
//!
//! Our own reader and not a crate's, since a layer needs the sparse maps of all four formats and
//! every PAX record, and because the data goes from one large buffer straight to the file.

use std::borrow::Cow;

pub(crate) mod header;
pub(crate) mod pax;
pub(crate) mod reader;
pub(crate) mod sparse;
pub(crate) mod writer;

/// Everything is aligned to blocks of this size.
pub(crate) const BLOCK: usize = 512;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum EntryKind {
    #[default]
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// One member of an archive, with what extension headers said about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As it is in the archive: not cleaned, not checked.
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: EntryKind,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Bytes of the file, holes included; 0 for everything but files.
    pub size: u64,
    pub mtime: Time,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the stored bytes belong; `None` when they are simply the file.
    pub sparse: Option<Vec<Segment>>,
}

impl Entry {
    /// The parts of a file that have data.
    pub(crate) fn segments(&self) -> Cow<'_, [Segment]> {
        match &self.sparse {
            Some(segments) => Cow::Borrowed(segments),
            None => Cow::Owned(vec![Segment {
                offset: 0,
                length: self.size,
            }]),
        }
    }
}

/// A part of a sparse file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub offset: u64,
    pub length: u64,
}

/// A point in time; the nanoseconds are always positive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("unexpected EOF")]
    Truncated,
    #[error("archive/tar: invalid tar header")]
    Header,
    #[error("archive/tar: invalid tar header of {path:?}: {problem}")]
    Field { path: String, problem: &'static str },
    #[error("read the archive")]
    Read(#[source] std::io::Error),
}
