//! Paths inside the container, resolved as if its root were ours.
//!
//! The image's files are hostile: any component may be a symbolic link to anywhere, and other
//! processes may change them while we look (a shared volume). So nothing here takes a path string
//! twice: openat2 with RESOLVE_IN_ROOT gives a descriptor, and the work is done on that.
//! Magic links (`/proc/PID/fd/N`) are never followed.

use std::ffi::{OsStr, OsString};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// As many symbolic links as the kernel follows (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// What stands at the end of a path that is made when missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    Directory,
    File,
}

/// Opens a path below `root` as a location only (O_PATH).
pub fn locate(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    open(root, path, OFlags::PATH)
}

/// Opens a path below `root`.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    open_resolving(
        root,
        path,
        flags,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

/// As [`locate`], but no component may be a symbolic link.
pub fn locate_plain(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    open_resolving(
        root,
        path,
        OFlags::PATH,
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
    )
}

/// Opens a path below `root` that must be on the same mount as `root` all the way: nothing that
/// the container mounted over it can be hit.
pub fn open_same_mount(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    open_resolving(root, path, flags, resolve)
}

fn open_resolving(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename or mount raced with the resolution of `..`; openat2(2) says to try again.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// Opens a path below `root`, making what is missing of it: directories with mode 0755, an empty
/// file with mode 0644. A dangling link on the way is followed and its target made, as runc does
/// (`/var/run -> /run` in an image without `/run`).
pub fn locate_or_make(root: BorrowedFd<'_>, path: &Path, leaf: Leaf) -> Result<OwnedFd> {
    match locate(root, path) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut links = 0;
    let mut todo: Vec<OsString> = components(path);
    todo.reverse();
    let mut done = PathBuf::new();
    while let Some(name) = todo.pop() {
        if name == OsStr::new("..") {
            done.pop();
            continue;
        }
        let here = done.join(&name);
        match locate(root, &here) {
            Ok(_) => done = here,
            Err(Errno::NOENT) => {
                let parent = locate(root, &done)?;
                match make(&parent, &name, leaf, todo.is_empty()) {
                    // Also when another process was faster.
                    Ok(()) => done = here,
                    Err(Errno::EXIST) => match locate(root, &here) {
                        Ok(_) => done = here,
                        Err(Errno::NOENT) => {
                            links += 1;
                            if links > MAX_LINKS {
                                return Err(Errno::LOOP);
                            }
                            let target =
                                rustix::fs::readlinkat(&parent, name.as_os_str(), Vec::new())?;
                            let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                            if target.is_absolute() {
                                done = PathBuf::new();
                            }
                            todo.extend(components(target).into_iter().rev());
                        }
                        Err(error) => return Err(error),
                    },
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
    locate(root, &done)
}

/// Where a path leads when all links are followed, from `/`. What does not exist is taken as it is
/// written; so are the names after it.
pub fn follow(root: BorrowedFd<'_>, path: &Path) -> Result<PathBuf> {
    let mut links = 0;
    let mut todo: Vec<OsString> = components(path);
    todo.reverse();
    let mut done = PathBuf::from("/");
    while let Some(name) = todo.pop() {
        if name == OsStr::new("..") {
            done.pop();
            continue;
        }
        let parent = match locate(root, &done) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                done.push(name);
                continue;
            }
            parent => parent?,
        };
        match rustix::fs::readlinkat(&parent, name.as_os_str(), Vec::new()) {
            Ok(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                todo.extend(components(target).into_iter().rev());
            }
            // No link, or not there.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => done.push(name),
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn make(parent: &OwnedFd, name: &OsStr, leaf: Leaf, last: bool) -> Result<()> {
    if last && leaf == Leaf::File {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
    } else {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
    }
}

/// The names of a path, with `..` kept.
fn components(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let directory = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = rustix::fs::open(directory.path(), flags, Mode::empty()).unwrap();
        (directory, fd)
    }

    #[test]
    fn missing_directories_and_files_are_made() {
        let (directory, fd) = root();
        locate_or_make(fd.as_fd(), Path::new("/a/b/c"), Leaf::File).unwrap();
        assert!(directory.path().join("a/b/c").is_file());
        locate_or_make(fd.as_fd(), Path::new("/a/b/d"), Leaf::Directory).unwrap();
        assert!(directory.path().join("a/b/d").is_dir());
    }

    #[test]
    fn absolute_links_stay_in_the_root() {
        let (directory, fd) = root();
        symlink("/outside", directory.path().join("link")).unwrap();
        locate_or_make(fd.as_fd(), Path::new("/link/file"), Leaf::File).unwrap();
        assert!(directory.path().join("outside/file").is_file());
    }

    #[test]
    fn links_cannot_climb_out() {
        let (directory, fd) = root();
        symlink("../../../../../../up", directory.path().join("link")).unwrap();
        locate_or_make(fd.as_fd(), Path::new("/link/x"), Leaf::Directory).unwrap();
        assert!(directory.path().join("up/x").is_dir());
    }

    #[test]
    fn a_ring_of_links_ends() {
        let (directory, fd) = root();
        symlink("b", directory.path().join("a")).unwrap();
        symlink("a", directory.path().join("b")).unwrap();
        let result = locate_or_make(fd.as_fd(), Path::new("/a/x"), Leaf::Directory);
        assert_eq!(result.unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn links_are_followed_as_far_as_they_lead() {
        let (directory, fd) = root();
        std::fs::create_dir_all(directory.path().join("a/b")).unwrap();
        symlink("/a", directory.path().join("absolute")).unwrap();
        symlink("../../../a/b", directory.path().join("a/up")).unwrap();
        symlink("nowhere/at/all", directory.path().join("dangling")).unwrap();
        symlink("ring", directory.path().join("ring")).unwrap();
        let check = |path: &str, expect: &str| {
            let found = follow(fd.as_fd(), Path::new(path)).unwrap();
            assert_eq!(found, Path::new(expect), "{path}");
        };
        check("/", "/");
        check("absolute/b/", "/a/b");
        check("/absolute/up/x/../y", "/a/b/y");
        check("dangling/more", "/nowhere/at/all/more");
        check("a/missing/..", "/a");
        let ring = follow(fd.as_fd(), Path::new("ring/x"));
        assert_eq!(ring.unwrap_err(), Errno::LOOP);
    }

    #[test]
    fn magic_links_are_refused() {
        let proc = rustix::fs::open("/proc", OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(
            locate(proc.as_fd(), Path::new("self/exe")).unwrap_err(),
            Errno::LOOP
        );
    }
}
