//! Image references, digests, media types, manifests and image configurations. No I/O.
//!
//! What is parsed here is never written back in place of the original bytes: a manifest's identity
//! is the digest of its bytes, so callers keep those. Unknown fields survive in the types that we
//! also write (descriptors, image configurations).

pub mod config;
pub mod descriptor;
pub mod digest;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod reference;

pub use config::ImageConfig;
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher};
pub use manifest::{Document, Index, Manifest};
pub use platform::Platform;
pub use reference::Reference;
