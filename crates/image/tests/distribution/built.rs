//! Images made in memory.

use std::io::Write;
use std::path::Path;

use berth_oci::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use berth_oci::{Descriptor, Digest, Platform};
use serde_json::{Value, json};

/// A blob with its descriptor.
#[derive(Debug, Clone)]
pub struct Blob {
    pub descriptor: Descriptor,
    pub bytes: Vec<u8>,
}

/// An image for one platform.
#[derive(Debug, Clone)]
pub struct Built {
    pub manifest: Blob,
    pub config: Blob,
    pub layers: Vec<Blob>,
}

impl Blob {
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self {
            descriptor: Descriptor::of(media_type, &bytes),
            bytes,
        }
    }

    fn json(media_type: &str, value: &Value) -> Self {
        Self::new(media_type, serde_json::to_vec(value).unwrap())
    }

    pub fn short(&self) -> String {
        self.descriptor.digest.short().to_owned()
    }
}

/// An image of layers with one file each: `(path, content)`.
pub fn image(files: &[(&str, &str)]) -> Built {
    image_for(&Platform::host(), files)
}

pub fn image_for(platform: &Platform, files: &[(&str, &str)]) -> Built {
    let tars: Vec<Vec<u8>> = files.iter().map(|(path, text)| tar(path, text)).collect();
    let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let layers = tars.iter().map(|tar| Blob::new(OCI_LAYER_GZIP, gzip(tar)));
    assemble(platform, &diff_ids, layers.collect())
}

/// An image of these layers, whatever they really are.
pub fn assemble(platform: &Platform, diff_ids: &[Digest], layers: Vec<Blob>) -> Built {
    let config = Blob::json(
        OCI_CONFIG,
        &json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }),
    );
    let descriptors: Vec<&Descriptor> = layers.iter().map(|layer| &layer.descriptor).collect();
    let manifest = Blob::json(
        OCI_MANIFEST,
        &json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config.descriptor,
            "layers": descriptors,
        }),
    );
    Built {
        manifest,
        config,
        layers,
    }
}

/// An index of images, each for its platform.
pub fn index(images: &[(&str, &Built)]) -> Blob {
    let manifests: Vec<Descriptor> = images
        .iter()
        .map(|(platform, image)| Descriptor {
            platform: Some(platform.parse().unwrap()),
            ..image.manifest.descriptor.clone()
        })
        .collect();
    Blob::json(
        OCI_INDEX,
        &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}),
    )
}

/// Writes an OCI layout that skopeo can push; `top` is what its one name points at.
pub fn write_layout(directory: &Path, top: &Blob, images: &[&Built]) {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let write = |blob: &Blob| {
        std::fs::write(blobs.join(blob.descriptor.digest.hex()), &blob.bytes).unwrap();
    };
    write(top);
    for image in images {
        write(&image.manifest);
        write(&image.config);
        image.layers.iter().for_each(write);
    }
    let layout = json!({"imageLayoutVersion": "1.0.0"});
    std::fs::write(directory.join("oci-layout"), layout.to_string()).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": [top.descriptor]});
    std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
}

/// Text that gzip hardly shrinks.
pub fn noise(length: usize) -> String {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut text = String::with_capacity(length);
    while text.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    text.truncate(length);
    text
}

pub fn tar(path: &str, text: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder
        .append_data(&mut header, path, text.as_bytes())
        .unwrap();
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
