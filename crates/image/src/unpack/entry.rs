//! How one member of a layer is made: files, directories, links and nodes, and their metadata.
//!
//! Order matters: the owner first (it clears setuid bits and capabilities), then the mode, then
//! extended attributes, the times last.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::apply::{At, Target, remove, timestamps};
use super::path::Clean;
use super::{Error, OPAQUE_XATTR};
use crate::tar::reader::Reader;
use crate::tar::{Entry, EntryKind, Segment};

/// Attributes with a meaning for overlayfs. A layer that could set them could make one file show
/// another (`trusted.overlay.redirect`, `.metacopy`).
const OVERLAY_XATTRS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
const FS_BLOCK: u64 = 4096;

/// Where the data of the member that is being made comes from.
pub(crate) trait Data {
    /// Writes the segments, all of the member's, where they belong in the file.
    fn write(&mut self, to: &File, segments: &[Segment], at: &At<'_>) -> Result<(), Error>;
}

impl<R: Read> Data for Reader<R> {
    fn write(&mut self, to: &File, segments: &[Segment], at: &At<'_>) -> Result<(), Error> {
        write_segments(to, segments, at, self)
    }
}

impl Target {
    pub(super) fn member(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
        at: &At<'_>,
        data: &mut impl Data,
    ) -> Result<(), Error> {
        match entry.kind {
            EntryKind::File => self.file(entry, parent, name, at, data),
            EntryKind::Directory => self.directory(entry, parent, name, at),
            EntryKind::HardLink => self.hard_link(entry, parent, name, at),
            EntryKind::Symlink => {
                if entry.link.is_empty() {
                    return Err(at.problem("a symbolic link without a target"));
                }
                self.create(parent, name, at, "make symbolic link", || {
                    rustix::fs::symlinkat(&*entry.link, parent, name)
                })?;
                describe_node(entry, parent, name, false, at)
            }
            EntryKind::CharDevice => self.node(entry, parent, name, FileType::CharacterDevice, at),
            EntryKind::BlockDevice => self.node(entry, parent, name, FileType::BlockDevice, at),
            EntryKind::Fifo => self.node(entry, parent, name, FileType::Fifo, at),
        }
    }

    fn file(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
        at: &At<'_>,
        data: &mut impl Data,
    ) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = self.create(parent, name, at, "create", || {
            rustix::fs::openat(
                parent,
                name,
                flags | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )
        })?;
        let file = File::from(file);
        let segments = entry.segments();
        data.write(&file, &segments, at)?;
        let end = segments.last().map_or(0, |last| last.offset + last.length);
        if end < entry.size || entry.sparse.is_some() {
            file.set_len(entry.size)
                .map_err(|error| at.failed("extend", error))?;
        }
        self.size_bytes += segments
            .iter()
            .map(|segment| segment.length.next_multiple_of(FS_BLOCK))
            .sum::<u64>();
        describe(&file, entry, at)?;
        rustix::fs::futimens(&file, &timestamps(entry.mtime))
            .map_err(|errno| at.failed("set the times of", errno))
    }

    fn directory(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
        at: &At<'_>,
    ) -> Result<(), Error> {
        let make = || rustix::fs::mkdirat(parent, name, Mode::RWXU);
        let open = || open_directory(parent, name);
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                if open().is_err() {
                    if self.rules.keeps_kinds {
                        return Err(at.kept(&self.rules, "non-directory", "directory"));
                    }
                    // What was here before hid the lower layers, and so does what replaces it.
                    remove(parent, name, at)?;
                    make().map_err(|errno| at.failed("make directory", errno))?;
                    if self.rules.is_layer {
                        make_opaque(parent, name, at)?;
                    }
                }
            }
            Err(errno) => return Err(at.failed("make directory", errno)),
        }
        self.size_bytes += FS_BLOCK;
        let directory = open().map_err(|errno| at.failed("open directory", errno))?;
        describe(&directory, entry, at)
    }

    /// The target is a name beneath the root; a link at its end is linked itself, not followed.
    fn hard_link(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
        at: &At<'_>,
    ) -> Result<(), Error> {
        let target = Clean::parse(&entry.link)
            .map_err(|_| at.problem("a hard link leads out of the layer"))?;
        let target = match &self.rules.below {
            Some(below) => target.under(below),
            None => target,
        };
        let (directory, target_name) = target.split();
        let directory = self
            .open_directory(directory, OFlags::PATH)
            .map_err(|errno| missing_target(errno, at))?;
        let link = || rustix::fs::linkat(&directory, target_name, parent, name, AtFlags::empty());
        match link() {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if same_node(&directory, target_name, parent, name) => Ok(()),
            Err(Errno::EXIST) => {
                remove(parent, name, at)?;
                link().map_err(|errno| missing_target(errno, at))
            }
            Err(errno) => Err(missing_target(errno, at)),
        }
    }

    fn node(
        &mut self,
        entry: &Entry,
        parent: BorrowedFd<'_>,
        name: &[u8],
        file_type: FileType,
        at: &At<'_>,
    ) -> Result<(), Error> {
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        self.create(parent, name, at, "make node", || {
            rustix::fs::mknodat(parent, name, file_type, Mode::RUSR, device)
        })?;
        describe_node(entry, parent, name, true, at)
    }

    /// Makes a new name, in place of an older one if there is one.
    fn create<T>(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        at: &At<'_>,
        operation: &'static str,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Error> {
        match make() {
            Err(Errno::EXIST) => {
                if self.rules.keeps_kinds && open_directory(parent, name).is_ok() {
                    return Err(at.kept(&self.rules, "directory", "non-directory"));
                }
                remove(parent, name, at)?;
                make()
            }
            made => made,
        }
        .map_err(|errno| at.failed(operation, errno))
    }
}

