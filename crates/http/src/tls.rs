//! TLS by rustls with ring. Here the client's side: the host's roots, and per-host additions.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

pub use rustls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

mod server;
mod words;

pub use server::{accept, server_config};
pub use words::{behind, words};

/// How to trust servers, and who we are to them.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Certificates trusted besides the host's.
    pub roots: Vec<CertificateDer<'static>>,
    /// Whether the host's own certificates count.
    pub trust: Trust,
    /// Our certificate chain and key, for servers that ask.
    pub identity: Option<Arc<Identity>>,
}

/// Which servers to believe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those with a certificate from the host's authorities or from [`Config::roots`].
    #[default]
    System,
    /// Only those with a certificate from [`Config::roots`].
    RootsOnly,
    /// Any server: no protection against a man in the middle.
    Anyone,
}

/// A certificate with its key: a client's or a server's.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What is wrong with certificates or keys of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("no certificate in {path}")]
    NoCertificate { path: PathBuf },
    #[error("no private key in {path}")]
    NoKey { path: PathBuf },
    #[error("unusable certificate or key")]
    Unusable(#[source] rustls::Error),
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a PEM chain and its PEM key.
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let chain = read_certificates(certificate)?;
        let text = read(key)?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| Error::NoKey {
            path: key.to_owned(),
        })?;
        Ok(Self { chain, key })
    }
}

/// The certificates of a PEM file; at least one.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .filter_map(Result::ok)
        .collect();
    if certificates.is_empty() {
        return Err(Error::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

/// Makes rustls's configuration of ours.
pub fn client_config(config: &Config) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(config, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let client = match &config.identity {
        Some(identity) => {
            let key = builder
                .crypto_provider()
                .key_provider
                .load_private_key(identity.key.clone_key())
                .map_err(Error::Unusable)?;
            // Not `with_client_auth_cert`: that parses the certificate, and so refuses the X.509
            // version 1 ones that `openssl x509 -req` makes by default. The server judges it.
            let certified = CertifiedKey::new(identity.chain.clone(), key);
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(client))
}

fn verifier(
    config: &Config,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let mut roots = match config.trust {
        Trust::Anyone => return Ok(Arc::new(Unverified(Arc::clone(provider)))),
        Trust::System => system_roots().clone(),
        Trust::RootsOnly => RootCertStore::empty(),
    };
    roots.add_parsable_certificates(config.roots.iter().cloned());
    if roots.is_empty() {
        // A verifier cannot be built on nothing; without roots nobody is trusted.
        return Ok(Arc::new(Distrust(Arc::clone(provider))));
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| Error::Unusable(rustls::Error::General(error.to_string())))?;
    Ok(Arc::new(Verified {
        inner,
        pinned: config.roots.clone(),
    }))
}

/// The host's certificate authorities, read once.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "read the host's certificate authorities");
        }
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        roots
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// The usual verification, which also takes a server whose own certificate is a configured root.
///
/// webpki refuses a certificate marked as an authority for a server. The usual self-signed
/// certificate of a private registry is both, and Go's clients take it.
#[derive(Debug)]
struct Verified {
    inner: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let result = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match &result {
            // webpki has checked the dates before it says this; the name is still to be checked.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                if is_authority_as_server(other) && self.pinned.iter().any(|c| c == end_entity) =>
            {
                let certificate = rustls::server::ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&certificate, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            _ => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Whether webpki refused an authority's certificate in a server's place.
fn is_authority_as_server(error: &rustls::OtherError) -> bool {
    // rustls has no variant of its own for this one and wraps webpki's error, which is not a
    // dependency of ours; its Debug form is its name.
    format!("{error:?}").contains("CaUsedAsEndEntity")
}

/// Takes every server (`--insecure-registry`); handshakes must still be signed properly.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

/// Takes no server.
#[derive(Debug)]
struct Distrust(Arc<CryptoProvider>);

macro_rules! verify_signatures_only {
    ($verifier:ty, $answer:expr) => {
        impl ServerCertVerifier for $verifier {
            fn verify_server_cert(
                &self,
                _end_entity: &CertificateDer<'_>,
                _intermediates: &[CertificateDer<'_>],
                _server_name: &ServerName<'_>,
                _ocsp_response: &[u8],
                _now: UnixTime,
            ) -> Result<ServerCertVerified, rustls::Error> {
                $answer
            }

            fn verify_tls12_signature(
                &self,
                message: &[u8],
                cert: &CertificateDer<'_>,
                dss: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, rustls::Error> {
                let algorithms = &self.0.signature_verification_algorithms;
                rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
            }

            fn verify_tls13_signature(
                &self,
                message: &[u8],
                cert: &CertificateDer<'_>,
                dss: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, rustls::Error> {
                let algorithms = &self.0.signature_verification_algorithms;
                rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
            }

            fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                self.0.signature_verification_algorithms.supported_schemes()
            }
        }
    };
}

verify_signatures_only!(Unverified, Ok(ServerCertVerified::assertion()));
verify_signatures_only!(
    Distrust,
    Err(rustls::Error::InvalidCertificate(
        CertificateError::UnknownIssuer
    ))
);
