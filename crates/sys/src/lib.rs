//! System calls: the only unsafe code of the project, one file a facility.
//!
//! What `rustix` offers safely is used from there directly; here is what it lacks.

pub mod bpf;
pub mod caps;
pub mod clone;
pub mod datagram;
pub mod dbus;
pub mod exec;
pub mod fdpass;
pub mod fork;
pub mod keyring;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod notify;
pub mod pidfd;
pub mod sched;
pub mod seccomp;
pub mod session;
pub mod signal;
pub mod socket;
pub mod title;
pub mod tree;
pub mod wait;
