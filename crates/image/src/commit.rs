//! Makes an image of what a container has changed.

use berth_base::Timestamp;
use berth_oci::config::{Execution, History};
use berth_oci::{Digest, ImageConfig, Reference};

use crate::difference::Difference;
use crate::error::{Context, Error, Result};
use crate::images::Images;
use crate::import::{store_image, store_layer};
use crate::lease::Lease;
use crate::record::Wanted;
use crate::snapshot::Rootfs;
use crate::target::Target;

/// What a commit says beside the container's changes.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub name: Option<Reference>,
    pub author: String,
    pub message: String,
    /// The container's command, for the history.
    pub created_by: String,
    /// How the image runs.
    pub config: Execution,
}

impl Images {
    /// Adds a layer with a container's changes to its image; without any it is the same layers.
    /// Processes that write meanwhile are seen at some moment or other: the caller should stop them.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] if parts of the container's image are gone.
    pub fn commit(&self, container_id: &str, rootfs: &Rootfs, commit: &Commit) -> Result<Digest> {
        let image = self.snapshot_image(container_id)?;
        let difference = Difference::read(rootfs)?;
        let lease = self.lease();
        let target = Target::read(&lease, &image.manifest)?;
        let base = target
            .manifests
            .first()
            .and_then(|part| part.manifest.clone());
        let base = base.ok_or_else(|| Error::NotFound(format!("No such image: {}", image.id)))?;
        let mut layers = base.layers.clone();
        let mut config = (*image.config).clone();
        let is_empty = difference.is_empty();
        if !is_empty {
            let (layer, diff_id) = store_difference(&lease, &difference)?;
            layers.push(layer);
            config.rootfs.diff_ids.push(diff_id);
        }
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let now = Timestamp::now().to_string();
        config.history.push(History {
            created: Some(now.clone()),
            created_by: text(&commit.created_by),
            author: text(&commit.author),
            comment: text(&commit.message),
            empty_layer: is_empty,
            ..History::default()
        });
        let config = ImageConfig {
            created: Some(now),
            author: text(&commit.author),
            comment: text(&commit.message),
            config: commit.config.clone(),
            ..config
        };
        let target = store_image(&lease, &config, layers)?;
        let names: Vec<Reference> = commit.name.iter().map(|n| n.clone().or_latest()).collect();
        lease.record(&names, &target, &Wanted::Platform(config.platform))?;
        Ok(target.digest)
    }
}

fn store_difference(
    lease: &Lease,
    difference: &Difference,
) -> Result<(berth_oci::Descriptor, Digest)> {
    let failed = || "write the container's changes".to_owned();
    let (reader, writer) = std::io::pipe().context(failed)?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || difference.write(writer));
        let stored = store_layer(lease, reader);
        let written = writing.join();
        // What broke off was not read to its end: that is the error to tell.
        let panicked = |_| Err(std::io::Error::other("a thread panicked"));
        let written = written.unwrap_or_else(panicked);
        match (stored, written) {
            (Err(error), Err(broken)) if broken.kind() == std::io::ErrorKind::BrokenPipe => {
                Err(error)
            }
            (_, Err(error)) => Err(error).context(failed),
            (stored, Ok(())) => stored,
        }
    })
}
