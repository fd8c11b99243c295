//! A layer's directory while it is filled: where members go, and what stays to be done at the end.

use std::borrow::Cow;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::Error;
use super::entry::Data;
use super::path::{Clean, Marker};
use crate::tar::{Entry, EntryKind, Time};

/// What a directory gets that no entry describes and no lower layer has.
const IMPLIED_MODE: Mode = Mode::from_raw_mode(0o755);

/// No path that is given to the kernel is longer.
const PATH_MAX: usize = 4095;

/// How much of paths of directories is kept in memory, in bytes: a layer with a million of them
/// of ordinary length. What compresses well could name far more.
const MAX_REMEMBERED: usize = 128 << 20;

/// The directory that a layer is unpacked into.
pub(crate) struct Target {
    pub(super) root: OwnedFd,
    pub(super) rules: Rules,
    /// The directory of the member before: members mostly come directory by directory.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, set last since filling a directory changes them.
    times: Vec<(Vec<u8>, Time)>,
    implied: Vec<PathBuf>,
    /// Bytes of paths in the two above.
    remembered: usize,
    root_described: bool,
    pub(super) size_bytes: u64,
}

/// What is done otherwise than with the files of a volume.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Names say what lower layers have to hide.
    pub is_layer: bool,
    /// The directory that members go into, below the root, which symbolic links see as `/`; cleaned.
    /// It stays as it is if it is not the root itself.
    pub below: Option<Vec<u8>>,
    /// The user and group of everything, whatever the archive says.
    pub owner: Option<(u32, u32)>,
    /// No directory is replaced by something else, nor the other way round.
    pub keeps_kinds: bool,
    /// In each name the first of these is replaced by the second, once.
    pub rename: Option<(Vec<u8>, Vec<u8>)>,
}

impl Rules {
    /// The member as it is to be made.
    fn adapt<'a>(&self, entry: &'a Entry) -> Cow<'a, Entry> {
        let mut entry = Cow::Borrowed(entry);
        if let Some((uid, gid)) = self.owner {
            let entry = entry.to_mut();
            (entry.uid, entry.gid) = (uid.into(), gid.into());
        }
        if let Some((old, new)) = &self.rename {
            let entry = entry.to_mut();
            entry.path = replaced(&entry.path, old, new);
            if entry.kind == EntryKind::HardLink {
                entry.link = replaced(&entry.link, old, new);
            }
        }
        entry
    }
}

/// With the first place where `old` stands replaced. Nothing at all stands at the beginning.
fn replaced(text: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = match old.len() {
        0 => Some(0),
        length => text.windows(length).position(|window| window == old),
    };
    match at {
        Some(at) => [&text[..at], new, &text[at + old.len()..]].concat(),
        None => text.to_vec(),
    }
}

