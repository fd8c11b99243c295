//! Writes images as an archive that is an OCI layout and has Docker's `manifest.json` too. The same
//! images give the same bytes: records are sorted, times are zero.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use berth_oci::{Descriptor, Digest, Hasher, Index, Platform, Reference, media_type};
use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::images::Images;
use crate::load::named;
use crate::names::Name;
use crate::resolve::{Found, Query};
use crate::tar::writer::Writer;
use crate::target::{Part, Target};

/// The order of the fields is that of the archive's other writers.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// What an archive will hold, found out before its first byte is written.
#[derive(Default)]
struct Plan {
    entries: Vec<Descriptor>,
    /// Sorted, each once.
    blobs: BTreeMap<String, Descriptor>,
    images: Vec<(Digest, DockerImage)>,
}

impl Images {
    /// Saves the images that the names or ids mean; a name without a tag means all its tags. With
    /// a platform, only that one of an index.
    ///
    /// # Errors
    /// An unknown name fails before anything is written.
    pub fn save(
        &self,
        names: &[String],
        platform: Option<&Platform>,
        out: impl Write,
    ) -> Result<()> {
        let lease = self.lease();
        let mut plan = Plan::default();
        for text in names {
            for (found, reference) in self.meant(text)? {
                let target = self.target(&found)?;
                for blob in &target.blobs {
                    lease.contains(&blob.digest);
                }
                self.plan_image(&mut plan, text, &target, reference.as_ref(), platform)?;
            }
        }
        let mut writer = Writer::new(io::BufWriter::with_capacity(1 << 20, out));
        self.write(&plan, &mut writer)
            .and_then(|()| writer.finish().map(drop))
            .context(|| "write the archive".to_owned())
    }

    /// The targets that a word means, and the names to save them by.
    fn meant(&self, text: &str) -> Result<Vec<(Descriptor, Option<Reference>)>> {
        let found = self.find(text);
        let by_name = |found: &Found| found.name.is_some();
        if let (Ok(Query::Name(reference)), false) = (
            Query::parse(text),
            found.as_ref().is_ok_and(|f| !by_name(f)),
        ) && reference.is_name_only()
        {
            let all = self.tags_of(&reference);
            if all.is_empty() {
                return Err(Query::Name(reference).missing());
            }
            return Ok(all);
        }
        let found = found?;
        // Who asks for a digest gets the image without names.
        let reference = match &found.name {
            Some(Name::Reference(name)) if name.tag().is_some() && !text.contains('@') => {
                Some(name.clone())
            }
            _ => None,
        };
        Ok(vec![(found.target, reference)])
    }

    fn tags_of(&self, repository: &Reference) -> Vec<(Descriptor, Option<Reference>)> {
        let state = self.state();
        let all = state.names.iter().filter_map(|(name, record)| {
            let name = name.reference().filter(|name| name.tag().is_some())?;
            (name.name() == repository.name()).then(|| (record.target.clone(), Some(name.clone())))
        });
        all.collect()
    }

    fn plan_image(
        &self,
        plan: &mut Plan,
        text: &str,
        target: &Target,
        reference: Option<&Reference>,
        platform: Option<&Platform>,
    ) -> Result<()> {
        let chosen = match platform {
            None => None,
            Some(platform) => Some(target.select(platform, true).ok_or_else(|| {
                Error::NotFound(format!(
                    "no suitable export target found: image with reference {text} was found but \
                     does not provide the specified platform ({platform})"
                ))
            })?),
        };
        let root = chosen.map_or(&target.descriptor, |part| &part.descriptor);
        let entry = match reference {
            Some(reference) => named(root, reference),
            None => unnamed(root),
        };
        plan.entries.push(entry);
        match chosen {
            Some(part) => self.plan_part(plan, part),
            None => {
                // Indexes; the manifests follow by their parts.
                for blob in &target.blobs {
                    if media_type::is_index(&blob.media_type) {
                        self.plan_blob(plan, blob);
                    }
                }
                target
                    .manifests
                    .iter()
                    .for_each(|part| self.plan_part(plan, part));
            }
        }
        let part = chosen.or_else(|| target.best(&Platform::host()));
        if let Some(part) = part {
            add_docker_image(plan, part, reference);
        }
        Ok(())
    }

