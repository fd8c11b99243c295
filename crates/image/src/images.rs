//! The image store: names, what they point at, and what keeps what.
//!
//! ```text
//! writes (mutex) ─ one change of names at a time: store record first, then the table in memory
//! state  (mutex) ─ names, pins, snapshots; held for look-ups and for the moment of a sweep only
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_oci::{Descriptor, Digest};
use berth_store::Store;

use crate::content::Content;
use crate::error::{Kind, Result};
use crate::layers;
use crate::lease::{Held, Lease};
use crate::names::{Name, Record};
use crate::target::Target;

/// The images of one data root. Clones share them.
#[derive(Clone)]
pub struct Images(Arc<Inner>);

struct Inner {
    content: Content,
    pub(crate) store: Store,
    writes: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub names: BTreeMap<Name, Record>,
    /// Containers and the manifest that each of them runs.
    pub snapshots: HashMap<String, Digest>,
    /// There are names or containers that could not be read: what they keep is not known.
    is_partial: bool,
    pins: HashMap<Pin, usize>,
    targets: HashMap<Digest, Arc<Target>>,
    /// Directories of manifests' layers, topmost first.
    chains: HashMap<Digest, Vec<PathBuf>>,
}

/// Something that a lease keeps from being swept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Pin {
    Blob(Digest),
    Layer(layers::Key),
}

impl Images {
    /// Opens the images below `root`; their names are records in `store`. What an earlier process
    /// left unfinished, or without a name, goes.
    pub fn open(root: &Path, store: Store) -> Result<Self> {
        let content = Content::open(root)?;
        let (names, all_names) = crate::names::load(&store)?;
        let (snapshots, all_snapshots) = crate::snapshot::load(&content)?;
        let state = State {
            names,
            snapshots,
            is_partial: !(all_names && all_snapshots),
            ..State::default()
        };
        let images = Self(Arc::new(Inner {
            content,
            store,
            writes: Mutex::default(),
            state: Mutex::new(state),
        }));
        images.sweep()?;
        Ok(images)
    }

    /// Begins to add content.
    pub fn lease(&self) -> Lease {
        Lease {
            held: Arc::new(Held::new(self.clone())),
        }
    }

    /// Waits until everything that was removed is gone from the disk, too.
    pub fn settle(&self) {
        self.0.content.trash.settle();
    }

    pub(crate) fn content(&self) -> &Content {
        &self.0.content
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// Serialises changes of names. Taken before the state, never inside it.
    pub(crate) fn writes(&self) -> MutexGuard<'_, ()> {
        self.0.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pin(&self, pin: Pin) {
        *self.state().pins.entry(pin).or_default() += 1;
    }

    pub(crate) fn unpin(&self, pins: &HashSet<Pin>) {
        let mut state = self.state();
        for pin in pins {
            if let Some(count) = state.pins.get_mut(pin) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(pin);
                }
            }
        }
    }

    /// What a target consists of, from memory if it was read before.
    pub(crate) fn target(&self, descriptor: &Descriptor) -> Result<Arc<Target>> {
        if let Some(target) = self.state().remembered(&descriptor.digest) {
            return Ok(target);
        }
        let target = Arc::new(Target::read(&self.0.content.blobs, descriptor)?);
        let mut state = self.state();
        // Only what has a name is remembered: nothing else would make the memory forget it.
        if state.is_named(&descriptor.digest) {
            let digest = descriptor.digest.clone();
            state.targets.insert(digest, target.clone());
        }
        Ok(target)
    }

    /// Forgets what was read of a target: more of it may be here now.
    pub(crate) fn reread(&self, target: &Digest) {
        self.state().targets.remove(target);
    }

    /// Removes every blob and layer that no name, container or lease keeps. Only renames happen
    /// here, the deletion itself is done in the background.
    ///
    /// Removes nothing as long as an image is damaged: what it consists of is not known then, and
    /// a pull or a load may mend it.
    pub(crate) fn sweep(&self) -> Result<()> {
        let blobs = self.0.content.blobs.list()?;
        let mut unreadable = HashSet::new();
        // An image may be recorded while another one is read: until all of them are known.
        let state = loop {
            let mut state = self.state();
            state.forget_unnamed();
            let unread = state.unread(&unreadable);
            if unread.is_empty() {
                break state;
            }
            drop(state);
            for root in &unread {
                match self.target(root) {
                    Ok(_) => {}
                    // A disk that does not answer now is no reason to throw an image away.
                    Err(error) if error.kind() == Kind::Io => return Err(error),
                    Err(error) => {
                        tracing::warn!(
                            digest = %root.digest, %error,
                            "a damaged image: until it is removed, or pulled or loaded again, \
                             nothing that is not used is deleted"
                        );
                        unreadable.insert(root.digest.clone());
                    }
                }
            }
        };
        if !unreadable.is_empty() || state.is_partial || state.lacks_a_container_its_config() {
            return Ok(());
        }
        let (kept_blobs, kept_layers) = state.kept(&self.0.content);
        for digest in blobs {
            let pinned = state.pins.contains_key(&Pin::Blob(digest.clone()));
            if !pinned && !kept_blobs.contains(&digest) {
                self.0
                    .content
                    .trash
                    .take(&self.0.content.blobs.path(&digest))?;
            }
        }
        self.0.content.layers.sweep(&self.0.content.trash, |key| {
            kept_layers.contains(key) || state.pins.contains_key(&Pin::Layer(key.clone()))
        })
    }
}

