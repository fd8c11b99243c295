//! The OCI runtime, the launcher and the keepers. Synchronous.

pub mod caps;
pub mod cgroup;
pub mod cli;
pub mod container;
pub mod defaults;
pub mod error;
pub mod foreign;
pub mod framing;
pub mod keeper;
pub mod launcher;
pub mod log;
mod plan;
pub mod protocol;
pub mod rootfs;
pub mod seccomp;
pub mod selfexe;
pub mod user;