    /// A manifest, and what it refers to if all of that is here.
    fn plan_part(&self, plan: &mut Plan, part: &Part) {
        let here = |blob: &Descriptor| self.content().blobs.contains(&blob.digest);
        if !here(&part.descriptor) {
            return;
        }
        let foreign = |blob: &Descriptor| {
            media_type::kind(&blob.media_type) == media_type::Kind::ForeignLayer
        };
        self.plan_blob(plan, &part.descriptor);
        let children: Vec<&Descriptor> =
            part.blobs().skip(1).filter(|blob| !foreign(blob)).collect();
        if children.iter().all(|blob| here(blob)) {
            children
                .into_iter()
                .for_each(|blob| self.plan_blob(plan, blob));
        }
    }

    fn plan_blob(&self, plan: &mut Plan, blob: &Descriptor) {
        let path = blob_path(&blob.digest);
        // Descriptors of containers' manifests come without a size.
        if let Some(size) = self.content().blobs.size(&blob.digest) {
            let described = Descriptor::new(&blob.media_type, blob.digest.clone(), size);
            plan.blobs.insert(path, described);
        }
    }

    fn write<W: Write>(&self, plan: &Plan, writer: &mut Writer<W>) -> io::Result<()> {
        writer.directory("blobs/", 0o755)?;
        let mut directory = "";
        for (path, blob) in &plan.blobs {
            let algorithm = blob.digest.algorithm().name();
            if algorithm != directory {
                writer.directory(&format!("blobs/{algorithm}/"), 0o755)?;
                directory = algorithm;
            }
            let file = std::fs::File::open(self.content().blobs.path(&blob.digest))?;
            writer.file(
                path,
                0o444,
                blob.size,
                Verified::new(file, &blob.digest, blob.size),
            )?;
        }
        let index = serde_json::to_vec(&Index {
            schema_version: 2,
            media_type: String::new(),
            manifests: plan.entries.clone(),
            annotations: None,
        })?;
        writer.file("index.json", 0o644, index.len() as u64, &*index)?;
        if !plan.images.is_empty() {
            let images: Vec<&DockerImage> = plan.images.iter().map(|(_, image)| image).collect();
            let images = serde_json::to_vec(&images)?;
            writer.file("manifest.json", 0o644, images.len() as u64, &*images)?;
        }
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        writer.file("oci-layout", 0o444, layout.len() as u64, &layout[..])
    }
}

/// Adds the image to `manifest.json`, or another name to an image that is there.
fn add_docker_image(plan: &mut Plan, part: &Part, reference: Option<&Reference>) {
    let Some(manifest) = &part.manifest else {
        return;
    };
    let digest = &part.descriptor.digest;
    let known = plan.images.iter().position(|(known, _)| known == digest);
    let position = known.unwrap_or_else(|| {
        let layers = manifest.layers.iter().map(|layer| blob_path(&layer.digest));
        let layers: Vec<String> = layers.collect();
        let image = DockerImage {
            config: blob_path(&manifest.config.digest),
            repo_tags: None,
            layers: (!layers.is_empty()).then_some(layers),
        };
        plan.images.push((digest.clone(), image));
        plan.images.len() - 1
    });
    if let Some(reference) = reference {
        let tags = plan.images[position].1.repo_tags.get_or_insert_default();
        if !tags.contains(&reference.familiar()) {
            tags.push(reference.familiar());
        }
    }
}

fn unnamed(descriptor: &Descriptor) -> Descriptor {
    use berth_oci::descriptor::{ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME};
    let mut descriptor = descriptor.clone();
    if let Some(annotations) = &mut descriptor.annotations {
        annotations.remove(ANNOTATION_IMAGE_NAME);
        annotations.remove(ANNOTATION_REF_NAME);
    }
    descriptor.annotations = descriptor.annotations.filter(|a| !a.is_empty());
    descriptor
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Reads a blob and fails at its end if the disk gave other bytes than were stored.
struct Verified<'a, R> {
    source: R,
    expected: &'a Digest,
    hasher: Option<Hasher>,
    left: u64,
}

impl<'a, R> Verified<'a, R> {
    fn new(source: R, expected: &'a Digest, size_bytes: u64) -> Self {
        Self {
            source,
            expected,
            hasher: Some(Hasher::new(expected.algorithm())),
            left: size_bytes,
        }
    }
}

impl<R: Read> Read for Verified<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..length]);
        }
        self.left = self.left.saturating_sub(length as u64);
        if self.left == 0
            && let Some(hasher) = self.hasher.take()
            && hasher.finish() != *self.expected
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("blob {} is damaged on the disk", self.expected),
            ));
        }
        Ok(length)
    }
}
