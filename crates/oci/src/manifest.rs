//! Image manifests and indexes of OCI and of Docker's schema 2, which differ by media types only
//! (OCI image specification, manifest.md and image-index.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Descriptor, Platform, media_type};

/// No registry serves, and no image needs, a larger manifest (the distribution specification asks
/// registries for 4 MiB).
pub const MANIFEST_LIMIT: u64 = 4 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    #[serde(
        rename = "mediaType",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub media_type: String,
    #[serde(
        rename = "artifactType",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    #[serde(rename = "schemaVersion")]
    pub schema_version: u32,
    #[serde(
        rename = "mediaType",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub media_type: String,
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Either kind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart where it is parsed, never stored"
)]
pub enum Document {
    Index(Index),
    Manifest(Manifest),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the manifest is not valid JSON of its kind")]
    Json(#[from] serde_json::Error),
    #[error("the manifest is larger than {MANIFEST_LIMIT} bytes")]
    TooLarge,
    #[error("unsupported manifest schema version {0}: only version 2 is supported")]
    SchemaVersion(u64),
    #[error("unsupported manifest media type {0:?}")]
    MediaType(String),
    #[error("the manifest says {inside:?} but was delivered as {outside:?}")]
    MediaTypeMismatch { inside: String, outside: String },
    #[error("the document has the fields of an index and of a manifest at once")]
    Ambiguous,
}

/// The fields that tell the kinds apart; their presence counts, not their values.
#[derive(Deserialize)]
struct Probe {
    #[serde(rename = "schemaVersion", default)]
    schema_version: u64,
    #[serde(rename = "mediaType", default)]
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Parses what came as `delivered_as` (a Content-Type or a descriptor's media type; empty when
    /// unknown). Documents that could be read as both kinds are refused, since two readers would
    /// see two different images behind one digest (CVE-2021-41190).
    pub fn parse(bytes: &[u8], delivered_as: &str) -> Result<Self, Error> {
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(Error::TooLarge);
        }
        let probe: Probe = serde_json::from_slice(bytes)?;
        if probe.schema_version != 2 {
            return Err(Error::SchemaVersion(probe.schema_version));
        }
        let is_image = probe.config.is_some() || probe.layers.is_some();
        if probe.manifests.is_some() && is_image {
            return Err(Error::Ambiguous);
        }
        let inside = probe.media_type.unwrap_or_default();
        let delivered_as = delivered_as.split(';').next().unwrap_or_default().trim();
        let known = |name: &str| media_type::is_index(name) || media_type::is_manifest(name);
        if !inside.is_empty() && known(delivered_as) && inside != delivered_as {
            return Err(Error::MediaTypeMismatch {
                inside,
                outside: delivered_as.to_owned(),
            });
        }
        let effective = match inside.as_str() {
            "" if known(delivered_as) => delivered_as,
            "" if is_image => media_type::OCI_MANIFEST,
            "" => media_type::OCI_INDEX,
            inside => inside,
        };
        match media_type::kind(effective) {
            media_type::Kind::Index => {
                let mut index: Index = serde_json::from_slice(bytes)?;
                effective.clone_into(&mut index.media_type);
                Ok(Self::Index(index))
            }
            media_type::Kind::Manifest => {
                let mut manifest: Manifest = serde_json::from_slice(bytes)?;
                effective.clone_into(&mut manifest.media_type);
                Ok(Self::Manifest(manifest))
            }
            _ => Err(Error::MediaType(effective.to_owned())),
        }
    }

    pub fn media_type(&self) -> &str {
        match self {
            Self::Index(index) => &index.media_type,
            Self::Manifest(manifest) => &manifest.media_type,
        }
    }

    /// The descriptors that this one refers to, configuration first.
    pub fn children(&self) -> Vec<&Descriptor> {
        match self {
            Self::Index(index) => index.manifests.iter().collect(),
            Self::Manifest(manifest) => std::iter::once(&manifest.config)
                .chain(&manifest.layers)
                .collect(),
        }
    }
}

impl Index {
    /// The image that runs best on the platform: the best variant, and of equal ones the first.
    /// Attestations are never chosen. An entry without a platform is taken when nothing else fits.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let images = || {
            self.manifests
                .iter()
                .filter(|entry| !entry.is_attestation())
                .filter(|entry| media_type::is_manifest(&entry.media_type))
        };
        images()
            .filter_map(|entry| {
                let rank = platform.rank(entry.platform.as_ref()?)?;
                Some((rank, entry))
            })
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, entry)| entry)
            .or_else(|| images().find(|entry| entry.platform.is_none()))
    }
}

impl Manifest {
    /// Whether this is an image with a file system, and not an artifact that borrows the media
    /// type.
    pub fn is_image(&self) -> bool {
        media_type::kind(&self.config.media_type) == media_type::Kind::Config
            || self
                .layers
                .iter()
                .any(|layer| media_type::is_layer(&layer.media_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    fn descriptor(media_type: &str) -> serde_json::Value {
        serde_json::json!({"mediaType": media_type, "digest": Digest::of(b"x"), "size": 1})
    }

    #[test]
    fn a_document_of_both_kinds_is_refused() {
        let both = serde_json::json!({
            "schemaVersion": 2,
            "manifests": [],
            "config": descriptor(media_type::OCI_CONFIG),
            "layers": [],
        });
        let result = Document::parse(both.to_string().as_bytes(), media_type::OCI_INDEX);
        assert!(matches!(result, Err(Error::Ambiguous)));
    }

    #[test]
    fn a_media_type_that_contradicts_the_delivery_is_refused() {
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []});
        let bytes = index.to_string();
        assert!(Document::parse(bytes.as_bytes(), media_type::OCI_INDEX).is_ok());
        assert!(Document::parse(bytes.as_bytes(), "application/json").is_ok());
        assert!(matches!(
            Document::parse(bytes.as_bytes(), media_type::DOCKER_MANIFEST),
            Err(Error::MediaTypeMismatch { .. })
        ));
    }

    #[test]
    fn schema_one_is_refused_by_name() {
        let old = br#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#;
        assert!(matches!(
            Document::parse(old, ""),
            Err(Error::SchemaVersion(1))
        ));
    }

    #[test]
    fn selection_prefers_the_exact_platform_and_skips_attestations() {
        let entry = |n: u8, platform: &str, attestation: bool| {
            let mut entry = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(&[n]), 1);
            entry.platform = platform.parse().ok();
            if attestation {
                let note = (
                    "vnd.docker.reference.type".into(),
                    "attestation-manifest".into(),
                );
                entry.annotations = Some([note].into());
            }
            entry
        };
        let index = Index {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.into(),
            manifests: vec![
                entry(0, "linux/amd64", true),
                entry(1, "linux/386", false),
                entry(2, "linux/amd64", false),
                entry(3, "linux/arm64", false),
            ],
            annotations: None,
        };
        let amd64 = "linux/amd64".parse().unwrap();
        assert_eq!(index.select(&amd64), Some(&index.manifests[2]));
        let s390x = "linux/s390x".parse().unwrap();
        assert_eq!(index.select(&s390x), None);
    }
}
