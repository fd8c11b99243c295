//! Every file of a directory with what an archive says of it, parents before what is in them.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::tar::sparse::MAX_SEGMENTS;
use crate::tar::{Entry, EntryKind, Segment, Time};

/// Directories below so many others are refused: each level is an open descriptor.
const MAX_DEPTH: usize = 512;
/// What the kernel gives at most as names of attributes, and as the value of one.
const MAX_XATTR_BYTES: usize = 64 << 10;

/// Told of each member; a file that is not a hard link comes with its data.
pub(super) type Visit<'a> = dyn FnMut(&Entry, Option<&File>) -> io::Result<()> + 'a;

struct Walk<'a, 'b> {
    visit: &'a mut Visit<'b>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// The root itself is the first member, with the path `.`.
pub(super) fn walk(root: &Path, visit: &mut Visit<'_>) -> io::Result<()> {
    let root = open(CWD, root.as_os_str().as_bytes(), OFlags::DIRECTORY)?;
    let stat = rustix::fs::fstat(&root)?;
    let mut walk = Walk {
        visit,
        links: HashMap::new(),
    };
    let xattrs = xattrs(root.as_fd(), b".")?;
    let entry = describe(b".", EntryKind::Directory, &stat, xattrs);
    (walk.visit)(&entry, None)?;
    walk.directory(&root, &[], 0)
}

impl Walk<'_, '_> {
    fn directory(&mut self, directory: &OwnedFd, path: &[u8], depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("a directory is too deep"));
        }
        let mut names: Vec<CString> = Vec::new();
        for entry in Dir::read_from(directory)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        // The same archive of the same files.
        names.sort_unstable();
        for name in names {
            let below = match path {
                [] => name.to_bytes().to_vec(),
                path => [path, b"/", name.to_bytes()].concat(),
            };
            match self.member(directory, &name, &below, depth) {
                // Gone meanwhile, or something else is there now.
                Err(error) if is_gone(&error) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn member(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        path: &[u8],
        depth: usize,
    ) -> io::Result<()> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let Some(kind) = kind(&stat) else {
            return Ok(());
        };
        if kind != EntryKind::Directory && stat.st_nlink > 1 {
            let first = self.links.get(&(stat.st_dev, stat.st_ino)).cloned();
            if let Some(first) = first {
                let mut entry = describe(path, EntryKind::HardLink, &stat, Vec::new());
                entry.link = first;
                return (self.visit)(&entry, None);
            }
        }
        let xattrs = xattrs(parent.as_fd(), name.to_bytes())?;
        let mut entry = describe(path, kind, &stat, xattrs);
        match kind {
            EntryKind::Directory => {
                let directory = open(parent, name.to_bytes(), OFlags::DIRECTORY)?;
                (self.visit)(&entry, None)?;
                return self.directory(&directory, path, depth + 1);
            }
            EntryKind::File => {
                let file = open(parent, name.to_bytes(), OFlags::NONBLOCK)?;
                let stat = rustix::fs::fstat(&file)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Ok(());
                }
                entry.size = u64::try_from(stat.st_size).unwrap_or(0);
                entry.sparse = holes(&file, &stat)?;
                (self.visit)(&entry, Some(&File::from(file)))?;
            }
            EntryKind::Symlink => {
                entry.link = rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes();
                (self.visit)(&entry, None)?;
            }
            _ => (self.visit)(&entry, None)?,
        }
        if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        Ok(())
    }
}

fn open(parent: impl AsFd, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::STALE)
    )
}

fn kind(stat: &Stat) -> Option<EntryKind> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::CharacterDevice => EntryKind::CharDevice,
        FileType::BlockDevice => EntryKind::BlockDevice,
        FileType::Socket | FileType::Unknown => return None,
    })
}

fn describe(path: &[u8], kind: EntryKind, stat: &Stat, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Entry {
    let device = match kind {
        EntryKind::CharDevice | EntryKind::BlockDevice => (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        ),
        _ => (0, 0),
    };
    Entry {
        path: path.to_vec(),
        link: Vec::new(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid.into(),
        gid: stat.st_gid.into(),
        size: 0,
        mtime: Time {
            seconds: stat.st_mtime,
            nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
        device,
        xattrs,
        sparse: None,
    }
}

/// Where a file has data, if it has holes.
fn holes(file: &OwnedFd, stat: &Stat) -> io::Result<Option<Vec<Segment>>> {
    const SECTOR: i64 = 512;
    if stat.st_blocks * SECTOR >= stat.st_size {
        return Ok(None);
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let mut segments = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            // A file system that does not tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
            start => start?.min(size),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
        if start < end {
            segments.push(Segment {
                offset: start,
                length: end - start,
            });
        }
        if segments.len() > MAX_SEGMENTS {
            return Ok(None);
        }
        at = end;
    }
    Ok(Some(segments))
}

/// The extended attributes of a name; a link's own.
fn xattrs(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // There are no calls that take a directory and a name.
    let path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()))
        .join(OsStr::from_bytes(name));
    if rustix::fs::llistxattr_query(&path).is_ok_and(|length| length == 0) {
        return Ok(Vec::new());
    }
    let mut names = vec![0u8; MAX_XATTR_BYTES];
    let length = match rustix::fs::llistxattr(&path, &mut names[..]) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        length => length?,
    };
    let mut found = Vec::new();
    for name in names[..length].split(|&byte| byte == 0) {
        if name.is_empty() {
            continue;
        }
        let mut value = vec![0u8; MAX_XATTR_BYTES];
        match rustix::fs::lgetxattr(&path, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                value.shrink_to_fit();
                found.push((name.to_vec(), value));
            }
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(found)
}
