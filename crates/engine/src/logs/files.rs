//! The files of one log, and where its last lines begin.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

const BLOCK_BYTES: u64 = 64 << 10;

/// How many rotated files are looked for at most.
pub const MAX_ROTATED: u32 = 1000;

/// A file of the log, opened.
#[derive(Debug)]
pub enum Source {
    Plain(File),
    /// A rotated file that was compressed.
    Gzip(File),
}

/// The rotated file `index` of the log at `path`: 1 is the youngest.
pub fn rotated(path: &Path, index: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}"));
    PathBuf::from(name)
}

/// Opens rotated file `index`, compressed or not.
pub fn open_rotated(path: &Path, index: u32) -> io::Result<Option<Source>> {
    let plain = rotated(path, index);
    if let Some(file) = open_existing(&plain)? {
        return Ok(Some(Source::Plain(file)));
    }
    let mut compressed = plain.into_os_string();
    compressed.push(".gz");
    Ok(open_existing(Path::new(&compressed))?.map(Source::Gzip))
}

pub fn open_existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The rotated files, youngest first, opened while the keeper may be renaming them, each to the
/// next number, the oldest first. Opened from young to old, one of them can be seen twice, which
/// the inode tells; and one number can be missing, whose file has the next one then.
pub fn open_all_rotated(path: &Path) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut is_missing = false;
    for index in 1..=MAX_ROTATED {
        match open_rotated(path, index)? {
            Some(source) => {
                sources.push(source);
                is_missing = false;
            }
            None if is_missing => break,
            None => is_missing = true,
        }
    }
    Ok(sources)
}

/// Where a tail of some lines begins.
#[derive(Debug, PartialEq, Eq)]
pub enum TailStart {
    At(u64),
    /// The whole file has fewer lines; this many are still missing.
    Missing(u64),
}

/// Finds where the last `lines` lines of a plain file begin, reading backwards. What follows the
/// last newline is a line that is still being written, and does not count.
pub fn tail_start(file: &File, end: u64, lines: u64) -> io::Result<TailStart> {
    let mut seen = 0u64;
    let mut block_end = end;
    let mut block = Vec::new();
    while block_end > 0 {
        let start = block_end.saturating_sub(BLOCK_BYTES);
        block.resize(usize::try_from(block_end - start).unwrap_or(0), 0);
        file.read_exact_at(&mut block, start)?;
        for at in memchr::memrchr_iter(b'\n', &block) {
            // The newline before the first wanted line is the (lines + 1)th from the end.
            if seen == lines {
                return Ok(TailStart::At(start + at as u64 + 1));
            }
            seen += 1;
        }
        block_end = start;
    }
    Ok(if seen == lines {
        TailStart::At(0)
    } else {
        TailStart::Missing(lines - seen)
    })
}

/// How many lines a compressed file holds.
pub fn count_lines(file: &File) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(64 << 10, GzDecoder::new(file));
    let mut lines = 0;
    loop {
        let piece = reader.fill_buf()?;
        if piece.is_empty() {
            return Ok(lines);
        }
        lines += memchr::memchr_iter(b'\n', piece).count() as u64;
        let length = piece.len();
        reader.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn check(text: &[u8], lines: u64, expect: TailStart) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        assert_eq!(
            tail_start(&file, text.len() as u64, lines).unwrap(),
            expect,
            "{lines} of {} bytes",
            text.len()
        );
    }

    #[test]
    fn tails_begin_after_the_right_newline() {
        check(b"a\nb\nc\n", 1, TailStart::At(4));
        check(b"a\nb\nc\n", 3, TailStart::At(0));
        check(b"a\nb\nc\n", 5, TailStart::Missing(2));
        check(b"", 2, TailStart::Missing(2));
        check(b"a\nb\nhalf", 1, TailStart::At(2));
        check(b"a\nb\n", 0, TailStart::At(4));
    }

    #[test]
    fn a_file_that_is_being_renamed_hides_no_older_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        for index in [1, 2, 4, 5, 8] {
            std::fs::write(rotated(&path, index), index.to_string()).unwrap();
        }
        assert_eq!(open_all_rotated(&path).unwrap().len(), 4);
    }

    #[test]
    fn tails_cross_blocks() {
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        let text = line.repeat(300);
        check(&text, 250, TailStart::At(50 * 1000));
        check(&text, 300, TailStart::At(0));
        check(&text, 301, TailStart::Missing(1));
    }
}
