//! Images as mounts (`--mount type=image`): an image's layers, read-only, as an overlay that is
//! mounted for as long as its container runs.
//!
//! A snapshot of the container's, beside that of its root, keeps the image's content. Nothing is
//! written to it: its upper directory is the topmost of the layers, since an overlay without a
//! writable part has to have two.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_image::Image;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountFlags;

use crate::config::Config;
use crate::error::{Context, Result};
use crate::images::from_image;
use crate::record::Record;
use crate::shared::Shared;
use crate::spec::mounts::{Kind, Mount};

/// Where a container's images are mounted, within its directory.
const DIRECTORY: &str = "images";

/// The name of the snapshot that the `index`th mount of a container has.
fn snapshot(container: &str, index: usize) -> String {
    format!("{container}-image-{index}")
}

/// Where the `index`th mount of a container is made.
pub fn place(config: &Config, container: &str, index: usize) -> PathBuf {
    let directory = config.container_dir(container).join(DIRECTORY);
    directory.join(index.to_string())
}

/// Whether a place is one of [`place`]'s.
pub fn is_place(config: &Config, place: &Path) -> bool {
    let directory = place.parent();
    directory.is_some_and(|directory| {
        directory.ends_with(DIRECTORY) && place.starts_with(config.container_dir(""))
    })
}

fn indices(mounts: &[Mount]) -> impl Iterator<Item = (usize, &Mount)> {
    let all = mounts.iter().enumerate();
    all.filter(|(_, mount)| matches!(mount.kind, Kind::Image { .. }))
}

/// Where a container's images are mounted while it runs.
pub fn places(record: &Record) -> impl Iterator<Item = &Path> {
    indices(&record.mounts).map(|(_, mount)| mount.source.as_path())
}

/// Keeps the images (in the order of the mounts) for as long as the container exists. Blocks.
pub fn keep(shared: &Shared, container: &str, mounts: &[Mount], images: &[Image]) -> Result<()> {
    for ((index, _), image) in indices(mounts).zip(images) {
        shared
            .images
            .prepare_snapshot(image, &snapshot(container, index))
            .map_err(from_image)?;
    }
    Ok(())
}

/// Undoes [`keep`]; `is_kept` tells which snapshots there are. Blocks.
pub fn forget(shared: &Shared, container: &str) {
    for name in shared.images.snapshots_with(&snapshot_prefix(container)) {
        if let Err(error) = shared.images.remove_snapshot(&name) {
            tracing::warn!(container, %error, "remove the snapshot of a mounted image");
        }
    }
}

fn snapshot_prefix(container: &str) -> String {
    format!("{container}-image-")
}

/// Mounts the images of a container. Blocks.
pub fn mount_for(shared: &Shared, record: &Record, holder: &str) -> Result<()> {
    for (index, mount) in indices(&record.mounts) {
        let name = snapshot(record.id.as_str(), index);
        let image = shared.images.snapshot_image(&name).map_err(from_image)?;
        let rootfs = shared.images.snapshot(&image, &name).map_err(from_image)?;
        let layers: Vec<PathBuf> = std::iter::once(rootfs.upper).chain(rootfs.lower).collect();
        shared.mounted.hold(&mount.source, holder, |place| {
            overlay(&layers, place).context(format!("mount image {}", image.id))
        })?;
    }
    Ok(())
}

fn overlay(layers: &[PathBuf], place: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(place)?;
    let open = |layer: &PathBuf| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, layer, flags, Mode::empty())
    };
    let layers: Vec<OwnedFd> = layers.iter().map(open).collect::<Result<_, _>>()?;
    // By short names: all options have to fit into a page.
    let names: Vec<String> = layers
        .iter()
        .map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd()))
        .collect();
    let options = std::ffi::CString::new(format!("lowerdir={}", names.join(":")))?;
    let flags = MountFlags::RDONLY;
    Ok(rustix::mount::mount(
        "overlay",
        place,
        "overlay",
        flags,
        options.as_c_str(),
    )?)
}
