//! Image references, digests, media types, manifests and image configurations. No I/O.
