//! The layers of an image, side by side: each is unpacked while it downloads.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_oci::{Descriptor, Digest, Manifest, media_type};
use futures_util::future::try_join_all;
use tokio::sync::Notify;

use super::download::{Download, Ended, Notice, join};
use super::failure::Failure;
use super::pull::Pull;
use crate::error::Kind;
use crate::progress::{Progress, Reporter};

/// Messages of one layer are at least this far apart; changes of its status are not held back.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// One layer of the image.
#[derive(Debug, Clone)]
struct Layer {
    descriptor: Descriptor,
    /// Of this layer and all below it.
    diff_ids: Vec<Digest>,
    here: Here,
}

/// What of a layer is in the store.
#[derive(Debug, Clone, Copy)]
struct Here {
    blob: bool,
    unpacked: bool,
}

impl Layer {
    /// As messages name it.
    fn id(&self) -> &str {
        self.descriptor.digest.short()
    }

    fn diff_id(&self) -> Option<&Digest> {
        self.diff_ids.last()
    }
}

impl Pull<'_> {
    /// Brings all layers into the lease, as blobs and unpacked. Docker says nothing of the layers
    /// of an image that is known and whole.
    pub(super) async fn layers(
        &self,
        manifest: &Manifest,
        diff_ids: &[Digest],
        is_known: bool,
    ) -> Result<(), Failure> {
        let layers = self.survey(manifest, diff_ids).await?;
        let is_whole = |layer: &Layer| layer.here.blob && layer.here.unpacked;
        if is_known && layers.iter().all(is_whole) {
            return Ok(());
        }
        for layer in &layers {
            let status = match is_whole(layer) {
                true => "Already exists",
                false => "Pulling fs layer",
            };
            self.say(layer.id(), status);
        }
        let missing = layers.iter().filter(|layer| !is_whole(layer));
        try_join_all(missing.map(|layer| self.layer(layer))).await?;
        Ok(())
    }

    /// Which layers there are, and what is here of them. A layer that occurs twice counts once.
    async fn survey(
        &self,
        manifest: &Manifest,
        diff_ids: &[Digest],
    ) -> Result<Vec<Layer>, Failure> {
        let mut seen = HashSet::new();
        let mut layers: Vec<Layer> = Vec::new();
        let mut below = 0;
        for descriptor in &manifest.layers {
            // What an artifact puts beside the layers is kept, but not unpacked.
            let is_layer = media_type::is_layer(&descriptor.media_type);
            below += usize::from(is_layer);
            let diff_ids = if is_layer { &diff_ids[..below] } else { &[] };
            if seen.insert(descriptor.digest.clone()) {
                layers.push(Layer {
                    descriptor: descriptor.clone(),
                    diff_ids: diff_ids.to_vec(),
                    here: Here {
                        blob: false,
                        unpacked: false,
                    },
                });
            }
        }
        let lease = self.lease.clone();
        self.distribution
            .block(move || {
                for layer in &mut layers {
                    layer.here = Here {
                        blob: lease.is_whole(&layer.descriptor.digest, layer.descriptor.size),
                        unpacked: lease.is_unpacked(&layer.diff_ids),
                    };
                }
                Ok(layers)
            })
            .await
    }

    async fn layer(&self, layer: &Layer) -> Result<(), Failure> {
        let unpacked = match layer.here.blob {
            true => Some(self.unpack_blob(layer).await),
            false => None,
        };
        match unpacked {
            Some(Err(Failure::Image(error))) if error.kind() == Kind::Invalid => {
                tracing::warn!(digest = %layer.descriptor.digest, %error, "a damaged layer");
                self.fetch(layer).await?;
            }
            Some(unpacked) => unpacked?,
            None => self.fetch(layer).await?,
        }
        self.say(layer.id(), "Pull complete");
        Ok(())
    }

    /// Unpacks a blob that is here already.
    async fn unpack_blob(&self, layer: &Layer) -> Result<(), Failure> {
        let lease = self.lease.clone();
        let (wanted, report) = (layer.clone(), Arc::clone(self.report));
        self.distribution
            .block(move || {
                let file = lease.open_blob(&wanted.descriptor.digest)?;
                let source = Counted::new(file, &wanted, report, Arc::new(AtomicBool::new(true)));
                lease.unpack(source, wanted.diff_id()).map(|_| ())
            })
            .await
    }

    /// Downloads a layer's blob, and unpacks it meanwhile unless that was done before.
    async fn fetch(&self, layer: &Layer) -> Result<(), Failure> {
        let downloads = &self.distribution.0.downloads;
        let permit = match downloads.try_acquire() {
            Ok(permit) => Ok(permit),
            Err(_) => {
                self.say(layer.id(), "Waiting");
                downloads.acquire().await
            }
        };
        let ingest = self.begin(&layer.descriptor).await?;
        let downloaded = Arc::new(AtomicBool::new(false));
        let stop = Notify::new();
        let tail = (!layer.here.unpacked).then(|| ingest.tail());
        let unpack = async {
            let Some(tail) = tail else { return Ok(()) };
            let source = Counted::new(
                tail,
                layer,
                Arc::clone(self.report),
                Arc::clone(&downloaded),
            );
            let (lease, diff_id) = (self.lease.clone(), layer.diff_id().cloned());
            let scope = &self.distribution.0.scope;
            let unpacked = scope.spawn_blocking(move || lease.unpack(source, diff_id.as_ref()));
            let unpacked = join(unpacked).await;
            if unpacked.is_err() {
                stop.notify_one();
            }
            unpacked.map(|_| ())
        };
        let download = async {
            let result = self.download(layer, ingest, &stop).await;
            downloaded.store(true, Ordering::Release);
            // The next layer may begin while this one is still being unpacked.
            drop(permit);
            result
        };
        let (downloaded, unpacked) = tokio::join!(download, unpack);
        // Unpacking fails, too, when the download does: that is not the reason then.
        downloaded?;
        unpacked.map_err(Failure::Image)
    }

    async fn download(
        &self,
        layer: &Layer,
        ingest: crate::Ingest,
        stop: &Notify,
    ) -> Result<Ended, Failure> {
        let total = layer.descriptor.size;
        let meter = Meter::default();
        let notice = |notice: Notice| match notice {
            Notice::At(current) if current == total => {
                (self.report)(Progress::of(layer.id(), "Downloading", current, total));
                self.say(layer.id(), "Verifying Checksum");
            }
            Notice::At(current) => {
                if meter.is_due() {
                    (self.report)(Progress::of(layer.id(), "Downloading", current, total));
                }
            }
            Notice::RetryIn(delay) => {
                let seconds = delay.as_millis().div_ceil(1000).max(1);
                let plural = if seconds == 1 { "" } else { "s" };
                self.say(layer.id(), format!("Retrying in {seconds} second{plural}"));
            }
        };
        let download = Download {
            repository: self.repository,
            what: "filesystem layer",
            descriptor: &layer.descriptor,
            patience: &self.patience,
            stop,
        };
        let ended = download
            .run(&self.distribution.0.scope, ingest, notice)
            .await?;
        if ended == Ended::Whole {
            self.say(layer.id(), "Download complete");
        }
        Ok(ended)
    }
}

/// Says when the next message is due.
#[derive(Debug, Default)]
struct Meter(std::sync::Mutex<Option<Instant>>);

impl Meter {
    fn is_due(&self) -> bool {
        let now = Instant::now();
        let mut last = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let due = last.is_none_or(|last| now.duration_since(last) >= REPORT_EVERY);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// Reports how far the unpacking has come, once the download is out of the way: the two share one
/// line of the terminal.
struct Counted<R> {
    source: R,
    id: String,
    read: u64,
    total: u64,
    meter: Meter,
    report: Reporter,
    shown: Arc<AtomicBool>,
}

impl<R> Counted<R> {
    fn new(source: R, layer: &Layer, report: Reporter, shown: Arc<AtomicBool>) -> Self {
        Self {
            source,
            id: layer.id().to_owned(),
            read: 0,
            total: layer.descriptor.size,
            meter: Meter::default(),
            report,
            shown,
        }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.read += count as u64;
        let whole = self.read == self.total && count > 0;
        if self.shown.load(Ordering::Acquire) && (whole || self.meter.is_due()) {
            let message = Progress::of(self.id.as_str(), "Extracting", self.read, self.total);
            (self.report)(message);
        }
        Ok(count)
    }
}
