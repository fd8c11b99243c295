//! Questions that are being asked of other servers: who asks the same meanwhile waits for that
//! answer, rather than asking again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

/// The work that is under way, by what it is about.
#[derive(Debug)]
pub struct UnderWay<T>(Mutex<HashMap<Vec<u8>, Arc<OnceCell<T>>>>);

impl<T> Default for UnderWay<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> UnderWay<T> {
    /// Does the work, unless it is under way: then its outcome is waited for. Returns whether it
    /// was done here. Where the one who does it leaves, another of those who wait begins anew.
    pub async fn once(&self, key: Vec<u8>, work: impl Future<Output = T>) -> (T, bool) {
        let place = Place {
            cell: Arc::clone(self.lock().entry(key.clone()).or_default()),
            of: self,
            key,
        };
        let mut here = false;
        let done = place.cell.get_or_init(|| {
            here = true;
            work
        });
        (done.await.clone(), here)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Arc<OnceCell<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits. With the first outcome, and with the last who waits, the work is forgotten.
struct Place<'a, T: Clone> {
    of: &'a UnderWay<T>,
    key: Vec<u8>,
    cell: Arc<OnceCell<T>>,
}

impl<T: Clone> Drop for Place<'_, T> {
    fn drop(&mut self) {
        const MAP_AND_SELF: usize = 2;
        let mut all = self.of.lock();
        let own = all
            .get(&self.key)
            .is_some_and(|it| Arc::ptr_eq(it, &self.cell));
        let over = self.cell.initialized() || Arc::strong_count(&self.cell) <= MAP_AND_SELF;
        if own && over {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn whoever_comes_meanwhile_waits_for_the_same_outcome() {
        let all = UnderWay::default();
        let (gate, done) = (Semaphore::new(0), AtomicUsize::new(0));
        let work = || async {
            let _open = gate.acquire().await;
            done.fetch_add(1, Ordering::SeqCst)
        };
        let ask = || all.once(b"key".to_vec(), work());
        let open = async {
            tokio::task::yield_now().await;
            gate.add_permits(1);
        };
        let (a, b, c, ()) = tokio::join!(ask(), ask(), ask(), open);
        assert_eq!([a, b, c], [(0, true), (0, false), (0, false)]);
        assert!(all.lock().is_empty());
        assert_eq!(ask().await, (1, true));
        assert!(all.lock().is_empty());
    }

    #[tokio::test]
    async fn who_leaves_takes_nothing_from_those_who_wait() {
        let all = UnderWay::default();
        let mut first = Box::pin(all.once(b"key".to_vec(), std::future::pending::<u8>()));
        let mut second = Box::pin(all.once(b"key".to_vec(), std::future::ready(2)));
        tokio::select! {
            biased;
            _ = &mut first => panic!("it never ends"),
            _ = &mut second => panic!("it waits for the first"),
            () = tokio::task::yield_now() => (),
        }
        drop(first);
        assert_eq!(second.await, (2, true));
        assert!(all.lock().is_empty());
    }
}
