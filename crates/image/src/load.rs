//! Loads archives: what `docker save` writes (of any version since 1.10) and OCI layouts in a tar.
//!
//! ```text
//! read the archive ─ each file becomes an ingest ─┬─ hashed and written here
//!                                                 └─ unpacked meanwhile by a worker (its tail)
//! end of the archive ─ index.json or manifest.json says what is what ─ record
//! ```
//!
//! Which files are layers stands at the archive's end, so everything that looks like a layer is
//! unpacked on suspicion; what turns out to be none goes with the lease.

mod contents;
mod workers;

pub(crate) use contents::named;

use std::collections::BTreeMap;
use std::io::Read;

use berth_oci::descriptor::{ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME};
use berth_oci::{Descriptor, Digest, Index, Platform, Reference};

use crate::error::{Error, Result};
use crate::images::Images;
use crate::progress::{Progress, Reporter};
use crate::record::Wanted;
use crate::target::Target;
use crate::unpack;

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    /// As people write them; none if the archive has none.
    pub names: Vec<String>,
}

impl Images {
    /// Loads every image of an archive, plain or compressed by gzip or zstd. With a platform, the
    /// images have to have it.
    ///
    /// # Errors
    /// A broken archive loads nothing.
    pub fn load(
        &self,
        archive: impl Read + Send,
        platform: Option<&Platform>,
        report: &Reporter,
    ) -> Result<Vec<Loaded>> {
        let lease = self.lease();
        let contents = workers::with_workers(&lease, |workers| {
            let (_, stream) = unpack::decoder(archive).map_err(broken)?;
            contents::read(stream, &lease, workers)
        })?;
        let index = contents.into_index(&lease)?;
        let wanted = match platform {
            Some(platform) => Wanted::Platform(platform.clone()),
            None => Wanted::HostIfAny,
        };
        let plan = plan(index);
        if let Some(platform) = platform {
            for image in &plan {
                if Target::read(&lease, &image.target)?
                    .select(platform, false)
                    .is_none()
                {
                    return Err(Error::NotFound(format!(
                        "image {} was loaded, but doesn't provide the requested platform \
                         ({platform})",
                        image.title(),
                    )));
                }
            }
        }
        let mut loaded = Vec::new();
        for image in plan {
            lease.record(&image.names, &image.target, &wanted)?;
            let names: Vec<String> = image.names.iter().map(Reference::familiar).collect();
            for name in &names {
                report(Progress::stream(format!("Loaded image: {name}\n")));
            }
            if names.is_empty() {
                let id = &image.target.digest;
                report(Progress::stream(format!("Loaded image ID: {id}\n")));
            }
            loaded.push(Loaded {
                id: image.target.digest,
                names,
            });
        }
        Ok(loaded)
    }
}

/// A target of the archive and all its names.
struct Planned {
    target: Descriptor,
    names: Vec<Reference>,
}

impl Planned {
    fn title(&self) -> String {
        match self.names.first() {
            Some(name) => name.familiar(),
            None => self.target.digest.to_string(),
        }
    }
}

/// One image per target, in the order of the index.
fn plan(index: Index) -> Vec<Planned> {
    let mut order: Vec<Digest> = Vec::new();
    let mut images: BTreeMap<Digest, Planned> = BTreeMap::new();
    for entry in index.manifests {
        let name = [ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME]
            .iter()
            .find_map(|annotation| entry.annotation(annotation))
            .and_then(|name| name.parse::<Reference>().ok())
            .map(Reference::or_latest);
        let image = images.entry(entry.digest.clone()).or_insert_with(|| {
            order.push(entry.digest.clone());
            Planned {
                target: entry,
                names: Vec::new(),
            }
        });
        image.names.extend(name);
    }
    order
        .into_iter()
        .filter_map(|digest| images.remove(&digest))
        .collect()
}

/// The outer archive is not readable.
fn broken(error: unpack::Error) -> Error {
    match error {
        unpack::Error::Archive(what, Some(source)) => Error::Archive {
            what,
            source: Some(source),
        },
        other => Error::Archive {
            what: other.to_string(),
            source: None,
        },
    }
}
