//! The blocking side: from bytes of log files to rendered pieces in a queue.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use berth_keeper::protocol::LogPosition;
use bytes::Bytes;
use flate2::read::GzDecoder;
use tokio::sync::mpsc;

use super::Query;
use super::files::{self, Source, TailStart};
use super::record::{Render, Verdict};
use crate::error::Error;

const READ_BYTES: usize = 256 << 10;
/// A piece is handed over when it has grown to this.
const PIECE_BYTES: usize = 128 << 10;
/// The longest line that is waited for; the keeper's are far shorter, so more is damage.
const LONGEST_LINE_BYTES: usize = 4 << 20;

/// How often a file is looked for that has just been there.
const MAX_LOOKS: u32 = 1000;

/// Whether reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    More,
    /// Past `until`, or nobody is listening any more.
    Finished,
}

/// Renders lines and hands them over in pieces. Only for threads that may block.
#[derive(Debug)]
pub struct Output {
    render: Render,
    piece: Vec<u8>,
    sender: mpsc::Sender<Result<Bytes, Error>>,
}

impl Output {
    pub fn new(render: Render, sender: mpsc::Sender<Result<Bytes, Error>>) -> Self {
        Self {
            render,
            piece: Vec::with_capacity(PIECE_BYTES * 2),
            sender,
        }
    }

    fn line(&mut self, line: &[u8]) -> Flow {
        match self.render.record(line, &mut self.piece) {
            Verdict::Written if self.piece.len() >= PIECE_BYTES => self.flush(),
            Verdict::Written | Verdict::Skipped => Flow::More,
            Verdict::PastEnd => {
                self.flush();
                Flow::Finished
            }
            Verdict::Malformed => {
                tracing::debug!(bytes = line.len(), "skipped a damaged log line");
                Flow::More
            }
        }
    }

    /// Hands over what has been rendered.
    pub fn flush(&mut self) -> Flow {
        if self.piece.is_empty() {
            return if self.sender.is_closed() {
                Flow::Finished
            } else {
                Flow::More
            };
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES * 2));
        match self.sender.blocking_send(Ok(Bytes::from(piece))) {
            Ok(()) => Flow::More,
            Err(_) => Flow::Finished,
        }
    }
}

/// Bytes on their way to becoming lines.
#[derive(Debug, Default)]
struct Lines {
    buffer: Vec<u8>,
    filled: usize,
    /// In a line that is too long: everything up to the next newline is dropped.
    skipping: bool,
}

