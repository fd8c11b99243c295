//! Directories as they are: archived, brought back, and copied, with owners, modes, times, extended
//! attributes, hard links, holes and device nodes. Sockets are left out, as by tar: they are nothing
//! without who listens.
//!
//! ```text
//!              ┌──▶ tar::Writer                      archive
//! walk(root) ──┤
//!              └──▶ unpack::Target, data by reflink  copy
//! tar::Reader ─────▶ unpack::Target                  restore
//! ```
//!
//! Others may change the directory meanwhile. What vanishes is left out, links that they put in the
//! way are not followed; whether the files of one moment come together is the caller's matter.

pub(crate) mod walk;

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::io::Errno;

use crate::tar::writer::Writer;
use crate::tar::{Entry, Segment};
use crate::unpack::{self, At, Data, Rules, Target};

pub use crate::unpack::Error;

/// How much of a file is read at once.
const BUFFER: usize = 256 << 10;

/// Writes a directory as an archive: PAX, with GNU's sparse format 1.0 where files have holes.
///
/// # Errors
/// Of reading the directory or of the sink.
pub fn archive(root: &Path, sink: impl Write) -> io::Result<()> {
    write(sink, |visit| walk::walk(root, visit))
}

/// Writes what `name` in a directory is, and all below it, as `called` in the archive: as Docker
/// tells it, with times to the second, capabilities as the only attributes, and without holes, so
/// that any client can read it. Symbolic links are not followed.
///
/// # Errors
/// As [`archive`].
pub fn archive_plain(
    parent: BorrowedFd<'_>,
    name: &CStr,
    called: &[u8],
    sink: impl Write,
) -> io::Result<()> {
    write(sink, |visit| walk::walk_plain(parent, name, called, visit))
}

/// As [`archive_plain`], of everything in a directory, by its own name.
///
/// # Errors
/// As [`archive`].
pub fn archive_plain_below(directory: &OwnedFd, sink: impl Write) -> io::Result<()> {
    write(sink, |visit| walk::walk_plain_below(directory, visit))
}

/// Writes the members that a walk visits.
pub(crate) fn write(
    sink: impl Write,
    walk: impl FnOnce(&mut walk::Visit<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut writer = Writer::new(sink);
    let mut buffer = vec![0; BUFFER];
    walk(&mut |entry, file| {
        writer.entry(entry)?;
        match file {
            Some(file) => write_data(&mut writer, entry, file, &mut buffer),
            None => Ok(()),
        }
    })?;
    writer.finish()?.flush()
}

fn write_data<W: Write>(
    writer: &mut Writer<W>,
    entry: &Entry,
    file: &File,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut stored = 0;
    for segment in entry.segments().iter() {
        let mut done = 0;
        while done < segment.length {
            let left = usize::try_from(segment.length - done).unwrap_or(BUFFER);
            let piece = &mut buffer[..left.min(BUFFER)];
            let length = match file.read_at(piece, segment.offset + done)? {
                // It was cut meanwhile; its length has been announced.
                0 => {
                    piece.fill(0);
                    piece.len()
                }
                length => length,
            };
            writer.data(&piece[..length])?;
            done += length as u64;
        }
        stored += segment.length;
    }
    writer.pad(stored)
}

/// Fills an empty directory from an archive, plain or compressed. Names that would be whiteouts in
/// a layer are ordinary ones here.
///
/// # Errors
/// Of the archive, which may be anybody's, or of this machine. What is in the directory then is
/// unspecified.
pub fn restore(source: impl Read + Send, root: &Path) -> Result<(), Error> {
    let mut target = Target::of_files(root)?;
    unpack::apply_all(source, &mut target)?;
    target.finish().map(drop)
}

/// How [`extract`] treats what it finds and what the archive says.
#[derive(Debug, Clone, Default)]
pub struct Extract {
    /// The user and group of everything, whatever the archive says.
    pub owner: Option<(u32, u32)>,
    /// A directory is not replaced by something else, nor the other way round.
    pub keep_kinds: bool,
    /// In each name the first of these is replaced by the second, once.
    pub rename: Option<(Vec<u8>, Vec<u8>)>,
}

/// Adds the members of an archive, plain or compressed, to a directory that others may change
/// meanwhile. `directory` is its path below `root`, without links, `.` and `..`; to the links that
/// lead elsewhere `root` is `/`.
///
/// # Errors
/// As [`restore`]; the members before stay.
pub fn extract(
    source: impl Read + Send,
    root: OwnedFd,
    directory: &[u8],
    how: &Extract,
) -> Result<(), Error> {
    let rules = Rules {
        is_layer: false,
        below: Some(directory.to_vec()),
        owner: how.owner,
        keeps_kinds: how.keep_kinds,
        rename: how.rename.clone(),
    };
    let mut target = Target::new(root, rules);
    unpack::apply_all(source, &mut target)?;
    target.finish().map(drop)
}

/// How the data of files came over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// They share their blocks until one of them is written to.
    Reflink,
    Copy,
}

/// Copies a directory into an empty one.
///
/// # Errors
/// As [`restore`].
pub fn copy(source: &Path, root: &Path) -> Result<Method, Error> {
    let mut target = Target::of_files(root)?;
    let mut method = Method::Reflink;
    let mut failure = None;
    let walked = walk::walk(source, &mut |entry, file| {
        let mut data = Source {
            file,
            method: &mut method,
        };
        target.apply(entry, &mut data).map_err(|error| {
            failure = Some(error);
            io::Error::other("see the failure")
        })
    });
    if let Some(error) = failure {
        return Err(error);
    }
    walked.map_err(|source_error| Error::Apply {
        operation: "read",
        path: source.display().to_string(),
        source: source_error,
    })?;
    target.finish()?;
    Ok(method)
}

/// The data of a file that is open.
struct Source<'a> {
    file: Option<&'a File>,
    /// Once the file system has said that it cannot share blocks, it is not asked again.
    method: &'a mut Method,
}

impl Data for Source<'_> {
    fn write(&mut self, to: &File, segments: &[Segment], at: &At<'_>) -> Result<(), Error> {
        let Some(from) = self.file else {
            return Ok(());
        };
        if *self.method == Method::Reflink && !segments.is_empty() {
            match rustix::fs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(
                    Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS,
                ) => {
                    *self.method = Method::Copy;
                }
                Err(errno) => return Err(at.failed("clone", errno)),
            }
        }
        for segment in segments {
            copy_segment(from, to, *segment).map_err(|error| at.failed("copy", error))?;
        }
        Ok(())
    }
}

/// In the kernel where it can; otherwise through a buffer.
fn copy_segment(from: &File, to: &File, segment: Segment) -> io::Result<()> {
    let (mut read, mut written) = (segment.offset, segment.offset);
    let end = segment.offset + segment.length;
    while read < end {
        let left = usize::try_from(end - read).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), left) {
            // It was cut meanwhile.
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_hand(from, to, read, end);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, mut at: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
        let length = from.read_at(&mut buffer[..left], at)?;
        if length == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..length], at)?;
        at += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
