//! For tests: private daemons, real clients, and the machine compared before and after.
//!
//! Everything drives the built binary from outside. A failed expectation panics, since that is
//! how a test tells.

#![allow(clippy::unwrap_used, reason = "a failed test is told by a panic")]

pub mod certificates;
pub mod daemon;
pub mod firewalld;
pub mod http;
pub mod image;
pub mod machine;
pub mod random;
pub mod registry;
pub mod run;
pub mod ufw;
pub mod wait;

pub use certificates::Certificates;
pub use daemon::Daemon;
pub use firewalld::Firewalld;
pub use machine::Machine;
pub use random::Random;
pub use registry::Registry;
pub use run::{Output, run, sh};
pub use ufw::Ufw;
pub use wait::until;