impl Target {
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        Self::at(
            root,
            Rules {
                is_layer: true,
                ..Rules::default()
            },
        )
    }

    /// Of files that are not a layer's: every name is just a name.
    pub(crate) fn of_files(root: &Path) -> Result<Self, Error> {
        Self::at(root, Rules::default())
    }

    fn at(root: &Path, rules: Rules) -> Result<Self, Error> {
        let root = rustix::fs::open(
            root,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|errno| Error::Root {
            path: root.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self::new(root, rules))
    }

    pub(crate) fn new(root: OwnedFd, rules: Rules) -> Self {
        Self {
            root,
            rules,
            parent: None,
            times: Vec::new(),
            implied: Vec::new(),
            remembered: 0,
            root_described: false,
            size_bytes: 0,
        }
    }

    pub(crate) fn apply(&mut self, entry: &Entry, data: &mut impl Data) -> Result<(), Error> {
        let entry = &*self.rules.adapt(entry);
        let at = At::new(&entry.path);
        let mut path = Clean::parse(&entry.path).map_err(|problem| at.problem(problem))?;
        if path.is_root() {
            return self.describe_root(entry, &at);
        }
        if let Some(below) = &self.rules.below {
            path = path.under(below);
        }
        let marker = match self.rules.is_layer {
            true => path.marker().map_err(|problem| at.problem(problem))?,
            false => Marker::None,
        };
        if marker == Marker::Meta {
            return Ok(());
        }
        let (directory, name) = path.split();
        let parent = self.enter(directory, &at)?;
        let result = match marker {
            Marker::Opaque => super::entry::make_opaque(parent.as_fd(), b".", &at),
            Marker::Whiteout(hidden) => super::entry::whiteout(parent.as_fd(), hidden, &at),
            Marker::None | Marker::Meta => self.member(entry, parent.as_fd(), name, &at, data),
        };
        if entry.kind == EntryKind::Directory && marker == Marker::None {
            self.remember(path.as_bytes().len(), &at)?;
            self.times.push((path.as_bytes().to_vec(), entry.mtime));
        }
        self.parent
            .get_or_insert_with(|| (directory.to_vec(), parent));
        result
    }

    /// Sets the directories' times. Returns the disk usage and the implied directories.
    pub(crate) fn finish(mut self) -> Result<(u64, Vec<PathBuf>), Error> {
        for (path, time) in std::mem::take(&mut self.times).into_iter().rev() {
            let at = At::new(&path);
            match self.open_directory(&path, OFlags::RDONLY | OFlags::NOFOLLOW) {
                Ok(directory) => rustix::fs::futimens(&directory, &timestamps(time))
                    .map_err(|errno| at.failed("set the times of", errno))?,
                // A later member took its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(at.failed("open", errno)),
            }
        }
        if !self.root_described {
            self.implied.insert(0, PathBuf::new());
        }
        Ok((self.size_bytes, self.implied))
    }

    /// Opens a path beneath the root. Symbolic links within are followed as if the root were `/`.
    pub(super) fn open_directory(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        loop {
            let opened = rustix::fs::openat2(
                &self.root,
                path,
                flags | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            );
            match opened {
                // Somebody renamed something meanwhile; openat2(2) says to try again.
                Err(Errno::AGAIN) => {}
                opened => return opened,
            }
        }
    }

    /// The directory that a member goes into, made if no entry has described it.
    fn enter(&mut self, directory: &[u8], at: &At<'_>) -> Result<OwnedFd, Error> {
        if let Some((path, _)) = &self.parent
            && path == directory
            && let Some((_, fd)) = self.parent.take()
        {
            return Ok(fd);
        }
        self.parent = None;
        match self.open_directory(directory, OFlags::PATH) {
            Ok(fd) => Ok(fd),
            Err(Errno::NOENT) => self.make_implied(directory, at),
            Err(errno) => Err(at.failed("open the directory of", errno)),
        }
    }

    fn make_implied(&mut self, directory: &[u8], at: &At<'_>) -> Result<OwnedFd, Error> {
        let failed = |errno| at.failed("make the directory of", errno);
        let mut here = self.open_directory(b"", OFlags::PATH).map_err(failed)?;
        // Where that is in the layer, without links.
        let mut real = Vec::new();
        let mut end = 0;
        for name in directory.split(|&byte| byte == b'/') {
            end += name.len() + usize::from(end > 0);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let open = |here: &OwnedFd| rustix::fs::openat(here, name, flags, Mode::empty());
            let is_new = match open(&here) {
                Ok(next) => {
                    here = next;
                    false
                }
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&here, name, IMPLIED_MODE).map_err(failed)?;
                    here = open(&here).map_err(failed)?;
                    true
                }
                // A link.
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    let target = self.open_directory(&directory[..end], OFlags::PATH);
                    here = target.map_err(failed)?;
                    real = self.path_of(&here).map_err(failed)?;
                    continue;
                }
                Err(errno) => return Err(failed(errno)),
            };
            if !real.is_empty() {
                real.push(b'/');
            }
            real.extend_from_slice(name);
            if real.len() > PATH_MAX {
                return Err(failed(Errno::NAMETOOLONG));
            }
            if is_new {
                self.remember(real.len(), at)?;
                self.implied.push(PathBuf::from(OsStr::from_bytes(&real)));
            }
        }
        Ok(here)
    }

    /// The path of an open directory below the root.
    fn path_of(&self, directory: &OwnedFd) -> Result<Vec<u8>, Errno> {
        let path = |fd: &OwnedFd| {
            let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
            rustix::fs::readlink(link, Vec::new()).map(CString::into_bytes)
        };
        let (root, path) = (path(&self.root)?, path(directory)?);
        let below = path.strip_prefix(&root[..]).ok_or(Errno::XDEV)?;
        Ok(below.strip_prefix(b"/").unwrap_or(below).to_vec())
    }

    fn remember(&mut self, length: usize, at: &At<'_>) -> Result<(), Error> {
        self.remembered += length + size_of::<PathBuf>();
        if self.remembered > MAX_REMEMBERED {
            return Err(at.problem("the layer has too many directories"));
        }
        Ok(())
    }

    fn describe_root(&mut self, entry: &Entry, at: &At<'_>) -> Result<(), Error> {
        if self.rules.below.is_some() {
            return Ok(());
        }
        if entry.kind != EntryKind::Directory {
            return Err(at.problem("the root of a layer has to be a directory"));
        }
        super::entry::describe(&self.root, entry, at)?;
        self.root_described = true;
        self.times.push((Vec::new(), entry.mtime));
        Ok(())
    }
}

/// The member that is being applied, for messages.
pub(crate) struct At<'a>(&'a [u8]);

impl<'a> At<'a> {
    pub(super) fn new(path: &'a [u8]) -> Self {
        Self(path)
    }

    pub(super) fn problem(&self, problem: &'static str) -> Error {
        Error::Entry {
            path: self.path(),
            problem,
        }
    }

    pub(super) fn kept(&self, rules: &Rules, existing: &'static str, new: &'static str) -> Error {
        let below = rules.below.as_deref().unwrap_or_default();
        let path = self.path();
        let inside = Path::new(&path).strip_prefix(OsStr::from_bytes(below));
        Error::Kept {
            path: inside.map_or_else(|_| path.clone(), |path| path.display().to_string()),
            into: format!("/{}", String::from_utf8_lossy(below)),
            existing,
            new,
        }
    }

    pub(crate) fn failed(
        &self,
        operation: &'static str,
        errno: impl Into<std::io::Error>,
    ) -> Error {
        Error::Apply {
            operation,
            path: self.path(),
            source: errno.into(),
        }
    }

    fn path(&self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }
}

pub(super) fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Removes whatever has this name, with everything below it.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &[u8], at: &At<'_>) -> Result<(), Error> {
    let name = CString::new(name).map_err(|_| at.problem("the path contains a NUL"))?;
    match berth_sys::tree::remove_at(parent, &name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(at.failed("replace", errno)),
    }
}
