//! TLS on the server's side: who we are, and which clients are let in.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{Error, Identity};
use crate::stream::Stream;

/// The first byte of a TLS connection: a handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// What Go's servers say to those who forgot the `s`; docker's users know the sentence.
const NOT_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// What rustls needs to serve as `identity`. With `clients`, only clients whose certificate comes
/// from one of these authorities get in; without, everybody does.
pub fn server_config(
    identity: &Identity,
    clients: Option<Vec<CertificateDer<'static>>>,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match clients {
        None => Arc::new(NoClientAuth),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(authorities);
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| Error::Unusable(rustls::Error::General(error.to_string())))?
        }
    };
    let key = provider
        .key_provider
        .load_private_key(identity.key.clone_key())
        .map_err(Error::Unusable)?;
    let certified = CertifiedKey::new(identity.chain.clone(), key);
    match certified.keys_match() {
        // A key whose public half cannot be told may still be the right one.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(error) => return Err(Error::Unusable(error)),
    }
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Unusable)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Ok(Arc::new(config))
}

/// Shakes hands with a client that has `limit` for it. One that speaks plain HTTP is told so.
pub async fn accept(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
    limit: Duration,
) -> io::Result<Stream> {
    let handshake = async {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
            stream.write_all(NOT_TLS).await?;
            stream.shutdown().await?;
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a client sent no TLS",
            ));
        }
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        Ok(Stream::other(stream))
    };
    match tokio::time::timeout(limit, handshake).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
