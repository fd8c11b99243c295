//! Snapshots, clones, new names, archives: what Docker has no operations for.
//!
//! A copy is made aside and moved into place when it is whole (see [`super::place`]). Containers
//! that write meanwhile are paused, unless the caller wants them to go on: then the copy is as the
//! disk would be after a power failure, and a warning says so.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use berth_base::{Chain, Id, Timestamp};
use berth_docker::volume::{Copied, Volume as Wire};
use berth_image::tree::{self, Method};
use berth_store::Txn;

use super::driver::FileSystem;
use super::remove::{discard, refuse_in_use};
use super::turns::Claim;
use super::{PREFIX, Volume, Volumes, check_name, event, writers};
use crate::error::{Context, Error, Result};
use crate::shared::Shared;

/// The label of a snapshot that names its volume.
const SNAPSHOT_OF: &str = "berth.volume.snapshot-of";
/// How much of a time is in the name of a snapshot: to the second.
const TIME_DIGITS: usize = 14;

/// What kind of copy is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With the labels of the volume and one that names it; its own name may be made up.
    Snapshot,
    Clone,
}

/// A volume that is about to be written as an archive.
pub struct Backup {
    shared: Arc<Shared>,
    name: String,
    /// Where a copy of it is, if containers write to it.
    aside: Option<String>,
    _claim: Claim,
}

impl Volumes {
    /// Copies a volume into a new one. File systems become plain directories: what they are made
    /// of is not doubled by mounting it twice.
    pub async fn copy(
        &self,
        shared: &Arc<Shared>,
        source: &str,
        kind: Kind,
        name: &str,
        pause: bool,
    ) -> Result<Copied> {
        let original = self.get(source)?;
        let name = match (name, kind) {
            ("", Kind::Snapshot) => format!("{source}-{}", time_digits()),
            (name, _) => name.to_owned(),
        };
        let failed = |error: Error| error.while_doing(format!("copy {source}"));
        check_name(&name).map_err(failed)?;
        let _turn = self.turns.take(&[&name]).await;
        self.refuse_taken(&name).map_err(failed)?;
        let mut volume = Volume {
            name: name.clone(),
            created: Timestamp::now(),
            labels: original.labels,
            options: Default::default(),
            renamed_from: None,
        };
        // It has a name that somebody chose.
        volume.labels.remove(super::ANONYMOUS);
        if kind == Kind::Snapshot {
            let label = (SNAPSHOT_OF.to_owned(), source.to_owned());
            volume.labels.extend([label]);
        }
        let (_claim, staged) = self.stage(shared, source, &name, pause).await?;
        self.record(shared, &volume).await?;
        self.places
            .put(&name)
            .context(format!("put volume {name} into place"))?;
        let described = self.describe(&volume);
        self.lock().insert(name.clone(), volume);
        event(shared, "create", &name);
        Ok(Copied {
            volume: described,
            ..staged
        })
    }

    /// Copies a volume's files aside, under a name; they are on the disk when this returns.
    async fn stage(
        &self,
        shared: &Arc<Shared>,
        source: &str,
        aside: &str,
        pause: bool,
    ) -> Result<(Claim, Copied)> {
        let claim = self.claim(shared, &format!("a copy to {aside}"), source);
        // It may have been removed before it was claimed.
        self.get(source)?;
        let writing = writers::of(shared, source);
        let mut staged = Copied::default();
        if !pause {
            staged.warnings.extend(writing.iter().map(|handle| {
                let id = handle.id.short();
                format!("container {id} was running, so files may not be of one moment")
            }));
        }
        let paused = match pause {
            true => writers::pause(shared, writing).await?,
            false => Vec::new(),
        };
        staged.paused = paused.iter().map(|handle| handle.id.to_string()).collect();
        let (other, from, to) = (shared.clone(), source.to_owned(), aside.to_owned());
        let copied = shared.block(move || copy_aside(&other, &from, &to)).await;
        writers::resume(shared, paused).await;
        let copied = copied.and_then(|copied| copied);
        let synced = match copied {
            Ok(method) => {
                let data = self.places.data_aside(aside);
                let synced = shared.block(move || sync(&data)).await;
                synced.and_then(|synced| synced).map(|()| method)
            }
            Err(error) => Err(error),
        };
        match synced {
            Ok(method) => {
                staged.method = match method {
                    Method::Reflink => "reflink",
                    Method::Copy => "copy",
                }
                .to_owned();
                Ok((claim, staged))
            }
            Err(error) => {
                let (places, aside) = (self.places.clone(), aside.to_owned());
                shared.block(move || discard(&places, &aside)).await?;
                Err(error.while_doing(format!("copy {source}")))
            }
        }
    }

