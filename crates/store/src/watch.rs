//! Watching: a position in the log that follows what is committed.

use crate::{Error, Item, Revision, Store};

/// How many changes one batch carries at most.
const BATCH: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// One change. For a deletion, `item.value` is empty and `item.mod_revision` is the deletion's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventKind,
    pub item: Item,
    pub previous: Option<Item>,
}

/// Changes in order. All changes up to `revision` have been delivered when the batch is; an empty
/// batch is a mark of progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub events: Vec<Event>,
    pub revision: Revision,
}

/// A watch on a prefix. Dropping it ends it.
pub struct Watch {
    store: Store,
    prefix: String,
    next: Revision,
    committed: tokio::sync::watch::Receiver<Revision>,
}

impl Watch {
    pub(crate) fn new(store: Store, prefix: String, from: Revision) -> Self {
        let committed = store.inner.committed.clone();
        Self {
            store,
            prefix,
            next: from.max(1),
            committed,
        }
    }

    /// The next batch; waits until something was committed. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the watch has fallen behind the history.
    pub async fn next(&mut self) -> Result<Batch, Error> {
        let next = self.next;
        let until = match self.committed.wait_for(|revision| *revision >= next).await {
            Ok(revision) => *revision,
            Err(_) => {
                return Err(Error::Unavailable {
                    path: self.store.inner.path.clone(),
                    source: None,
                });
            }
        };
        let events = self
            .store
            .read(|reader| reader.changes(&self.prefix, next, until, BATCH))?;
        let revision = match events.last() {
            Some(last) if events.len() == BATCH => last.item.mod_revision,
            _ => until,
        };
        self.next = revision + 1;
        Ok(Batch { events, revision })
    }
}
