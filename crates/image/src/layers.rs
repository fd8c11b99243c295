//! Unpacked layers: `layers/<key>/fs` holds one layer's difference, `layers/<key>/meta.json` what
//! is known about it.
//!
//! A layer's directory only depends on the layer itself, so images with different layers below
//! share it; its key is the diff id. The one exception are directories that a layer fills without
//! describing them: those look as in the layers below. Where the same layer lies on another base
//! with other owners or modes, a second copy is kept under the key of its chain id.

mod implied;

pub(crate) use implied::inherit;

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_oci::{Digest, config};
use serde::{Deserialize, Serialize};

use crate::content::{Content, private_directory};
use crate::error::{Context, Error, Result};
use crate::trash::Trash;
use crate::unpack;

/// Hexadecimal digits of a digest in a directory's name. Half of them keep overlayfs' options
/// short (a page has to hold all layers before kernel 6.5) and are beyond any search for a second
/// layer with the same ones; `meta.json` has the rest.
const KEY_DIGITS: usize = 32;

/// Names a layer's directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(String);

/// A layer that is here.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub key: Key,
    pub directory: PathBuf,
    pub size_bytes: u64,
    pub implied: Vec<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct Layers {
    root: PathBuf,
    known: Mutex<HashMap<Key, Arc<Layer>>>,
}

#[derive(Serialize, Deserialize)]
struct Meta {
    diff_id: Digest,
    size_bytes: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    implied: Vec<PathBuf>,
}

/// The keys that the topmost of these layers may have, the exact one first.
pub(crate) fn keys(diff_ids: &[Digest]) -> Vec<Key> {
    let chain = config::chain_ids(diff_ids);
    let (Some(chain_id), Some(diff_id)) = (chain.last(), diff_ids.last()) else {
        return Vec::new();
    };
    vec![
        Key(format!("c{}", &chain_id.hex()[..KEY_DIGITS])),
        Key(diff_id.hex()[..KEY_DIGITS].to_owned()),
    ]
}

impl Layers {
    /// Reads what is there. A directory without its meta data is no layer.
    pub(crate) fn open(root: PathBuf, trash: &Trash) -> Result<Self> {
        private_directory(&root)?;
        let mut known = HashMap::new();
        let entries =
            fs::read_dir(&root).context(|| format!("list directory {}", root.display()))?;
        for entry in entries.flatten() {
            let path = entry.path();
            let key = Key(entry.file_name().to_string_lossy().into_owned());
            match read_meta(&path) {
                Some(meta) => {
                    known.insert(key.clone(), Arc::new(Layer::new(key, &path, meta)));
                }
                None => trash.take(&path)?,
            }
        }
        Ok(Self {
            root,
            known: Mutex::new(known),
        })
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Layer>> {
        self.lock().get(key).cloned()
    }

    /// The topmost of these layers, if it is here in the form that it has on the layers below
    /// (whose directories `below` are, bottom first).
    pub(crate) fn find(&self, diff_ids: &[Digest], below: &[PathBuf]) -> Option<Arc<Layer>> {
        let mut keys = keys(diff_ids).into_iter();
        if let Some(exact) = self.get(&keys.next()?) {
            return Some(exact);
        }
        let shared = self.get(&keys.next()?)?;
        implied::agree(&shared.directory, &shared.implied, below).then_some(shared)
    }

    /// Gives a prepared and synced layer its name.
    pub(crate) fn adopt(&self, mut unpacked: Unpacked, diff_ids: &[Digest]) -> Result<Arc<Layer>> {
        let mut candidates = keys(diff_ids).into_iter().rev();
        let key = candidates
            .find(|key| self.get(key).is_none())
            .ok_or_else(|| {
                Error::Invalid(format!("layer {} is there already", unpacked.diff_id))
            })?;
        let target = self.root.join(&key.0);
        fs::rename(&unpacked.path, &target)
            .context(|| format!("store layer {}", unpacked.diff_id))?;
        unpacked.adopted = true;
        let meta = unpacked.meta();
        let layer = Arc::new(Layer::new(key.clone(), &target, meta));
        self.lock().insert(key, layer.clone());
        Ok(layer)
    }

    /// Removes every layer that `keep` does not want.
    pub(crate) fn sweep(&self, trash: &Trash, keep: impl Fn(&Key) -> bool) -> Result<()> {
        let mut known = self.lock();
        let gone: Vec<Key> = known.keys().filter(|key| !keep(key)).cloned().collect();
        for key in gone {
            trash.take(&self.root.join(&key.0))?;
            known.remove(&key);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Layer>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Layer {
    fn new(key: Key, path: &Path, meta: Meta) -> Self {
        Self {
            key,
            directory: path.join("fs"),
            size_bytes: meta.size_bytes,
            implied: meta.implied,
        }
    }
}

fn read_meta(path: &Path) -> Option<Meta> {
    serde_json::from_slice(&fs::read(path.join("meta.json")).ok()?).ok()
}

/// A layer that was unpacked but has no name yet. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub diff_id: Digest,
    path: PathBuf,
    size_bytes: u64,
    implied: Vec<PathBuf>,
    trash: Trash,
    adopted: bool,
}

impl Unpacked {
    /// Unpacks a stream into a directory of its own and verifies the diff id.
    pub(crate) fn create(
        content: &Content,
        source: impl Read + Send,
        expected: Option<&Digest>,
    ) -> Result<Self> {
        let name = || match expected {
            Some(digest) => digest.to_string(),
            None => "of the archive".to_owned(),
        };
        let path = content.scratch("layer");
        let mut unpacked = Self {
            diff_id: Digest::of(b""),
            path,
            size_bytes: 0,
            implied: Vec::new(),
            trash: content.trash.clone(),
            adopted: false,
        };
        let root = unpacked.directory();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&root)
            .and_then(|()| fs::set_permissions(&root, fs::Permissions::from_mode(0o755)))
            .context(|| format!("create directory {}", root.display()))?;
        let failed = |source| Error::Layer {
            layer: name(),
            source,
        };
        let summary = unpack::unpack(source, &root).map_err(failed)?;
        if let Some(expected) = expected
            && *expected != summary.diff_id
        {
            return Err(failed(unpack::Error::DiffId {
                expected: expected.clone(),
                actual: summary.diff_id,
            }));
        }
        unpacked.diff_id = summary.diff_id;
        unpacked.size_bytes = summary.size_bytes;
        unpacked.implied = summary.implied;
        Ok(unpacked)
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.path.join("fs")
    }

    /// Completes the layer for its place above the layers in `below` (bottom first). After this
    /// it only has to be synced.
    pub(crate) fn prepare(&self, below: &[PathBuf]) -> Result<()> {
        implied::inherit(&self.directory(), &self.implied, below)?;
        let path = self.path.join("meta.json");
        let text = serde_json::to_vec(&self.meta()).map_err(std::io::Error::from);
        text.and_then(|text| fs::write(&path, text))
            .context(|| format!("write {}", path.display()))
    }

    fn meta(&self) -> Meta {
        Meta {
            diff_id: self.diff_id.clone(),
            size_bytes: self.size_bytes,
            implied: self.implied.clone(),
        }
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if self.adopted {
            return;
        }
        if let Err(error) = self.trash.take(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "remove an unused layer");
        }
    }
}
