//! The distribution client: pulls images from registries (OCI distribution specification, and what
//! Docker's registries add to it).
//!
//! ```text
//! reference -> endpoints (mirrors, https, http) -> ping -> tag -> index -> manifest -> config
//!   -> layers, side by side: registry -> writer thread (hash, blob) -> unpack thread (layer)
//!   -> record
//! ```
//!
//! Nothing a registry sends is believed: every byte is checked against a digest that leads up to
//! the one asked for, every size is limited, and redirects lead to HTTP only.

mod auth;
mod challenge;
mod download;
mod endpoint;
mod failure;
mod layers;
mod login;
mod pull;
mod refusal;
mod repository;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use berth_http::proxy::Proxies;
use berth_http::resolve::{self, Resolver};
use berth_oci::{Digest, Platform, Reference};
use berth_tasks::Scope;
use http::{HeaderValue, Uri};
use tokio::sync::Semaphore;

use crate::images::Images;

pub use auth::Credentials;
pub use endpoint::{Insecure, InvalidInsecure};
pub use failure::{Cause, Error, Failure};
pub use login::{LoggedIn, LoginError};
pub use refusal::{Code, Refusal};

/// What the administrator settles. Plain data.
#[derive(Debug, Clone)]
pub struct Config {
    pub registries: Registries,
    /// Directories in the layout of Docker's `certs.d`.
    pub certs_directories: Vec<PathBuf>,
    pub proxies: Proxies,
    /// Where names are looked up.
    pub names: resolve::Files,
    /// Layers downloaded at a time, by all pulls together.
    pub concurrent_downloads: usize,
    /// Attempts without progress before a download fails.
    pub download_attempts: u32,
    /// The pause before the second attempt; later ones double.
    pub retry_delay: Duration,
    pub connect_timeout: Duration,
    /// How long a registry may take to begin an answer.
    pub header_timeout: Duration,
    /// How long a transfer may stand still.
    pub stall_timeout: Duration,
    /// How long a manifest, a page of tags or a token may take: none of them is large.
    pub document_timeout: Duration,
    pub user_agent: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            registries: Registries::default(),
            certs_directories: vec!["/etc/berth/certs.d".into(), "/etc/docker/certs.d".into()],
            proxies: Proxies::default(),
            names: resolve::Files::default(),
            concurrent_downloads: 3,
            download_attempts: 5,
            retry_delay: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            document_timeout: Duration::from_secs(300),
            user_agent: concat!("berth/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Which registries are asked, and how far they are trusted. The part of [`Config`] that a
/// running client can be told anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registries {
    /// Tried before Docker Hub, for images of Docker Hub.
    pub mirrors: Vec<Uri>,
    /// Registries that may do without verified TLS, besides those on this machine.
    pub insecure: Vec<Insecure>,
}

/// Pulls images into a store. Clones share the limits.
#[derive(Clone)]
pub struct Distribution(Arc<Shared>);

struct Shared {
    config: Config,
    /// In force from the next pull on.
    registries: RwLock<Arc<Registries>>,
    user_agent: HeaderValue,
    images: Images,
    scope: Scope,
    resolver: Resolver,
    downloads: Semaphore,
    /// Two pulls of one image run one after the other: the second finds what the first brought.
    running: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

/// What to pull.
#[derive(Debug, Clone)]
pub struct Request {
    pub reference: Reference,
    /// The host's platform when `None`; then another one is taken where there is no choice.
    pub platform: Option<Platform>,
    pub credentials: Credentials,
}

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image's target: what the reference points at.
    pub digest: Digest,
    /// Whether the name points at something else than before.
    pub is_newer: bool,
}

impl Distribution {
    /// A client whose work runs in tasks of `scope`.
    pub fn new(config: Config, images: Images, scope: &Scope) -> Self {
        let user_agent = HeaderValue::try_from(&config.user_agent)
            .unwrap_or_else(|_| HeaderValue::from_static("berth"));
        Self(Arc::new(Shared {
            downloads: Semaphore::new(config.concurrent_downloads.max(1)),
            user_agent,
            images,
            scope: scope.clone(),
            resolver: Resolver::new(config.names.clone()),
            running: Mutex::default(),
            registries: RwLock::new(Arc::new(config.registries.clone())),
            config,
        }))
    }

    /// Replaces the registries' settings. Pulls that have begun go on with the old ones.
    pub fn reload(&self, registries: Registries) {
        let mut current = self
            .0
            .registries
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(registries);
    }

    fn registries(&self) -> Arc<Registries> {
        let current = self
            .0
            .registries
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }
}
