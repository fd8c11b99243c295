//! System calls: the only unsafe code of the project, one file a facility.
//!
//! What `rustix` offers safely is used from there directly; here is what it lacks.

pub mod datagram;
pub mod fork;
pub mod memory;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod pidfd;
