//! `docker images`: one row per target, newest first, filtered as Docker filters.

mod glob;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use berth_base::Timestamp;
use berth_docker::filters::Filters;
use berth_docker::image::{
    AttestationData, ManifestImageData, ManifestSize, ManifestSummary, Summary, UnpackedSize,
};
use berth_oci::descriptor::ANNOTATION_REFERENCE_DIGEST;
use berth_oci::{Descriptor, Digest, Platform, Reference};

use crate::error::{Error, Result};
use crate::images::Images;
use crate::layers;
use crate::names::{Name, Record};
use crate::remove::Usage;
use crate::shape;
use crate::target::{Part, Target};

/// The filters that `images` knows.
pub const FILTERS: &[&str] = &[
    "dangling",
    "label",
    "label!",
    "before",
    "since",
    "reference",
    "until",
];

#[derive(Debug, Clone, Default)]
pub struct Options {
    pub filters: Filters,
    pub shared_size: bool,
    pub manifests: bool,
}

/// An image in the list, before it becomes a row.
struct Candidate {
    target: Arc<Target>,
    names: Vec<Name>,
    best: Option<Arc<Part>>,
    created: Timestamp,
}

impl Images {
    /// The images that pass the filters.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] for an unknown filter or a value that it cannot have.
    pub fn list(&self, options: &Options, containers: &[Usage]) -> Result<Vec<Summary>> {
        let filters = &options.filters;
        let invalid = |error: berth_docker::filters::Error| Error::Invalid(error.to_string());
        filters.accept(FILTERS).map_err(invalid)?;
        let dangling = filters.flag("dangling").map_err(invalid)?;
        let bounds = self.bounds(filters)?;
        let mut candidates = self.candidates();
        let users = if options.shared_size {
            self.layer_users(&candidates)
        } else {
            HashMap::new()
        };
        candidates.retain_mut(|image| {
            if filters.contains("reference") {
                image.names.retain(|name| {
                    name.reference().is_some_and(|name| {
                        filters.matches_any("reference", |pattern| matches(pattern, name))
                    })
                });
                if image.names.is_empty() {
                    return false;
                }
            }
            let is_dangling = image.names.iter().all(Name::is_dangling);
            dangling.is_none_or(|wanted| wanted == is_dangling)
                && bounds.contain(image.created)
                && has_labels(filters, image)
        });
        candidates.sort_by_key(|image| std::cmp::Reverse(image.created));
        let rows = candidates.iter();
        Ok(rows
            .map(|image| self.row(image, options, &users, containers))
            .collect())
    }

    fn candidates(&self) -> Vec<Candidate> {
        let records: Vec<(Name, Record)> = {
            let state = self.state();
            state
                .names
                .iter()
                .map(|(n, r)| (n.clone(), r.clone()))
                .collect()
        };
        let mut order: Vec<Digest> = Vec::new();
        let mut images: HashMap<Digest, (Descriptor, Vec<Name>)> = HashMap::new();
        for (name, record) in records {
            let digest = record.target.digest.clone();
            let image = images.entry(digest.clone()).or_insert_with(|| {
                order.push(digest);
                (record.target, Vec::new())
            });
            image.1.push(name);
        }
        let candidates = order.into_iter().filter_map(|digest| {
            let (descriptor, names) = images.remove(&digest)?;
            match self.target(&descriptor) {
                Ok(target) => Some(Candidate::new(target, names)),
                Err(error) => {
                    tracing::warn!(%digest, %error, "leave a damaged image out of the list");
                    None
                }
            }
        });
        candidates.collect()
    }

    fn bounds(&self, filters: &Filters) -> Result<Bounds> {
        let mut bounds = Bounds::default();
        let created = |text: &str| -> Result<Timestamp> {
            let found = self.find(text)?;
            Ok(Candidate::new(self.target(&found.target)?, Vec::new()).created)
        };
        for text in filters.get("before") {
            bounds.before = Some(created(text)?);
        }
        for text in filters.get("since") {
            bounds.since = Some(created(text)?);
        }
        for text in filters.get("until") {
            let until = Timestamp::parse_docker(text, Timestamp::now())
                .map_err(|error| Error::Invalid(error.to_string()))?;
            bounds.until = Some(until);
        }
        Ok(bounds)
    }

    fn row(
        &self,
        image: &Candidate,
        options: &Options,
        users: &HashMap<layers::Key, usize>,
        containers: &[Usage],
    ) -> Summary {
        let (repo_tags, repo_digests) = titles(&image.names, &image.target.descriptor.digest);
        let id = &image.target.descriptor.digest;
        let labels = image.best.as_ref().and_then(|part| {
            let config = part.config.as_ref()?;
            Some(config.config.labels.clone().unwrap_or_default())
        });
        let shared = |part: &Arc<Part>| -> u64 {
            self.part_layers(part)
                .iter()
                .filter(|layer| users.get(&layer.key).is_some_and(|count| *count > 1))
                .map(|layer| layer.size_bytes)
                .sum()
        };
        let manifests = if options.manifests {
            self.manifest_summaries(&image.target, containers)
        } else {
            Vec::new()
        };
        Summary {
            containers: containers
                .iter()
                .filter(|usage| usage.image == *id)
                .count()
                .try_into()
                .unwrap_or(-1),
            created: match image.created.is_zero() {
                true => 0,
                false => image.created.unix_seconds(),
            },
            id: id.to_string(),
            labels,
            parent_id: String::new(),
            descriptor: Some(shape::descriptor(&image.target.descriptor)),
            manifests,
            repo_digests,
            repo_tags,
            shared_size: if options.shared_size {
                image
                    .best
                    .as_ref()
                    .map_or(0, |part| shape::size(shared(part)))
            } else {
                -1
            },
            size: shape::size(self.total_size(&image.target)),
        }
    }

