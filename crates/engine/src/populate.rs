//! Fills a new volume with what the image has at its destination, as Docker does.
//!
//! The image's layers are read directly, by the rules of overlayfs (Documentation/filesystems/
//! overlayfs.rst): a character device 0/0 hides what is below, and so does the attribute
//! `trusted.overlay.opaque` of a directory. Mounting them instead would need another process on
//! kernels before 6.7. No symbolic link is followed, so a hostile layer cannot point out of itself.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

const OPAQUE: &str = "trusted.overlay.opaque";
/// Deeper trees are refused.
const MAX_DEPTH: usize = 256;

/// Copies the directory at `path` of the merged `layers` (topmost first) into `target`, unless
/// something is there already. A path that the image does not have, or that is no directory, is
/// left alone.
pub fn populate(layers: &[PathBuf], path: &Path, target: &Path) -> io::Result<()> {
    if fs::read_dir(target)?.next().is_some() {
        return Ok(());
    }
    let mut directories = Vec::new();
    for layer in layers {
        directories.push(open_directory(
            rustix::fs::CWD,
            layer.as_os_str().as_encoded_bytes(),
        )?);
    }
    for component in path.components() {
        if let Component::Normal(name) = component {
            directories = descend(&directories, name.as_encoded_bytes())?;
        }
    }
    match directories.first() {
        Some(_) => copy_directory(&directories, target, 0),
        None => Ok(()),
    }
}

fn open_directory(parent: impl std::os::fd::AsFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// What a layer has under a name.
enum Found {
    Nothing,
    /// Nothing, and nothing below counts.
    Whiteout,
    Directory(OwnedFd),
    Other,
}

fn look_up(directory: &OwnedFd, name: &[u8]) -> io::Result<Found> {
    let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice if stat.st_rdev == 0 => Found::Whiteout,
        FileType::Directory => Found::Directory(open_directory(directory, name)?),
        _ => Found::Other,
    })
}

fn is_opaque(directory: &OwnedFd) -> bool {
    let mut value = [0u8; 4];
    matches!(rustix::fs::fgetxattr(directory, OPAQUE, &mut value[..]), Ok(1) if value[0] == b'y')
}

/// The directories that are merged under a name, topmost first.
fn descend(directories: &[OwnedFd], name: &[u8]) -> io::Result<Vec<OwnedFd>> {
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
            Found::Whiteout | Found::Other => break,
        }
    }
    Ok(found)
}

fn copy_directory(directories: &[OwnedFd], target: &Path, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other(format!("{}: too deep", target.display())));
    }
    let Some(top) = directories.first() else {
        return Ok(());
    };
    for (name, first) in entries(directories)? {
        let inner = target.join(OsString::from_vec(name.clone().into_bytes()));
        match look_up(&directories[first], name.as_bytes())? {
            Found::Nothing | Found::Whiteout => {}
            Found::Directory(_) => {
                fs::create_dir(&inner)?;
                let merged = descend(&directories[first..], name.as_bytes())?;
                copy_directory(&merged, &inner, depth + 1)?;
            }
            Found::Other => copy_other(&directories[first], &name, &inner)?,
        }
    }
    let metadata = fs::metadata(through(top, None))?;
    dress(target, &metadata)
}

/// Every name, with the topmost directory that has it.
fn entries(directories: &[OwnedFd]) -> io::Result<BTreeMap<CString, usize>> {
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

/// A path to something in an open directory.
fn through(directory: &OwnedFd, name: Option<&CString>) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    if let Some(name) = name {
        path.push(OsString::from_vec(name.clone().into_bytes()));
    }
    path
}

/// A file or a symbolic link. Sockets, pipes and devices are left out.
fn copy_other(directory: &OwnedFd, name: &CString, target: &Path) -> io::Result<()> {
    let source = through(directory, Some(name));
    let metadata = fs::symlink_metadata(&source)?;
    if metadata.is_symlink() {
        symlink(fs::read_link(&source)?, target)?;
        return lchown(target, Some(metadata.uid()), Some(metadata.gid()));
    }
    if !metadata.is_file() {
        return Ok(());
    }
    fs::copy(&source, target)?;
    dress(target, &metadata)
}

/// Owner first: a change of owner takes the setuid bits away.
fn dress(target: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    lchown(target, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(target, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    let times = fs::FileTimes::new().set_modified(metadata.modified()?);
    fs::File::open(target)?.set_times(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn whiteout(path: &Path) -> bool {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::CharacterDevice, mode, 0).is_ok()
    }

    #[test]
    fn layers_merge_as_in_an_overlay() {
        let root = tempfile::tempdir().unwrap();
        let (top, low) = (root.path().join("top"), root.path().join("low"));
        write(&low.join("data/kept"), "low");
        write(&low.join("data/changed"), "low");
        write(&low.join("data/gone"), "low");
        write(&low.join("data/sub/a"), "low");
        write(&top.join("data/changed"), "top");
        write(&top.join("data/sub/b"), "top");
        symlink("/etc/passwd", top.join("data/link")).unwrap();
        if !whiteout(&top.join("data/gone")) {
            return; // Only root makes device nodes.
        }
        let target = root.path().join("volume");
        fs::create_dir(&target).unwrap();
        let layers = [top, low];
        populate(&layers, Path::new("/data"), &target).unwrap();
        let read = |name: &str| fs::read_to_string(target.join(name)).ok();
        assert_eq!(read("kept").as_deref(), Some("low"));
        assert_eq!(read("changed").as_deref(), Some("top"));
        assert_eq!(read("gone"), None);
        assert_eq!(
            (read("sub/a").is_some(), read("sub/b").is_some()),
            (true, true)
        );
        assert_eq!(
            fs::read_link(target.join("link")).unwrap(),
            Path::new("/etc/passwd")
        );

        write(&layers[1].join("data/late"), "low");
        populate(&layers, Path::new("/data"), &target).unwrap();
        assert_eq!(read("late"), None, "a volume with files is left alone");
    }

    #[test]
    fn links_in_the_path_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let layer = root.path().join("layer");
        write(&root.path().join("outside/secret"), "x");
        fs::create_dir(&layer).unwrap();
        symlink(root.path().join("outside"), layer.join("data")).unwrap();
        let target = root.path().join("volume");
        fs::create_dir(&target).unwrap();
        populate(&[layer], Path::new("/data"), &target).unwrap();
        assert!(fs::read_dir(&target).unwrap().next().is_none());
    }
}
