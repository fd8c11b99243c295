//! Removes the host's ends of veth pairs, off everybody's path.
//!
//! Deleting a link waits for the kernel's readers (27 ms, with the lock held that every other
//! change of the network needs). A dying namespace takes its interfaces along, all in one go, so
//! the kernel is given [`GRACE`] to do that by itself; what is left then is deleted.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use berth_sys::netlink::{Socket, route};

/// How long the end of a namespace may take. Interfaces are promised to be gone within two
/// seconds.
pub const GRACE: Duration = Duration::from_millis(700);
/// How often [`Reaper::settle`] looks whether a namespace took its interface along.
const LOOK: Duration = Duration::from_millis(20);

pub struct Reaper {
    queue: Sender<Job>,
}

enum Job {
    /// The interface, and how long it may stay.
    Remove(String, Duration),
    /// Answered when nothing is left.
    Settle(Sender<()>),
}

impl Reaper {
    /// Works in the calling thread's network namespace.
    pub fn start() -> io::Result<Reaper> {
        let (queue, jobs) = channel();
        let socket = Socket::route()?;
        let builder = std::thread::Builder::new().name("berth-reaper".to_owned());
        builder.spawn(move || work(socket, &jobs))?;
        Ok(Reaper { queue })
    }

    /// After the time in which its namespace may end by itself.
    pub fn remove(&self, veth: String) {
        // The thread ends only after this sender is gone.
        let _ = self.queue.send(Job::Remove(veth, GRACE));
    }

    pub fn remove_now(&self, veth: String) {
        let _ = self.queue.send(Job::Remove(veth, Duration::ZERO));
    }

    /// Waits until every interface that was to be removed is gone.
    pub fn settle(&self) {
        let (done, wait) = channel();
        let _ = self.queue.send(Job::Settle(done));
        let _ = wait.recv();
    }
}

fn work(mut socket: Socket, jobs: &Receiver<Job>) {
    // In the order of their time.
    let mut doomed: VecDeque<(Instant, String)> = VecDeque::new();
    let mut waiting: Vec<Sender<()>> = Vec::new();
    loop {
        let now = Instant::now();
        while doomed.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, name)) = doomed.pop_front() {
                remove(&mut socket, &name);
            }
        }
        if !waiting.is_empty() {
            doomed.retain(|(_, name)| !matches!(route::link(&mut socket, name), Ok(None)));
        }
        if doomed.is_empty() {
            // Dropping the senders wakes those who wait.
            waiting.clear();
        }
        let pause = match doomed.front() {
            None => Duration::from_secs(3600),
            Some(_) if !waiting.is_empty() => LOOK,
            Some((due, _)) => due.saturating_duration_since(now),
        };
        match jobs.recv_timeout(pause) {
            Ok(Job::Remove(name, after)) => {
                let due = Instant::now() + after;
                let at = doomed.partition_point(|(other, _)| *other <= due);
                doomed.insert(at, (due, name));
            }
            Ok(Job::Settle(done)) => waiting.push(done),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                doomed
                    .iter()
                    .for_each(|(_, name)| remove(&mut socket, name));
                return;
            }
        }
    }
}

fn remove(socket: &mut Socket, name: &str) {
    let removed = match route::link(socket, name) {
        Ok(Some(link)) => route::delete_link(socket, link.index),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = removed {
        tracing::warn!(%error, name, "remove a container's interface");
    }
}
