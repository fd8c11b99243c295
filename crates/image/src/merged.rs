//! The layers of an overlay read without mounting it, by the rules of overlayfs (Documentation/
//! filesystems/overlayfs.rst): a character device 0/0 hides what is below, and so does the attribute
//! `trusted.overlay.opaque` of a directory. No symbolic link is followed, so a hostile layer cannot
//! point out of itself.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::unpack::OPAQUE_XATTR;

/// Opens a directory that is no link.
pub fn open_directory(parent: impl std::os::fd::AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// What a layer has under a name.
pub enum Found {
    Nothing,
    /// Nothing, and nothing below counts.
    Whiteout,
    Directory(OwnedFd),
    Other(Stat),
}

/// What a layer's directory has under a name.
pub fn look_up(directory: &OwnedFd, name: &[u8]) -> io::Result<Found> {
    let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice if stat.st_rdev == 0 => Found::Whiteout,
        FileType::Directory => Found::Directory(open_directory(directory, name)?),
        _ => Found::Other(stat),
    })
}

/// Whether a directory hides what lower layers have in it.
pub fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0u8; 4];
    matches!(rustix::fs::fgetxattr(directory, OPAQUE_XATTR, &mut value[..]), Ok(1) if value[0] == b'y')
}

/// The directories that are merged under a name, topmost first.
pub fn descend(directories: &[OwnedFd], name: &[u8]) -> io::Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    for directory in directories {
        match look_up(directory, name)? {
            Found::Nothing => {}
            Found::Directory(inner) => {
                let last = is_opaque(&inner);
                found.push(inner);
                if last {
                    break;
                }
            }
            Found::Whiteout | Found::Other(_) => break,
        }
    }
    Ok(found)
}

/// Every name, with the topmost directory that has it.
pub fn entries(directories: &[OwnedFd]) -> io::Result<BTreeMap<CString, usize>> {
    let mut names = BTreeMap::new();
    for (index, directory) in directories.iter().enumerate() {
        for entry in rustix::fs::Dir::read_from(directory)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.entry(entry.file_name().to_owned()).or_insert(index);
            }
        }
    }
    Ok(names)
}
