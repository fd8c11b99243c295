//! `tmpcopyup`: a new tmpfs gets a copy of the directory that it is going to hide.
//!
//! Works on descriptors and follows no symbolic link: what is copied is the image's, and so
//! hostile. Owners, modes, times and extended attributes are kept; hard links become files.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};

/// Deeper trees than this are refused; each level holds two descriptors.
const MAX_DEPTH: u32 = 256;
/// Longer names of attributes together, or values, are refused, in bytes (the kernel's limits).
const MAX_ATTRIBUTE_BYTES: usize = 65536;

/// Copies what is in `from` into `to`, which is an empty directory.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let from = open_directory(from, c".")?;
    let to = open_directory(to, c".")?;
    directory(&from, &to, 0)
}

fn open_directory(parent: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn directory(from: &OwnedFd, to: &OwnedFd, depth: u32) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Errno::LOOP);
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from, to, name, depth)?;
        }
    }
    Ok(())
}

fn one(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: u32) -> Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let source = open_directory(from, name)?;
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let target = open_directory(to, name)?;
            directory(&source, &target, depth + 1)?;
            attributes(&source, &target)?;
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
            let (mut source, mut target) = (File::from(source), File::from(target));
            std::io::copy(&mut source, &mut target)
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            attributes(&source, &target)?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, name)?;
        }
        kind => {
            rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?;
        }
    }
    finish(to, name, &stat, mode)
}

/// Owner, mode and times; the owner first, since a change of it takes the set-id bits away.
fn finish(to: &OwnedFd, name: &CStr, stat: &Stat, mode: Mode) -> Result<()> {
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(to, name, Some(owner.0), Some(owner.1), flags)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
    }
    let time = |tv_sec, nanoseconds: u64| Timespec {
        tv_sec,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::utimensat(to, name, &times, flags)
}

fn attributes(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let mut names = vec![0; MAX_ATTRIBUTE_BYTES];
    let length = match rustix::fs::flistxattr(&from, &mut names) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    names.truncate(length);
    for name in names.split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let mut value = vec![0; MAX_ATTRIBUTE_BYTES];
        let length = rustix::fs::fgetxattr(&from, name, &mut value)?;
        value.truncate(length);
        match rustix::fs::fsetxattr(&to, name, &value, XattrFlags::empty()) {
            // A tmpfs takes `user.` since Linux 6.6 only, and a user namespace's no `trusted.`.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_with_what_belongs_to_it() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(from.path().join("a/b")).unwrap();
        std::fs::write(from.path().join("a/b/file"), "text").unwrap();
        symlink("/etc/shadow", from.path().join("a/link")).unwrap();
        let mode = PermissionsExt::from_mode(0o4711);
        std::fs::set_permissions(from.path().join("a/b/file"), mode).unwrap();
        let open = |path| rustix::fs::open(path, OFlags::PATH, Mode::empty()).unwrap();
        let fds = (open(from.path()), open(to.path()));
        copy(fds.0.as_fd(), fds.1.as_fd()).unwrap();
        let (old, new) = (from.path().join("a/b/file"), to.path().join("a/b/file"));
        assert_eq!(std::fs::read_to_string(&new).unwrap(), "text");
        let (old, new) = (old.metadata().unwrap(), new.metadata().unwrap());
        assert_eq!((new.mode(), new.mtime()), (old.mode(), old.mtime()));
        let link = std::fs::read_link(to.path().join("a/link")).unwrap();
        assert_eq!(link.to_str(), Some("/etc/shadow"));
    }
}
