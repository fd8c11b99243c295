//! Fills a new volume with what the image has at its destination, as Docker does.
//!
//! The image's layers are read directly ([`berth_image::merged`]): mounting them instead would need
//! another process on kernels before 6.7.
//!
//! Another container may have the volume mounted already, and put links in the way while it is
//! being filled. So the volume is only written to through descriptors, name by name: what is
//! opened has just been made, or is no link.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use berth_image::merged::{Found, descend, entries, look_up, open_directory};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};

/// Deeper trees are refused.
const MAX_DEPTH: usize = 256;

/// The directories at `path` of the merged `layers` (topmost first): what a volume is filled with.
/// None for a path that the image does not have, or that is no directory.
pub fn find(layers: &[PathBuf], path: &Path) -> io::Result<Vec<OwnedFd>> {
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
    Ok(directories)
}

/// Copies merged directories into `target`, unless something is there already; calls `begin`
/// before.
pub fn fill(
    directories: &[OwnedFd],
    target: &Path,
    begin: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let target = open_directory(rustix::fs::CWD, target.as_os_str().as_encoded_bytes())?;
    match is_empty(&target)? {
        true => {
            begin()?;
            copy_directory(directories, &target, 0)
        }
        false => Ok(()),
    }
}

fn is_empty(directory: &OwnedFd) -> io::Result<bool> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn copy_directory(directories: &[OwnedFd], target: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("a directory is too deep"));
    }
    let Some(top) = directories.first() else {
        return Ok(());
    };
    for (name, first) in entries(directories)? {
        match look_up(&directories[first], name.as_bytes())? {
            Found::Nothing | Found::Whiteout => {}
            Found::Directory(_) => {
                rustix::fs::mkdirat(target, &name, Mode::RWXU)?;
                let inner = open_directory(target, name.as_bytes())?;
                let merged = descend(&directories[first..], name.as_bytes())?;
                copy_directory(&merged, &inner, depth + 1)?;
            }
            Found::Other(_) => copy_other(&directories[first], &name, target)?,
        }
    }
    dress(target, &rustix::fs::fstat(top)?)
}

/// A file or a symbolic link. Sockets, pipes and devices are left out.
fn copy_other(directory: &OwnedFd, name: &CString, target: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(directory, name, Vec::new())?;
            rustix::fs::symlinkat(&link, target, name)?;
            let (uid, gid) = owner(&stat);
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            Ok(rustix::fs::chownat(target, name, uid, gid, flags)?)
        }
        FileType::RegularFile => {
            let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source =
                rustix::fs::openat(directory, name, flags | OFlags::RDONLY, Mode::empty())?;
            let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let copy = rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)?;
            let mut copy = fs::File::from(copy);
            io::copy(&mut fs::File::from(source), &mut copy)?;
            dress(&copy.into(), &stat)
        }
        _ => Ok(()),
    }
}

/// Owner first: a change of owner takes the setuid bits away.
fn dress(target: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(target, uid, gid)?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::futimens(target, &times)?)
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn populate(layers: &[PathBuf], path: &Path, target: &Path) -> io::Result<()> {
        fill(&find(layers, path)?, target, || Ok(()))
    }

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

    #[test]
    fn links_that_another_container_puts_in_the_way_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (layer, outside) = (root.path().join("layer"), root.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        for number in 0..200 {
            write(
                &layer.join(format!("data/{number}/stolen")),
                "from the image",
            );
        }
        let target = root.path().join("volume");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Whatever directory appears in the volume is replaced by a link out of it.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for entry in fs::read_dir(&target).into_iter().flatten().flatten() {
                        let path = entry.path();
                        let aside = root.path().join("volume").join(".aside");
                        if path.is_symlink() || fs::rename(&path, &aside).is_err() {
                            continue;
                        }
                        drop(symlink(&outside, &path));
                        drop(fs::remove_dir_all(&aside));
                    }
                }
            });
            for _ in 0..20 {
                drop(fs::remove_dir_all(&target));
                if fs::create_dir(&target).is_ok() {
                    // Disturbed, it may fail; it must not write elsewhere.
                    drop(populate(
                        std::slice::from_ref(&layer),
                        Path::new("/data"),
                        &target,
                    ));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