impl Lines {
    fn space(&mut self) -> &mut [u8] {
        if self.buffer.len() - self.filled < READ_BYTES / 2 {
            self.buffer.resize(self.filled + READ_BYTES, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// Takes `count` new bytes and passes every whole line on. Returns how many bytes are done.
    fn take(&mut self, count: usize, mut each: impl FnMut(&[u8]) -> Flow) -> (usize, Flow) {
        let scanned = self.filled;
        self.filled += count;
        let mut start = 0;
        let mut flow = Flow::More;
        for newline in memchr::memchr_iter(b'\n', &self.buffer[scanned..self.filled]) {
            let end = scanned + newline;
            if !std::mem::take(&mut self.skipping) {
                flow = each(&self.buffer[start..end]);
            }
            start = end + 1;
            if flow == Flow::Finished {
                break;
            }
        }
        if start == 0 && self.filled > LONGEST_LINE_BYTES {
            self.skipping = true;
            start = self.filled;
        }
        self.buffer.copy_within(start..self.filled, 0);
        self.filled -= start;
        (start, flow)
    }
}

/// A place in a plain log file that may still grow.
#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
    file: File,
    inode: u64,
    /// Everything before this has been rendered; always the beginning of a line.
    offset: u64,
}

impl Cursor {
    fn new(path: PathBuf, file: File, offset: u64) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        Ok(Self {
            path,
            file,
            inode,
            offset,
        })
    }

    /// Renders whole lines up to the present end of the file.
    fn drain(&mut self, output: &mut Output) -> io::Result<Flow> {
        self.drain_to(u64::MAX, output)
    }

    /// Renders whole lines up to an offset, or to the present end of the file.
    fn drain_to(&mut self, end: u64, output: &mut Output) -> io::Result<Flow> {
        let mut lines = Lines::default();
        let mut read_at = self.offset;
        loop {
            let space = lines.space();
            let wanted = usize::try_from(end.saturating_sub(read_at)).unwrap_or(usize::MAX);
            let wanted = wanted.min(space.len());
            let count = match self.file.read_at(&mut space[..wanted], read_at) {
                Ok(0) => return Ok(Flow::More),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            read_at += count as u64;
            let (done, flow) = lines.take(count, |line| output.line(line));
            self.offset += done as u64;
            if flow == Flow::Finished {
                return Ok(flow);
            }
        }
    }

    /// Renders all that there is, following rotations, and hands it over.
    pub fn advance(&mut self, output: &mut Output) -> io::Result<Flow> {
        loop {
            if self.drain(output)? == Flow::Finished {
                return Ok(Flow::Finished);
            }
            let Some(next) = self.successor()? else {
                // A file that became shorter was emptied by hand, as people do to save space.
                if self.file.metadata()?.len() < self.offset {
                    self.offset = 0;
                    continue;
                }
                return Ok(output.flush());
            };
            // The rotation may have come between the end of the file and this look.
            if self.drain(output)? == Flow::Finished {
                return Ok(Flow::Finished);
            }
            *self = next;
        }
    }

    /// Renders all that is before a place, following rotations, and hands it over.
    pub fn advance_to(&mut self, position: LogPosition, output: &mut Output) -> io::Result<Flow> {
        let mut looks = 0;
        while self.inode != position.inode {
            if self.drain(output)? == Flow::Finished {
                return Ok(Flow::Finished);
            }
            match self.successor()? {
                Some(next) => *self = next,
                // Between two renames of a rotation there is no current file.
                None if looks < MAX_LOOKS => {
                    looks += 1;
                    std::thread::yield_now();
                }
                None => return Ok(output.flush()),
            }
        }
        match self.drain_to(position.offset, output)? {
            Flow::More => Ok(output.flush()),
            Flow::Finished => Ok(Flow::Finished),
        }
    }

    /// The file after this one, if it has been rotated away.
    fn successor(&self) -> io::Result<Option<Self>> {
        let Some(current) = files::open_existing(&self.path)? else {
            return Ok(None);
        };
        if current.metadata()?.ino() == self.inode {
            return Ok(None);
        }
        let mut next = current;
        for source in files::open_all_rotated(&self.path)? {
            let Source::Plain(file) = source else { break };
            if file.metadata()?.ino() == self.inode {
                return Self::new(self.path.clone(), next, 0).map(Some);
            }
            next = file;
        }
        // Our file has been deleted or compressed: go on with the current one.
        match files::open_existing(&self.path)? {
            Some(file) => Self::new(self.path.clone(), file, 0).map(Some),
            None => Ok(None),
        }
    }
}

/// Renders the backlog. Returns where following goes on; `None` when there is nothing to follow
/// any more (past `until`, or the client has gone).
pub fn backlog(query: &Query, output: &mut Output) -> io::Result<Option<Cursor>> {
    let Some(current) = files::open_existing(&query.path)? else {
        return Ok(None);
    };
    let length = current.metadata()?.len();
    let (mut missing, start) = match query.tail {
        None => (u64::MAX, 0),
        Some(lines) => match files::tail_start(&current, length, lines)? {
            TailStart::At(start) => (0, start),
            TailStart::Missing(missing) => (missing, 0),
        },
    };
    let mut older = Vec::new();
    if missing > 0 {
        let inode = current.metadata()?.ino();
        for source in files::open_all_rotated(&query.path)? {
            if missing == 0 {
                break;
            }
            if let Source::Plain(file) = &source
                && file.metadata()?.ino() == inode
            {
                continue;
            }
            let skip = match query.tail {
                None => Skip::Bytes(0),
                Some(_) => tail_of(&source, &mut missing)?,
            };
            older.push((source, skip));
        }
    }
    for (source, skip) in older.into_iter().rev() {
        if rotated(source, skip, query, output)? == Flow::Finished {
            return Ok(None);
        }
    }
    let mut cursor = Cursor::new(query.path.clone(), current, start)?;
    Ok(match cursor.advance(output)? {
        Flow::More => Some(cursor),
        Flow::Finished => None,
    })
}

/// What of a rotated file is not wanted.
enum Skip {
    Bytes(u64),
    Lines(u64),
}

fn tail_of(source: &Source, missing: &mut u64) -> io::Result<Skip> {
    match source {
        Source::Plain(file) => {
            let length = file.metadata()?.len();
            Ok(match files::tail_start(file, length, *missing)? {
                TailStart::At(start) => {
                    *missing = 0;
                    Skip::Bytes(start)
                }
                TailStart::Missing(rest) => {
                    *missing = rest;
                    Skip::Bytes(0)
                }
            })
        }
        Source::Gzip(file) => {
            let lines = files::count_lines(file)?;
            let wanted = lines.min(*missing);
            *missing -= wanted;
            Ok(Skip::Lines(lines - wanted))
        }
    }
}

fn rotated(source: Source, skip: Skip, query: &Query, output: &mut Output) -> io::Result<Flow> {
    match (source, skip) {
        (Source::Plain(file), Skip::Bytes(start)) => {
            Cursor::new(query.path.clone(), file, start)?.drain(output)
        }
        (Source::Plain(file), Skip::Lines(_)) => {
            Cursor::new(query.path.clone(), file, 0)?.drain(output)
        }
        (Source::Gzip(file), skip) => {
            let skip = match skip {
                Skip::Lines(lines) => lines,
                Skip::Bytes(_) => 0,
            };
            compressed(file, skip, output)
        }
    }
}

fn compressed(file: File, mut skip: u64, output: &mut Output) -> io::Result<Flow> {
    use std::io::Seek;
    let mut file = file;
    file.rewind()?;
    let mut reader = GzDecoder::new(file);
    let mut lines = Lines::default();
    loop {
        let count = match reader.read(lines.space()) {
            Ok(0) => return Ok(Flow::More),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let (_, flow) = lines.take(count, |line| {
            if skip > 0 {
                skip -= 1;
                return Flow::More;
            }
            output.line(line)
        });
        if flow == Flow::Finished {
            return Ok(flow);
        }
    }
}
