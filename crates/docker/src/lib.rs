//! Docker Engine API wire types, as version 1.51 has them. No I/O.
//!
//! A field is an `Option` where dockerd tells null (or absent) from the zero value, either on
//! the way in or on the way out; all others take null and absence for their zero value, as Go's
//! decoder does. What older versions of the API shape differently is the business of the server.

pub mod auth;
pub mod container;
pub mod error;
pub mod event;
pub mod exec;
pub mod filters;
pub mod image;
pub mod json;
pub mod network;
pub mod port;
pub mod reach;
pub mod stream;
pub mod system;
pub mod volume;

/// The highest version of the API that these types describe.
pub const API_VERSION: &str = "1.51";
/// The lowest version of the API that is served.
pub const MIN_API_VERSION: &str = "1.24";
