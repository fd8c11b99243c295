//! Listeners, connectors, TLS and upgrades: everything between a socket and an HTTP message.
//!
//! Server side: [`listen`] makes listeners (unix, TCP, inherited from systemd), [`serve`] runs
//! HTTP/1.1 on them, and [`upgrade::hijack`] lets a handler take the raw connection over.
//! Client side: [`client::Client`] is a small pooled client over [`connect::Connector`], which
//! dials unix sockets, TCP and TLS, resolves names without the C library, and goes through proxies.

pub mod body;
pub mod client;
pub mod connect;
pub mod error;
pub mod listen;
pub mod proxy;
pub mod resolve;
pub mod serve;
pub mod stream;
pub mod tls;
pub mod upgrade;

pub use body::Body;
pub use client::Client;
pub use error::Error;
pub use listen::Listener;
pub use stream::Stream;
