//! Overlays as detached mounts: nothing ever appears in the host's mount table.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// The layers of an overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay<'a> {
    /// The topmost layer first; at least one.
    pub lower: &'a [PathBuf],
    pub upper: &'a Path,
    pub work: &'a Path,
    /// Skip every sync of the upper layer; for roots that are deleted anyway.
    pub volatile: bool,
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

/// Mounts the overlay detached and returns the mount's descriptor. The file system lives until
/// the last reference to it (this descriptor, a container's mount namespace) is gone.
pub fn mount(overlay: &Overlay<'_>) -> Result<OwnedFd, Error> {
    let fail = |step| {
        move |source| Error::Mount {
            path: overlay.upper.to_owned(),
            step,
            source,
        }
    };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("fsopen"))?;
    let fs = context.as_fd();
    for lower in overlay.lower {
        fsconfig_set_string(fs, "lowerdir+", lower).map_err(fail("lowerdir+"))?;
    }
    fsconfig_set_string(fs, "upperdir", overlay.upper).map_err(fail("upperdir"))?;
    fsconfig_set_string(fs, "workdir", overlay.work).map_err(fail("workdir"))?;
    if overlay.volatile {
        fsconfig_set_flag(fs, "volatile").map_err(fail("volatile"))?;
    }
    fsconfig_create(fs).map_err(fail("create"))?;
    fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(fail("fsmount"))
}
