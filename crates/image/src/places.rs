//! What every container finds in its root although the image may lack it: places for what is
//! mounted, and the marks of a container, as Docker has them (moby, `daemon/initlayer`). They are a
//! layer of their own, so that they need not be made at each start and are no change of the
//! container's.
//!
//! It lies beside the topmost layer of the image, `layers/<key>/places-<layers>`, and goes with it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_oci::Digest;
use rustix::fs::CWD;

use crate::content::Content;
use crate::error::{Context, Error, Result};
use crate::layers;
use crate::merged::{self, Found};
use crate::tar::writer::Writer;
use crate::tar::{Entry, EntryKind};
use crate::unpack;

const MODE: u32 = 0o755;
/// Of the digest of the layers' paths: enough to tell images apart that share a layer.
const NAME_DIGITS: usize = 12;

enum Leaf {
    Directory,
    File,
    Link(&'static [u8]),
}

const PLACES: [(&str, Leaf); 10] = [
    (".dockerenv", Leaf::File),
    ("dev/console", Leaf::File),
    ("dev/pts", Leaf::Directory),
    ("dev/shm", Leaf::Directory),
    ("etc/hostname", Leaf::File),
    ("etc/hosts", Leaf::File),
    ("etc/mtab", Leaf::Link(b"/proc/mounts")),
    ("etc/resolv.conf", Leaf::File),
    ("proc", Leaf::Directory),
    ("sys", Leaf::Directory),
];

/// The layer to lie above these (topmost first), made if it is not there yet. None for an image
/// without layers.
pub(crate) fn layer(content: &Content, layers: &[PathBuf]) -> Result<Option<PathBuf>> {
    let Some(beside) = layers.first().and_then(|top| top.parent()) else {
        return Ok(None);
    };
    let mut all = Vec::new();
    for layer in layers {
        all.extend_from_slice(layer.as_os_str().as_bytes());
        all.push(0);
    }
    let digest = Digest::of(&all);
    let place = beside.join(format!("places-{}", &digest.hex()[..NAME_DIGITS]));
    if place.is_dir() {
        return Ok(Some(place));
    }
    make(content, layers, &place)?;
    Ok(Some(place))
}

fn make(content: &Content, layers: &[PathBuf], place: &Path) -> Result<()> {
    let made = content.scratch("places");
    let finished = fill(&made, layers).and_then(|()| {
        // A container's record is about to name it.
        content.sync()?;
        match fs::rename(&made, place) {
            // Another container's creation was faster.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => content.trash.take(&made),
            renamed => renamed.context(|| format!("store {}", place.display())),
        }
    });
    if finished.is_err()
        && let Err(error) = content.trash.take(&made)
    {
        tracing::warn!(path = %made.display(), %error, "remove a half-made layer");
    }
    finished
}

fn fill(directory: &Path, layers: &[PathBuf]) -> Result<()> {
    let failed = || format!("make {}", directory.display());
    fs::DirBuilder::new()
        .mode(MODE)
        .create(directory)
        .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(MODE)))
        .context(failed)?;
    let archive = missing(layers).context(failed)?;
    // The directories on the way to a place are as the image has them.
    let summary = unpack::unpack(&*archive, directory).map_err(|source| Error::Layer {
        layer: "of places for mounts".to_owned(),
        source,
    })?;
    let below: Vec<PathBuf> = layers.iter().rev().cloned().collect();
    layers::inherit(directory, &summary.implied, &below)
}

/// The places that the image lacks, as an archive.
fn missing(layers: &[PathBuf]) -> io::Result<Vec<u8>> {
    let open = |path: &PathBuf| merged::open_directory(CWD, path.as_os_str().as_bytes());
    let root = layers.iter().map(open).collect::<io::Result<Vec<_>>>()?;
    let mut writer = Writer::new(Vec::new());
    for (path, leaf) in PLACES {
        if is_free(&root, path)? {
            writer.entry(&entry(path, &leaf))?;
        }
    }
    writer.finish()
}

fn entry(path: &str, leaf: &Leaf) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        link: match leaf {
            Leaf::Link(target) => target.to_vec(),
            Leaf::Directory | Leaf::File => Vec::new(),
        },
        kind: match leaf {
            Leaf::Directory => EntryKind::Directory,
            Leaf::File => EntryKind::File,
            Leaf::Link(_) => EntryKind::Symlink,
        },
        mode: MODE,
        ..Entry::default()
    }
}

/// Whether a path can be made: nothing is there, and no link or file is in the way.
fn is_free(root: &[OwnedFd], path: &str) -> io::Result<bool> {
    let mut above: Option<Vec<OwnedFd>> = None;
    for name in path.split('/') {
        let here = above.as_deref().unwrap_or(root);
        let mut found = Found::Nothing;
        for directory in here {
            found = merged::look_up(directory, name.as_bytes())?;
            if !matches!(found, Found::Nothing) {
                break;
            }
        }
        match found {
            Found::Nothing | Found::Whiteout => return Ok(true),
            Found::Other(_) => return Ok(false),
            Found::Directory(_) => above = Some(merged::descend(here, name.as_bytes())?),
        }
    }
    // The last is a directory.
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn what_an_image_lacks_is_added_and_looks_as_the_image_has_it() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let layer = root.path().join("layer");
        fs::create_dir_all(layer.join("etc")).unwrap();
        fs::create_dir(layer.join("proc")).unwrap();
        fs::write(layer.join("etc/hosts"), "the image's").unwrap();
        fs::set_permissions(layer.join("etc"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(layer.join("etc"), Some(7), Some(8)).unwrap();
        symlink("/elsewhere", layer.join("dev")).unwrap();
        let made = root.path().join("made");
        fill(&made, std::slice::from_ref(&layer)).unwrap();
        let there = |path: &str| made.join(path).symlink_metadata().is_ok();
        assert!(there(".dockerenv") && there("etc/hostname") && there("sys"));
        assert!(!there("etc/hosts"), "the image has it");
        assert!(!there("proc"), "the image has it");
        assert!(!there("dev"), "a link is in the way");
        assert_eq!(
            fs::read_link(made.join("etc/mtab")).unwrap(),
            Path::new("/proc/mounts")
        );
        let (own, image) = (made.join("etc"), layer.join("etc"));
        let (own, image) = (fs::metadata(own).unwrap(), fs::metadata(image).unwrap());
        assert_eq!(
            (own.mode(), own.uid(), own.gid(), own.mtime()),
            (image.mode(), 7, 8, image.mtime())
        );
    }
}
