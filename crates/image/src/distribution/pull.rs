//! The pull of one reference: endpoints in turn, then from the tag down to the layers.

use std::sync::{Arc, Weak};

use berth_http::Client;
use berth_oci::config::CONFIG_LIMIT;
use berth_oci::manifest::MANIFEST_LIMIT;
use berth_oci::reference::DEFAULT_TAG;
use berth_oci::{Descriptor, Digest, Document, ImageConfig, Manifest, Platform, media_type};
use tokio::sync::Notify;

use super::auth::Authorizer;
use super::download::{Download, Patience, join};
use super::endpoint::{Endpoint, client_config, endpoints};
use super::failure::{Error, Failure};
use super::repository::{Fetched, Repository, Tagged};
use super::{Distribution, Pulled, Request};
use crate::lease::Lease;
use crate::progress::{Progress, Reporter};
use crate::record::Wanted;

/// Which tags of a repository to pull.
#[derive(Debug, Clone, Copy)]
enum Tags {
    /// The one that the reference names.
    Named,
    All,
}

/// One pull from one endpoint.
pub(super) struct Pull<'a> {
    pub distribution: &'a Distribution,
    pub repository: &'a Repository,
    pub lease: Lease,
    pub report: &'a Reporter,
    pub patience: Patience,
}

/// A manifest that is in the lease, with what it says.
struct Held {
    descriptor: Descriptor,
    document: Document,
}

impl Distribution {
    /// Pulls one image: by digest, or by tag (`latest` when the reference has neither).
    ///
    /// Idempotent; concurrent pulls of one image share the work. The first message goes out when
    /// the registry has confirmed that the image exists, so that a caller can still answer an
    /// earlier failure with a status. Dropping the future gives the pull up, and nothing of it
    /// stays.
    pub async fn pull(&self, request: &Request, report: &Reporter) -> Result<Pulled, Error> {
        let pulled = self.pull_tags(request, Tags::Named, report).await?;
        Ok(pulled.expect("a named tag was pulled if there was no error"))
    }

    /// Pulls all tags of a repository (`docker pull --all-tags`); the reference's own tag and
    /// digest do not count. The first failure ends it; what was pulled before stays.
    pub async fn pull_all(&self, request: &Request, report: &Reporter) -> Result<(), Error> {
        self.pull_tags(request, Tags::All, report).await.map(|_| ())
    }

    /// Tries one endpoint after the other.
    async fn pull_tags(
        &self,
        request: &Request,
        tags: Tags,
        report: &Reporter,
    ) -> Result<Option<Pulled>, Error> {
        let failed = |failure: Failure| Error {
            reference: Box::new(request.reference.clone().or_latest()),
            failure,
        };
        let endpoints = endpoints(
            &self.registries(),
            &self.0.config.proxies,
            &self.0.resolver,
            request.reference.domain(),
        )
        .await;
        let mut last = None;
        for endpoint in endpoints {
            let failure = match self.pull_from(&endpoint, request, tags, report).await {
                Ok(pulled) => return Ok(pulled),
                Err(failure) => failure,
            };
            tracing::debug!(endpoint = endpoint.base, %failure, "pull");
            let goes_on = endpoint.mirror || failure.may_be_the_endpoints();
            last = Some(failure);
            if !goes_on {
                break;
            }
        }
        let none = || Failure::Setup("the registry has no endpoint".to_owned());
        Err(failed(last.unwrap_or_else(none)))
    }