    fn refuse_taken(&self, name: &str) -> Result<()> {
        match self.lock().contains_key(name) {
            true => Err(Error::conflict(format!("volume {name} already exists"))),
            false => Ok(()),
        }
    }

    /// Gives a volume that no container has another name.
    pub async fn rename(&self, shared: &Shared, old: &str, new: &str) -> Result<Wire> {
        let failed = |error: Error| error.while_doing(format!("rename {old}"));
        check_name(new).map_err(failed)?;
        let _turns = self.turns.take(&[old, new]).await;
        let mut volume = self.get(old)?;
        refuse_in_use(shared, "rename", old)?;
        self.refuse_taken(new).map_err(failed)?;
        volume.name = new.to_owned();
        // Should we be killed before the old record is gone, this tells how to go on.
        volume.renamed_from = Some(old.to_owned());
        self.record(shared, &volume).await?;
        if let Err(error) = self.places.rename(old, new) {
            let undo = Txn::delete(format!("{PREFIX}{new}"));
            (shared.store.txn(undo).await).context("take the new name back")?;
            return Err(Error::failed(format!("rename {old}"), &error));
        }
        let described = self.describe(&volume);
        {
            let mut all = self.lock();
            all.remove(old);
            all.insert(new.to_owned(), volume);
        }
        let gone = Txn::delete(format!("{PREFIX}{old}"));
        (shared.store.txn(gone).await).context(format!("remove the record of volume {old}"))?;
        event(shared, "destroy", old);
        event(shared, "create", new);
        Ok(described)
    }

    /// Finishes what [`Self::rename`] began. Blocks.
    pub(super) fn finish_renames(&self, shared: &Shared) -> Result<()> {
        let begun: Vec<(String, String)> = self
            .lock()
            .values()
            .filter_map(|volume| Some((volume.renamed_from.clone()?, volume.name.clone())))
            .collect();
        for (old, new) in begun {
            if !self.places.exists(&new) && self.places.exists(&old) {
                (self.places.rename(&old, &new)).context(format!("rename {old}"))?;
            }
            if self.lock().contains_key(&old) && !self.places.exists(&old) {
                (shared
                    .store
                    .txn_blocking(Txn::delete(format!("{PREFIX}{old}"))))
                .context(format!("remove the record of volume {old}"))?;
                self.lock().remove(&old);
            }
        }
        Ok(())
    }

    /// Prepares a volume to be written as an archive. If containers write to it, it is copied
    /// first, since whoever reads the archive may be slow and they should not wait for that.
    pub async fn backup(&self, shared: &Arc<Shared>, name: &str, pause: bool) -> Result<Backup> {
        self.get(name)?;
        if pause && !writers::of(shared, name).is_empty() {
            // No volume's name: it is deleted at the next start if we are killed.
            let aside = format!("backup-{}", Id::random());
            let (claim, _) = self.stage(shared, name, &aside, true).await?;
            return Ok(Backup {
                shared: shared.clone(),
                name: name.to_owned(),
                aside: Some(aside),
                _claim: claim,
            });
        }
        let claim = self.claim(shared, "a backup", name);
        self.get(name)?;
        Ok(Backup {
            shared: shared.clone(),
            name: name.to_owned(),
            aside: None,
            _claim: claim,
        })
    }

