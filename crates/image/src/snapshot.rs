//! The writable part of containers: `snapshots/<container>/{upper,work}`, and a link `image` that
//! names the manifest, so that the image stays as long as the container does.
//!
//! A symbolic link and not a file, since the journal that makes the directory durable then makes
//! the name durable with it, without an fsync on the way of `create`.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;

use berth_oci::Digest;

use crate::content::Content;
use crate::error::{Context, Error, Result};
use crate::images::Images;
use crate::places;
use crate::resolve::Image;

/// The directories of a container's overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Topmost first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
}

/// The containers that have snapshots with their manifests, and whether all of these are known.
pub(crate) fn load(content: &Content) -> Result<(HashMap<String, Digest>, bool)> {
    let mut found = HashMap::new();
    let mut is_whole = true;
    let entries = fs::read_dir(&content.snapshots)
        .context(|| format!("list directory {}", content.snapshots.display()))?;
    for entry in entries.flatten() {
        let container = entry.file_name().to_string_lossy().into_owned();
        let target = match fs::read_link(entry.path().join("image")) {
            Ok(target) => target,
            // Made halfway: its container was never acknowledged.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                content.trash.take(&entry.path())?;
                continue;
            }
            Err(error) => {
                tracing::error!(container, %error, "read which image it was made from");
                is_whole = false;
                continue;
            }
        };
        match target.to_str().and_then(|target| target.parse().ok()) {
            Some(digest) => drop(found.insert(container, digest)),
            None => {
                tracing::error!(container, ?target, "made from what is no image");
                is_whole = false;
            }
        }
    }
    Ok((found, is_whole))
}

impl Images {
    /// Makes the writable directories of a container. From here on the image's content stays
    /// until [`Images::remove_snapshot`].
    ///
    /// # Errors
    /// [`crate::Kind::Conflict`] if the container has a snapshot already.
    pub fn prepare_snapshot(&self, image: &Image, container_id: &str) -> Result<Rootfs> {
        {
            let mut state = self.state();
            if state.snapshots.contains_key(container_id) {
                return Err(Error::Conflict(format!(
                    "container {container_id} has a file system already"
                )));
            }
            // It may have been removed since it was looked up.
            if !state.is_named(&image.id) {
                return Err(Error::NotFound(format!("No such image: {}", image.id)));
            }
            let manifest = image.manifest.digest.clone();
            state.snapshots.insert(container_id.to_owned(), manifest);
        }
        let made = self.make_snapshot(image, container_id);
        if made.is_err()
            && let Err(error) = self.remove_snapshot(container_id)
        {
            tracing::warn!(container_id, %error, "remove a half-made snapshot");
        }
        made
    }

    /// As [`Images::prepare_snapshot`], with a layer of places for what every container mounts above
    /// the image's own.
    pub fn prepare_root(&self, image: &Image, container_id: &str) -> Result<Rootfs> {
        let mut rootfs = self.prepare_snapshot(image, container_id)?;
        let places = places::layer(self.content(), &image.layers);
        if places.is_err()
            && let Err(error) = self.remove_snapshot(container_id)
        {
            tracing::warn!(container_id, %error, "remove a half-made snapshot");
        }
        rootfs.lower.splice(0..0, places?);
        Ok(rootfs)
    }

    /// The directories of a container that was prepared before.
    pub fn snapshot(&self, image: &Image, container_id: &str) -> Result<Rootfs> {
        if !self.state().snapshots.contains_key(container_id) {
            return Err(Error::NotFound(format!(
                "container {container_id} has no file system"
            )));
        }
        Ok(self.rootfs(image, container_id))
    }

    /// The image that a container was made from, even if it has lost its names since.
    pub fn snapshot_image(&self, container_id: &str) -> Result<Image> {
        let manifest = self.state().snapshots.get(container_id).cloned();
        let manifest = manifest.ok_or_else(|| {
            Error::NotFound(format!("container {container_id} has no file system"))
        })?;
        self.by_manifest(&manifest)
    }

    /// Removes a container's directories; the deletion itself goes on in the background. It is no
    /// error if there are none.
    pub fn remove_snapshot(&self, container_id: &str) -> Result<()> {
        let content = self.content();
        content.trash.take(&content.snapshots.join(container_id))?;
        self.state().snapshots.remove(container_id);
        Ok(())
    }

    /// The names of all snapshots that begin like this.
    pub fn snapshots_with(&self, prefix: &str) -> Vec<String> {
        let state = self.state();
        let names = state.snapshots.keys();
        let found = names.filter(|name| name.starts_with(prefix));
        found.cloned().collect()
    }

    /// Bytes that the container's own files take on the disk.
    pub fn snapshot_size(&self, container_id: &str) -> Result<u64> {
        let upper = self.content().snapshots.join(container_id).join("upper");
        berth_sys::tree::disk_usage(&upper).context(|| format!("measure {}", upper.display()))
    }

    fn make_snapshot(&self, image: &Image, container_id: &str) -> Result<Rootfs> {
        let rootfs = self.rootfs(image, container_id);
        let directory = self.content().snapshots.join(container_id);
        let make = || -> std::io::Result<()> {
            let mut builder = fs::DirBuilder::new();
            builder.mode(0o700).create(&directory)?;
            builder.create(&rootfs.work)?;
            builder.create(&rootfs.upper)?;
            // The root of an overlay looks as its topmost directory does.
            let (mode, uid, gid) = match rootfs.lower.first() {
                Some(top) => {
                    let meta = fs::symlink_metadata(top)?;
                    (meta.mode() & 0o7777, meta.uid(), meta.gid())
                }
                None => (0o755, 0, 0),
            };
            if (uid, gid) != (0, 0) {
                chown(&rootfs.upper, Some(uid), Some(gid))?;
            }
            fs::set_permissions(&rootfs.upper, fs::Permissions::from_mode(mode))?;
            // Last: a snapshot with its link is a whole one.
            symlink(image.manifest.digest.to_string(), directory.join("image"))
        };
        make().context(|| format!("create the file system of container {container_id}"))?;
        Ok(rootfs)
    }

    fn rootfs(&self, image: &Image, container_id: &str) -> Rootfs {
        let directory = self.content().snapshots.join(container_id);
        Rootfs {
            lower: image.layers.clone(),
            upper: directory.join("upper"),
            work: directory.join("work"),
        }
    }
}
