//! This machine's side of a copy.

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use berth_docker_client::Response;
use berth_image::tree::{self, Extract};
use bytes::{Buf, Bytes};
use rustix::fs::{CWD, Mode, OFlags};
use tokio::sync::mpsc;

use super::paths::{self, Info};
use crate::create::os_words;
use crate::failure::Failure;

/// As many links are followed at the end of a path.
const MAX_LINKS: usize = 10;
/// Pieces of an archive that may wait to be written.
const QUEUED_CHUNKS: usize = 16;

fn failed(call: &str, path: &str, error: &io::Error) -> Failure {
    Failure::new(format!("{call} {path}: {}", os_words(error)))
}

/// From the root, with its ending kept.
pub fn absolute(path: &str) -> Result<String, Failure> {
    let cleaned = match path.starts_with('/') {
        true => paths::clean(path),
        false => paths::join(&std::env::current_dir()?.to_string_lossy(), path),
    };
    Ok(paths::with_ending(&cleaned, path))
}

/// Whether something can be copied there.
pub fn check_output(path: &str) -> Result<(), Failure> {
    let directory = Path::new(path).parent().unwrap_or(Path::new("/"));
    if !directory.exists() {
        return Err(Failure::new(format!(
            "invalid output path: directory {directory:?} does not exist"
        )));
    }
    match std::fs::metadata(path) {
        Ok(found) => {
            let kind = found.file_type();
            match kind.is_char_device() || kind.is_block_device() {
                true => Err(Failure::new(format!(
                    "invalid output path: {path:?} must be a directory or a regular file: \
                     got a device"
                ))),
                false => Ok(()),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("stat", path, &error)),
    }
}

/// What is at a local path; links on the way are followed, one at its end only if it is wanted.
pub fn source(path: &str, follow: bool) -> Result<Info, Failure> {
    let real = |path: &str| {
        let found = std::fs::canonicalize(path).map_err(|error| failed("lstat", path, &error))?;
        Ok::<_, Failure>(found.to_string_lossy().into_owned())
    };
    let (path, rename) = match follow {
        true => paths::followed(path, &real(path)?),
        false => {
            let (directory, name) = match path.rsplit_once('/') {
                Some((directory, name)) => (directory, name),
                None => (".", path),
            };
            let directory = if directory.is_empty() { "/" } else { directory };
            let found = format!("{}/{name}", real(directory)?.trim_end_matches('/'));
            let rename = path.ends_with('/') && paths::base(path) != paths::base(&found);
            (found, rename.then(|| paths::base(path).to_owned()))
        }
    };
    let found = std::fs::symlink_metadata(&path).map_err(|error| failed("lstat", &path, &error))?;
    Ok(Info {
        exists: true,
        is_directory: found.is_dir(),
        path,
        rename,
    })
}

/// Archives what was found, in a thread, under the given name or its own.
pub fn archive(
    source: &Info,
    name: Option<&str>,
    size: Arc<AtomicU64>,
) -> Result<tokio::fs::File, Failure> {
    let (directory, member) = paths::split_entry(&source.path);
    // Of the root its content.
    let member = if member == "/" {
        ".".to_owned()
    } else {
        member
    };
    let called = name
        .or(source.rename.as_deref())
        .unwrap_or(&member)
        .to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::openat(CWD, &directory, flags, Mode::empty())
        .map_err(|errno| failed("open", &directory, &errno.into()))?;
    let member = CString::new(member).map_err(io::Error::from)?;
    let (reader, writer) = io::pipe()?;
    let sink = Counter { to: writer, size };
    std::thread::spawn(move || {
        let sink = io::BufWriter::with_capacity(256 << 10, sink);
        // The daemon finds out: the archive has no end then.
        if let Err(error) = tree::archive_plain(parent.as_fd(), &member, called.as_bytes(), sink)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            crate::cli::warn(format!("archive {called}: {}", os_words(&error)));
        }
    });
    Ok(tokio::fs::File::from_std(OwnedFd::from(reader).into()))
}

struct Counter<W> {
    to: W,
    size: Arc<AtomicU64>,
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.size.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The target of a copy: links at its end are followed, and its directory has to be there.
fn target(path: &str) -> Result<Info, Failure> {
    let mut path = path.to_owned();
    for _ in 0..=MAX_LINKS {
        let found = match std::fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (parent, _) = paths::split_entry(&path);
                let found = std::fs::metadata(&parent);
                let found = found.map_err(|error| failed("stat", &parent, &error))?;
                return match found.is_dir() {
                    true => Ok(Info {
                        path,
                        ..Info::default()
                    }),
                    false => Err(Failure::new("not a directory")),
                };
            }
            Err(error) => return Err(failed("lstat", &path, &error)),
        };
        if !found.is_symlink() {
            return Ok(Info {
                path,
                exists: true,
                is_directory: found.is_dir(),
                rename: None,
            });
        }
        let link = std::fs::read_link(&path)?.to_string_lossy().into_owned();
        path = match link.starts_with('/') {
            true => link,
            false => paths::join(&paths::split_entry(&path).0, &link),
        };
    }
    Err(Failure::new(format!("too many symlinks in {path}")))
}

/// Extracts an answer's archive. Returns its size in bytes.
pub async fn extract(mut response: Response, source: &Info, to: &str) -> Result<u64, Failure> {
    let (directory, name) = paths::plan(source, &target(to)?).map_err(Failure::new)?;
    let (_, own) = paths::split_entry(&source.path);
    let own = match own.as_str() {
        "/" => String::new(),
        own => own.to_owned(),
    };
    // The daemon names the entry as its path does; a followed link is to keep its own name.
    let name = name.or_else(|| source.rename.clone());
    let how = Extract {
        // It belongs to whoever copies.
        owner: Some((
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        )),
        keep_kinds: true,
        rename: name.map(|name| (own.into_bytes(), name.into_bytes())),
    };
    let real = std::fs::canonicalize(&directory);
    let real = real.map_err(|error| failed("lstat", &directory, &error))?;
    let below = real.strip_prefix("/").unwrap_or(&real).to_owned();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, "/", flags, Mode::empty()).map_err(io::Error::from)?;
    let (sender, chunks) = mpsc::channel(QUEUED_CHUNKS);
    let work = tokio::task::spawn_blocking(move || {
        let archive = Chunks {
            chunks,
            current: Bytes::new(),
        };
        tree::extract(archive, root, below.as_os_str().as_encoded_bytes(), &how)
    });
    let mut size = 0;
    let received = async {
        while let Some(chunk) = response.chunk().await? {
            size += chunk.len() as u64;
            if sender.send(Ok(chunk)).await.is_err() {
                break;
            }
        }
        Ok::<_, Failure>(())
    };
    let received = received.await;
    if received.is_err() {
        let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
        sender.send(Err(cut)).await.ok();
    }
    drop(sender);
    let done = work.await.map_err(io::Error::other)?;
    received?;
    done.map_err(|error| Failure::new(berth_base::Chain(&error).to_string()))?;
    Ok(size)
}

/// An answer's body, for a thread that reads.
struct Chunks {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.current = chunk?,
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
