//! Deletion off everybody's path: a rename into `trash/` is the deletion, a thread does the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::{Context, Result};

/// The trash directory and its one thread, which lives only while there is something to delete.
#[derive(Debug, Clone)]
pub(crate) struct Trash(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    next: AtomicU64,
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<PathBuf>,
    running: bool,
}

impl Trash {
    /// Opens the directory and begins to delete what an earlier process left in it.
    pub(crate) fn open(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).context(|| format!("create directory {}", root.display()))?;
        let left: Vec<PathBuf> = fs::read_dir(&root)
            .context(|| format!("list directory {}", root.display()))?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        let trash = Self(Arc::new(Inner {
            root,
            next: AtomicU64::new(0),
            state: Mutex::default(),
            idle: Condvar::new(),
        }));
        left.into_iter().for_each(|path| trash.enqueue(path));
        Ok(trash)
    }

    /// Takes a file or tree away. Nothing to take is no error.
    pub(crate) fn take(&self, path: &Path) -> Result<()> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let target = self.0.root.join(format!("{}-{number}", std::process::id()));
        match fs::rename(path, &target) {
            Ok(()) => {
                self.enqueue(target);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).context(|| format!("remove {}", path.display())),
        }
    }

    /// Waits until everything taken so far is gone.
    pub(crate) fn settle(&self) {
        let state = self.lock();
        drop(
            self.0
                .idle
                .wait_while(state, |state| state.running)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn enqueue(&self, path: PathBuf) {
        let mut state = self.lock();
        state.queue.push(path);
        if state.running {
            return;
        }
        let worker = self.clone();
        let started = std::thread::Builder::new()
            .name("image-trash".to_owned())
            .spawn(move || worker.run());
        match started {
            Ok(_) => state.running = true,
            // The next removal or the next start tries again.
            Err(error) => tracing::warn!(%error, "start the thread that empties the trash"),
        }
    }

    fn run(&self) {
        loop {
            let path = {
                let mut state = self.lock();
                match state.queue.pop() {
                    Some(path) => path,
                    None => {
                        state.running = false;
                        self.0.idle.notify_all();
                        return;
                    }
                }
            };
            if let Err(error) = berth_sys::tree::remove(&path) {
                tracing::warn!(path = %path.display(), %error, "empty the trash");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
