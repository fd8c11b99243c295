//! What an image's target consists of: the manifests behind it, their configurations and layers,
//! as far as they are here.

use std::collections::HashMap;
use std::sync::Arc;

use berth_oci::config::CONFIG_LIMIT;
use berth_oci::manifest::MANIFEST_LIMIT;
use berth_oci::{Descriptor, Digest, Document, ImageConfig, Manifest, Platform, media_type};

use crate::error::{Error, Result};

/// Indexes within indexes: more levels than anyone uses.
const MAX_DEPTH: usize = 4;

/// A target that was read. Never changes, since its bytes never do; only which of its blobs are
/// here does.
#[derive(Debug)]
pub(crate) struct Target {
    pub descriptor: Descriptor,
    /// Indexes, manifests, configurations and layers: every blob that belongs to it.
    pub blobs: Vec<Descriptor>,
    pub manifests: Vec<Arc<Part>>,
}

/// One manifest of a target.
#[derive(Debug)]
pub(crate) struct Part {
    pub descriptor: Descriptor,
    /// `None` when the manifest itself is not here.
    pub manifest: Option<Arc<Manifest>>,
    pub config: Option<Arc<ImageConfig>>,
}

/// A manifest that is here, with its configuration as far as that is.
type Known = Option<(Arc<Manifest>, Option<Arc<ImageConfig>>)>;

/// What was read already, while a target is read.
enum Seen {
    Index,
    Manifest(Known),
}

/// Where blobs are read from: the store, or a lease on its way there.
pub(crate) trait Source {
    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>>;
}

impl Source for crate::Blobs {
    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        Self::read(self, digest, limit)
    }
}

impl Source for crate::Lease {
    fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        Self::read(self, digest, limit)
    }
}

impl Target {
    /// Reads the target. Missing parts of an index are left out, a missing root is an error.
    pub(crate) fn read(source: &impl Source, descriptor: &Descriptor) -> Result<Self> {
        let mut target = Self {
            descriptor: descriptor.clone(),
            blobs: Vec::new(),
            manifests: Vec::new(),
        };
        target.add(source, descriptor, MAX_DEPTH, &mut HashMap::new())?;
        if let Some(part) = target.manifests.first()
            && part.manifest.is_none()
            && part.descriptor.digest == descriptor.digest
        {
            return Err(Error::NotFound(format!(
                "content digest {}: not found",
                descriptor.digest
            )));
        }
        Ok(target)
    }

    /// A document that is referred to again is not read again, and an index not entered again: a
    /// few indexes that list each other ten thousand times would never end.
    fn add(
        &mut self,
        source: &impl Source,
        descriptor: &Descriptor,
        depth: usize,
        seen: &mut HashMap<Digest, Seen>,
    ) -> Result<()> {
        if depth == 0 {
            return Err(Error::Invalid(
                "the index refers to indexes on too many levels".to_owned(),
            ));
        }
        match seen.get(&descriptor.digest) {
            Some(Seen::Index) => return Ok(()),
            Some(Seen::Manifest(known)) => {
                self.add_part(descriptor, known.clone());
                return Ok(());
            }
            None => self.blobs.push(descriptor.clone()),
        }
        let document = match source.read(&descriptor.digest, MANIFEST_LIMIT) {
            Ok(bytes) => Some(parse(&bytes, descriptor)?),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let known = match document {
            Some(Document::Index(index)) => {
                seen.insert(descriptor.digest.clone(), Seen::Index);
                for child in &index.manifests {
                    if media_type::is_index(&child.media_type)
                        || media_type::is_manifest(&child.media_type)
                    {
                        self.add(source, child, depth - 1, seen)?;
                    }
                }
                return Ok(());
            }
            Some(Document::Manifest(manifest)) => {
                let config = read_config(source, &manifest)?;
                self.blobs.push(manifest.config.clone());
                self.blobs.extend(manifest.layers.iter().cloned());
                Some((Arc::new(manifest), config.map(Arc::new)))
            }
            None => None,
        };
        seen.insert(descriptor.digest.clone(), Seen::Manifest(known.clone()));
        self.add_part(descriptor, known);
        Ok(())
    }

    fn add_part(&mut self, descriptor: &Descriptor, known: Known) {
        let (manifest, config) = known.unzip();
        self.manifests.push(Arc::new(Part {
            descriptor: descriptor.clone(),
            manifest,
            config: config.flatten(),
        }));
    }

    /// The image that runs best on the platform. With `exact`, nothing but that platform will do.
    pub(crate) fn select(&self, platform: &Platform, exact: bool) -> Option<&Arc<Part>> {
        self.manifests
            .iter()
            .filter_map(|part| {
                let offered = part.platform().filter(|_| part.is_image())?;
                let rank = if exact {
                    platform.is_exactly(&offered).then_some(0)
                } else {
                    platform.rank(&offered)
                };
                Some((rank?, part))
            })
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, part)| part)
    }

    /// As [`Target::select`], and any other image that is here when none fits.
    pub(crate) fn best(&self, platform: &Platform) -> Option<&Arc<Part>> {
        self.select(platform, false)
            .or_else(|| self.manifests.iter().find(|part| part.is_image()))
    }
}

impl Part {
    /// A manifest with a configuration that is here, and no attestation.
    pub(crate) fn is_image(&self) -> bool {
        self.config.is_some()
            && !self.descriptor.is_attestation()
            && self.manifest.as_ref().is_some_and(|it| it.is_image())
    }

    /// The platform by the index, or else by the configuration.
    pub(crate) fn platform(&self) -> Option<Platform> {
        let described = self.descriptor.platform.clone();
        let platform = described.or_else(|| Some(self.config.as_ref()?.platform.clone()))?;
        Some(platform.normalized())
    }

    pub(crate) fn diff_ids(&self) -> &[Digest] {
        self.config
            .as_ref()
            .map_or(&[], |config| &config.rootfs.diff_ids)
    }

    /// Layers of the file system, without what artifacts put beside them.
    pub(crate) fn layers(&self) -> Vec<&Descriptor> {
        let layers = self.manifest.iter().flat_map(|manifest| &manifest.layers);
        layers
            .filter(|layer| media_type::is_layer(&layer.media_type))
            .collect()
    }

    /// The blobs of this manifest, itself included.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let children = self
            .manifest
            .iter()
            .flat_map(|manifest| std::iter::once(&manifest.config).chain(&manifest.layers));
        std::iter::once(&self.descriptor).chain(children)
    }
}

fn parse(bytes: &[u8], descriptor: &Descriptor) -> Result<Document> {
    Document::parse(bytes, &descriptor.media_type).map_err(|source| Error::Manifest {
        digest: descriptor.digest.clone(),
        source,
    })
}

/// The configuration, if this is an image and its configuration is here.
fn read_config(source: &impl Source, manifest: &Manifest) -> Result<Option<ImageConfig>> {
    if media_type::kind(&manifest.config.media_type) != media_type::Kind::Config {
        return Ok(None);
    }
    let digest = &manifest.config.digest;
    match source.read(digest, CONFIG_LIMIT) {
        Ok(bytes) => ImageConfig::parse(&bytes)
            .map(Some)
            .map_err(|source| Error::Config {
                digest: digest.clone(),
                source,
            }),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
