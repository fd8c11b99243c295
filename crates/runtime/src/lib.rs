//! The OCI runtime: namespaces, cgroups, mounts, seccomp, capabilities, init. Synchronous.

pub mod caps;
pub mod cgroup;
pub mod cli;
pub mod container;
pub mod defaults;
pub mod error;
pub mod hooks;
mod plan;
pub mod rootfs;
mod scheduling;
pub mod seccomp;
pub mod selfexe;
pub mod systemd;
pub mod user;
mod userns;
