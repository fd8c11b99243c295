//! What a container has changed in its file system: the upper directory of its overlay against the
//! layers below.
//!
//! Only that directory is walked, so what has not changed costs nothing.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat};

use crate::error::{Context, Result};
use crate::merged::{self, Found};
use crate::snapshot::Rootfs;
use crate::tar::Entry;
use crate::tree::walk::{Walk, is_gone};

/// Deeper trees are refused.
const MAX_DEPTH: usize = 512;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// As `docker diff` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Absolute.
    pub path: PathBuf,
    pub kind: ChangeKind,
}

/// A name of the upper directory; parents come before what is in them.
struct Node {
    /// Relative to the root.
    path: Vec<u8>,
    /// `None` for a directory that is only there for what is in it.
    kind: Option<ChangeKind>,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whiteout,
    Directory { opaque: bool },
    Other,
}

/// A container's changes, by path.
///
/// # Errors
/// Of reading the directories.
pub fn changes(rootfs: &Rootfs) -> Result<Vec<Change>> {
    let (nodes, _) = scan(rootfs).context(|| failed(rootfs))?;
    Ok(list(nodes))
}

fn failed(rootfs: &Rootfs) -> String {
    format!("read the changes in {}", rootfs.upper.display())
}

/// Whoever adds or removes a name changes its directory, whatever that looks like.
fn list(nodes: Vec<Node>) -> Vec<Change> {
    let change = |path: &[u8], kind| Change {
        path: Path::new("/").join(OsStr::from_bytes(path)),
        kind,
    };
    let mut told: HashSet<Vec<u8>> = HashSet::new();
    let mut changes = Vec::new();
    for node in nodes {
        let Some(kind) = node.kind else { continue };
        let (parent, _) = split(&node.path);
        if kind != ChangeKind::Modified && !parent.is_empty() && told.insert(parent.to_vec()) {
            changes.push(change(parent, ChangeKind::Modified));
        }
        changes.push(change(&node.path, kind));
        if matches!(node.form, Form::Directory { .. }) {
            told.insert(node.path);
        }
    }
    changes
}

/// A container's changes, to be written as a layer.
pub(crate) struct Difference {
    nodes: Vec<Node>,
    upper: OwnedFd,
}

impl Difference {
    pub(crate) fn read(rootfs: &Rootfs) -> Result<Self> {
        let (nodes, upper) = scan(rootfs).context(|| failed(rootfs))?;
        Ok(Self { nodes, upper })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Writes the layer's archive (OCI image specification, layer.md).
    pub(crate) fn write(&self, sink: impl Write) -> io::Result<()> {
        crate::tree::write(sink, |visit| {
            let mut walk = Walk::new(visit, true);
            for node in &self.nodes {
                match self.member(&mut walk, node) {
                    Err(error) if is_gone(&error) => {}
                    other => other?,
                }
            }
            Ok(())
        })
    }

    fn member(&self, walk: &mut Walk<'_, '_>, node: &Node) -> io::Result<()> {
        let (directory, name) = split(&node.path);
        if node.form == Form::Whiteout {
            return walk.tell(&marker(directory, &[WHITEOUT, name].concat()));
        }
        let parent = self.open(directory)?;
        walk.single(parent.as_fd(), &CString::new(name)?, &node.path)?;
        match node.form {
            Form::Directory { opaque: true } => walk.tell(&marker(&node.path, OPAQUE)),
            _ => Ok(()),
        }
    }

    fn open(&self, directory: &[u8]) -> io::Result<OwnedFd> {
        let directory = if directory.is_empty() {
            b"."
        } else {
            directory
        };
        Ok(rustix::fs::openat2(
            &self.upper,
            directory,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )?)
    }
}

/// A file whose name says what lower layers have to hide.
fn marker(directory: &[u8], name: &[u8]) -> Entry {
    let path = match directory {
        [] => name.to_vec(),
        directory => [directory, b"/", name].concat(),
    };
    Entry {
        path,
        mode: 0o600,
        ..Entry::default()
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn scan(rootfs: &Rootfs) -> io::Result<(Vec<Node>, OwnedFd)> {
    let open = |path: &PathBuf| merged::open_directory(CWD, path.as_os_str().as_bytes());
    let upper = open(&rootfs.upper)?;
    let lower = rootfs
        .lower
        .iter()
        .map(open)
        .collect::<io::Result<Vec<_>>>()?;
    let mut nodes = Vec::new();
    add(&upper, &lower, &[], 0, &mut nodes)?;
    Ok((nodes, upper))
}

fn add(
    upper: &OwnedFd,
    lower: &[OwnedFd],
    path: &[u8],
    depth: usize,
    nodes: &mut Vec<Node>,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("a directory is too deep"));
    }
    for name in merged::entries(std::slice::from_ref(upper))?.into_keys() {
        let name = name.as_bytes();
        let path = match path {
            [] => name.to_vec(),
            path => [path, b"/", name].concat(),
        };
        let found = match merged::look_up(upper, name) {
            // Gone meanwhile, or something else.
            Err(error) if is_gone(&error) => continue,
            found => found?,
        };
        let (kind, form) = match &found {
            Found::Nothing => continue,
            Found::Whiteout => (Some(ChangeKind::Deleted), Form::Whiteout),
            Found::Other(_) => {
                let kind = match existing(lower, name)? {
                    None => ChangeKind::Added,
                    Some(_) => ChangeKind::Modified,
                };
                (Some(kind), Form::Other)
            }
            Found::Directory(directory) => {
                let opaque = merged::is_opaque(directory);
                let kind = match existing(lower, name)? {
                    None => Some(ChangeKind::Added),
                    // It was deleted and made again.
                    Some(_) if opaque => Some(ChangeKind::Modified),
                    Some(before) => {
                        let now = rustix::fs::fstat(directory)?;
                        (!looks_alike(&before, &now)).then_some(ChangeKind::Modified)
                    }
                };
                (kind, Form::Directory { opaque })
            }
        };
        nodes.push(Node {
            path: path.clone(),
            kind,
            form,
        });
        if let (Found::Directory(directory), Form::Directory { opaque }) = (found, form) {
            let below = match opaque {
                true => Vec::new(),
                false => merged::descend(lower, name)?,
            };
            add(&directory, &below, &path, depth + 1, nodes)?;
        }
    }
    Ok(())
}

fn looks_alike(one: &Stat, other: &Stat) -> bool {
    let look = |stat: &Stat| {
        let owner = (stat.st_uid, stat.st_gid);
        (stat.st_mode, owner, stat.st_mtime, stat.st_mtime_nsec)
    };
    look(one) == look(other)
}

/// What the lower layers show under a name.
fn existing(lower: &[OwnedFd], name: &[u8]) -> io::Result<Option<Stat>> {
    for directory in lower {
        match merged::look_up(directory, name)? {
            Found::Nothing => {}
            Found::Whiteout => return Ok(None),
            Found::Directory(_) | Found::Other(_) => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                return Ok(Some(stat));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
