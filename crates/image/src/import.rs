//! Makes an image of a root file system's archive, with Dockerfile instructions for its
//! configuration.

use std::io::Read;

use berth_base::Timestamp;
use berth_oci::config::{Execution, History, RootFs};
use berth_oci::{Descriptor, Digest, ImageConfig, Manifest, Platform, Reference, media_type};
use serde::Serialize;

use crate::changes;
use crate::error::{Context, Error, Result};
use crate::images::Images;
use crate::lease::Lease;
use crate::record::Wanted;
use crate::unpack::{self, Compression};

/// What an import says beside its archive.
#[derive(Debug, Clone, Default)]
pub struct Import {
    pub name: Option<Reference>,
    pub message: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    pub platform: Option<Platform>,
}

const COPY: usize = 256 << 10;

impl Images {
    /// Imports an archive, plain or compressed by gzip or zstd, which is kept as it comes.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] for a broken archive or instruction; nothing stays then.
    pub fn import(&self, archive: impl Read + Send, import: &Import) -> Result<Digest> {
        let mut execution = Execution::default();
        changes::apply(&mut execution, &import.changes).map_err(Error::Invalid)?;
        let platform = import.platform.clone().unwrap_or_else(Platform::host);
        let lease = self.lease();
        let (layer, diff_id) = store_layer(&lease, archive)?;
        let now = Timestamp::now().to_string();
        let config = ImageConfig {
            created: Some(now.clone()),
            platform: platform.clone(),
            config: execution,
            rootfs: RootFs {
                diff_ids: vec![diff_id],
                ..RootFs::default()
            },
            history: vec![History {
                created: Some(now),
                comment: Some(import.message.clone()).filter(|text| !text.is_empty()),
                ..History::default()
            }],
            ..ImageConfig::default()
        };
        let target = store_image(&lease, &config, vec![layer])?;
        let names: Vec<Reference> = import.name.iter().map(|n| n.clone().or_latest()).collect();
        lease.record(&names, &target, &Wanted::Platform(platform))?;
        Ok(target.digest)
    }
}

/// Stores a configuration and a manifest over layers that the lease has.
pub(crate) fn store_image(
    lease: &Lease,
    config: &ImageConfig,
    layers: Vec<Descriptor>,
) -> Result<Descriptor> {
    let config = store_json(lease, media_type::OCI_CONFIG, config)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        artifact_type: None,
        config,
        layers,
        subject: None,
        annotations: None,
    };
    store_json(lease, media_type::OCI_MANIFEST, &manifest)
}

fn store_json(lease: &Lease, media_type: &str, value: &impl Serialize) -> Result<Descriptor> {
    let bytes = serde_json::to_vec(value)
        .map_err(std::io::Error::from)
        .context(|| format!("encode {media_type}"))?;
    lease.put(&bytes)?;
    Ok(Descriptor::of(media_type, &bytes))
}

/// Writes the layer's blob and unpacks it meanwhile.
pub(crate) fn store_layer(
    lease: &Lease,
    mut archive: impl Read + Send,
) -> Result<(Descriptor, Digest)> {
    let mut ingest = lease.begin_unknown()?;
    let tail = ingest.tail();
    let mut compression = Compression::None;
    let (blob, size_bytes, unpacked) = std::thread::scope(|scope| {
        let unpacking = scope.spawn(move || lease.unpack(tail, None));
        let copied = copy(&mut archive, |first, bytes| {
            if first {
                compression = unpack::sniff(bytes).map_err(|source| Error::Layer {
                    layer: "of the archive".to_owned(),
                    source,
                })?;
            }
            ingest.write(bytes)
        });
        let size_bytes = ingest.offset();
        // Dropping an uncommitted ingest ends the unpacking, too.
        let blob = match copied {
            Ok(()) => ingest.commit(),
            Err(error) => {
                drop(ingest);
                Err(error)
            }
        };
        let unpacked = unpacking
            .join()
            .unwrap_or_else(|_| Err(Error::Invalid("a layer's unpacking panicked".to_owned())));
        (blob, size_bytes, unpacked)
    });
    let blob = blob?;
    let media_type = match compression {
        Compression::None => media_type::OCI_LAYER,
        Compression::Gzip => media_type::OCI_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
    };
    Ok((Descriptor::new(media_type, blob, size_bytes), unpacked?))
}

fn copy(source: &mut impl Read, mut sink: impl FnMut(bool, &[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = vec![0; COPY];
    let mut first = true;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            let length = source
                .read(&mut buffer[filled..])
                .context(|| "read the archive".to_owned())?;
            if length == 0 {
                break;
            }
            filled += length;
        }
        if filled == 0 {
            return Ok(());
        }
        sink(first, &buffer[..filled])?;
        first = false;
    }
}
