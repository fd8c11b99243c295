//! Removing volumes: one, those of a container, those that nobody uses.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use berth_docker::filters::Filters;
use berth_docker::volume::PruneResponse;
use berth_store::Txn;

use super::driver::FileSystem;
use super::place::Places;
use super::{ANONYMOUS, PREFIX, Volumes, event, mounted, no_such, users};
use crate::error::{Context, Error, Result};
use crate::record::Record;
use crate::shared::Shared;
use crate::spec::mounts::Kind;

impl Volumes {
    /// Removes a volume that no container uses. With `force`, one that does not exist is no error.
    pub async fn remove(&self, shared: &Shared, name: &str, force: bool) -> Result<()> {
        let _turn = self.turns.take(&[name]).await;
        if !self.lock().contains_key(name) {
            return if force { Ok(()) } else { Err(no_such(name)) };
        }
        refuse_in_use(shared, "remove", name)?;
        let data = self.places.data(name);
        let is_ours = FileSystem::of(&self.get(name)?.options).is_some();
        let clear = move || match is_ours {
            true => mounted::clear(&data),
            false => mounted::refuse_mounted(&data),
        };
        let cleared = shared.block(clear).await?;
        cleared.map_err(|error| error.while_doing(format!("remove {name}")))?;
        self.places
            .take(name)
            .context(format!("move the files of volume {name} aside"))?;
        let deleted = shared
            .store
            .txn(Txn::delete(format!("{PREFIX}{name}")))
            .await
            .context(format!("remove the record of volume {name}"));
        if let Err(error) = deleted {
            self.places.put(name).context("put them back").ok();
            return Err(error);
        }
        self.lock().remove(name);
        event(shared, "destroy", name);
        let (places, name) = (self.places.clone(), name.to_owned());
        shared.block(move || discard(&places, &name)).await
    }

    /// The anonymous volumes of a container that was removed go with it.
    pub async fn remove_anonymous(&self, shared: &Shared, record: &Record) {
        for mount in &record.mounts {
            if let Kind::Volume {
                name,
                anonymous: true,
                ..
            } = &mount.kind
                && users(shared, name).is_empty()
                && let Err(error) = self.remove(shared, name, true).await
            {
                tracing::warn!(volume = name, %error, "remove an anonymous volume");
            }
        }
    }

    /// Removes unused volumes: the anonymous ones, or with the filter `all` every one that is a
    /// plain directory.
    pub async fn prune(&self, shared: &Shared, filters: &Filters) -> Result<PruneResponse> {
        if self.pruning.swap(true, Ordering::AcqRel) {
            return Err(Error::conflict("a prune operation is already running"));
        }
        let pruned = self.prune_alone(shared, filters).await;
        self.pruning.store(false, Ordering::Release);
        pruned
    }

    async fn prune_alone(&self, shared: &Shared, filters: &Filters) -> Result<PruneResponse> {
        filters
            .accept(&["label", "label!", "all"])
            .map_err(|error| Error::invalid(error.to_string()))?;
        let all = prunes_all(filters)?;
        let chosen: Vec<String> = self
            .lock()
            .values()
            .filter(|volume| {
                (all || volume.labels.contains_key(ANONYMOUS))
                    && volume.options.is_empty()
                    && filters.matches_labels("label", &volume.labels)
                    && (!filters.contains("label!")
                        || !filters.matches_labels("label!", &volume.labels))
            })
            .map(|volume| volume.name.clone())
            .collect();
        let mut response = PruneResponse {
            volumes_deleted: Some(Vec::new()),
            ..PruneResponse::default()
        };
        for name in chosen {
            if !users(shared, &name).is_empty() {
                continue;
            }
            let data = self.places.data(&name);
            let measure = move || berth_sys::tree::length(&data).unwrap_or(0);
            let size = shared.block(measure).await?;
            // In use, or gone meanwhile: then it is not pruned.
            if self.remove(shared, &name, false).await.is_ok() {
                response.space_reclaimed += size;
                response.volumes_deleted.get_or_insert_default().push(name);
            }
        }
        let reclaimed = response.space_reclaimed.to_string();
        let attributes = BTreeMap::from([("reclaimed".to_owned(), reclaimed)]);
        shared.events.publish("volume", "prune", "", attributes);
        Ok(response)
    }
}

pub fn refuse_in_use(shared: &Shared, what: &str, name: &str) -> Result<()> {
    let users = users(shared, name);
    if users.is_empty() {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "{what} {name}: volume is in use - [{}]",
        users.join(", ")
    )))
}

/// The filter `all`, in the words of Go's strconv.
fn prunes_all(filters: &Filters) -> Result<bool> {
    let values: Vec<&str> = filters.get("all").collect();
    match values.as_slice() {
        [] => Ok(false),
        ["1" | "t" | "T" | "TRUE" | "true" | "True"] => Ok(true),
        ["0" | "f" | "F" | "FALSE" | "false" | "False"] => Ok(false),
        [other] => Err(Error::invalid(format!(
            "invalid filter 'all': strconv.ParseBool: parsing {other:?}: invalid syntax"
        ))),
        several => Err(Error::invalid(format!(
            "invalid filter 'all=[{}]'",
            several.join(" ")
        ))),
    }
}

/// Deletes what lies aside of a volume's name. What cannot be deleted is found again at the next
/// start. Blocks.
pub fn discard(places: &Places, name: &str) {
    if let Err(error) = places.remove_aside(name) {
        tracing::warn!(volume = name, %error, "remove a volume's directory");
    }
}
