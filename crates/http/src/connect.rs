//! Dialling: unix sockets, TCP with name resolution, TLS on top.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::error::Error;
use crate::resolve::Resolver;
use crate::stream::Stream;

/// How long one address may be slow before the next is tried beside it (RFC 8305 section 8).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Dials the network. Clones share the resolver's cache.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Looks names up.
    pub resolver: Resolver,
    /// For look-up and connection together.
    pub connect_timeout: Duration,
    /// For the TLS handshake.
    pub handshake_timeout: Duration,
}

impl Default for Connector {
    fn default() -> Self {
        Self {
            resolver: Resolver::default(),
            connect_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// Connects to a unix socket.
pub async fn unix(path: &Path) -> Result<Stream, Error> {
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(Stream::Unix(stream)),
        Err(source) => Err(Error::Dial {
            network: "unix",
            address: path.display().to_string(),
            source,
        }),
    }
}

impl Connector {
    /// Connects to a host by name or address, trying its addresses side by side.
    pub async fn tcp(&self, host: &str, port: u16) -> Result<Stream, Error> {
        let dial = async {
            let addresses = self.resolver.lookup(host).await;
            let addresses = addresses.map_err(|source| Error::Lookup {
                host: host.to_owned(),
                source,
            })?;
            race(interleave(&addresses), port).await
        };
        let timed = tokio::time::timeout(self.connect_timeout, dial).await;
        let stream = timed.unwrap_or_else(|_| {
            Err(Error::Dial {
                network: "tcp",
                address: format!("{host}:{port}"),
                source: io::ErrorKind::TimedOut.into(),
            })
        })?;
        // Requests are written whole; waiting for more to fill a segment only delays them.
        stream.set_nodelay(true).ok();
        Ok(Stream::Tcp(stream))
    }

    /// Speaks TLS on `stream` with the server called `host`.
    pub async fn tls(
        &self,
        stream: Stream,
        host: &str,
        config: Arc<ClientConfig>,
    ) -> Result<Stream, Error> {
        let bare = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(bare).map_err(|_| Error::Uri {
            uri: host.to_owned(),
            reason: "not a name that a certificate can have",
        })?;
        let handshake = TlsConnector::from(config).connect(name, stream);
        match tokio::time::timeout(self.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => Ok(Stream::other(stream)),
            Ok(Err(error)) => Err(handshake_error(host, error)),
            Err(_) => Err(Error::Timeout {
                what: "TLS handshake",
                limit: self.handshake_timeout,
            }),
        }
    }
}

/// Finds the reason in the error that tokio-rustls wraps it in.
fn handshake_error(host: &str, error: io::Error) -> Error {
    let host = host.to_owned();
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        // What is not a TLS record at all is an HTTP/1.1 error page in practice.
        Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)) => {
            Error::NotTls { host }
        }
        Some(inner) => Error::Tls {
            host,
            source: Box::new(inner.clone()),
        },
        None => Error::TlsBroken {
            host,
            source: error,
        },
    }
}

/// Address families by turns, beginning with the first address's family.
fn interleave(addresses: &[IpAddr]) -> VecDeque<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<IpAddr>, VecDeque<IpAddr>) = addresses
        .iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut order = VecDeque::with_capacity(addresses.len());
    while !first.is_empty() || !second.is_empty() {
        order.extend(first.pop_front());
        order.extend(second.pop_front());
    }
    order
}

/// The first connection that comes about; the first failure when none does.
async fn race(mut addresses: VecDeque<IpAddr>, port: u16) -> Result<TcpStream, Error> {
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if let Some(address) = addresses.pop_front() {
            let address = SocketAddr::new(address, port);
            attempts.push(async move { (address, TcpStream::connect(address).await) });
        }
        let next = tokio::select! {
            next = attempts.next() => next,
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if !addresses.is_empty() => continue,
        };
        match next {
            Some((_, Ok(stream))) => return Ok(stream),
            Some((address, Err(source))) => {
                failure.get_or_insert(Error::Dial {
                    network: "tcp",
                    address: address.to_string(),
                    source,
                });
            }
            None => {}
        }
        if attempts.is_empty() && addresses.is_empty() {
            return Err(failure.unwrap_or(Error::Dial {
                network: "tcp",
                address: format!(":{port}"),
                source: io::ErrorKind::AddrNotAvailable.into(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_take_turns() {
        let addresses = ["::1", "::2", "1.1.1.1", "2.2.2.2", "3.3.3.3"].map(|a| a.parse().unwrap());
        let order: Vec<String> = interleave(&addresses)
            .iter()
            .map(IpAddr::to_string)
            .collect();
        assert_eq!(order, ["::1", "1.1.1.1", "::2", "2.2.2.2", "3.3.3.3"]);
    }
}
