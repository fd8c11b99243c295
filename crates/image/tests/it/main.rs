//! The image store on a real file system, as root: unpacking, archives, names, recovery.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod archives;
mod hostile;
mod layers;
mod names;
mod recovery;
mod support;
