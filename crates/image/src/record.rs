//! Makes an image out of what a lease holds: checks that it is whole, unpacks what is not unpacked,
//! syncs everything, and then lets names point at it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use berth_base::Timestamp;
use berth_oci::{Descriptor, Digest, Platform, Reference};

use crate::error::{Context, Error, Result};
use crate::images::Pin;
use crate::layers::{self, Unpacked};
use crate::lease::{Lease, Pending};
use crate::names::plan_point;
use crate::target::{Part, Target};

/// Layers of one image that are unpacked at the same time.
const PARALLEL_LAYERS: usize = 4;

/// Which platform of an index has to be complete.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// This one; it is an error if the image does not have it.
    Platform(Platform),
    /// This machine's if the image has it, and otherwise none.
    HostIfAny,
}

impl Lease {
    /// Lets `names` (or, without any, a dangling name) point at `target`, whose blobs are in the
    /// store or in this lease. Returns after everything is on the disk.
    ///
    /// # Errors
    /// Nothing is recorded if a blob of the wanted platform is missing, a layer does not unpack
    /// to its diff id, or the manifests contradict each other.
    pub fn record(&self, names: &[Reference], target: &Descriptor, wanted: &Wanted) -> Result<()> {
        let tree = Target::read(self, target)?;
        let part = match wanted {
            Wanted::Platform(platform) => Some(tree.select(platform, false).ok_or_else(|| {
                Error::NotFound(format!(
                    "no matching manifest for {platform} in the manifest list entries"
                ))
            })?),
            Wanted::HostIfAny => tree.select(&Platform::host(), false),
        };
        self.pin_tree(&tree);
        if let Some(part) = part {
            self.check(part)?;
            self.unpack_missing(part)?;
            self.prepare_layers(part.diff_ids())?;
        }
        self.make_durable()?;
        let images = &self.held.images;
        // From here on one at a time: two pulls of one layer must not both name it.
        let _writes = images.writes();
        if let Some(part) = part {
            self.adopt_layers(part.diff_ids())?;
        }
        let edits = {
            let mut state = images.state();
            // An index that is known already may have got parts that were missing.
            state.forget();
            plan_point(&state, names, &tree.descriptor, Timestamp::now())
        };
        images.apply(edits)?;
        // A second platform of a known index.
        images.reread(&tree.descriptor.digest);
        Ok(())
    }

    /// Whatever of the target is here must not go before the name is recorded.
    fn pin_tree(&self, tree: &Target) {
        for blob in &tree.blobs {
            self.contains(&blob.digest);
        }
    }

    /// The layers and the configuration have to be whole and of one mind.
    fn check(&self, part: &Part) -> Result<()> {
        for blob in part.blobs() {
            match self.size(&blob.digest) {
                Some(size) if size == blob.size || blob.size == 0 => {}
                Some(actual) => {
                    return Err(Error::Size {
                        what: "blob",
                        digest: blob.digest.clone(),
                        expected: blob.size,
                        actual,
                    });
                }
                None => {
                    return Err(Error::Invalid(format!(
                        "content digest {}: not found",
                        blob.digest
                    )));
                }
            }
        }
        let (layers, diff_ids) = (part.layers().len(), part.diff_ids().len());
        if layers != diff_ids {
            return Err(Error::Invalid(format!(
                "mismatched image rootfs and manifest layers: {diff_ids} diff ids, {layers} layers"
            )));
        }
        Ok(())
    }

    fn unpack_missing(&self, part: &Part) -> Result<()> {
        let diff_ids = part.diff_ids();
        let layers = part.layers();
        let mut missing = VecDeque::new();
        for (index, layer) in layers.iter().enumerate() {
            if !self.is_unpacked(&diff_ids[..=index]) {
                missing.push_back((layer.digest.clone(), diff_ids[index].clone()));
            }
        }
        // A shared layer that looks different on this base is found out bottom-up.
        self.unpack_all(missing)?;
        let mut below: Vec<PathBuf> = Vec::new();
        for end in 1..=diff_ids.len() {
            let held = self.held_directory(&diff_ids[end - 1]);
            let here = || self.find_layer(&diff_ids[..end], &below);
            let directory = match held.or_else(here) {
                Some(directory) => directory,
                None => {
                    let job = (layers[end - 1].digest.clone(), diff_ids[end - 1].clone());
                    self.unpack_all([job].into())?;
                    self.held_directory(&diff_ids[end - 1])
                        .ok_or_else(|| missing_layer(&diff_ids[end - 1]))?
                }
            };
            below.push(directory);
        }
        Ok(())
    }

