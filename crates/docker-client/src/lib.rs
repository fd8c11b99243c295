//! The Docker Engine API from the caller's side.
//!
//! A [`Client`] knows one daemon by its [`Host`]: a Unix socket, TCP with or without TLS, or a
//! machine behind ssh. It agrees on an API version with the first request, keeps one idle
//! connection, and turns every refusal into an [`Error`] with the daemon's own words.

pub mod client;
mod connect;
pub mod error;
pub mod hijack;
pub mod host;
pub mod messages;
pub mod query;

pub use client::{Client, Options, Ping, Request, Response};
pub use connect::Tls;
pub use error::Error;
pub use hijack::Hijacked;
pub use host::Host;
pub use messages::Messages;
pub use query::Query;
