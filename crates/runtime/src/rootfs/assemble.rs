//! The files of a container that does not run, as its processes would find them: its overlay, with
//! what it mounts of the host, in a mount namespace of the calling thread. Nobody else sees it, and
//! it is gone with the thread.

use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_sys::clone::{self, Namespaces};
use berth_sys::mount::{Change, Propagation, attr, setattr};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::mounts;
use super::overlay::{self, Overlay};
use super::path::{self, Leaf};
use crate::error::{Error, errno_words, io_words};

/// What is mounted on a place of the container's.
pub struct Part {
    tree: OwnedFd,
    /// Absolute, in the container.
    destination: PathBuf,
}

/// Whether an overlay has all places that parts are mounted on; [`make_places`] makes them.
#[derive(Debug)]
pub enum Assembled {
    /// The root, for as long as the calling thread lives.
    Root(OwnedFd),
    /// There is nothing to mount a part on, and a file system that is read-only.
    NoPlace,
}

/// Gives the calling thread mounts of its own and makes the container's files in them. `place` is
/// a directory of the host's that nobody needs meanwhile.
///
/// # Errors
/// What the kernel refuses. The thread must end then, too.
pub fn assemble(overlay: &Overlay<'_>, parts: &[Part], place: &Path) -> Result<Assembled, Error> {
    let root = alone(overlay)?;
    let on = rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .map_err(|errno| failed("open the place", errno_words(errno)))?;
    mounts::attach(root.as_fd(), on.as_fd())
        .map_err(|errno| failed("attach", errno_words(errno)))?;
    for part in parts {
        let to = match path::locate(root.as_fd(), &part.destination) {
            Err(Errno::NOENT) => return Ok(Assembled::NoPlace),
            to => to.map_err(|errno| part.failed(errno_words(errno)))?,
        };
        mounts::attach(part.tree.as_fd(), to.as_fd())
            .map_err(|errno| part.failed(errno_words(errno)))?;
    }
    Ok(Assembled::Root(root))
}

/// Makes what is missing of the places that parts are mounted on, as a start does. The calling
/// thread gets mounts of its own.
pub fn make_places(overlay: &Overlay<'_>, parts: &[Part]) -> Result<(), Error> {
    let root = alone(overlay)?;
    for part in parts {
        let stat = rustix::fs::fstat(&part.tree).map_err(|e| part.failed(errno_words(e)))?;
        let leaf = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Leaf::Directory,
            _ => Leaf::File,
        };
        path::locate_or_make(root.as_fd(), &part.destination, leaf)
            .map_err(|errno| part.failed(errno_words(errno)))?;
    }
    Ok(())
}

/// The overlay alone, detached, for a thread with mounts of its own.
fn alone(overlay: &Overlay<'_>) -> Result<OwnedFd, Error> {
    clone::unshare(Namespaces::MOUNT).map_err(|error| failed("unshare", io_words(&error)))?;
    let root = rustix::fs::open("/", OFlags::PATH, Mode::empty())
        .map_err(|errno| failed("open /", errno_words(errno)))?;
    let private = Change {
        propagation: Some(Propagation::Private),
        ..Change::default()
    };
    setattr(root.as_fd(), private, true).map_err(|error| failed("private", io_words(&error)))?;
    overlay::mount_privately(overlay).map_err(|error| failed(&error.to_string(), ""))
}

/// The root file system of a running container without anything that is mounted on it. The calling
/// thread joins the mount namespace, and must end afterwards.
pub fn bare_root(mount_namespace: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    // Threads share what setns changes.
    clone::unshare(Namespaces::MOUNT).map_err(|error| failed("unshare", io_words(&error)))?;
    clone::setns(mount_namespace, Namespaces::MOUNT)
        .map_err(|error| failed("setns", io_words(&error)))?;
    mounts::clone_tree(Path::new("/"), false)
        .map_err(|errno| failed("open_tree", errno_words(errno)))
}

impl Part {
    /// `source` is a file or a directory of the host, which comes with what is mounted below it.
    /// To be called while the thread has the host's mounts still.
    pub fn new(
        source: BorrowedFd<'_>,
        destination: PathBuf,
        read_only: bool,
    ) -> Result<Self, Error> {
        let refused = |reason| failed(&format!("mount {}", destination.display()), reason);
        let tree = mounts::clone_at(source, true).map_err(|errno| refused(errno_words(errno)))?;
        let change = Change {
            set: if read_only { attr::RDONLY } else { 0 },
            propagation: Some(Propagation::Private),
            ..Change::default()
        };
        setattr(tree.as_fd(), change, true).map_err(|error| refused(io_words(&error)))?;
        Ok(Self { tree, destination })
    }

    fn failed(&self, reason: String) -> Error {
        failed(&format!("mount {}", self.destination.display()), reason)
    }
}

fn failed(step: &str, reason: impl Display) -> Error {
    Error::internal(format!(
        "look into a container's file system: {step}: {reason}"
    ))
}
