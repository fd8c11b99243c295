//! Which containers there are, by id, by name, and by the beginning of an id.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use berth_base::Id;
use berth_base::id::is_prefix;

use crate::container::Handle;
use crate::error::{Error, Result};

/// All containers. The lock is held for look-ups only.
#[derive(Debug, Default)]
pub struct Table(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_id: BTreeMap<String, Arc<Handle>>,
    /// Also names of containers that are being created.
    names: HashMap<String, Id>,
}

impl Table {
    /// Takes a name for a container.
    pub fn reserve(&self, name: &str, id: &Id) -> Result<()> {
        let mut inner = self.write();
        if let Some(holder) = inner.names.get(name) {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \
                 \"{holder}\". You have to remove (or rename) that container to be able to reuse \
                 that name."
            )));
        }
        inner.names.insert(name.to_owned(), id.clone());
        Ok(())
    }

    pub fn release(&self, name: &str) {
        self.write().names.remove(name);
    }

    pub fn insert(&self, handle: Arc<Handle>) {
        self.write()
            .by_id
            .insert(handle.id.as_str().to_owned(), handle);
    }

    pub fn remove(&self, id: &Id) {
        let mut inner = self.write();
        inner.by_id.remove(id.as_str());
        inner.names.retain(|_, holder| holder != id);
    }

    /// Finds a container by full id, by name, or by a prefix that only one id has.
    pub fn find(&self, reference: &str) -> Result<Arc<Handle>> {
        if reference.is_empty() {
            return Err(Error::invalid("No container name or ID supplied"));
        }
        let inner = self.read();
        if let Some(handle) = inner.by_id.get(reference) {
            return Ok(handle.clone());
        }
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(id) = inner.names.get(name)
            && let Some(handle) = inner.by_id.get(id.as_str())
        {
            return Ok(handle.clone());
        }
        if !is_prefix(reference) {
            return Err(Error::no_such_container(reference));
        }
        let mut matching = inner
            .by_id
            .range(reference.to_owned()..)
            .take_while(|(id, _)| id.starts_with(reference));
        match (matching.next(), matching.next()) {
            (Some((_, handle)), None) => Ok(handle.clone()),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "multiple IDs found with provided prefix: {reference}"
            ))),
            (None, _) => Err(Error::no_such_container(reference)),
        }
    }

    pub fn all(&self) -> Vec<Arc<Handle>> {
        self.read().by_id.values().cloned().collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
