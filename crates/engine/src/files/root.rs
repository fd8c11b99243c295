//! Getting at a container's root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_base::Id;
use berth_keeper::keeper::sources;
use berth_runtime::rootfs::assemble::{self, Assembled, Part};
use berth_runtime::rootfs::overlay::{Overlay, Upper};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::container::Handle;
use crate::error::{Context, Error, Result};
use crate::etc;
use crate::record::{Phase, Record};
use crate::shared::Shared;
use crate::spec::mounts::{Kind, Mount};

/// How long the owner may take to notice that the first process has ended.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// What somebody wants with a container's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Read,
    Write,
    /// To read the root file system itself, without what is mounted on it.
    Bare,
}

/// Runs work that blocks on a descriptor of the container's root, in a thread of its own.
pub async fn visit<T: Send + 'static>(
    shared: &Arc<Shared>,
    handle: &Arc<Handle>,
    purpose: Purpose,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send + 'static,
) -> Result<T> {
    loop {
        let view = handle
            .until(|view| view.state.phase != Phase::Starting)
            .await;
        if matches!(view.state.phase, Phase::Removing | Phase::Dead) || view.removed {
            let id = &view.record.id;
            return Err(Error::conflict(format!("container {id} is being removed")));
        }
        if let Some(pid) = view.state.phase.pid() {
            let Some(place) = open_running(pid, purpose)? else {
                // It has just ended.
                let ended = handle.until(|view| view.state.phase.pid() != Some(pid));
                let ended = tokio::time::timeout(END_DEADLINE, ended).await;
                ended.map_err(|_| Error::internal("the container's process is gone"))?;
                continue;
            };
            // Had it been another process with the same number, this would have ended by now.
            if handle.view().state.phase.pid() != Some(pid) {
                continue;
            }
            return shared
                .block(move || in_running(place, purpose, work))
                .await?;
        }
        let files = match purpose {
            Purpose::Write => Some(handle.files.clone().lock_owned().await),
            Purpose::Read | Purpose::Bare => None,
        };
        if files.is_some() && handle.view().state.phase.is_active() {
            continue;
        }
        let (other, record) = (shared.clone(), view.record.clone());
        let stopped = shared.block(move || {
            let done = in_stopped(&other, &record, purpose, work);
            drop(files);
            done
        });
        return stopped.await?;
    }
}

/// The root of a process, or the namespace in which its root can be had bare. `None` if it has ended.
fn open_running(pid: i32, purpose: Purpose) -> Result<Option<OwnedFd>> {
    let (path, flags) = match purpose {
        Purpose::Bare => (format!("/proc/{pid}/ns/mnt"), OFlags::RDONLY),
        Purpose::Read | Purpose::Write => (
            format!("/proc/{pid}/root"),
            OFlags::PATH | OFlags::DIRECTORY,
        ),
    };
    match rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::SRCH | Errno::ACCESS) => Ok(None),
        Err(errno) => Err(Error::failed("open the container's root", &errno)),
    }
}

fn in_running<T: Send>(
    place: OwnedFd,
    purpose: Purpose,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send,
) -> Result<T> {
    if purpose != Purpose::Bare {
        return work(place.as_fd());
    }
    alone(move || {
        let root = assemble::bare_root(place.as_fd()).context("look at the root alone")?;
        work(root.as_fd())
    })
}

/// Runs work in a thread that may change what it has mounted.
fn alone<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(work);
        let panicked = |_| Err(Error::internal("a thread panicked"));
        thread.join().unwrap_or_else(panicked)
    })
}

fn in_stopped<T: Send>(
    shared: &Shared,
    record: &Record,
    purpose: Purpose,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send,
) -> Result<T> {
    if purpose == Purpose::Bare {
        return assembled(shared, record, purpose, Vec::new(), work)?.ok_or_else(no_place);
    }
    // Not a container's id, and not that of another such work.
    let holder = format!("work {}", Id::random());
    let done = shared.prepare_mounts(record, &holder).and_then(|()| {
        let mut work = Some(work);
        let mut once = || {
            let parts = parts(shared, record)?;
            assembled(shared, record, purpose, parts, |root| match work.take() {
                Some(work) => work(root),
                None => Err(no_place()),
            })
        };
        if let Some(done) = once()? {
            return Ok(done);
        }
        make_places(shared, record, purpose)?;
        once()?.ok_or_else(no_place)
    });
    for place in shared.held_places(record) {
        shared.mounted.release(&place, &holder);
    }
    done
}

