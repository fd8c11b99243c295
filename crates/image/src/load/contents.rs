//! What an archive holds: blobs by their paths, and the files that say what they are.

use std::collections::HashMap;
use std::io::Read;

use berth_oci::config::{CONFIG_LIMIT, MAX_LAYERS};
use berth_oci::descriptor::{ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME};
use berth_oci::{Descriptor, Digest, ImageConfig, Index, Reference, media_type};
use serde::{Deserialize, Serialize};

use super::workers::Workers;
use crate::error::{Error, Result};
use crate::lease::Lease;
use crate::tar::reader::Reader;
use crate::tar::{Entry, EntryKind};
use crate::unpack::{self, Compression};

/// The archive's own JSON files.
const JSON_LIMIT: u64 = 20 << 20;
/// Files, so that a hostile archive does not fill the memory with names.
const MAX_FILES: usize = 100_000;
/// What all their names and links may take together, in bytes.
const MAX_NAMES: usize = 32 << 20;
/// Images of one archive.
const MAX_IMAGES: usize = 10_000;
/// The smallest archive is two blocks.
const SMALLEST_LAYER: u64 = 1024;

const LAYOUT_VERSION: &str = "1.0.0";

/// An archive that was read to its end.
#[derive(Default)]
pub(super) struct Contents {
    blobs: HashMap<String, Blob>,
    /// Old archives repeat a layer as a link to the first copy.
    links: HashMap<String, String>,
    layout: Option<Vec<u8>>,
    index: Option<Vec<u8>>,
    manifest: Option<Vec<u8>>,
}

#[derive(Clone)]
struct Blob {
    digest: Digest,
    size_bytes: u64,
}

#[derive(Deserialize)]
struct Layout {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The manifest of an image that came without one. The order and the absence of other fields are
/// containerd's, so that the same archive gets the same image id in every engine.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MadeManifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

pub(super) fn read(stream: impl Read, lease: &Lease, workers: Workers) -> Result<Contents> {
    let mut reader = Reader::new(stream);
    let mut contents = Contents::default();
    let mut names = 0;
    while let Some(entry) = reader.next_entry()? {
        names += entry.path.len() + entry.link.len();
        if names > MAX_NAMES {
            return Err(Error::Invalid(
                "the names in the archive are too long".to_owned(),
            ));
        }
        let name = clean(&entry.path);
        match entry.kind {
            EntryKind::File if entry.sparse.is_none() => {
                contents.file(name, &entry, &mut reader, lease, &workers)?;
            }
            EntryKind::Symlink => {
                let link = String::from_utf8_lossy(&entry.link).into_owned();
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                let target = clean(format!("{directory}/{link}").as_bytes());
                contents.links.insert(name, target);
            }
            // A hard link is the file that it links to.
            EntryKind::HardLink => {
                contents.links.insert(name, clean(&entry.link));
            }
            _ => {}
        }
        if contents.blobs.len() + contents.links.len() > MAX_FILES {
            return Err(Error::Invalid("too many files in the archive".to_owned()));
        }
    }
    // What follows the end may be needed by a compressed stream's checksum.
    reader.drain()?;
    Ok(contents)
}

impl Contents {
    fn file<R: Read>(
        &mut self,
        name: String,
        entry: &Entry,
        reader: &mut Reader<R>,
        lease: &Lease,
        workers: &Workers,
    ) -> Result<()> {
        let json = match name.as_str() {
            "oci-layout" => Some(&mut self.layout),
            "index.json" => Some(&mut self.index),
            "manifest.json" => Some(&mut self.manifest),
            _ => None,
        };
        if let Some(slot) = json {
            *slot = Some(reader.read_all(JSON_LIMIT)?);
            return Ok(());
        }
        let expected = blob_digest(&name);
        let digest = match expected {
            // The archive repeats what is here: nothing to read.
            Some(digest) if lease.is_whole(&digest, entry.size) => digest,
            expected => ingest(expected, entry.size, reader, lease, workers)?,
        };
        let size_bytes = entry.size;
        self.blobs.insert(name, Blob { digest, size_bytes });
        Ok(())
    }

    /// The images as an index: the archive's own, or one made of `manifest.json`.
    pub(super) fn into_index(self, lease: &Lease) -> Result<Index> {
        let json = |what: &'static str| {
            move |source: serde_json::Error| Error::Archive {
                what: format!("invalid {what}"),
                source: Some(source.into()),
            }
        };
        if let Some(layout) = &self.layout {
            let layout: Layout = serde_json::from_slice(layout).map_err(json("oci-layout"))?;
            if layout.version != LAYOUT_VERSION {
                return Err(Error::Invalid(format!(
                    "unsupported OCI version {}",
                    layout.version
                )));
            }
            let index = self.index.as_ref().ok_or_else(|| {
                Error::Invalid(format!("missing index.json in OCI layout {LAYOUT_VERSION}"))
            })?;
            return serde_json::from_slice(index).map_err(json("index.json"));
        }
        let Some(manifest) = &self.manifest else {
            return Err(Error::Invalid("unrecognized image format".to_owned()));
        };
        let images: Vec<DockerImage> =
            serde_json::from_slice(manifest).map_err(json("manifest.json"))?;
        if images.len() > MAX_IMAGES {
            return Err(Error::Invalid(format!(
                "more than {MAX_IMAGES} images in the archive"
            )));
        }
        let mut manifests = Vec::new();
        for image in &images {
            manifests.extend(self.make_manifest(image, lease)?);
        }
        Ok(Index {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            manifests,
            annotations: None,
        })
    }