/// Makes a directory hide what lower layers have in it.
pub(super) fn make_opaque(parent: BorrowedFd<'_>, name: &[u8], at: &At<'_>) -> Result<(), Error> {
    let directory =
        open_directory(parent, name).map_err(|errno| at.failed("open directory", errno))?;
    rustix::fs::fsetxattr(&directory, OPAQUE_XATTR, b"y", XattrFlags::empty())
        .map_err(|errno| at.failed("make opaque", errno))
}

/// Hides a name of the lower layers: overlayfs' character device 0:0. What this layer itself has
/// under the name stays, but a directory then shows nothing of the lower ones.
pub(super) fn whiteout(parent: BorrowedFd<'_>, hidden: &[u8], at: &At<'_>) -> Result<(), Error> {
    match rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => match open_directory(parent, hidden) {
            Ok(_) => make_opaque(parent, hidden, at),
            Err(_) => Ok(()),
        },
        Err(errno) => Err(at.failed("make whiteout", errno)),
    }
}

/// Owner, mode and attributes of an open file or directory.
pub(super) fn describe(fd: impl AsFd, entry: &Entry, at: &At<'_>) -> Result<(), Error> {
    let fd = fd.as_fd();
    let (uid, gid) = owner(entry, at)?;
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(|errno| at.failed("chown", errno))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
        .map_err(|errno| at.failed("chmod", errno))?;
    for (name, value) in attributes(entry) {
        let result = rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty());
        tolerate(result).map_err(|errno| at.failed("set an attribute of", errno))?;
    }
    Ok(())
}

/// The same for what cannot be opened: links, devices and fifos.
fn describe_node(
    entry: &Entry,
    parent: BorrowedFd<'_>,
    name: &[u8],
    has_mode: bool,
    at: &At<'_>,
) -> Result<(), Error> {
    let (uid, gid) = owner(entry, at)?;
    rustix::fs::chownat(
        parent,
        name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(|errno| at.failed("chown", errno))?;
    if has_mode {
        let failed = |errno| at.failed("chmod", errno);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&node).map_err(failed)?;
        // Somebody else may have put a link in its place.
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(at.problem("it was replaced while it was made"));
        }
        let path = format!("/proc/self/fd/{}", node.as_raw_fd());
        rustix::fs::chmod(path, Mode::from_raw_mode(entry.mode)).map_err(failed)?;
    }
    for (attribute, value) in attributes(entry) {
        let path = proc_path(parent, name);
        let result = rustix::fs::lsetxattr(path, attribute, value, XattrFlags::empty());
        tolerate(result).map_err(|errno| at.failed("set an attribute of", errno))?;
    }
    let times = timestamps(entry.mtime);
    rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| at.failed("set the times of", errno))
}

/// The path of a name in an open directory, for calls that know no `*at` form.
pub(crate) fn proc_path(parent: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(OsStr::from_bytes(name))
}

fn write_segments<R: Read>(
    file: &File,
    segments: &[Segment],
    at: &At<'_>,
    reader: &mut Reader<R>,
) -> Result<(), Error> {
    for segment in segments {
        let mut offset = segment.offset;
        let mut left = segment.length;
        while left > 0 {
            let data = reader.data()?;
            if data.is_empty() {
                return Err(crate::tar::Error::Truncated.into());
            }
            let length = usize::try_from(left).map_or(data.len(), |left| left.min(data.len()));
            file.write_all_at(&data[..length], offset)
                .map_err(|error| at.failed("write", error))?;
            reader.consume(length);
            offset += length as u64;
            left -= length as u64;
        }
    }
    Ok(())
}

fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn same_node(directory: &OwnedFd, target: &[u8], parent: BorrowedFd<'_>, name: &[u8]) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let one = rustix::fs::statat(directory, target, flags);
    let other = rustix::fs::statat(parent, name, flags);
    matches!((one, other), (Ok(one), Ok(other))
        if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

fn missing_target(errno: Errno, at: &At<'_>) -> Error {
    match errno {
        Errno::NOENT | Errno::NOTDIR => {
            at.problem("a hard link to a file that is not in the layer")
        }
        Errno::PERM => at.problem("a hard link to something that cannot be linked"),
        errno => at.failed("link", errno),
    }
}

fn owner(entry: &Entry, at: &At<'_>) -> Result<(Uid, Gid), Error> {
    // The last value means "unchanged" to the kernel.
    let id = |value: u64| u32::try_from(value).ok().filter(|id| *id != u32::MAX);
    match (id(entry.uid), id(entry.gid)) {
        (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
        _ => Err(at.problem("a user or group id is out of range")),
    }
}

fn attributes(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry
        .xattrs
        .iter()
        .filter(|(name, _)| !OVERLAY_XATTRS.iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
}

/// What the file system cannot keep at all is left out, as Docker does; user attributes do not
/// exist on links and devices.
fn tolerate(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::NOTSUP | Errno::PERM) => Ok(()),
        other => other,
    }
}