    /// Fills a volume from an archive: a new one, or one whose files are to be replaced. Blocks
    /// until the archive has been read.
    pub async fn restore(
        &self,
        shared: &Arc<Shared>,
        name: &str,
        archive: impl Read + Send + 'static,
        force: bool,
    ) -> Result<Wire> {
        let failed = |error: Error| error.while_doing(format!("restore {name}"));
        check_name(name).map_err(failed)?;
        let _turn = self.turns.take(&[name]).await;
        let existing = self.get(name).ok();
        self.refuse_replacing(shared, existing.as_ref(), force)
            .map_err(failed)?;
        let (places, target) = (self.places.clone(), name.to_owned());
        let filled = shared.block(move || {
            let data = places.make_aside(&target).context("make a directory")?;
            let filled = tree::restore(archive, &data).map_err(from_tree);
            filled
                .and_then(|()| sync(&data))
                .inspect_err(|_| discard(&places, &target))
        });
        filled.await?.map_err(failed)?;
        let volume = existing.clone().unwrap_or_else(|| Volume {
            name: name.to_owned(),
            created: Timestamp::now(),
            labels: Default::default(),
            options: Default::default(),
            renamed_from: None,
        });
        let described = self.describe(&volume);
        if existing.is_some() {
            // A container may have been started while the archive was read.
            self.refuse_replacing(shared, existing.as_ref(), force)
                .map_err(failed)?;
            self.places
                .exchange(name)
                .context(format!("restore {name}"))?;
            let (places, name) = (self.places.clone(), name.to_owned());
            shared.block(move || discard(&places, &name)).await?;
            return Ok(described);
        }
        self.record(shared, &volume).await?;
        (self.places.put(name)).context(format!("put volume {name} into place"))?;
        self.lock().insert(name.to_owned(), volume);
        event(shared, "create", name);
        Ok(described)
    }

    fn refuse_replacing(
        &self,
        shared: &Shared,
        existing: Option<&Volume>,
        force: bool,
    ) -> Result<()> {
        let Some(volume) = existing else {
            return Ok(());
        };
        if FileSystem::of(&volume.options).is_some() {
            return Err(Error::invalid(
                "the volume is a file system of its own: restore into a plain volume",
            ));
        }
        let running = super::users(shared, &volume.name)
            .into_iter()
            .filter(|id| {
                let handle = shared.table.find(id);
                handle.map_or(true, |handle| handle.view().state.phase.is_active())
            })
            .collect::<Vec<_>>();
        if !running.is_empty() {
            return Err(Error::conflict(format!(
                "volume is in use - [{}]: stop its containers first",
                running.join(", ")
            )));
        }
        let mut entries = std::fs::read_dir(self.places.data(&volume.name))
            .context("look what is in the volume")?;
        if entries.next().is_some() && !force {
            return Err(Error::conflict(
                "the volume is not empty: force it to have its files replaced",
            ));
        }
        Ok(())
    }

    fn claim(&self, shared: &Arc<Shared>, who: &str, volume: &str) -> Claim {
        let claim = Claim {
            shared: shared.clone(),
            container: format!("{who} ({})", Id::random().short()),
        };
        self.claims.add(&claim.container, volume);
        claim
    }
}

impl Backup {
    /// Writes the archive. Blocks.
    pub fn write(self, sink: impl Write) -> Result<()> {
        let failed = || format!("back up {}", self.name);
        let volumes = &self.shared.volumes;
        match &self.aside {
            Some(aside) => {
                let data = volumes.places.data_aside(aside);
                tree::archive(&data, sink).context(failed())
            }
            None => volumes.with_files(&self.shared.mounted, &self.name, |data| {
                tree::archive(data, sink).context(failed())
            }),
        }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        if let Some(aside) = self.aside.take() {
            let places = self.shared.volumes.places.clone();
            self.shared
                .scope
                .spawn_blocking(move || discard(&places, &aside));
        }
    }
}

fn copy_aside(shared: &Shared, source: &str, aside: &str) -> Result<Method> {
    let volumes = &shared.volumes;
    volumes.with_files(&shared.mounted, source, |from| {
        let to = volumes.places.make_aside(aside);
        let to = to.context("make a directory for the copy")?;
        tree::copy(from, &to).map_err(from_tree)
    })
}

fn from_tree(error: tree::Error) -> Error {
    let message = Chain(&error).to_string();
    match error.is_input() {
        true => Error::invalid(message),
        false => Error::internal(message),
    }
}

fn sync(directory: &Path) -> Result<()> {
    let directory = std::fs::File::open(directory).context("open what is to be synced")?;
    rustix::fs::syncfs(&directory).context("write a volume to the disk")
}

/// The time, to the second, as digits.
fn time_digits() -> String {
    let now = Timestamp::now().to_string();
    now.chars()
        .filter(char::is_ascii_digit)
        .take(TIME_DIGITS)
        .collect()
}