    async fn pull_from(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        tags: Tags,
        report: &Reporter,
    ) -> Result<Option<Pulled>, Failure> {
        let shared = &self.0;
        let config = client_config(&shared.config, &shared.resolver, endpoint)?;
        // A scope of its own: its connections end with this pull.
        let connections = shared.scope.child();
        let _end = EndScope(connections.clone());
        let path = request.reference.path();
        // Docker Hub's credentials are not for its mirrors.
        let credentials = match endpoint.mirror {
            true => super::Credentials::Anonymous,
            false => request.credentials.clone(),
        };
        let repository = Repository::new(
            Client::new(config, &connections),
            endpoint.base.clone(),
            path.to_owned(),
            Authorizer::new(credentials, path, shared.user_agent.clone()),
            shared,
        );
        repository.ping().await?;
        let images = shared.images.clone();
        let lease = self.block(move || Ok(images.lease())).await?;
        let pull = Pull {
            distribution: self,
            repository: &repository,
            lease,
            report,
            patience: Patience {
                attempts: shared.config.download_attempts.max(1),
                first_delay: shared.config.retry_delay,
                stall: shared.config.stall_timeout,
            },
        };
        match tags {
            Tags::Named => {
                let name = request.reference.clone().or_latest().familiar();
                let pulled = pull.run(request).await?;
                pull.say_status(pulled.is_newer, &name);
                Ok(Some(pulled))
            }
            Tags::All => {
                let mut is_newer = false;
                for tag in repository.tags().await? {
                    let reference = request.reference.with_tag(&tag);
                    let reference = reference.map_err(|e| Failure::Setup(e.to_string()))?;
                    let request = Request {
                        reference,
                        ..request.clone()
                    };
                    is_newer |= pull.run(&request).await?.is_newer;
                }
                pull.say_status(is_newer, &request.reference.familiar_name());
                Ok(None)
            }
        }
    }

    /// Runs work that blocks on the disk.
    pub(super) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> crate::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        join(self.0.scope.spawn_blocking(work))
            .await
            .map_err(Failure::Image)
    }

    /// The right to pull the image with this digest.
    fn turn(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut running = self
            .0
            .running
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        running.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = running.get(digest).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        running.insert(digest.clone(), Arc::downgrade(&turn));
        turn
    }
}

/// Ends the tasks of a scope when dropped.
pub(super) struct EndScope(pub berth_tasks::Scope);

impl Drop for EndScope {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Pull<'_> {
    async fn run(&self, request: &Request) -> Result<Pulled, Failure> {
        let reference = &request.reference;
        let tag = reference.tag().unwrap_or(DEFAULT_TAG);
        let (shown, tagged) = match reference.digest() {
            Some(digest) => (digest.to_string(), Tagged::Digest(digest.clone())),
            None => (tag.to_owned(), self.repository.tag(tag).await?),
        };
        let digest = match &tagged {
            Tagged::Digest(digest) => digest.clone(),
            Tagged::Manifest(fetched) => fetched.digest.clone(),
        };
        let turn = self.distribution.turn(&digest);
        let _turn = turn.lock().await;
        let top = match tagged {
            Tagged::Digest(digest) => self.manifest(&digest, "").await?,
            Tagged::Manifest(fetched) => self.keep(fetched).await?,
        };
        self.say(&shown, format!("Pulling from {}", reference.path()));
        let host = Platform::host();
        let platform = request.platform.as_ref().unwrap_or(&host);
        let manifest = match &top.document {
            Document::Manifest(manifest) => manifest.clone(),
            Document::Index(index) => {
                let none = || Failure::NoPlatform(Box::new(platform.clone()));
                let chosen = index.select(platform).ok_or_else(none)?;
                match self
                    .manifest(&chosen.digest, &chosen.media_type)
                    .await?
                    .document
                {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(index) => return Err(Failure::NotAnImage(index.media_type)),
                }
            }
        };
        if !manifest.is_image() {
            return Err(Failure::NotAnImage(manifest.config.media_type));
        }
        let (config, is_known) = self.config(&manifest).await?;
        if let (Some(wanted), Document::Manifest(_)) = (&request.platform, &top.document) {
            let actual = config.platform.clone();
            if wanted.rank(&actual).is_none() {
                return Err(Failure::OtherPlatform {
                    wanted: Box::new(wanted.clone()),
                    actual: Box::new(actual),
                });
            }
        }
        self.layers(&manifest, &config.rootfs.diff_ids, is_known)
            .await?;
        // The one manifest of a foreign platform is taken where no other was asked for.
        let wanted = match &top.document {
            Document::Index(_) => platform.clone(),
            Document::Manifest(_) => config.platform.clone(),
        };
        let is_newer = self.record(request, &top.descriptor, wanted).await?;
        self.say("", format!("Digest: {digest}"));
        Ok(Pulled { digest, is_newer })
    }

    /// The manifest with this digest: from the store if it is there and whole, else from the
    /// registry.
    async fn manifest(&self, digest: &Digest, media_type: &str) -> Result<Held, Failure> {
        let (lease, wanted) = (self.lease.clone(), digest.clone());
        let here = self.distribution.block(move || {
            if !lease.contains(&wanted) {
                return Ok(None);
            }
            match lease.read(&wanted, MANIFEST_LIMIT) {
                Err(crate::Error::Digest { .. }) => Ok(None),
                read => read.map(Some),
            }
        });
        if let Some(bytes) = here.await? {
            return hold(digest.clone(), media_type, &bytes);
        }
        let fetched = self.repository.manifest_by_digest(digest).await?;
        self.keep(fetched).await
    }

