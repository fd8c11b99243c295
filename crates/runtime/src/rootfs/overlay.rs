//! Overlays as detached mounts: nothing ever appears in the host's mount table.
//!
//! Kernels from 6.7 on take the layers one by one (`lowerdir+`), so neither their number nor the
//! length of their paths matters. Older kernels take them in one string, by `mount` only, and
//! that needs a place in a mount table: a short-lived child with mounts of its own makes it,
//! clones it detached, and passes that on (`classic`).

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

mod classic;

/// The new mount API takes strings of 255 bytes; a longer path goes by a descriptor's.
const MAX_VALUE_BYTES: usize = 255;

/// What Berth's snapshots rely on whatever the kernel's defaults are: the upper directory is a
/// plain difference, without references into the layers below, and may be mounted again while an
/// old mount of it is on its way out.
const OPTIONS: [(&str, &str); 3] = [
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "off"),
];

/// The layers of an overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay<'a> {
    /// The topmost layer first; at least one, and two if there is nothing above.
    pub lower: &'a [PathBuf],
    /// What is written goes here; without it the file system is read-only.
    pub upper: Option<Upper<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper<'a> {
    pub directory: &'a Path,
    pub work: &'a Path,
    /// Skip every sync of the upper layer; for roots that are deleted anyway.
    pub volatile: bool,
}

impl Overlay<'_> {
    /// The directory that stands for the whole.
    fn top(&self) -> &Path {
        let lower = || self.lower.first().map_or(Path::new("/"), PathBuf::as_path);
        self.upper.map_or_else(lower, |upper| upper.directory)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("mount overlay at {path}: {step}")]
    Mount {
        path: PathBuf,
        step: &'static str,
        #[source]
        source: rustix::io::Errno,
    },
}

/// A step that failed, before the overlay's name is put to it.
struct Failed {
    step: &'static str,
    source: Errno,
}

impl Failed {
    fn of(self, overlay: &Overlay<'_>) -> Error {
        let path = overlay.top().to_owned();
        Error::Mount {
            path,
            step: self.step,
            source: self.source,
        }
    }
}

fn at(step: &'static str) -> impl Fn(Errno) -> Failed {
    move |source| Failed { step, source }
}

/// Mounts the overlay detached and returns the mount's descriptor. The file system lives until
/// the last reference to it (this descriptor, a container's mount namespace) is gone.
pub fn mount(overlay: &Overlay<'_>) -> Result<OwnedFd, Error> {
    mount_or(overlay, classic::mount)
}

/// As [`mount`], by a thread that has a mount namespace of its own, of which nothing goes to
/// another; the process may have other threads.
pub fn mount_privately(overlay: &Overlay<'_>) -> Result<OwnedFd, Error> {
    mount_or(overlay, classic::mount_here)
}

fn mount_or(
    overlay: &Overlay<'_>,
    classic: impl FnOnce(&Overlay<'_>) -> Result<OwnedFd, Failed>,
) -> Result<OwnedFd, Error> {
    if let Some(upper) = overlay.upper.filter(|upper| upper.volatile) {
        forget_volatile(upper.work);
    }
    let is_new = takes_layers_one_by_one(&rustix::system::uname().release().to_string_lossy());
    let mounted = match is_new.then(|| detached(overlay)) {
        None
        | Some(Err(Failed {
            step: "lowerdir+",
            source: Errno::INVAL,
        })) => classic(overlay),
        Some(other) => other,
    };
    mounted.map_err(|failed| failed.of(overlay))
}

/// Whether a kernel of this release has `lowerdir+`, which came with 6.7. Asking the kernel itself
/// would leave a complaint in its log at every start: until 6.5 overlay judges its options only
/// when the file system is created.
fn takes_layers_one_by_one(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (6, 7)
}

/// What [`mount`] does on kernels before 6.7. The calling process must have one thread.
pub fn mount_classic(overlay: &Overlay<'_>) -> Result<OwnedFd, Error> {
    classic::mount(overlay).map_err(|failed| failed.of(overlay))
}

fn detached(overlay: &Overlay<'_>) -> Result<OwnedFd, Failed> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at("fsopen"))?;
    let fs = context.as_fd();
    let set = |step, path: &Path| {
        // The path is resolved within the call, so the descriptor may be closed after it.
        let name = Name::of(path)?;
        fsconfig_set_string(fs, step, name.path()).map_err(at(step))
    };
    for lower in overlay.lower {
        set("lowerdir+", lower)?;
    }
    if let Some(upper) = overlay.upper {
        set("upperdir", upper.directory)?;
        set("workdir", upper.work)?;
    }
    for (key, value) in OPTIONS {
        // A kernel that lacks the feature does not know the option.
        let _ = fsconfig_set_string(fs, key, value);
    }
    if overlay.upper.is_some_and(|upper| upper.volatile) {
        fsconfig_set_flag(fs, "volatile").map_err(at("volatile"))?;
    }
    fsconfig_create(fs).map_err(at("create"))?;
    fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(at("fsmount"))
}

/// A path, or the short name of a descriptor of it.
enum Name<'a> {
    Path(&'a Path),
    Descriptor { name: PathBuf, _fd: OwnedFd },
}

impl<'a> Name<'a> {
    fn of(path: &'a Path) -> Result<Self, Failed> {
        if path.as_os_str().len() <= MAX_VALUE_BYTES {
            Ok(Self::Path(path))
        } else {
            Self::short(path)
        }
    }

    fn short(path: &Path) -> Result<Name<'static>, Failed> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(at("open a layer"))?;
        let name = PathBuf::from(format!(
            "/proc/self/fd/{}",
            rustix::fd::AsRawFd::as_raw_fd(&fd)
        ));
        Ok(Name::Descriptor { name, _fd: fd })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Path(path) => path,
            Self::Descriptor { name, .. } => name,
        }
    }
}

/// A volatile overlay leaves a mark that forbids to mount it again, because after a crash it may
/// be broken. A container that merely starts again has not crashed the machine.
fn forget_volatile(work: &Path) {
    let _ = std::fs::remove_dir_all(work.join("work/incompat"));
}

#[cfg(test)]
mod tests;
