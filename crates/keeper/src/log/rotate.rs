//! Rotation of log files: `log` becomes `log.1`, that becomes `log.2`, and so on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use berth_sys::exec;
use berth_sys::fork::{self, Fork};
use rustix::process::{Pid, WaitOptions, waitpid};

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_size_bytes: Option<u64>,
    /// The current file included.
    pub max_files: u32,
    pub compress: bool,
}

impl Limits {
    /// Docker rotates before a record when the file has reached the size, so a file may pass it
    /// by one record.
    pub fn is_due(&self, size_bytes: u64) -> bool {
        self.max_size_bytes.is_some_and(|max| size_bytes >= max)
    }

    fn extension(&self) -> &'static str {
        if self.compress { ".gz" } else { "" }
    }
}

fn numbered(path: &Path, number: u32, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}{extension}"));
    name.into()
}

/// Where the next file is made, before it takes the place of the current one.
pub fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

/// The renames, oldest first, that make room for `log.1`. Each target that exists is replaced,
/// which is how the oldest file goes.
fn plan(path: &Path, limits: &Limits) -> Vec<(PathBuf, PathBuf)> {
    let extension = limits.extension();
    let older = (2..limits.max_files).rev();
    let shifts = older.map(|number| {
        (
            numbered(path, number - 1, extension),
            numbered(path, number, extension),
        )
    });
    shifts
        .chain([(path.to_owned(), numbered(path, 1, ""))])
        .collect()
}

/// Moves the files along; the caller puts a new one in place. With one file only, nothing is moved and
/// the caller empties the file (`Ok(false)`).
pub fn shift(path: &Path, limits: &Limits) -> io::Result<bool> {
    if limits.max_files < 2 {
        return Ok(false);
    }
    for (from, to) in plan(path, limits) {
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
    }
    Ok(true)
}

/// A process that compresses `log.1`, so that the keeper need not stop for it.
#[derive(Debug)]
pub struct Compressor {
    child: Pid,
}

impl Compressor {
    pub fn start(path: &Path) -> io::Result<Self> {
        let from = numbered(path, 1, "");
        match fork::fork()? {
            Fork::Parent { child } => {
                let child = Pid::from_raw(child).ok_or(io::ErrorKind::InvalidData)?;
                Ok(Self { child })
            }
            Fork::Child => fork::exit_now(i32::from(compress_alone(path, &from).is_err())),
        }
    }

    /// Whether it has ended; waits for that if `wait` is set.
    pub fn has_ended(&self, wait: bool) -> bool {
        let options = if wait {
            WaitOptions::empty()
        } else {
            WaitOptions::NOHANG
        };
        !matches!(
            rustix::io::retry_on_intr(|| waitpid(Some(self.child), options)),
            Ok(None)
        )
    }
}

/// In the child: holds none of the container's pipes and sockets open.
fn compress_alone(path: &Path, from: &Path) -> io::Result<()> {
    let input = File::open(from)?;
    exec::close_all_but(3, &[input.as_fd()])?;
    drop(input);
    compress_here(path)
}

/// Replaces `log.1` by `log.1.gz`, which appears whole.
pub fn compress_here(path: &Path) -> io::Result<()> {
    let from = numbered(path, 1, "");
    let temporary = numbered(path, 1, ".gz.tmp");
    let input = File::open(&from)?;
    let output = File::create(&temporary)?;
    output.set_permissions(input.metadata()?.permissions())?;
    compress(input, output)?;
    fs::rename(&temporary, numbered(path, 1, ".gz"))?;
    fs::remove_file(from)
}

fn compress(mut input: File, output: File) -> io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(output, flate2::Compression::default());
    io::copy(&mut input, &mut encoder)?;
    encoder.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(max_files: u32, compress: bool, expect: &[(&str, &str)]) {
        let limits = Limits {
            max_size_bytes: Some(1),
            max_files,
            compress,
        };
        let expect: Vec<_> = expect
            .iter()
            .map(|(from, to)| (PathBuf::from(from), PathBuf::from(to)))
            .collect();
        assert_eq!(plan(Path::new("l"), &limits), expect);
    }

    #[test]
    fn the_oldest_files_move_first() {
        check(2, false, &[("l", "l.1")]);
        check(4, false, &[("l.2", "l.3"), ("l.1", "l.2"), ("l", "l.1")]);
        check(3, true, &[("l.1.gz", "l.2.gz"), ("l", "l.1")]);
    }
}
