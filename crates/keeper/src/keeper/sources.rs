//! Bind sources in directories that others write to: a part of a volume, or of another
//! container's file system. Whoever writes there may put a link in the way at any moment, so the
//! path is walked once, without leaving the directory, and what it led to is what is mounted.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::protocol::Launch;
use berth_runtime::error::{Error, io_words};

/// Lets the bind sources that are below one of [`Launch::beneath`] name descriptors, which are
/// returned and have to stay open until the container is made.
pub fn guard(launch: &mut Launch) -> Result<Vec<OwnedFd>, Error> {
    let mut opened = Vec::new();
    for mount in launch.spec.mounts_mut().iter_mut().flatten() {
        let Some((base, below)) = split(&launch.beneath, mount.source().as_deref()) else {
            continue;
        };
        let place = open(base, below)?;
        // By number and not `self`: another runtime looks from a process of its own.
        let pid = rustix::process::getpid().as_raw_nonzero();
        let path = format!("/proc/{pid}/fd/{}", place.as_raw_fd());
        mount.set_source(Some(PathBuf::from(path)));
        opened.push(place);
    }
    Ok(opened)
}

fn split<'a>(beneath: &'a [PathBuf], source: Option<&'a Path>) -> Option<(&'a Path, PathBuf)> {
    beneath.iter().find_map(|base| {
        let below = source?.strip_prefix(base).ok()?;
        (!below.as_os_str().is_empty()).then(|| (base.as_path(), below.to_owned()))
    })
}

/// The first part of a path that is not there, as far as links do not hide it.
fn missing(base: &Path, below: &Path) -> PathBuf {
    let mut path = base.to_owned();
    for part in below {
        path.push(part);
        if path.symlink_metadata().is_err() {
            break;
        }
    }
    path
}

/// Opens a part of a directory as a location (O_PATH). Links may lead elsewhere in the directory,
/// but not out of it.
pub fn open(base: &Path, below: PathBuf) -> Result<OwnedFd, Error> {
    let path = base.join(&below);
    let failed = |errno| match errno {
        Errno::XDEV | Errno::LOOP => Error::invalid(format!(
            "path concatenation escapes the base directory, base: {}, subpath: {}",
            base.display(),
            below.display()
        )),
        errno => Error::invalid(format!(
            "cannot access path {}: lstat {}: {}",
            path.display(),
            missing(base, &below).display(),
            io_words(&errno.into())
        )),
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, base, flags | OFlags::DIRECTORY, Mode::empty());
    let root = root.map_err(failed)?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(&root, &below, flags, Mode::empty(), resolve) {
            // Something was renamed meanwhile; openat2(2) says to try again.
            Err(Errno::AGAIN) => {}
            other => return other.map_err(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn check(below: &str, expect: &str) {
        let root = tempfile::tempdir().unwrap();
        let base = root.path().join("volume");
        fs::create_dir_all(base.join("inner/part")).unwrap();
        fs::write(root.path().join("secret"), "").unwrap();
        symlink("inner/part", base.join("good")).unwrap();
        symlink("../secret", base.join("up")).unwrap();
        symlink("/", base.join("root")).unwrap();
        symlink("/proc/self/root", base.join("magic")).unwrap();
        let found = match open(&base, PathBuf::from(below)) {
            Ok(place) => fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd()))
                .unwrap()
                .strip_prefix(&base)
                .unwrap()
                .display()
                .to_string(),
            Err(error) => error.message.rsplit([',', ':']).next().unwrap().to_owned(),
        };
        assert_eq!(found, expect, "{below}");
    }

    #[test]
    fn links_lead_nowhere_but_in_the_directory() {
        check("inner/part", "inner/part");
        check("good", "inner/part");
        check("good/../part", "inner/part");
        for bad in ["up", "root", "root/etc", "magic", "magic/etc", ".."] {
            check(bad, &format!(" {bad}"));
        }
        check("absent", " no such file or directory");
    }

    #[test]
    fn only_what_is_below_is_guarded() {
        let beneath = [PathBuf::from("/volumes/a/_data")];
        let split = |source: &str| {
            split(&beneath, Some(Path::new(source))).map(|(_, below)| below.display().to_string())
        };
        assert_eq!(split("/volumes/a/_data/sub"), Some("sub".to_owned()));
        assert_eq!(split("/volumes/a/_data"), None);
        assert_eq!(split("/volumes/a/_database"), None);
    }
}