    fn unpack_all(&self, jobs: VecDeque<(Digest, Digest)>) -> Result<()> {
        let workers = jobs.len().min(PARALLEL_LAYERS);
        let jobs = Mutex::new(jobs);
        let next = || {
            jobs.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front()
        };
        let work = || -> Result<()> {
            while let Some((blob, diff_id)) = next() {
                if self.held_directory(&diff_id).is_none() {
                    self.unpack(self.open_blob(&blob)?, Some(&diff_id))?;
                }
            }
            Ok(())
        };
        if workers <= 1 {
            return work();
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| {
                    Err(Error::Invalid("a layer's unpacking panicked".to_owned()))
                })
            })
        })
    }

    fn held_directory(&self, diff_id: &Digest) -> Option<PathBuf> {
        self.held
            .lock()
            .layers
            .get(diff_id)
            .map(Unpacked::directory)
    }

    fn find_layer(&self, diff_ids: &[Digest], below: &[PathBuf]) -> Option<PathBuf> {
        for key in layers::keys(diff_ids) {
            self.held.pin(Pin::Layer(key));
        }
        let layer = self.held.content().layers.find(diff_ids, below)?;
        Some(layer.directory.clone())
    }

    /// Completes the lease's own layers for their places in the chain.
    fn prepare_layers(&self, diff_ids: &[Digest]) -> Result<()> {
        let mut below: Vec<PathBuf> = Vec::new();
        for end in 1..=diff_ids.len() {
            let diff_id = &diff_ids[end - 1];
            let directory = {
                let state = self.held.lock();
                match state.layers.get(diff_id) {
                    Some(unpacked) => {
                        unpacked.prepare(&below)?;
                        Some(unpacked.directory())
                    }
                    None => None,
                }
            };
            let directory = directory
                .or_else(|| self.find_layer(&diff_ids[..end], &below))
                .ok_or_else(|| missing_layer(diff_id))?;
            below.push(directory);
        }
        Ok(())
    }

    /// Syncs, then gives the blobs their names.
    fn make_durable(&self) -> Result<()> {
        let pending: Vec<(Digest, Pending)> = {
            let state = self.held.lock();
            let blobs = state.blobs.iter();
            blobs
                .map(|(d, pending)| (d.clone(), pending.clone()))
                .collect()
        };
        if !pending.is_empty() || !self.held.lock().layers.is_empty() {
            self.held.content().sync()?;
        }
        for (digest, pending) in pending {
            self.held.pin(Pin::Blob(digest.clone()));
            let path = self.held.content().blobs.path(&digest);
            std::fs::rename(&pending.path, &path).context(|| format!("store blob {digest}"))?;
            self.held.lock().blobs.remove(&digest);
        }
        Ok(())
    }

    fn adopt_layers(&self, diff_ids: &[Digest]) -> Result<()> {
        let mut below: Vec<PathBuf> = Vec::new();
        for end in 1..=diff_ids.len() {
            let chain = &diff_ids[..end];
            let known = self.find_layer(chain, &below);
            let unpacked = self.held.lock().layers.remove(&diff_ids[end - 1]);
            let directory = match (known, unpacked) {
                // Somebody else was faster, or the layer occurs twice; the drop removes ours.
                (Some(directory), _) => directory,
                (None, Some(unpacked)) => {
                    let layers = &self.held.content().layers;
                    layers.adopt(unpacked, chain)?.directory.clone()
                }
                (None, None) => return Err(missing_layer(&diff_ids[end - 1])),
            };
            below.push(directory);
        }
        Ok(())
    }
}

fn missing_layer(diff_id: &Digest) -> Error {
    Error::Invalid(format!("layer {diff_id} is not unpacked"))
}
