//! The OCI runtime, the launcher and the keepers. Synchronous.

pub mod protocol;
