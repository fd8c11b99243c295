//! Writes archives with the same bytes for the same content: ustar headers, PAX only where needed.

use std::io::{self, Read, Write};

use super::{BLOCK, Entry, EntryKind, Segment};

/// The largest ids that fit into a header's octal digits.
const MAX_ID: u64 = 0o7_777_777;
/// As large as a size and a time fit.
const MAX_OCTAL: u64 = 0o77_777_777_777;

pub(crate) struct Writer<W> {
    sink: W,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(sink: W) -> Self {
        Self { sink }
    }

    pub(crate) fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.header(path, b'5', mode, 0)
    }

    /// A file of exactly `size` bytes.
    pub(crate) fn file(
        &mut self,
        path: &str,
        mode: u32,
        size: u64,
        mut data: impl Read,
    ) -> io::Result<()> {
        self.header(path, b'0', mode, size)?;
        let mut buffer =
            vec![0; (256 << 10).min(usize::try_from(size).unwrap_or(256 << 10).max(1))];
        let mut left = size;
        while left > 0 {
            let length = data.read(&mut buffer)?;
            if length == 0 || length as u64 > left {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{path} has not the size of {size} bytes that was announced"),
                ));
            }
            self.sink.write_all(&buffer[..length])?;
            left -= length as u64;
        }
        self.pad(size)
    }

    /// A member as it is. After that of a file its data has to follow, segment by segment, and
    /// [`Writer::pad`].
    pub(crate) fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let mut path = entry.path.clone();
        if entry.kind == EntryKind::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        let map = entry
            .sparse
            .as_deref()
            .map(|segments| sparse_map(segments, entry.size));
        let map = map.unwrap_or_default();
        let stored: u64 = match entry.kind {
            EntryKind::File => entry.segments().iter().map(|part| part.length).sum(),
            _ => 0,
        };
        let size = stored + map.len() as u64;
        let records = records(entry, &path, size);
        if !records.is_empty() {
            let mut header = Block::new(b"PaxHeaders/member", b'x');
            header.octal(100..108, 0o644);
            header.octal(124..136, records.len() as u64);
            self.sink.write_all(&header.sealed())?;
            self.sink.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let flag = match entry.kind {
            EntryKind::File => b'0',
            EntryKind::HardLink => b'1',
            EntryKind::Symlink => b'2',
            EntryKind::CharDevice => b'3',
            EntryKind::BlockDevice => b'4',
            EntryKind::Directory => b'5',
            EntryKind::Fifo => b'6',
        };
        let mut header = Block::new(&path, flag);
        header.octal(100..108, u64::from(entry.mode));
        // What does not fit is told by the records.
        header.octal(108..116, fitting(entry.uid, MAX_ID));
        header.octal(116..124, fitting(entry.gid, MAX_ID));
        header.octal(124..136, fitting(size, MAX_OCTAL));
        let seconds = u64::try_from(entry.mtime.seconds).unwrap_or(0);
        header.octal(136..148, fitting(seconds, MAX_OCTAL));
        header.text(157..257, &entry.link);
        header.octal(329..337, u64::from(entry.device.0));
        header.octal(337..345, u64::from(entry.device.1));
        self.sink.write_all(&header.sealed())?;
        self.sink.write_all(&map)
    }

    /// A piece of the data of the member before.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sink.write_all(bytes)
    }

    /// Fills the last block of a member whose data has been written.
    pub(crate) fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap_or(0);
        self.sink.write_all(&[0; BLOCK][..padding])
    }

    /// Two blocks of zeros end an archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.sink.write_all(&[0; 2 * BLOCK])?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn header(&mut self, path: &str, flag: u8, mode: u32, size: u64) -> io::Result<()> {
        if path.len() > 100 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{path} is too long a name for an archive"),
            ));
        }
        let mut block = Block::new(path.as_bytes(), flag);
        block.octal(100..108, u64::from(mode));
        // Sizes of 8 GiB and more do not fit in octal: GNU's base 256.
        if size < 1 << 33 {
            block.octal(124..136, size);
        } else {
            block.0[124..136].fill(0);
            block.0[124] = 0x80;
            block.0[128..136].copy_from_slice(&size.to_be_bytes());
        }
        self.sink.write_all(&block.sealed())
    }
}

/// A header that is being written.
struct Block([u8; BLOCK]);

impl Block {
    fn new(path: &[u8], flag: u8) -> Self {
        let mut block = Self([0; BLOCK]);
        block.text(0..100, path);
        block.0[156] = flag;
        block.0[257..265].copy_from_slice(b"ustar\x0000");
        for range in [108..116, 116..124, 124..136, 136..148, 329..337, 337..345] {
            block.octal(range, 0);
        }
        block
    }

    /// As much of a text as the field has room for.
    fn text(&mut self, field: std::ops::Range<usize>, text: &[u8]) {
        let field = &mut self.0[field];
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
    }

    fn octal(&mut self, field: std::ops::Range<usize>, value: u64) {
        octal(&mut self.0[field], value);
    }

    /// With its checksum.
    fn sealed(mut self) -> [u8; BLOCK] {
        self.0[148..156].fill(b' ');
        let sum: u64 = self.0.iter().map(|&byte| u64::from(byte)).sum();
        octal(&mut self.0[148..155], sum);
        self.0
    }
}

fn fitting(value: u64, most: u64) -> u64 {
    if value <= most { value } else { 0 }
}

/// What a header cannot say of a member.
fn records(entry: &Entry, path: &[u8], size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| record(&mut records, key, value);
    if entry.sparse.is_some() {
        add(b"GNU.sparse.major", b"1");
        add(b"GNU.sparse.minor", b"0");
        add(b"GNU.sparse.name", path);
        add(b"GNU.sparse.realsize", entry.size.to_string().as_bytes());
    } else if path.len() > 100 {
        add(b"path", path);
    }
    if entry.link.len() > 100 {
        add(b"linkpath", &entry.link);
    }
    for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
        if id > MAX_ID {
            add(key, id.to_string().as_bytes());
        }
    }
    if size > MAX_OCTAL {
        add(b"size", size.to_string().as_bytes());
    }
    let time = entry.mtime;
    if time.nanos != 0 || !(0..=MAX_OCTAL.cast_signed()).contains(&time.seconds) {
        add(b"mtime", time.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        add(&[super::pax::XATTR_PREFIX, name].concat(), value);
    }
    records
}

/// `length key=value\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The map of GNU's format 1.0: decimal lines before the data, in whole blocks. A hole at the end
/// is an empty segment after it, without which GNU tar would not make it.
fn sparse_map(segments: &[Segment], size: u64) -> Vec<u8> {
    let end = Segment {
        offset: size,
        length: 0,
    };
    let reaches_end = |last: &Segment| last.offset + last.length == size;
    let end = Some(end).filter(|_| !segments.last().is_some_and(reaches_end));
    let count = segments.len() + usize::from(end.is_some());
    let mut map = format!("{count}\n");
    for segment in segments.iter().chain(&end) {
        map.push_str(&format!("{}\n{}\n", segment.offset, segment.length));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// Octal digits that end with a NUL.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let digits = format!("{value:0width$o}");
    field[..width].copy_from_slice(&digits.as_bytes()[digits.len() - width..]);
    field[width] = 0;
}
