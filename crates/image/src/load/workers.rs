//! Threads that unpack layers while the archive is still being read.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::ingest::Tail;
use crate::lease::Lease;

/// Each worker has a thread for decompression beside it.
const WORKERS: usize = 4;

/// Takes layers to unpack. The queue is as long as the archive has layers.
pub(super) struct Workers(Sender<Tail>);

impl Workers {
    /// Unpacks on suspicion: a failure only means that nothing was gained.
    pub(super) fn unpack(&self, layer: Tail) {
        // Workers live as long as this handle.
        drop(self.0.send(layer));
    }
}

/// Runs `work` with workers beside it, and returns when all of them are done.
pub(super) fn with_workers<T>(lease: &Lease, work: impl FnOnce(Workers) -> Result<T>) -> Result<T> {
    let (sender, receiver) = channel();
    let receiver = &Mutex::new(receiver);
    std::thread::scope(|scope| {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..count.min(WORKERS))
            .map(|_| scope.spawn(move || run(lease, receiver)))
            .collect();
        let result = work(Workers(sender));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that unpacks layers panicked");
            }
        }
        result
    })
}

fn run(lease: &Lease, receiver: &Mutex<Receiver<Tail>>) {
    loop {
        let next = {
            let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
            receiver.recv()
        };
        let Ok(layer) = next else { return };
        if let Err(error) = lease.unpack(layer, None) {
            tracing::debug!(%error, "a file of the archive is no layer");
        }
    }
}
