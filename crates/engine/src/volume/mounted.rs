//! Which containers hold which file systems mounted: volumes that have some by their options, and
//! images that are mounted. The first that starts mounts, the last that ends unmounts.
//!
//! The mounts are in the daemon's own mount namespace, as Docker's are, and so the host sees them.
//! The holders are known in memory only: [`Mounted::sweep`] finds out about them after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_sys::mount;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use crate::error::{Context, Error, Result};

type Holders = Arc<Mutex<BTreeSet<String>>>;

/// The lock of one place is held while the kernel mounts there, which can take as long as a server
/// likes; so the others are not kept waiting.
#[derive(Debug, Default)]
pub struct Mounted(Mutex<BTreeMap<PathBuf, Holders>>);

impl Mounted {
    fn holders(&self, place: &Path) -> Holders {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(place.to_owned()).or_default().clone()
    }

    /// Makes a place be mounted for a holder. Blocks.
    pub fn hold(
        &self,
        place: &Path,
        holder: &str,
        mount: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let holders = self.holders(place);
        let mut holders = holders.lock().unwrap_or_else(PoisonError::into_inner);
        if holders.is_empty() {
            mount(place)?;
        }
        holders.insert(holder.to_owned());
        Ok(())
    }

    /// Lets a place go; without another holder it is unmounted. Whatever has a file open there
    /// keeps the file system until it closes it.
    pub fn release(&self, place: &Path, holder: &str) {
        let holders = self.holders(place);
        let mut holders = holders.lock().unwrap_or_else(PoisonError::into_inner);
        if !holders.remove(holder) || !holders.is_empty() {
            return;
        }
        if let Err(error) = detach(place) {
            tracing::error!(place = %place.display(), %error, "unmount");
        }
        drop(holders);
        self.forget(place);
    }

    /// Nobody is at it but the caller and the table.
    fn forget(&self, place: &Path) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known, holders| known != place || Arc::strong_count(holders) > 2);
    }

    /// Takes over what an earlier daemon has left mounted of `ours`: places that are in `held` have
    /// these holders now, the others are unmounted.
    pub fn sweep(&self, ours: impl Fn(&Path) -> bool, held: &BTreeMap<PathBuf, BTreeSet<String>>) {
        let table = match mount::table() {
            Ok(table) => table,
            Err(error) => return tracing::error!(%error, "read what is mounted"),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for mounted in table.iter().rev().filter(|mounted| ours(&mounted.point)) {
            let place = &mounted.point;
            if let Some(holders) = held.get(place) {
                all.insert(place.clone(), Arc::new(Mutex::new(holders.clone())));
                continue;
            }
            tracing::info!(place = %place.display(), "unmounting what nobody uses any more");
            if let Err(error) = detach(place) {
                tracing::error!(place = %place.display(), %error, "unmount");
            }
        }
    }
}

/// Unmounts whatever is mounted on a place, which is ours.
///
/// # Errors
/// As [`refuse_mounted`].
pub fn clear(place: &Path) -> Result<()> {
    let table = mount::table().context("read what is mounted")?;
    for _ in table.iter().filter(|mounted| mounted.point == place) {
        detach(place).context(format!("unmount {}", place.display()))?;
    }
    refuse_mounted(place)
}

/// # Errors
/// If something is mounted on a place or below it: then nothing there may be deleted.
pub fn refuse_mounted(place: &Path) -> Result<()> {
    let table = mount::table().context("read what is mounted")?;
    match table
        .iter()
        .find(|mounted| mounted.point.starts_with(place))
    {
        None => Ok(()),
        Some(mounted) => Err(Error::conflict(format!(
            "{} is mounted: unmount it first",
            mounted.point.display()
        ))),
    }
}

/// Takes the topmost mount away, with all below it. A tree that was bound with `rbind` may have
/// peers all over the host, which would go too if it were not made private first.
fn detach(place: &Path) -> rustix::io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    let detached = mount_change(place, private).and_then(|()| unmount(place, UnmountFlags::DETACH));
    match detached {
        // Somebody else was faster.
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_first_mounts_and_a_failure_holds_nothing() {
        let mounted = Mounted::default();
        let place = Path::new("/nonexistent/place");
        let count = Cell::new(0);
        let hold = |holder: &str| {
            mounted.hold(place, holder, |_| {
                count.set(count.get() + 1);
                Ok(())
            })
        };
        hold("a").unwrap();
        hold("b").unwrap();
        hold("b").unwrap();
        assert_eq!(count.get(), 1);
        mounted.release(place, "a");
        mounted.release(place, "stranger");
        hold("c").unwrap();
        assert_eq!(count.get(), 1);
        mounted.release(place, "b");
        mounted.release(place, "c");
        hold("d").unwrap();
        assert_eq!(count.get(), 2, "after the last it is mounted anew");
        mounted.release(place, "d");
        let failed = mounted.hold(place, "e", |_| Err(Error::internal("no")));
        assert!(failed.is_err());
        hold("f").unwrap();
        assert_eq!(count.get(), 3, "a failed mount holds nothing");
    }
}
