//! A container's files for those outside of it: `cp` in both directions, and `export`.
//!
//! A container that runs is looked at through its first process, so what it has mounted is there.
//! Of one that does not, the file system is put together in mounts that only one thread has, as a
//! start would find it but for what starts empty (tmpfs, /proc, /sys, /dev).
//!
//! Every path is resolved by the kernel within the container's root, by the thread that works
//! there; whatever its processes rename or link meanwhile, nothing leads out of it.

mod root;
mod stat;

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_base::Chain;
use berth_docker::container::{FilesystemChange, PathStat};
use berth_image::tree::{self, Extract};
use berth_image::{Change, ChangeKind, difference};
use berth_keeper::protocol::UserRequest;
use berth_runtime::rootfs::path;
use berth_runtime::user;
use rustix::fs::{FileType, OFlags};

use crate::error::{Context, Error, Result};
use crate::images::from_image;
use crate::options::ExtractOptions;
use crate::record::Record;
use crate::shared::Shared;
use root::Purpose;

/// What is at a path. A link at its end is described itself.
pub async fn stat(shared: &Arc<Shared>, reference: &str, wanted: &str) -> Result<PathStat> {
    let handle = shared.table.find(reference)?;
    let (wanted, name) = (wanted.to_owned(), reference.to_owned());
    root::visit(shared, &handle, Purpose::Read, move |root| {
        stat::stat(root, &wanted, &wanted, &name)
    })
    .await
}

/// Writes what is at a path as an archive, after its description has been told to `sink`, which
/// gives what to write to. Its only member, or the directory that holds the others, has the last
/// name of the path.
pub async fn archive<W: Write>(
    shared: &Arc<Shared>,
    reference: &str,
    wanted: &str,
    sink: impl FnOnce(PathStat) -> W + Send + 'static,
) -> Result<()> {
    let handle = shared.table.find(reference)?;
    let (asked, name) = (wanted.to_owned(), reference.to_owned());
    let wanted = stat::absolute(wanted);
    let written = root::visit(shared, &handle, Purpose::Read, move |root| {
        let stat = stat::stat(root, &wanted, &asked, &name)?;
        let called = stat.name.clone().into_bytes();
        let is_directory = stat::is_directory(&stat);
        let sink = sink(stat);
        let failed = || format!("archive {wanted}");
        let (parent, member) = match is_directory {
            true => (PathBuf::from(&wanted), ".".to_owned()),
            false => split(&wanted),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = path::open(root, &parent, flags).context(failed())?;
        let member = CString::new(member).context(failed())?;
        tree::archive_plain(parent.as_fd(), &member, &called, sink).context(failed())
    });
    written.await?;
    let record = handle.view().record.clone();
    shared.container_event(&record, "archive-path", &[]);
    Ok(())
}

fn split(path: &str) -> (PathBuf, String) {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    (Path::new("/").join(parent), name.to_owned())
}

/// Adds the members of an archive to a directory. What came before a failure stays.
pub async fn extract(
    shared: &Arc<Shared>,
    reference: &str,
    wanted: &str,
    options: ExtractOptions,
    archive: impl Read + Send + 'static,
) -> Result<()> {
    let handle = shared.table.find(reference)?;
    let record = handle.view().record.clone();
    let (wanted, name) = (wanted.to_owned(), reference.to_owned());
    let written = root::visit(shared, &handle, Purpose::Write, move |root| {
        let full = path::follow(root, Path::new(&wanted))
            .map_err(|errno| stat::failed(errno, &wanted, &name))?;
        refuse_read_only(&record, &full)?;
        check_directory(root, &full, &wanted, &name)?;
        let how = Extract {
            owner: match options.as_user {
                true => owner(root, &record)?,
                false => None,
            },
            keep_kinds: options.keep_kinds,
            rename: None,
        };
        let below = full.strip_prefix("/").unwrap_or(&full);
        let below = below.as_os_str().as_encoded_bytes();
        tree::extract(archive, open_root(root)?, below, &how)
            .map_err(|error| Error::internal(Chain(&error).to_string()))
    });
    written.await?;
    shared.container_event(&handle.view().record, "extract-to-dir", &[]);
    Ok(())
}

/// The root as [`tree`] takes it.
fn open_root(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    path::open(root, Path::new("/"), OFlags::RDONLY | OFlags::DIRECTORY)
        .context("open the container's root")
}

fn check_directory(root: BorrowedFd<'_>, full: &Path, wanted: &str, name: &str) -> Result<()> {
    let place = path::locate(root, full).map_err(|errno| stat::failed(errno, wanted, name))?;
    let stat = rustix::fs::fstat(&place).context("look at the directory")?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(()),
        _ => Err(Error::invalid("extraction point is not a directory")),
    }
}

/// Whether the innermost mount at a path, or the root, may be written to.
fn refuse_read_only(record: &Record, full: &Path) -> Result<()> {
    let around = |destination: &str| full.starts_with(destination);
    let mounts = record.mounts.iter();
    let innermost = mounts
        .filter(|mount| around(&mount.destination))
        .max_by_key(|mount| mount.destination.len());
    match innermost {
        Some(mount) if mount.read_only => Err(Error::invalid("mounted volume is marked read-only")),
        Some(_) => Ok(()),
        None if record.host.tmpfs.keys().any(|tmpfs| around(tmpfs)) => Ok(()),
        None if record.host.readonly_rootfs => {
            Err(Error::invalid("container rootfs is marked read-only"))
        }
        None => Ok(()),
    }
}

/// The user that the container's command runs as, if it is said.
fn owner(root: BorrowedFd<'_>, record: &Record) -> Result<Option<(u32, u32)>> {
    if record.config.user.is_empty() {
        return Ok(None);
    }
    let request = UserRequest {
        user: record.config.user.clone(),
        groups: Vec::new(),
    };
    let user = user::find(root, &request).map_err(|error| Error::internal(error.message))?;
    Ok(Some((user.uid, user.gid)))
}

/// What the container has changed in its root file system.
pub async fn changes(shared: &Arc<Shared>, reference: &str) -> Result<Vec<FilesystemChange>> {
    let record = shared.table.find(reference)?.view().record.clone();
    let changes = shared
        .block(move || difference::changes(&record.rootfs.directories()))
        .await?;
    let wire = |change: Change| FilesystemChange {
        path: change.path.to_string_lossy().into_owned(),
        kind: match change.kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        },
    };
    Ok(changes.map_err(from_image)?.into_iter().map(wire).collect())
}

/// Writes the root file system as an archive, without what is mounted on it.
pub async fn export(
    shared: &Arc<Shared>,
    reference: &str,
    sink: impl Write + Send + 'static,
) -> Result<()> {
    let handle = shared.table.find(reference)?;
    let failed = format!("export {reference}");
    root::visit(shared, &handle, Purpose::Bare, move |root| {
        tree::archive_plain_below(&open_root(root)?, sink).context(failed)
    })
    .await?;
    shared.container_event(&handle.view().record, "export", &[]);
    Ok(())
}