    /// Bytes of the blobs that are here and of what is unpacked of them.
    pub(crate) fn total_size(&self, target: &Target) -> u64 {
        let mut seen = std::collections::HashSet::new();
        let blobs: u64 = target
            .blobs
            .iter()
            .filter(|blob| seen.insert(&blob.digest))
            .filter_map(|blob| self.content().blobs.size(&blob.digest))
            .sum();
        let unpacked: u64 = target
            .manifests
            .iter()
            .map(|part| self.unpacked(part))
            .sum();
        blobs + unpacked
    }

    pub(crate) fn unpacked(&self, part: &Part) -> u64 {
        self.part_layers(part)
            .iter()
            .map(|layer| layer.size_bytes)
            .sum()
    }

    /// The unpacked layers of a manifest, as far as they are here.
    pub(crate) fn part_layers(&self, part: &Part) -> Vec<Arc<layers::Layer>> {
        let diff_ids = part.diff_ids();
        (1..=diff_ids.len())
            .map_while(|end| {
                layers::keys(&diff_ids[..end])
                    .iter()
                    .find_map(|key| self.content().layers.get(key))
            })
            .collect()
    }

    /// How many images use each layer.
    fn layer_users(&self, images: &[Candidate]) -> HashMap<layers::Key, usize> {
        let mut users = HashMap::new();
        for part in images.iter().filter_map(|image| image.best.as_ref()) {
            for layer in self.part_layers(part) {
                *users.entry(layer.key.clone()).or_insert(0) += 1;
            }
        }
        users
    }

    pub(crate) fn manifest_summaries(
        &self,
        target: &Target,
        containers: &[Usage],
    ) -> Vec<ManifestSummary> {
        let parts = target.manifests.iter();
        parts
            .map(|part| self.manifest_summary(part, target, containers))
            .collect()
    }

    fn manifest_summary(
        &self,
        part: &Part,
        target: &Target,
        containers: &[Usage],
    ) -> ManifestSummary {
        let sizes: Vec<Option<u64>> = part
            .blobs()
            .map(|blob| self.content().blobs.size(&blob.digest))
            .collect();
        let content: u64 = sizes.iter().flatten().sum();
        let unpacked = self.unpacked(part);
        let subject = part.descriptor.annotation(ANNOTATION_REFERENCE_DIGEST);
        let attestation = part.descriptor.is_attestation();
        let image_data = (!attestation && (part.is_image() || part.manifest.is_none()))
            .then(|| part.platform())
            .flatten();
        let users = || {
            let host = target.best(&Platform::host());
            let ours = host.is_some_and(|host| host.descriptor.digest == part.descriptor.digest);
            containers
                .iter()
                .filter(move |usage| ours && usage.image == target.descriptor.digest)
        };
        ManifestSummary {
            id: part.descriptor.digest.to_string(),
            descriptor: shape::descriptor(&part.descriptor),
            available: part.manifest.is_some() && sizes.iter().all(Option::is_some),
            kind: match (&image_data, attestation) {
                (_, true) => "attestation",
                (Some(_), false) => "image",
                (None, false) => "unknown",
            }
            .to_owned(),
            size: ManifestSize {
                content: shape::size(content),
                total: shape::size(content + unpacked),
            },
            image_data: image_data.map(|platform| ManifestImageData {
                platform: shape::platform(&platform),
                containers: users().map(|usage| usage.container_id.clone()).collect(),
                size: UnpackedSize {
                    unpacked: shape::size(unpacked),
                },
            }),
            attestation_data: subject
                .filter(|_| attestation)
                .map(|subject| AttestationData {
                    subject: subject.to_owned(),
                }),
        }
    }
}

impl Candidate {
    fn new(target: Arc<Target>, names: Vec<Name>) -> Self {
        let best = target.best(&Platform::host()).cloned();
        let created = best
            .as_ref()
            .and_then(|part| part.config.as_ref()?.created.as_ref()?.parse().ok())
            .unwrap_or(Timestamp::ZERO);
        Self {
            target,
            names,
            best,
            created,
        }
    }
}

/// Points in time between which images have to be made.
#[derive(Default)]
struct Bounds {
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Bounds {
    fn contain(&self, created: Timestamp) -> bool {
        self.before.is_none_or(|before| created < before)
            && self.since.is_none_or(|since| created > since)
            && self.until.is_none_or(|until| created < until)
    }
}

/// Names with tags, and repositories with the target's digest, as people write them.
pub(crate) fn titles(names: &[Name], target: &Digest) -> (Vec<String>, Vec<String>) {
    let mut tags = Vec::new();
    let mut digests = Vec::new();
    for name in names.iter().filter_map(Name::reference) {
        if name.tag().is_some() {
            tags.push(name.familiar());
        }
        let digested = match name.digest() {
            Some(_) => name.familiar(),
            None => name.with_digest(target.clone()).familiar(),
        };
        if !digests.contains(&digested) {
            digests.push(digested);
        }
    }
    (tags, digests)
}

/// A pattern matches the whole name or the repository alone, as people write them.
fn matches(pattern: &str, name: &Reference) -> bool {
    glob::matches(pattern, &name.familiar()) || glob::matches(pattern, &name.familiar_name())
}

fn has_labels(filters: &Filters, image: &Candidate) -> bool {
    let none = BTreeMap::new();
    let labels = image
        .best
        .as_ref()
        .and_then(|part| part.config.as_ref()?.config.labels.as_ref())
        .unwrap_or(&none);
    let has = |wanted: &str| match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
        None => labels.contains_key(wanted),
    };
    filters.matches_labels("label", labels) && filters.get("label!").all(|label| !has(label))
}
