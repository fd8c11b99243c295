//! Who writes to a volume while it is copied: the containers that have it mounted and run. They are
//! paused for as long as their files are read, so that the copy is of one moment.
//!
//! Which ones are paused is recorded first: after a daemon that was killed in the middle the next
//! one lets them go on.

use std::sync::Arc;

use berth_base::Chain;
use berth_store::{Durability, Item, Store, Txn};

use crate::container::{Command, Handle};
use crate::error::{Context, Result};
use crate::record::Phase;
use crate::shared::Shared;
use crate::spec::mounts::Kind;

const PAUSES: &str = "volume-pauses/";

/// The containers that can write to a volume now.
pub fn of(shared: &Shared, volume: &str) -> Vec<Arc<Handle>> {
    let writes = |handle: &Arc<Handle>| {
        let view = handle.view();
        let running = matches!(view.state.phase, Phase::Running { paused: false, .. });
        running
            && view.record.mounts.iter().any(|mount| {
                let is_it = matches!(&mount.kind, Kind::Volume { name, .. } if name == volume);
                is_it && !mount.read_only
            })
    };
    let mut all = shared.table.all();
    all.retain(writes);
    all
}

/// Pauses containers; those that have ended meanwhile are left out.
///
/// # Errors
/// If one cannot be paused: then none is.
pub async fn pause(shared: &Shared, writers: Vec<Arc<Handle>>) -> Result<Vec<Arc<Handle>>> {
    let mut paused = Vec::new();
    for handle in writers {
        let done = pause_one(shared, &handle).await;
        match done {
            Ok(()) => paused.push(handle),
            Err(_) if handle.view().state.phase.pid().is_none() => {}
            Err(error) => {
                paused.push(handle);
                resume(shared, paused).await;
                return Err(error);
            }
        }
    }
    Ok(paused)
}

async fn pause_one(shared: &Shared, handle: &Handle) -> Result<()> {
    let key = format!("{PAUSES}{}", handle.id);
    // After a power failure no container is paused.
    let intent = Txn::put(key, "").durability(Durability::Written);
    (shared.store.txn(intent).await).context("record a pause")?;
    let pause = true;
    handle.ask(|reply| Command::Pause { pause, reply }).await
}

pub async fn resume(shared: &Shared, paused: Vec<Arc<Handle>>) {
    for handle in paused {
        let pause = false;
        let resumed = handle.ask(|reply| Command::Pause { pause, reply }).await;
        if let (Err(error), Phase::Running { paused: true, .. }) =
            (resumed, handle.view().state.phase)
        {
            tracing::error!(container = %handle.id, %error, "it stays paused");
            continue;
        }
        forget(&shared.store, handle.id.as_str()).await;
    }
}

async fn forget(store: &Store, container: &str) {
    let done = Txn::delete(format!("{PAUSES}{container}")).durability(Durability::Written);
    if let Err(error) = store.txn(done).await {
        tracing::warn!(container, error = %Chain(&error), "the record of a pause stays behind");
    }
}

/// Lets the containers go on that an earlier daemon has paused for a copy.
pub async fn resume_all(shared: &Shared) -> Result<()> {
    let mut left = Vec::new();
    let read = |item: Item| left.extend(item.key.strip_prefix(PAUSES).map(str::to_owned));
    (shared.store.each(PAUSES, read)).context("read which containers are paused for a copy")?;
    for id in left {
        match shared.table.find(&id) {
            Ok(handle) => resume(shared, vec![handle]).await,
            Err(_gone) => forget(&shared.store, &id).await,
        }
    }
    Ok(())
}
