//! The directories of an image store, opened and cleaned.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::blobs::Blobs;
use crate::error::{Context, Result};
use crate::layers::Layers;
use crate::trash::Trash;

#[derive(Debug)]
pub(crate) struct Content {
    pub root: PathBuf,
    pub blobs: Blobs,
    pub layers: Layers,
    pub snapshots: PathBuf,
    pub trash: Trash,
    ingest: PathBuf,
    next: AtomicU64,
}

impl Content {
    /// Opens the directories below `root`. What a killed process was writing is thrown away.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let trash = Trash::open(root.join("trash"))?;
        let ingest = root.join("ingest");
        let snapshots = root.join("snapshots");
        for directory in [&ingest, &snapshots] {
            private_directory(directory)?;
        }
        // The directory itself stays: a full disk may have no room for another one.
        let interrupted = std::fs::read_dir(&ingest)
            .context(|| format!("list directory {}", ingest.display()))?;
        for entry in interrupted.flatten() {
            trash.take(&entry.path())?;
        }
        Ok(Self {
            blobs: Blobs::open(root.join("blobs"))?,
            layers: Layers::open(root.join("layers"), &trash)?,
            snapshots,
            trash,
            ingest,
            next: AtomicU64::new(0),
            root: root.to_owned(),
        })
    }

    /// A path in `ingest/` that nobody uses.
    pub(crate) fn scratch(&self, kind: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.ingest.join(format!("{kind}-{number}"))
    }

    pub(crate) fn scratch_file(&self) -> Result<(File, PathBuf)> {
        let path = self.scratch("blob");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .context(|| format!("create {}", path.display()))?;
        Ok((file, path))
    }

    /// Writes everything below the root to the disk.
    ///
    /// One `syncfs` and not an fsync of each of an image's thousands of files, each of which would
    /// wait for the journal.
    pub(crate) fn sync(&self) -> Result<()> {
        let directory =
            File::open(&self.root).context(|| format!("open {}", self.root.display()))?;
        rustix::fs::syncfs(&directory).context(|| format!("sync {}", self.root.display()))
    }
}

/// A directory that only root enters; containers reach their parts by mounts.
pub(crate) fn private_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)))
        .context(|| format!("create directory {}", path.display()))
}
