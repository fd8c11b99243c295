//! Media types of the OCI image specification and of Docker's schema 2, and what they say about a
//! blob.

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";

pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

const OCI_FOREIGN_PREFIX: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER_FOREIGN_PREFIX: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";

/// The manifest kinds that a client accepts, in the order of preference.
pub const ACCEPTED_MANIFESTS: &[&str] = &[DOCKER_INDEX, OCI_INDEX, DOCKER_MANIFEST, OCI_MANIFEST];

/// What a blob is, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Index,
    Manifest,
    Config,
    /// A file system layer that registries may hold.
    Layer,
    /// A layer that is fetched from elsewhere (`nondistributable`, `foreign`).
    ForeignLayer,
    Other,
}

pub fn kind(media_type: &str) -> Kind {
    match media_type {
        OCI_INDEX | DOCKER_INDEX => Kind::Index,
        OCI_MANIFEST | DOCKER_MANIFEST => Kind::Manifest,
        OCI_CONFIG | DOCKER_CONFIG => Kind::Config,
        OCI_LAYER | OCI_LAYER_GZIP | OCI_LAYER_ZSTD => Kind::Layer,
        DOCKER_LAYER | DOCKER_LAYER_GZIP | DOCKER_LAYER_ZSTD => Kind::Layer,
        other
            if other.starts_with(OCI_FOREIGN_PREFIX)
                || other.starts_with(DOCKER_FOREIGN_PREFIX) =>
        {
            Kind::ForeignLayer
        }
        _ => Kind::Other,
    }
}

pub fn is_index(media_type: &str) -> bool {
    kind(media_type) == Kind::Index
}

pub fn is_manifest(media_type: &str) -> bool {
    kind(media_type) == Kind::Manifest
}

/// Whether the blob is a file system layer, wherever it comes from.
pub fn is_layer(media_type: &str) -> bool {
    matches!(kind(media_type), Kind::Layer | Kind::ForeignLayer)
}
