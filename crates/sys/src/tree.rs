//! Removing and measuring a tree of files that somebody else made, however deep it is, and while
//! they are at it.
//!
//! A container nests directories as deep as its disk has room, and so does a layer. Whoever walks
//! down with a stack frame and a descriptor a level runs out of either (the standard library's
//! `remove_dir_all` ends the process). Here what lies too deep is moved to the top of the tree
//! first, and so every directory is moved once at most.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

/// How many directories are open at once.
const MAX_OPEN: usize = 32;

/// Removes a file, or a directory with everything below it. Links are removed, not followed.
///
/// # Errors
/// The first that the kernel reports; what is removed by then stays removed.
pub fn remove(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    Ok(remove_at(CWD, &path)?)
}

/// As [`remove`], of a name in an open directory.
pub fn remove_at(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    let mut moved = 0;
    loop {
        let before = moved;
        empty(open(parent, name)?, &mut moved)?;
        if moved == before {
            break;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// A directory on the way down.
struct Level {
    directory: OwnedFd,
    entries: Dir,
    /// Of this directory, in the one above.
    name: CString,
}

impl Level {
    fn new(directory: OwnedFd, name: CString) -> rustix::io::Result<Self> {
        Ok(Self {
            entries: Dir::read_from(&directory)?,
            directory,
            name,
        })
    }
}

/// Directories below so many others are not measured.
const MAX_MEASURED: usize = 256;

/// The disk space that a tree takes, in bytes. Others may change it meanwhile; links that they
/// put in the way are not followed.
///
/// # Errors
/// If the tree itself cannot be read.
pub fn disk_usage(path: &Path) -> io::Result<u64> {
    const SECTOR: u64 = 512;
    measure(path, |stat, _| {
        u64::try_from(stat.st_blocks).unwrap_or(0) * SECTOR
    })
}

/// The lengths of all files of a tree, in bytes, holes included; a file with several names counts
/// once, and directories not at all. As [`disk_usage`].
///
/// # Errors
/// If the tree itself cannot be read.
pub fn length(path: &Path) -> io::Result<u64> {
    measure(path, |stat, is_directory| match is_directory {
        true => 0,
        false => u64::try_from(stat.st_size).unwrap_or(0),
    })
}

fn measure(path: &Path, bytes: impl Fn(&Stat, bool) -> u64) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut levels = vec![Level::new(open(CWD, &path)?, CString::default())?];
    let mut seen = HashSet::new();
    let mut total = 0;
    while let Some(level) = levels.last_mut() {
        let Some(Ok(entry)) = level.entries.next() else {
            levels.pop();
            continue;
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let Ok(stat) = rustix::fs::statat(&level.directory, name, flags) else {
            continue;
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory || stat.st_nlink == 1 || seen.insert(stat.st_ino) {
            total += bytes(&stat, is_directory);
        }
        if is_directory && levels.len() < MAX_MEASURED {
            let below = open(levels[levels.len() - 1].directory.as_fd(), name)
                .and_then(|directory| Level::new(directory, CString::default()));
            levels.extend(below);
        }
    }
    Ok(total)
}

/// Removes what is in `top`, but for what it moves there and does not come across again.
fn empty(top: OwnedFd, moved: &mut u64) -> rustix::io::Result<()> {
    let mut levels = vec![Level::new(top, CString::default())?];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.entries.next() else {
            let done = levels.pop();
            if let (Some(above), Some(done)) = (levels.last(), done) {
                rustix::fs::unlinkat(&above.directory, &done.name, AtFlags::REMOVEDIR)?;
            }
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let is_directory = match entry.file_type() {
            FileType::Directory => true,
            FileType::Unknown => is_directory(&level.directory, name)?,
            _ => false,
        };
        if !is_directory {
            rustix::fs::unlinkat(&level.directory, name, AtFlags::empty())?;
        } else if levels.len() < MAX_OPEN {
            let below = open(levels[levels.len() - 1].directory.as_fd(), name)?;
            levels.push(Level::new(below, name.to_owned())?);
        } else {
            move_up(
                &levels[levels.len() - 1].directory,
                name,
                &levels[0].directory,
                moved,
            )?;
        }
    }
    Ok(())
}

fn move_up(from: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> rustix::io::Result<()> {
    loop {
        *moved += 1;
        let target = format!("{moved}");
        match rustix::fs::renameat_with(from, name, top, target, RenameFlags::NOREPLACE) {
            // The tree has such a name itself.
            Err(Errno::EXIST) => {}
            other => return other,
        }
    }
}

fn open(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn is_directory(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<bool> {
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// Makes directories `d` in each other, and a file in every one.
    fn nest(path: &Path, levels: usize) {
        let mut here = open(CWD, &CString::new(path.as_os_str().as_bytes()).unwrap()).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            let flags = OFlags::CREATE | OFlags::WRONLY;
            rustix::fs::openat(&here, "1", flags, Mode::RUSR).unwrap();
            here = open(here.as_fd(), c"d").unwrap();
        }
    }

    #[test]
    fn a_tree_of_any_depth_goes() {
        // On tmpfs, where it takes no time.
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let tree = root.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        nest(&tree, 10_000);
        nest(&tree.join("a/b"), 100);
        // A frame a level would not fit.
        let small = std::thread::Builder::new().stack_size(256 << 10);
        small
            .spawn(move || remove(&tree))
            .unwrap()
            .join()
            .unwrap()
            .unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_tree_is_measured_without_its_links() {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let tree = root.path().join("tree");
        fs::create_dir_all(tree.join("a")).unwrap();
        fs::write(tree.join("a/file"), [1; 20_000]).unwrap();
        fs::hard_link(tree.join("a/file"), tree.join("again")).unwrap();
        fs::write(root.path().join("outside"), [1; 1 << 20]).unwrap();
        symlink(root.path(), tree.join("up")).unwrap();
        nest(&tree, 1000);
        let size = disk_usage(&tree).unwrap();
        assert!((20_000..40_000).contains(&size), "{size}");
        remove(&tree).unwrap();
    }

    #[test]
    fn links_go_and_what_they_point_at_stays() {
        let root = tempfile::tempdir().unwrap();
        let (tree, kept) = (root.path().join("tree"), root.path().join("kept"));
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        fs::create_dir_all(tree.join("x")).unwrap();
        symlink(&kept, tree.join("x/link")).unwrap();
        symlink(&kept, root.path().join("link")).unwrap();
        remove(&tree).unwrap();
        remove(&root.path().join("link")).unwrap();
        assert!(!tree.exists() && kept.join("file").exists());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert_eq!(remove(&tree).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
