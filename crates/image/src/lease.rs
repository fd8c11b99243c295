//! A lease holds what an operation adds until a name refers to it: blobs, unpacked layers, and
//! pins on what was here already. Dropping it lets go of everything that was not recorded.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use berth_oci::Digest;
use berth_oci::config::CONFIG_LIMIT;

use crate::blobs;
use crate::content::Content;
use crate::error::Result;
use crate::images::{Images, Pin};
use crate::ingest::Ingest;
use crate::layers::{self, Unpacked};

/// Up to this size blobs are read to see whether they are whole: all that say what others are.
const VERIFIED_BYTES: u64 = CONFIG_LIMIT;

/// Adds content to an image store. Clones share it; usable from several threads at once.
#[derive(Debug, Clone)]
pub struct Lease {
    pub(crate) held: Arc<Held>,
}

/// What a lease has collected.
#[derive(Debug)]
pub struct Held {
    pub(crate) images: Images,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Whole and verified, not yet synced and named.
    pub blobs: HashMap<Digest, Pending>,
    /// By diff id.
    pub layers: HashMap<Digest, Unpacked>,
    /// What was here already and must not go.
    pub pins: HashSet<Pin>,
}

#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub path: PathBuf,
    pub size_bytes: u64,
}

impl Held {
    pub(crate) fn new(images: Images) -> Self {
        Self {
            images,
            state: Mutex::default(),
        }
    }

    pub(crate) fn hold(&self, digest: Digest, path: PathBuf, size_bytes: u64) {
        let pending = Pending { path, size_bytes };
        if let Some(older) = self.lock().blobs.insert(digest, pending) {
            discard(&older);
        }
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn content(&self) -> &Content {
        self.images.content()
    }

    /// Keeps something that is here, or is about to be.
    pub(crate) fn pin(&self, pin: Pin) {
        // The order of the two locks is lease, then images.
        let mut state = self.lock();
        if state.pins.insert(pin.clone()) {
            self.images.pin(pin);
        }
    }

    fn pending(&self, digest: &Digest) -> Option<Pending> {
        self.lock().blobs.get(digest).cloned()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.blobs.values().for_each(discard);
        self.images.unpin(&std::mem::take(&mut state.pins));
        // Layers remove themselves.
    }
}

fn discard(pending: &Pending) {
    if let Err(error) = std::fs::remove_file(&pending.path) {
        tracing::warn!(path = %pending.path.display(), %error, "remove an unused blob");
    }
}

impl Lease {
    /// Stores a small blob that is in memory.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let mut ingest = self.begin_unknown()?;
        ingest.write(bytes)?;
        ingest.commit()
    }

    /// Whether the blob is here; if it is, it stays as long as the lease.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// As [`Lease::contains`], with the size.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        if let Some(pending) = self.held.pending(digest) {
            return Some(pending.size_bytes);
        }
        self.held.pin(Pin::Blob(digest.clone()));
        self.held.content().blobs.size(digest)
    }

    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        blobs::open(&self.path(digest), digest)
    }

    /// Whether the blob is here as it should be: a damaged one has to come again. A large one is
    /// believed if its size is right.
    pub fn is_whole(&self, digest: &Digest, size_bytes: u64) -> bool {
        self.size(digest) == Some(size_bytes)
            && (size_bytes > VERIFIED_BYTES || self.read(digest, VERIFIED_BYTES).is_ok())
    }

    /// The whole of a small blob, of at most `limit` bytes, verified.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        blobs::read(&self.path(digest), digest, limit)
    }

    /// Begins to write the blob with this digest and size, which both are verified at the end.
    pub fn begin(&self, digest: &Digest, size_bytes: u64) -> Result<Ingest> {
        self.ingest(Some(digest.clone()), Some(size_bytes))
    }

    /// Begins to write a blob whose digest is found by writing it.
    pub fn begin_unknown(&self) -> Result<Ingest> {
        self.ingest(None, None)
    }

    fn ingest(&self, expected: Option<Digest>, size_bytes: Option<u64>) -> Result<Ingest> {
        let (file, path) = self.held.content().scratch_file()?;
        Ok(Ingest::new(
            file,
            path,
            expected,
            size_bytes,
            self.held.clone(),
        ))
    }

    /// Whether the topmost of these layers (diff ids, bottom first) is unpacked already.
    pub fn is_unpacked(&self, diff_ids: &[Digest]) -> bool {
        let Some(diff_id) = diff_ids.last() else {
            return true;
        };
        if self.held.lock().layers.contains_key(diff_id) {
            return true;
        }
        layers::keys(diff_ids).into_iter().any(|key| {
            self.held.pin(Pin::Layer(key.clone()));
            self.held.content().layers.get(&key).is_some()
        })
    }

    /// Unpacks a layer from its stream (plain, gzip or zstd tar) and verifies it against the diff
    /// id, which is also returned. Give it [`Ingest::tail`] to unpack what is still arriving. The
    /// layer belongs to the lease until [`Lease::record`] uses it.
    ///
    /// Layers of one image may be unpacked at once and in any order.
    pub fn unpack(&self, source: impl Read + Send, diff_id: Option<&Digest>) -> Result<Digest> {
        let unpacked = Unpacked::create(self.held.content(), source, diff_id)?;
        let diff_id = unpacked.diff_id.clone();
        self.held.lock().layers.insert(diff_id.clone(), unpacked);
        Ok(diff_id)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        match self.held.pending(digest) {
            Some(pending) => pending.path,
            None => {
                self.held.pin(Pin::Blob(digest.clone()));
                self.held.content().blobs.path(digest)
            }
        }
    }
}
