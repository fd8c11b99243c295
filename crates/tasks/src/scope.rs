//! A scope owns tasks: it names them, counts them, asks them to end, and waits for them.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A handle on a group of tasks. Clones share the group. Dropping a handle ends nothing.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    tracker: TaskTracker,
    token: CancellationToken,
}

/// The receiving side of a scope's wish to end.
#[derive(Debug, Clone)]
pub struct Shutdown(CancellationToken);

impl Scope {
    pub fn new() -> Self {
        Self::default()
    }

    /// A scope of its own that is also told to end when this one is.
    pub fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            token: self.token.child_token(),
        }
    }

    /// Starts a task. `name` appears in the log if it panics.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self
            .tracker
            .track_future(AssertUnwindSafe(future).catch_unwind());
        #[expect(
            clippy::disallowed_methods,
            reason = "the scope is the one place that spawns"
        )]
        tokio::spawn(async move {
            match task.await {
                Ok(output) => Some(output),
                Err(_) => {
                    tracing::error!(task = name, "a task panicked");
                    None
                }
            }
        })
    }

    /// Runs blocking work on a thread of the pool.
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tracker.spawn_blocking(work)
    }

    /// What a task watches to learn that it should end.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.token.clone())
    }

    /// Asks every task to end, and returns at once.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Asks every task to end and waits; `false` when some were still running at the deadline.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .is_ok()
    }

    /// How many tasks are alive.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }
}

impl Shutdown {
    /// Completes when the scope was asked to end.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_ends_tasks_that_watch_for_it() {
        let scope = Scope::new();
        let shutdown = scope.shutdown();
        scope.spawn("watcher", async move { shutdown.requested().await });
        assert!(scope.drain(Duration::from_secs(5)).await);
        assert!(scope.is_empty());
    }

    #[tokio::test]
    async fn drain_reports_a_task_that_does_not_end() {
        let scope = Scope::new();
        scope.spawn("stuck", std::future::pending::<()>());
        assert!(!scope.drain(Duration::from_millis(20)).await);
    }

    #[tokio::test]
    async fn a_panic_stays_in_its_task() {
        let scope = Scope::new();
        let task = scope.spawn("faulty", async { panic!("on purpose") });
        assert_eq!(task.await.unwrap(), None::<()>);
        assert!(scope.is_empty());
    }

    #[tokio::test]
    async fn a_child_ends_with_its_parent_but_not_the_reverse() {
        let parent = Scope::new();
        let child = parent.child();
        child.cancel();
        assert!(!parent.shutdown().is_requested());
        let other = parent.child();
        parent.cancel();
        assert!(other.shutdown().is_requested());
    }
}