impl State {
    pub(crate) fn is_named(&self, target: &Digest) -> bool {
        self.names
            .values()
            .any(|record| record.target.digest == *target)
            || self.snapshots.values().any(|manifest| manifest == target)
    }

    /// Forgets what was read, since there is more to read now.
    pub(crate) fn forget(&mut self) {
        self.targets.clear();
        self.chains.clear();
    }

    /// A target that was read before.
    pub(crate) fn remembered(&self, target: &Digest) -> Option<Arc<Target>> {
        self.targets.get(target).cloned()
    }

    pub(crate) fn chain(&self, manifest: &Digest) -> Option<Vec<PathBuf>> {
        self.chains.get(manifest).cloned()
    }

    /// Remembers where a manifest's layers are, as long as its target is remembered.
    pub(crate) fn remember_chain(&mut self, target: &Digest, manifest: &Digest, chain: &[PathBuf]) {
        if self.targets.contains_key(target) {
            self.chains.insert(manifest.clone(), chain.to_vec());
        }
    }

    /// The targets of names and containers that are not in memory.
    fn unread(&self, unreadable: &HashSet<Digest>) -> Vec<Descriptor> {
        let named = self.names.values().map(|record| record.target.clone());
        let used = self.snapshots.values().map(manifest_descriptor);
        named
            .chain(used)
            .filter(|root| !self.targets.contains_key(&root.digest))
            .filter(|root| !unreadable.contains(&root.digest))
            .collect()
    }

    /// Then nobody knows which layers the container stands on.
    fn lacks_a_container_its_config(&self) -> bool {
        let mut used = self.snapshots.values();
        used.any(|manifest| {
            let target = self.targets.get(manifest);
            target.is_some_and(|it| it.manifests.iter().any(|part| part.config.is_none()))
        })
    }

    fn forget_unnamed(&mut self) {
        self.chains.clear();
        let targets = std::mem::take(&mut self.targets);
        self.targets = targets
            .into_iter()
            .filter(|(digest, _)| self.is_named(digest))
            .collect();
    }

    /// Everything that is reachable from a name or a container.
    fn kept(&self, content: &Content) -> (HashSet<Digest>, HashSet<layers::Key>) {
        let mut blobs = HashSet::new();
        let mut keys = HashSet::new();
        blobs.extend(
            self.names
                .values()
                .map(|record| record.target.digest.clone()),
        );
        blobs.extend(self.snapshots.values().cloned());
        for target in self.targets.values() {
            blobs.extend(target.blobs.iter().map(|blob| blob.digest.clone()));
            for part in &target.manifests {
                let diff_ids = part.diff_ids();
                for end in 1..=diff_ids.len() {
                    let known = layers::keys(&diff_ids[..end]).into_iter();
                    keys.extend(known.filter(|key| content.layers.get(key).is_some()));
                }
            }
        }
        (blobs, keys)
    }
}

/// A container knows its manifest's digest only; what kind it is stands in its bytes.
fn manifest_descriptor(digest: &Digest) -> Descriptor {
    Descriptor::new("", digest.clone(), 0)
}

impl std::fmt::Debug for Images {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("Images")
            .field(&self.0.content.root)
            .finish()
    }
}