    /// One descriptor for each name of the image.
    fn make_manifest(&self, image: &DockerImage, lease: &Lease) -> Result<Vec<Descriptor>> {
        let missing = |what: &str, name: &str| Error::Invalid(format!("{what} {name:?} not found"));
        if image.layers.iter().flatten().count() > MAX_LAYERS {
            return Err(Error::Invalid("max depth exceeded".to_owned()));
        }
        let config = self
            .blob(&image.config)
            .ok_or_else(|| missing("image config", &image.config))?;
        let layers = image.layers.iter().flatten().map(|name| {
            let blob = self.blob(name).ok_or_else(|| missing("layer", name))?;
            let media_type = layer_media_type(lease, &blob.digest)?;
            Ok(Descriptor::new(media_type, blob.digest, blob.size_bytes))
        });
        let made = MadeManifest {
            schema_version: 2,
            media_type: media_type::DOCKER_MANIFEST,
            config: Descriptor::new(
                media_type::DOCKER_CONFIG,
                config.digest.clone(),
                config.size_bytes,
            ),
            layers: layers.collect::<Result<_>>()?,
        };
        let bytes = serde_json::to_vec(&made).map_err(|source| Error::Io {
            what: "encode a manifest".to_owned(),
            source: source.into(),
        })?;
        let mut descriptor = Descriptor::of(media_type::DOCKER_MANIFEST, &bytes);
        lease.put(&bytes)?;
        let bytes = lease.read(&config.digest, CONFIG_LIMIT)?;
        let parsed = ImageConfig::parse(&bytes).map_err(|source| Error::Config {
            digest: config.digest,
            source,
        })?;
        descriptor.platform = Some(parsed.platform).filter(|platform| !platform.os.is_empty());
        let names: Vec<&String> = image.repo_tags.iter().flatten().collect();
        if names.is_empty() {
            return Ok(vec![descriptor]);
        }
        names
            .into_iter()
            .map(|name| {
                let reference: Reference = name.parse().map_err(|error| {
                    Error::Invalid(format!("normalize image ref {name:?}: {error}"))
                })?;
                Ok(named(&descriptor, &reference.or_latest()))
            })
            .collect()
    }

    fn blob(&self, name: &str) -> Option<Blob> {
        let name = clean(name.as_bytes());
        let target = self.links.get(&name).unwrap_or(&name);
        self.blobs.get(target).cloned()
    }
}

/// The descriptor with the annotations that carry a name through archives.
pub(crate) fn named(descriptor: &Descriptor, reference: &Reference) -> Descriptor {
    let mut descriptor = descriptor.clone();
    let annotations = descriptor.annotations.get_or_insert_default();
    annotations.insert(ANNOTATION_IMAGE_NAME.to_owned(), reference.to_string());
    let tag = reference
        .tag()
        .map_or_else(|| reference.to_string(), str::to_owned);
    annotations.insert(ANNOTATION_REF_NAME.to_owned(), tag);
    descriptor
}

fn ingest<R: Read>(
    expected: Option<Digest>,
    size_bytes: u64,
    reader: &mut Reader<R>,
    lease: &Lease,
    workers: &Workers,
) -> Result<Digest> {
    let mut ingest = match &expected {
        Some(digest) => lease.begin(digest, size_bytes)?,
        None => lease.begin_unknown()?,
    };
    let first = reader.data()?.first().copied();
    // Configurations, manifests and attestations are JSON objects.
    if size_bytes >= SMALLEST_LAYER && first != Some(b'{') {
        workers.unpack(ingest.tail());
    }
    loop {
        let data = reader.data()?;
        if data.is_empty() {
            return ingest.commit();
        }
        let length = data.len();
        ingest.write(data)?;
        reader.consume(length);
    }
}

fn layer_media_type(lease: &Lease, digest: &Digest) -> Result<&'static str> {
    let mut magic = Vec::new();
    lease
        .open_blob(digest)?
        .take(6)
        .read_to_end(&mut magic)
        .map_err(|source| Error::Io {
            what: format!("read blob {digest}"),
            source,
        })?;
    // containerd calls every compressed layer of such an archive gzip.
    Ok(match unpack::sniff(&magic) {
        Ok(Compression::None) => media_type::DOCKER_LAYER,
        _ => media_type::DOCKER_LAYER_GZIP,
    })
}

/// The digest that a path in `blobs/` promises.
fn blob_digest(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// Without `.`, `..`, and slashes at the ends. Names are only looked up, never opened.
fn clean(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
