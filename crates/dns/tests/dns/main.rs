//! The name server on loopback sockets, as a container's would be, with real servers behind it
//! and with bad ones.

#![allow(clippy::unwrap_used, reason = "a failed test is told by a panic")]

mod client;
mod forwarding;
mod local;
mod upstream;
