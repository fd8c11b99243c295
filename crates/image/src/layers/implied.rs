//! Directories that a layer fills without describing them: they look as they do below.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid};

use crate::error::{Context, Result};

/// What of a directory's description is inherited. Extended attributes of implied directories are
/// not: nothing but ACLs and labels could be there, which no image builder writes on directories.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, i64),
}

impl Look {
    fn matches(&self, other: &Self) -> bool {
        (self.mode, self.uid, self.gid) == (other.mode, other.uid, other.gid)
    }
}

/// Gives the implied directories the looks that they have below.
pub(crate) fn inherit(directory: &Path, implied: &[PathBuf], below: &[PathBuf]) -> Result<()> {
    // Children first, since nothing below changes a parent's time after it was set.
    for path in implied.iter().rev() {
        let Some(look) = find(path, below) else {
            continue;
        };
        let context = || format!("describe the implied directory {}", path.display());
        let fd = open(directory, path, OFlags::RDONLY | OFlags::DIRECTORY).context(context)?;
        let (uid, gid) = (Uid::from_raw(look.uid), Gid::from_raw(look.gid));
        let time = Timespec {
            tv_sec: look.mtime.0,
            tv_nsec: look.mtime.1,
        };
        rustix::fs::fchown(&fd, Some(uid), Some(gid))
            .and_then(|()| rustix::fs::fchmod(&fd, Mode::from_raw_mode(look.mode)))
            .and_then(|()| {
                rustix::fs::futimens(
                    &fd,
                    &Timestamps {
                        last_access: time,
                        last_modification: time,
                    },
                )
            })
            .context(context)?;
    }
    Ok(())
}

/// Whether the implied directories already look as they would have to above `below`.
pub(super) fn agree(directory: &Path, implied: &[PathBuf], below: &[PathBuf]) -> bool {
    implied.iter().all(|path| {
        let own = look(directory, path);
        match (own, find(path, below)) {
            (Some(own), Some(wanted)) => own.matches(&wanted),
            (Some(own), None) => (own.mode, own.uid, own.gid) == (0o755, 0, 0),
            (None, _) => false,
        }
    })
}

/// How the path looks in the topmost of the layers (bottom first) that shows it.
fn find(path: &Path, below: &[PathBuf]) -> Option<Look> {
    for layer in below.iter().rev() {
        if let Some(look) = look(layer, path) {
            return Some(look);
        }
        if hides(layer, path) {
            return None;
        }
    }
    None
}

fn look(layer: &Path, path: &Path) -> Option<Look> {
    let stat = stat(layer, path)?.1;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return None;
    }
    Some(Look {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (
            stat.st_mtime,
            i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
    })
}

/// Whether the layer hides the path from those below it: by something else in its place or in the
/// place of a parent, or by an opaque parent. Goes down name by name, to end where the layer does.
fn hides(layer: &Path, path: &Path) -> bool {
    let Some((mut here, _)) = stat(layer, Path::new("")) else {
        return false;
    };
    for name in path {
        if is_opaque(&here) {
            return true;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(next) = rustix::fs::openat(&here, name, flags, Mode::empty()) else {
            return false;
        };
        let is_directory = rustix::fs::fstat(&next)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if !is_directory {
            return true;
        }
        here = next;
    }
    false
}

fn is_opaque(fd: &OwnedFd) -> bool {
    let mut value = [0u8; 1];
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let length = rustix::fs::getxattr(path, crate::unpack::OPAQUE_XATTR, &mut value);
    matches!(length, Ok(1)) && value == *b"y"
}

/// What a layer itself has at the path; links on the way are nothing, never followed.
fn stat(layer: &Path, path: &Path) -> Option<(OwnedFd, Stat)> {
    let fd = open(layer, path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    Some((fd, stat))
}

fn open(layer: &Path, path: &Path, flags: OFlags) -> std::io::Result<OwnedFd> {
    let root = rustix::fs::open(
        layer,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = flags | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(
        &root,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?)
}