fn no_place() -> Error {
    Error::internal("a place that the container mounts on cannot be made")
}

/// `None`, and nothing done, if a place is missing and cannot be made here.
fn assembled<T: Send>(
    shared: &Shared,
    record: &Record,
    purpose: Purpose,
    parts: Vec<Part>,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send,
) -> Result<Option<T>> {
    let place = shared.config.container_dir(record.id.as_str());
    alone(|| {
        let layers = layers(record, purpose);
        let root = assemble::assemble(&overlay(record, purpose, &layers), &parts, &place);
        match root.context(format!("look into container {}", record.id))? {
            Assembled::Root(root) => work(root.as_fd()).map(Some),
            Assembled::NoPlace => Ok(None),
        }
    })
}

/// Makes what is missing of the places that the container mounts on.
fn make_places(shared: &Shared, record: &Record, purpose: Purpose) -> Result<()> {
    let handle = shared.table.find(record.id.as_str())?;
    // Who came to write has it already.
    let _files = (purpose != Purpose::Write).then(|| handle.files.blocking_lock());
    if handle.view().state.phase.is_active() {
        let message = format!("container {} has just been started: try again", record.id);
        return Err(Error::conflict(message));
    }
    let parts = parts(shared, record)?;
    alone(|| {
        let overlay = overlay(record, Purpose::Write, &record.rootfs.lower);
        assemble::make_places(&overlay, &parts).context("make the places of mounts")
    })
}

/// Without an upper layer the same directories can be mounted while somebody else writes to them.
fn layers(record: &Record, purpose: Purpose) -> Vec<PathBuf> {
    let snapshot = &record.rootfs;
    let upper = (purpose != Purpose::Write).then(|| snapshot.upper.clone());
    upper
        .into_iter()
        .chain(snapshot.lower.iter().cloned())
        .collect()
}

fn overlay<'a>(record: &'a Record, purpose: Purpose, lower: &'a [PathBuf]) -> Overlay<'a> {
    let upper = Upper {
        directory: &record.rootfs.upper,
        work: &record.rootfs.work,
        volatile: record.host.auto_remove,
    };
    Overlay {
        lower,
        upper: (purpose == Purpose::Write).then_some(upper),
    }
}

/// What the container mounts of the host, shallow destinations first.
fn parts(shared: &Shared, record: &Record) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let of_host = |mount: &&Mount| !matches!(mount.kind, Kind::Tmpfs { .. });
    for mount in record.mounts.iter().filter(of_host) {
        let source = open_source(mount)?;
        parts.push((PathBuf::from(&mount.destination), source, mount.read_only));
    }
    let etc = etc::paths(shared, record);
    let files = [
        ("/etc/resolv.conf", etc.resolv_conf),
        ("/etc/hostname", etc.hostname),
        ("/etc/hosts", etc.hosts),
    ];
    for (destination, file) in files {
        let taken = parts.iter().any(|(to, _, _)| to == Path::new(destination));
        // Before the first start they are not there.
        if let Some(file) = file.filter(|file| !taken && file.exists()) {
            let source = open(&file).context(format!("open {}", file.display()))?;
            parts.push((PathBuf::from(destination), source, false));
        }
    }
    parts.sort_by_key(|(destination, _, _)| destination.components().count());
    let made = parts.into_iter().map(|(destination, source, read_only)| {
        Part::new(source.as_fd(), destination, read_only).context("mount what the container does")
    });
    made.collect()
}

fn open_source(mount: &Mount) -> Result<OwnedFd> {
    match mount.subpath() {
        "" => open(&mount.source).context(format!("open {}", mount.source.display())),
        subpath => sources::open(&mount.source, PathBuf::from(subpath))
            .map_err(|error| Error::invalid(error.message)),
    }
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}
