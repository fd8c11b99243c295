//! Finds images by what users write: a name, a name with a digest, an id or the beginning of one.

use std::path::PathBuf;
use std::sync::Arc;

use berth_oci::reference::{id_prefix, is_full_id};
use berth_oci::{Descriptor, Digest, ImageConfig, Platform, Reference};

use crate::error::{Error, Result};
use crate::images::{Images, State};
use crate::names::{Name, Record};
use crate::target::{Part, Target};

/// An image on one platform, ready to run.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of the target: Docker's image id.
    pub id: Digest,
    /// What the names point at: an index, or the manifest itself.
    pub target: Descriptor,
    /// The platform's manifest.
    pub manifest: Descriptor,
    pub config_digest: Digest,
    pub config: Arc<ImageConfig>,
    pub platform: Platform,
    /// Directories of the unpacked layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// Names with tags as people write them.
    pub tags: Vec<String>,
}

/// A target that was found, and the names that point at it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub target: Descriptor,
    /// The name that was asked for; `None` if it was an id.
    pub name: Option<Name>,
    pub names: Vec<(Name, Record)>,
}

/// The text, parsed as Docker does: whole ids, digests, and names.
pub(crate) enum Query {
    Digest(Digest),
    Name(Reference),
}

impl Query {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if is_full_id(text)
            && let Ok(digest) = format!("sha256:{text}").parse()
        {
            return Ok(Self::Digest(digest));
        }
        if let Ok(digest) = text.parse() {
            return Ok(Self::Digest(digest));
        }
        text.parse()
            .map(Self::Name)
            .map_err(|error: berth_oci::reference::InvalidReference| {
                Error::Invalid(error.to_string())
            })
    }

    /// Docker's sentence for what does not exist.
    pub(crate) fn missing(&self) -> Error {
        let name = match self {
            Self::Digest(digest) => digest.to_string(),
            Self::Name(reference) => reference.clone().or_latest().familiar(),
        };
        Error::NotFound(format!("No such image: {name}"))
    }
}

impl Images {
    /// Finds the image on this machine's platform (or on another one that was asked for).
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] in Docker's words, also when the image has no such platform.
    pub fn resolve(&self, text: &str, platform: Option<&Platform>) -> Result<Image> {
        let found = self.find(text)?;
        let target = self.target(&found.target)?;
        let part = match platform {
            Some(platform) => target.select(platform, false).ok_or_else(|| {
                Error::NotFound(format!(
                    "image with reference {text} was found but does not provide the specified \
                     platform ({platform})"
                ))
            })?,
            None => target
                .best(&Platform::host())
                .ok_or_else(|| Query::parse(text).map_or_else(|e| e, |query| query.missing()))?,
        };
        self.image(&found, &target, part)
    }

    /// As [`Images::resolve`] on this machine's platform, if everything is in memory: reads no
    /// file. `None` says nothing about whether the image exists.
    pub fn recall(&self, text: &str) -> Option<Image> {
        let query = Query::parse(text).ok()?;
        let (descriptor, name, target) = {
            let state = self.state();
            let (target, name) = match &query {
                Query::Digest(digest) => (by_digest(&state, digest), None),
                Query::Name(reference) => by_reference(&state, reference, text).ok()?,
            };
            let descriptor = target?;
            let target = state.remembered(&descriptor.digest)?;
            (descriptor, name, target)
        };
        let part = target.best(&Platform::host())?;
        self.state().chain(&part.descriptor.digest)?;
        let found = self.found(descriptor, name).ok()?;
        self.image(&found, &target, part).ok()
    }

    /// The digest that the name points at, without reading anything.
    pub fn target_of(&self, reference: &Reference) -> Option<Digest> {
        let name = Name::Reference(reference.clone());
        let state = self.state();
        Some(state.names.get(&name)?.target.digest.clone())
    }

    pub(crate) fn find(&self, text: &str) -> Result<Found> {
        let query = Query::parse(text)?;
        let state = self.state();
        let (target, name) = match &query {
            Query::Digest(digest) => (by_digest(&state, digest), None),
            Query::Name(reference) => by_reference(&state, reference, text)?,
        };
        let target = match target {
            Some(target) => target,
            // The id of the configuration is what images were called before containerd's store.
            None => {
                drop(state);
                let target = id_prefix(text).and_then(|hex| self.by_config(hex));
                return self.found(target.ok_or_else(|| query.missing())?, None);
            }
        };
        drop(state);
        self.found(target, name)
    }

    fn found(&self, target: Descriptor, name: Option<Name>) -> Result<Found> {
        let state = self.state();
        let names = state
            .names
            .iter()
            .filter(|(_, record)| record.target.digest == target.digest)
            .map(|(name, record)| (name.clone(), record.clone()))
            .collect();
        Ok(Found {
            target,
            name,
            names,
        })
    }

    /// The image whose configuration's digest begins so.
    fn by_config(&self, hex: &str) -> Option<Descriptor> {
        let targets: Vec<Descriptor> = {
            let state = self.state();
            state.names.values().map(|r| r.target.clone()).collect()
        };
        targets.into_iter().find(|descriptor| {
            let Ok(target) = self.target(descriptor) else {
                return false;
            };
            target.manifests.iter().any(|part| {
                let config = part.manifest.as_ref().map(|m| &m.config.digest);
                part.is_image() && config.is_some_and(|digest| digest.hex().starts_with(hex))
            })
        })
    }

    /// The image of a manifest that a container uses.
    pub(crate) fn by_manifest(&self, manifest: &Digest) -> Result<Image> {
        let descriptor = Descriptor::new("", manifest.clone(), 0);
        let found = self.found(descriptor.clone(), None)?;
        let target = self.target(&descriptor)?;
        let part = target
            .best(&Platform::host())
            .ok_or_else(|| Error::NotFound(format!("No such image: {manifest}")))?;
        self.image(&found, &target, part)
    }

    pub(crate) fn image(&self, found: &Found, target: &Target, part: &Part) -> Result<Image> {
        let missing = || Error::NotFound(format!("No such image: {}", target.descriptor.digest));
        let config = part.config.clone().ok_or_else(missing)?;
        let manifest = part.manifest.as_ref().ok_or_else(missing)?;
        let known = self.state().chain(&part.descriptor.digest);
        let layers = match known {
            Some(layers) => layers,
            None => {
                let layers = self.layer_directories(part.diff_ids()).ok_or_else(|| {
                    Error::NotFound(format!(
                        "image {} is not unpacked for {}: pull it again",
                        target.descriptor.digest,
                        config.platform.clone(),
                    ))
                })?;
                let layers = top_first(layers);
                let (id, manifest) = (&target.descriptor.digest, &part.descriptor.digest);
                self.state().remember_chain(id, manifest, &layers);
                layers
            }
        };
        Ok(Image {
            id: target.descriptor.digest.clone(),
            target: target.descriptor.clone(),
            manifest: part.descriptor.clone(),
            config_digest: manifest.config.digest.clone(),
            platform: config.platform.normalized(),
            config,
            layers,
            tags: found.tags(),
        })
    }

    /// The unpacked layers, bottom first; `None` if one is missing.
    pub(crate) fn layer_directories(&self, diff_ids: &[Digest]) -> Option<Vec<PathBuf>> {
        let mut directories: Vec<PathBuf> = Vec::with_capacity(diff_ids.len());
        for end in 1..=diff_ids.len() {
            let layer = self.content().layers.find(&diff_ids[..end], &directories)?;
            directories.push(layer.directory.clone());
        }
        Some(directories)
    }
}

