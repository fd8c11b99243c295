//! Masked and read-only paths, and the read-only root.
//!
//! Applied after the pivot, so `/` is the container's. Fails closed: a path that exists and cannot
//! be covered is an error.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::mount::{Change, Propagation, attr, setattr};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::options::Data;
use super::{devices, file_systems, mounts, path};
use crate::error::{Error, errno_words, io_words};

/// Hides files behind /dev/null and directories behind one empty read-only tmpfs.
pub(crate) fn mask(root: BorrowedFd<'_>, masked: &[PathBuf]) -> Result<(), Error> {
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for masked in masked {
        let fail = |errno| masking(masked, &errno_words(errno));
        let Some(place) = existing(root, masked).map_err(fail)? else {
            continue;
        };
        let stat = rustix::fs::fstat(&place).map_err(fail)?;
        let tree = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => match &empty {
                Some(attached) => mounts::clone_at(attached.as_fd(), false),
                None => {
                    let data = [Data::Value("nr_inodes".into(), "1".into())];
                    let attributes = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
                    file_systems::detached("tmpfs", "tmpfs", &data, attributes)
                }
            },
            _ => {
                let source = match &null {
                    Some(source) => source,
                    // Its identity is checked: an image's own file at /dev/null must not be what
                    // the container finds in the place of /proc/kcore.
                    None => null.insert(null_device(root).map_err(fail)?),
                };
                mounts::clone_at(source.as_fd(), false)
            }
        };
        let tree = tree.map_err(fail)?;
        mounts::attach(tree.as_fd(), place.as_fd()).map_err(fail)?;
        if empty.is_none() && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            empty = Some(tree);
        }
    }
    Ok(())
}

/// Makes paths read-only by a bind of themselves.
pub(crate) fn read_only(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<(), Error> {
    for path in paths {
        let fail = |reason: String| {
            Error::internal(format!(
                "can't set {:?} read-only: {reason}",
                path.display()
            ))
        };
        let Some(place) = existing(root, path).map_err(|e| fail(errno_words(e)))? else {
            continue;
        };
        let tree = mounts::clone_at(place.as_fd(), true).map_err(|e| fail(errno_words(e)))?;
        let change = Change {
            set: attr::RDONLY,
            propagation: Some(Propagation::Private),
            clear: 0,
        };
        setattr(tree.as_fd(), change, true).map_err(|e| fail(io_words(&e)))?;
        mounts::attach(tree.as_fd(), place.as_fd()).map_err(|e| fail(errno_words(e)))?;
    }
    Ok(())
}

/// Makes one mount read-only, without those below it.
pub(crate) fn seal(mount: BorrowedFd<'_>) -> std::io::Result<()> {
    let change = Change {
        set: attr::RDONLY,
        ..Change::default()
    };
    setattr(mount, change, false)
}

fn null_device(root: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let null = path::locate(root, Path::new("/dev/null"))?;
    if devices::is_null(null.as_fd()) {
        Ok(null)
    } else {
        Err(Errno::NODEV)
    }
}

fn existing(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<Option<OwnedFd>> {
    match path::locate(root, path) {
        Ok(place) => Ok(Some(place)),
        // NOTDIR: `/proc/x/y` where x is a file.
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn masking(path: &Path, reason: &str) -> Error {
    Error::internal(format!("can't mask path {:?}: {reason}", path.display()))
}
