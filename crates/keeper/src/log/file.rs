//! The json-file log: the file, the batch of records on the way to it, and its rotation.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::lines::{Lines, Record};
use super::rotate::{self, Compressor, Limits};
use super::{Error, Stream, escape, stamp};
use crate::protocol::LogPosition;

/// A batch that reaches this size is written at once.
const BATCH_BYTES: usize = 256 * 1024;

/// A record's longest form: a whole piece of which each byte is escaped, and the other fields.
const TAIL_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub struct JsonFile {
    path: PathBuf,
    file: File,
    /// Of the file, without the batch.
    size_bytes: u64,
    limits: Limits,
    streams: [Lines; 2],
    batch: Batch,
    compressor: Option<Compressor>,
    loss: Loss,
}

/// What the disk did not take.
#[derive(Debug, Default)]
struct Loss {
    /// The last write failed.
    goes_on: bool,
    records: u64,
}

/// Whole records that are not in the file yet.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Encoded: empty, or `,"attrs":{...}`.
    attrs: Vec<u8>,
    /// The end of a record, for the stream and the time that it was made for.
    tail: Vec<u8>,
    tail_of: Option<(Stream, i64)>,
}

impl JsonFile {
    /// Opens the log, or makes it with mode 0640. A record that an earlier keeper began and could
    /// not end is cut off.
    pub fn open(
        path: &Path,
        limits: Limits,
        attrs: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let fail = |source| Error::Open {
            path: path.to_owned(),
            source,
        };
        let file = open_append(path).map_err(fail)?;
        let size_bytes = cut_torn_record(&file).map_err(fail)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            size_bytes,
            limits,
            streams: Default::default(),
            batch: Batch {
                attrs: encode_attrs(attrs),
                ..Batch::default()
            },
            compressor: None,
            loss: Loss::default(),
        })
    }

    pub fn write(&mut self, stream: Stream, piece: &[u8], now_ns: i64) -> Result<(), Error> {
        let mut lines = std::mem::take(&mut self.streams[stream.index()]);
        let mut result = Ok(());
        lines.feed(piece, now_ns, |record| {
            let recorded = self.record(stream, &record);
            // The first failure is told; the records after it are tried all the same.
            if result.is_ok() {
                result = recorded;
            }
        });
        self.streams[stream.index()] = lines;
        result
    }

    pub fn flush(&mut self) -> Result<(), Error> {
        if self.batch.bytes.is_empty() {
            return Ok(());
        }
        let result = self.append_batch();
        self.batch.bytes.clear();
        result
    }

    pub fn position(&self) -> io::Result<LogPosition> {
        Ok(LogPosition {
            inode: self.file.metadata()?.ino(),
            offset: self.size_bytes,
        })
    }

    pub fn begun(&self, stream: Stream) -> &[u8] {
        self.streams[stream.index()].begun()
    }

    pub fn finish(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut lines = std::mem::take(&mut self.streams[stream.index()]);
            lines.finish(|record| {
                let recorded = self.record(stream, &record);
                if result.is_ok() {
                    result = recorded;
                }
            });
        }
        let flushed = self.flush();
        result.and(flushed)
    }

    /// How many records were dropped since this was asked last; 0 while records are being dropped,
    /// unless that is `final`.
    pub fn take_dropped(&mut self, is_final: bool) -> u64 {
        if self.loss.goes_on && !is_final {
            return 0;
        }
        std::mem::take(&mut self.loss.records)
    }

    /// Whether the last write failed.
    pub fn is_failing(&self) -> bool {
        self.loss.goes_on
    }

    pub fn rest(&mut self) {
        self.batch.bytes.shrink_to_fit();
        for lines in &mut self.streams {
            lines.rest();
        }
        self.compressor
            .take_if(|compressor| compressor.has_ended(false));
    }

    fn record(&mut self, stream: Stream, record: &Record<'_>) -> Result<(), Error> {
        let pending = self.batch.bytes.len();
        let rotated = if self.limits.is_due(self.size_bytes + pending as u64) {
            self.flush().and_then(|()| self.rotate())
        } else if pending >= BATCH_BYTES {
            self.flush()
        } else {
            Ok(())
        };
        self.batch.push(stream, record);
        rotated
    }

    fn append_batch(&mut self) -> Result<(), Error> {
        let mut rest = self.batch.bytes.as_slice();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(count) => {
                    rest = &rest[count..];
                    self.size_bytes += count as u64;
                    self.loss.goes_on = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(source) => {
                    // The one that was written in part has its end in the rest, too.
                    let records = memchr::memchr_iter(b'\n', rest).count() as u64;
                    self.loss.goes_on = true;
                    self.loss.records += records;
                    self.size_bytes = cut_torn_record(&self.file).unwrap_or(self.size_bytes);
                    return Err(Error::Write {
                        path: self.path.clone(),
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), Error> {
        if let Some(compressor) = self.compressor.take() {
            // A container that fills a file sooner than the last one is compressed goes on in
            // the same file, up to twice its size; then it has to wait.
            let wait = self
                .limits
                .max_size_bytes
                .is_some_and(|max| self.size_bytes >= 2 * max);
            if !compressor.has_ended(wait) {
                self.compressor = Some(compressor);
                return Ok(());
            }
        }
        self.next_file().map_err(|source| Error::Rotate {
            path: self.path.clone(),
            source,
        })
    }

    fn next_file(&mut self) -> io::Result<()> {
        // Made before anything is moved: a full disk has room for names, but not for a file.
        let next = rotate::next(&self.path);
        let file = open_append(&next)?;
        if rotate::shift(&self.path, &self.limits)? {
            std::fs::rename(&next, &self.path)?;
            self.file = file;
            // Also when nothing can be forked now: the next file has its whole length.
            self.size_bytes = 0;
            if self.limits.compress {
                self.compressor = Some(Compressor::start(&self.path)?);
            }
        } else {
            std::fs::remove_file(&next)?;
            self.file.set_len(0)?;
            self.size_bytes = 0;
        }
        Ok(())
    }
}

impl Batch {
    fn push(&mut self, stream: Stream, record: &Record<'_>) {
        if self.tail_of != Some((stream, record.time_ns)) {
            self.tail.clear();
            self.tail.extend_from_slice(b"\",\"stream\":\"");
            self.tail.extend_from_slice(stream.name().as_bytes());
            self.tail.push(b'"');
            self.tail.extend_from_slice(&self.attrs);
            self.tail.extend_from_slice(b",\"time\":\"");
            stamp::append(&mut self.tail, record.time_ns);
            self.tail.extend_from_slice(b"\"}\n");
            self.tail_of = Some((stream, record.time_ns));
        }
        self.bytes.extend_from_slice(b"{\"log\":\"");
        escape::append(&mut self.bytes, record.text);
        if record.newline {
            self.bytes.extend_from_slice(b"\\n");
        }
        self.bytes.extend_from_slice(&self.tail);
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    // Readable, so that a torn record can be found.
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// Shortens the file to its last newline; returns its size.
fn cut_torn_record(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut last = [0];
    if size == 0 || (file.read_at(&mut last, size - 1)? == 1 && last == *b"\n") {
        return Ok(size);
    }
    let start = size.saturating_sub(TAIL_BYTES as u64);
    let mut tail = vec![0; TAIL_BYTES.min(usize::try_from(size).unwrap_or(TAIL_BYTES))];
    file.read_exact_at(&mut tail, start)?;
    let whole = memchr::memrchr(b'\n', &tail).map_or(start, |end| start + end as u64 + 1);
    file.set_len(whole)?;
    Ok(whole)
}

fn encode_attrs(attrs: &BTreeMap<String, String>) -> Vec<u8> {
    if attrs.is_empty() {
        return Vec::new();
    }
    let mut out = b",\"attrs\":{".to_vec();
    for (index, (key, value)) in attrs.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
        escape::append(&mut out, key.as_bytes());
        out.extend_from_slice(b"\":\"");
        escape::append(&mut out, value.as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests;
