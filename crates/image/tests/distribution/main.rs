//! Pulls from registries: from a small one written here, which misbehaves on demand, and from
//! Debian's docker-registry with images pushed by skopeo.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod adversarial;
mod built;
mod debian;
mod fake;
mod limits;
mod pulling;
mod transfers;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_image::distribution::{Config, Credentials, Distribution, Error, Pulled, Request};
use berth_image::{Images, Progress};
use berth_store::Store;
use berth_tasks::Scope;

/// An empty store with a distribution client, in directories of its own.
struct Host {
    directory: tempfile::TempDir,
    images: Images,
    distribution: Distribution,
    scope: Scope,
    said: Arc<Mutex<Vec<Progress>>>,
}

impl Host {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::open(tempfile::tempdir().unwrap(), change)
    }

    /// The same store, as a new process opens it.
    fn reopen(self) -> Self {
        let Self { directory, .. } = self;
        Self::open(directory, |_| {})
    }

    fn open(directory: tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let store = Store::open(&directory.path().join("store"), Default::default()).unwrap();
        let images = Images::open(&directory.path().join("images"), store).unwrap();
        let mut config = Config {
            certs_directories: vec![directory.path().join("certs.d")],
            retry_delay: Duration::from_millis(5),
            ..Config::default()
        };
        change(&mut config);
        let scope = Scope::new();
        Self {
            distribution: Distribution::new(config, images.clone(), &scope),
            directory,
            images,
            scope,
            said: Arc::default(),
        }
    }

    async fn pull(&self, reference: &str) -> Result<Pulled, Error> {
        self.pull_as(reference, Credentials::Anonymous).await
    }

    async fn pull_as(&self, reference: &str, credentials: Credentials) -> Result<Pulled, Error> {
        self.pull_request(&Request {
            reference: reference.parse().unwrap(),
            platform: None,
            credentials,
        })
        .await
    }

    async fn pull_request(&self, request: &Request) -> Result<Pulled, Error> {
        self.distribution.pull(request, &self.reporter()).await
    }

    /// Remembers what is said.
    fn reporter(&self) -> berth_image::Reporter {
        let said = Arc::clone(&self.said);
        Arc::new(move |progress| said.lock().unwrap().push(progress))
    }

    /// The error of a pull that fails, and that nothing is left of it.
    async fn refused(&self, reference: &str) -> String {
        let error = self.pull(reference).await.unwrap_err();
        self.is_clean().await;
        error.to_string()
    }

    /// `id: status` of all messages since the last call, without repeated ones.
    fn said(&self) -> Vec<String> {
        let messages = std::mem::take(&mut *self.said.lock().unwrap());
        let mut lines: Vec<String> = messages
            .into_iter()
            .map(|message| match message.id.as_str() {
                "" => message.status,
                id => format!("{id}: {}", message.status),
            })
            .collect();
        lines.dedup();
        lines
    }

    fn file(&self, image: &str, path: &str) -> Option<String> {
        let image = self.images.resolve(image, None).unwrap();
        let found = image.layers.iter().map(|layer| layer.join(path));
        found
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .next()
    }

    /// Nothing is being written, and no blob or layer is here.
    async fn is_clean(&self) {
        let left = || {
            let root = self.directory.path().join("images");
            let mut left = Vec::new();
            for below in ["ingest", "blobs/sha256", "layers"] {
                let entries = std::fs::read_dir(root.join(below)).into_iter().flatten();
                left.extend(entries.flatten().map(|entry| entry.path()));
            }
            left
        };
        wait_for("clean directories", || {
            let left: Vec<PathBuf> = left();
            left.is_empty()
        })
        .await;
    }
}

/// Waits until `condition` holds.
async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "no {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
