//! Blobs by their digests: `blobs/<algorithm>/<hex>`, written once and never changed.
//!
//! What is being written lies in `ingest/` and is renamed when it is whole, verified and synced,
//! so a blob that has its name is good, unless the disk damaged it since.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use berth_oci::{Algorithm, Digest, Hasher};

use crate::error::{Context, Error, Result};

/// The directory of blobs of one image store.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: PathBuf,
}

impl Blobs {
    pub(crate) fn open(root: PathBuf) -> Result<Self> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let directory = root.join(algorithm.name());
            fs::create_dir_all(&directory)
                .context(|| format!("create directory {}", directory.display()))?;
        }
        Ok(Self { root })
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.algorithm().name()).join(digest.hex())
    }

    /// The blob's size, if it is here.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().map(|meta| meta.len())
    }

    pub fn contains(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        open(&self.path(digest), digest)
    }

    /// The whole of a small blob, verified.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        read(&self.path(digest), digest, limit)
    }

    /// Every blob that is here.
    pub(crate) fn list(&self) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let directory = self.root.join(algorithm.name());
            let entries = fs::read_dir(&directory)
                .context(|| format!("list directory {}", directory.display()))?;
            for entry in entries.flatten() {
                let name = entry.file_name();
                let digest = format!("{}:{}", algorithm.name(), name.to_string_lossy()).parse();
                found.extend(digest.ok());
            }
        }
        Ok(found)
    }
}

pub(crate) fn open(path: &Path, digest: &Digest) -> Result<File> {
    File::open(path).map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            Error::NotFound(format!("content digest {digest}: not found"))
        } else {
            Error::Io {
                what: format!("open blob {digest}"),
                source,
            }
        }
    })
}

pub(crate) fn read(path: &Path, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, digest)?
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .context(|| format!("read blob {digest}"))?;
    if bytes.len() as u64 > limit {
        return Err(Error::Invalid(format!(
            "blob {digest} is larger than {limit} bytes, which is too large for its kind"
        )));
    }
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual != *digest {
        return Err(Error::Digest {
            what: "blob",
            expected: digest.clone(),
            actual,
        });
    }
    Ok(bytes)
}