    /// Stores a manifest.
    async fn keep(&self, fetched: Fetched) -> Result<Held, Failure> {
        let held = hold(fetched.digest.clone(), &fetched.media_type, &fetched.bytes)?;
        let lease = self.lease.clone();
        let descriptor = held.descriptor.clone();
        self.distribution
            .block(move || {
                let mut ingest = lease.begin(&descriptor.digest, descriptor.size)?;
                ingest.write(&fetched.bytes)?;
                ingest.commit().map(|_| ())
            })
            .await?;
        Ok(held)
    }

    /// The image's configuration, and whether it was here before.
    async fn config(&self, manifest: &Manifest) -> Result<(ImageConfig, bool), Failure> {
        let descriptor = &manifest.config;
        if descriptor.size > CONFIG_LIMIT {
            return Err(Failure::Config(format!("larger than {CONFIG_LIMIT} bytes")));
        }
        let (digest, size) = (descriptor.digest.clone(), descriptor.size);
        let lease = self.lease.clone();
        let is_known = move || Ok(lease.is_whole(&digest, size));
        let is_known = self.distribution.block(is_known);
        let is_known = is_known.await?;
        if !is_known {
            let ingest = self.begin(descriptor).await?;
            let download = Download {
                repository: self.repository,
                what: "image config",
                descriptor,
                patience: &self.patience,
                stop: &Notify::new(),
            };
            download
                .run(&self.distribution.0.scope, ingest, |_| {})
                .await?;
        }
        let (lease, digest) = (self.lease.clone(), descriptor.digest.clone());
        let read = self
            .distribution
            .block(move || lease.read(&digest, CONFIG_LIMIT));
        let config = ImageConfig::parse(&read.await?);
        let config = config.map_err(|error| Failure::Config(error.to_string()))?;
        let layers = manifest.layers.iter();
        let layers = layers
            .filter(|l| media_type::is_layer(&l.media_type))
            .count();
        let diff_ids = config.rootfs.diff_ids.len();
        if layers != diff_ids {
            return Err(Failure::Config(format!(
                "it has {diff_ids} diff ids for the {layers} layers of the manifest"
            )));
        }
        Ok((config, is_known))
    }

    pub(super) async fn begin(&self, descriptor: &Descriptor) -> Result<crate::Ingest, Failure> {
        let (lease, digest) = (self.lease.clone(), descriptor.digest.clone());
        let size = descriptor.size;
        self.distribution
            .block(move || lease.begin(&digest, size))
            .await
    }

    /// Gives the image its name; `true` when the name pointed elsewhere before.
    async fn record(
        &self,
        request: &Request,
        target: &Descriptor,
        platform: Platform,
    ) -> Result<bool, Failure> {
        // A tag beside a digest says nothing about where the tag points now.
        let name = match request.reference.digest() {
            Some(digest) => request.reference.with_digest(digest.clone()),
            None => request.reference.clone().or_latest(),
        };
        let (lease, target) = (self.lease.clone(), target.clone());
        let images = self.distribution.0.images.clone();
        self.distribution
            .block(move || {
                let before = images.target_of(&name);
                lease.record(&[name], &target, &Wanted::Platform(platform))?;
                Ok(before.as_ref() != Some(&target.digest))
            })
            .await
    }

    fn say_status(&self, is_newer: bool, name: &str) {
        let status = match is_newer {
            true => "Downloaded newer image for",
            false => "Image is up to date for",
        };
        self.say("", format!("Status: {status} {name}"));
    }

    pub(super) fn say(&self, id: &str, status: impl Into<String>) {
        (self.report)(Progress::status(id, status));
    }
}

fn hold(digest: Digest, media_type: &str, bytes: &[u8]) -> Result<Held, Failure> {
    let document = Document::parse(bytes, media_type).map_err(Failure::Manifest)?;
    let descriptor = Descriptor::new(document.media_type(), digest, bytes.len() as u64);
    Ok(Held {
        descriptor,
        document,
    })
}
