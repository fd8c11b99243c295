//! `docker image inspect` and `docker history`.

use berth_base::Timestamp;
use berth_docker::image::{DriverData, HistoryItem, Inspect, Metadata, RootFs};
use berth_oci::Platform;

use crate::error::{Error, Result};
use crate::images::Images;
use crate::list::titles;
use crate::names::Name;
use crate::remove::Usage;
use crate::shape;

impl Images {
    /// The image in Docker's shape; with a platform, that part of it. `manifests` adds the list of
    /// all parts.
    pub fn inspect(
        &self,
        text: &str,
        platform: Option<&Platform>,
        manifests: bool,
        containers: &[Usage],
    ) -> Result<Inspect> {
        let found = self.find(text)?;
        let target = self.target(&found.target)?;
        let part = match platform {
            Some(platform) => Some(target.select(platform, true).ok_or_else(|| {
                Error::NotFound(format!(
                    "image with reference {text} was found but does not provide the specified \
                     platform ({platform})"
                ))
            })?),
            None => target.best(&Platform::host()),
        };
        let names: Vec<Name> = found.names.iter().map(|(name, _)| name.clone()).collect();
        let (repo_tags, repo_digests) = titles(&names, &found.target.digest);
        let described = match (platform, part) {
            (Some(_), Some(part)) => &part.descriptor,
            _ => &target.descriptor,
        };
        let updated = found.names.iter().map(|(_, record)| record.updated).max();
        let mut size: u64 = part.map_or(0, |part| part.blobs().map(|blob| blob.size).sum());
        if part.is_none_or(|part| part.descriptor.digest != target.descriptor.digest) {
            size += target.descriptor.size;
        }
        let mut inspect = Inspect {
            id: described.digest.to_string(),
            repo_tags,
            repo_digests,
            size: shape::size(size),
            graph_driver: Some(DriverData {
                data: None,
                name: "overlayfs".to_owned(),
            }),
            metadata: Metadata {
                last_tag_time: updated.map(|time| time.to_string()),
            },
            descriptor: Some(shape::descriptor(described)),
            ..Inspect::default()
        };
        if manifests {
            inspect.manifests = self.manifest_summaries(&target, containers);
        }
        let Some(config) = part.and_then(|part| part.config.as_ref()) else {
            return Ok(inspect);
        };
        inspect.comment = config
            .history
            .last()
            .and_then(|step| step.comment.clone())
            .unwrap_or_default();
        inspect.created = config.created.clone();
        inspect.author = config.author.clone().unwrap_or_default();
        inspect.config = Some(shape::config(&config.config));
        inspect.architecture = config.platform.architecture.clone();
        inspect.variant = config.platform.variant.clone().unwrap_or_default();
        inspect.os = config.platform.os.clone();
        inspect.os_version = config.platform.os_version.clone().unwrap_or_default();
        inspect.root_fs = RootFs {
            kind: config.rootfs.kind.clone(),
            layers: config
                .rootfs
                .diff_ids
                .iter()
                .map(ToString::to_string)
                .collect(),
        };
        Ok(inspect)
    }

    /// The steps of the image's making, last one first.
    pub fn history(&self, text: &str, platform: Option<&Platform>) -> Result<Vec<HistoryItem>> {
        let image = self.resolve(text, platform)?;
        let found = self.find(text)?;
        let target = self.target(&found.target)?;
        let part = target
            .manifests
            .iter()
            .find(|part| part.descriptor.digest == image.manifest.digest);
        let layers = part.map(|part| self.part_layers(part)).unwrap_or_default();
        let mut layers = layers.iter();
        let mut items = Vec::new();
        for step in &image.config.history {
            let size = if step.empty_layer {
                0
            } else {
                layers.next().map_or(0, |layer| layer.size_bytes)
            };
            let created = step.created.as_ref().and_then(|time| time.parse().ok());
            items.push(HistoryItem {
                comment: step.comment.clone().unwrap_or_default(),
                created: created.map_or(0, Timestamp::unix_seconds),
                created_by: step.created_by.clone().unwrap_or_default(),
                id: "<missing>".to_owned(),
                size: shape::size(size),
                tags: None,
            });
        }
        items.reverse();
        if let Some(first) = items.first_mut() {
            first.id = image.id.to_string();
            first.tags = Some(image.tags).filter(|tags| !tags.is_empty());
        }
        Ok(items)
    }
}
