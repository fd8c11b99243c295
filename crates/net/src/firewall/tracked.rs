//! Tracked connections that are to be forgotten, off everybody's way: each look is at the kernel's
//! whole table. What comes up within [`PAUSE`] is forgotten by one look.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_sys::netlink::{Socket, conntrack, route::Family};
use rustix::event::{EventfdFlags, PollFlags, eventfd};

use crate::watch::{Stop, Watch};

/// From the first wish to the look.
const PAUSE: Duration = Duration::from_millis(100);

/// Who began or answers the connections.
type Wishes = HashSet<IpAddr>;

/// The thread that forgets. Dropping it fulfils what was wished for.
pub struct Forgetter {
    wishes: Arc<Mutex<Wishes>>,
    wake: OwnedFd,
    _watch: Watch,
}

impl Forgetter {
    /// In the network namespace of the caller.
    pub fn start() -> io::Result<Self> {
        let wishes: Arc<Mutex<Wishes>> = Arc::default();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (shared, woken) = (wishes.clone(), wake.try_clone()?);
        let mut socket = Socket::netfilter()?;
        let watch = Watch::start("berth-conntrack", move |stop| {
            while wait(stop, &woken) {
                fulfil(&mut socket, std::mem::take(&mut lock(&shared)));
            }
            fulfil(&mut socket, std::mem::take(&mut lock(&shared)));
        })?;
        Ok(Self {
            wishes,
            wake,
            _watch: watch,
        })
    }

    /// Connections that this address began or answers.
    pub fn address(&self, address: IpAddr) {
        lock(&self.wishes).insert(address);
        // Full, it wakes all the same.
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).ok();
    }
}

/// Whether somebody wishes for something; otherwise the thread is to end.
fn wait(stop: &Stop, woken: &OwnedFd) -> bool {
    use crate::watch::Woken;
    if stop.wait(Some((woken.as_fd(), PollFlags::IN)), None) != Woken::Ready {
        return false;
    }
    rustix::io::read(woken, &mut [0; 8]).ok();
    stop.wait(None, Some(PAUSE)) != Woken::Stopped
}

fn lock(wishes: &Mutex<Wishes>) -> MutexGuard<'_, Wishes> {
    wishes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fulfil(socket: &mut Socket, addresses: Wishes) {
    for family in [Family::V4, Family::V6] {
        if !addresses.iter().any(|it| Family::of(*it) == family) {
            continue;
        }
        let forgotten = conntrack::forget(socket, family, |tracked| {
            addresses.contains(&tracked.begun_by) || addresses.contains(&tracked.answered_by)
        });
        if let Err(error) = forgotten {
            tracing::warn!(%error, "forget tracked connections");
        }
    }
}
