//! Every file of a directory with what an archive says of it, parents before what is in them.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::tar::sparse::MAX_SEGMENTS;
use crate::tar::{Entry, EntryKind, Segment, Time};
use crate::unpack::proc_path;

/// Directories below so many others are refused: each level is an open descriptor.
const MAX_DEPTH: usize = 512;
/// What the kernel gives at most as names of attributes, and as the value of one.
const MAX_XATTR_BYTES: usize = 64 << 10;

/// Told of each member; a file that is not a hard link comes with its data.
pub(crate) type Visit<'a> = dyn FnMut(&Entry, Option<&File>) -> io::Result<()> + 'a;

/// What was visited so far.
pub(crate) struct Walk<'a, 'b> {
    visit: &'a mut Visit<'b>,
    /// Only what [`walk_plain`] tells.
    is_plain: bool,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// The root itself is the first member, with the path `.`.
pub(super) fn walk(root: &Path, visit: &mut Visit<'_>) -> io::Result<()> {
    let root = open(CWD, root.as_os_str().as_bytes(), OFlags::DIRECTORY)?;
    let stat = rustix::fs::fstat(&root)?;
    let mut walk = Walk::new(visit, false);
    let xattrs = xattrs(root.as_fd(), b".")?;
    let entry = describe(b".", EntryKind::Directory, &stat, xattrs);
    (walk.visit)(&entry, None)?;
    walk.directory(&root, &[], 0)
}

/// What `name` in a directory is, and all below it, under another path; without fractions of
/// seconds, holes, and attributes other than capabilities.
pub(super) fn walk_plain(
    parent: BorrowedFd<'_>,
    name: &CStr,
    path: &[u8],
    visit: &mut Visit<'_>,
) -> io::Result<()> {
    Walk::new(visit, true).member(parent, name, path, 0)
}

/// As [`walk_plain`] for everything in a directory.
pub(super) fn walk_plain_below(directory: &OwnedFd, visit: &mut Visit<'_>) -> io::Result<()> {
    Walk::new(visit, true).directory(directory, &[], 0)
}

impl<'a, 'b> Walk<'a, 'b> {
    pub(crate) fn new(visit: &'a mut Visit<'b>, is_plain: bool) -> Self {
        Self {
            visit,
            is_plain,
            links: HashMap::new(),
        }
    }

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
                [start @ .., b'/'] => [start, b"/", name.to_bytes()].concat(),
                path => [path, b"/", name.to_bytes()].concat(),
            };
            match self.member(directory.as_fd(), &name, &below, depth) {
                // Gone meanwhile, or something else is there now.
                Err(error) if is_gone(&error) => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn member(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        depth: usize,
    ) -> io::Result<()> {
        match self.single(parent, name, path)? {
            Some(directory) => self.directory(&directory, path, depth + 1),
            None => Ok(()),
        }
    }

    /// Visits one name. Returns a directory, whose members are not visited.
    pub(crate) fn single(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
    ) -> io::Result<Option<OwnedFd>> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let Some(kind) = kind(&stat) else {
            return Ok(None);
        };
        if kind != EntryKind::Directory && stat.st_nlink > 1 {
            let first = self.links.get(&(stat.st_dev, stat.st_ino)).cloned();
            if let Some(first) = first {
                let mut entry = describe(path, EntryKind::HardLink, &stat, Vec::new());
                entry.link = first;
                (self.visit)(&entry, None)?;
                return Ok(None);
            }
        }
        let xattrs = match self.is_plain {
            false => xattrs(parent, name.to_bytes())?,
            true => Vec::new(),
        };
        let mut entry = describe(path, kind, &stat, xattrs);
        if self.is_plain {
            entry.mtime.nanos = 0;
        }
        match kind {
            EntryKind::Directory => {
                let directory = open(parent, name.to_bytes(), OFlags::DIRECTORY)?;
                (self.visit)(&entry, None)?;
                return Ok(Some(directory));
            }
            EntryKind::File => {
                let file = open(parent, name.to_bytes(), OFlags::NONBLOCK)?;
                let stat = rustix::fs::fstat(&file)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Ok(None);
                }
                entry.size = u64::try_from(stat.st_size).unwrap_or(0);
                if self.is_plain {
                    entry.xattrs = capabilities(&file)?;
                } else {
                    entry.sparse = holes(&file, &stat)?;
                }
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
        Ok(None)
    }

    /// Visits what is in no directory.
    pub(crate) fn tell(&mut self, entry: &Entry) -> io::Result<()> {
        (self.visit)(entry, None)
    }
}

fn open(parent: impl AsFd, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Whether a name is not there any more, or not as it was.
pub(crate) fn is_gone(error: &io::Error) -> bool {
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

/// The one attribute that decides what a program may do. Of the open file, so that it does not
/// matter whose /proc this thread sees.
fn capabilities(file: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    const NAME: &str = "security.capability";
    // Of three versions the longest (vfs_ns_cap_data).
    let mut value = [0u8; 24];
    match rustix::fs::fgetxattr(file, NAME, &mut value[..]) {
        Ok(length) => Ok(vec![(NAME.as_bytes().to_vec(), value[..length].to_vec())]),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
    }
}

/// The extended attributes of a name; a link's own.
fn xattrs(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = proc_path(parent, name);
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