impl Found {
    /// Names with tags as people write them.
    pub(crate) fn tags(&self) -> Vec<String> {
        self.names
            .iter()
            .filter_map(|(name, _)| name.reference())
            .filter(|reference| reference.tag().is_some())
            .map(Reference::familiar)
            .collect()
    }
}

/// Topmost first, each once: overlayfs refuses a directory that occurs twice, and the topmost
/// occurrence shows all that a lower one could.
fn top_first(layers: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = std::collections::HashSet::new();
    let mut layers: Vec<PathBuf> = layers.into_iter().rev().collect();
    layers.retain(|layer| seen.insert(layer.clone()));
    layers
}

fn by_digest(state: &State, digest: &Digest) -> Option<Descriptor> {
    let record = state
        .names
        .values()
        .find(|record| record.target.digest == *digest)?;
    Some(record.target.clone())
}

fn by_reference(
    state: &State,
    reference: &Reference,
    text: &str,
) -> Result<(Option<Descriptor>, Option<Name>)> {
    if let Some(digest) = reference.digest() {
        // `busybox@sha256:x` is not `other@sha256:x`.
        let repository = reference.name();
        let hit = state.names.iter().find(|(name, record)| {
            record.target.digest == *digest
                && name
                    .reference()
                    .is_some_and(|name| name.name() == repository)
        });
        let hit = hit.map(|(name, record)| (record.target.clone(), name.clone()));
        return Ok(hit.map_or((None, None), |(target, name)| (Some(target), Some(name))));
    }
    let name = Name::Reference(reference.clone().or_latest());
    if let Some(record) = state.names.get(&name) {
        return Ok((Some(record.target.clone()), Some(name)));
    }
    let Some(prefix) = id_prefix(text) else {
        return Ok((None, None));
    };
    let mut hits = state
        .names
        .values()
        .filter(|record| record.target.digest.hex().starts_with(prefix));
    let first = hits.next().map(|record| record.target.clone());
    if let Some(first) = &first
        && hits.any(|record| record.target.digest != first.digest)
    {
        return Err(Error::NotFound("ambiguous reference".to_owned()));
    }
    Ok((first, None))
}
