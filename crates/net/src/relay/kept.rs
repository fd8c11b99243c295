//! The relay, kept alive: whenever it ends without having been told to, another is started and
//! given the ports of all endpoints.
//!
//! A thread waits for the end of the connection to it. One that keeps ending is started again at
//! growing intervals; who publishes or releases a port meanwhile starts it at once.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::client::{Client, Start};
use super::protocol::{Adoption, Publication, Refusal};
use crate::endpoint::{Endpoint, PortBinding};
use crate::watch::{Stop, Watch, Woken};

/// From the end of a relay that had lived for a while to its successor.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A relay that lived as long is not taken for one that keeps ending.
const STEADY: Duration = Duration::from_secs(60);

/// All endpoints that are connected now.
pub type Connected = Arc<dyn Fn() -> Vec<Endpoint> + Send + Sync>;

/// Dropping it leaves the relay alone, since the containers go on.
pub struct Kept {
    shared: Arc<Shared>,
    watch: Watch,
}

struct Shared {
    client: Mutex<Client>,
    connected: Connected,
    started_again: AtomicU64,
    /// What the present relay could not bind, since another program had it.
    lost: Mutex<Vec<PortBinding>>,
}

impl Kept {
    /// Finds the relay of an earlier daemon, or starts one. `connected` is asked for what a new
    /// one is to serve.
    pub fn open(path: PathBuf, start: Start, connected: Connected) -> io::Result<Kept> {
        let shared = Arc::new(Shared {
            client: Mutex::new(Client::open(path, start)?),
            connected,
            started_again: AtomicU64::new(0),
            lost: Mutex::default(),
        });
        let watched = shared.clone();
        let watch = Watch::start("berth-relay", move |stop| watch(&watched, stop))?;
        Ok(Kept { shared, watch })
    }

    /// Binds ports. `Err` of the outer result is a broken relay.
    pub fn publish(
        &self,
        publication: Publication,
    ) -> io::Result<Result<Vec<PortBinding>, Refusal>> {
        self.shared.alive()?.publish(publication)
    }

    pub fn withdraw(&self, container_id: &str) -> io::Result<()> {
        self.shared.alive()?.withdraw(container_id)
    }

    /// Another number for each relay: what was published on an earlier one, and is not of a
    /// connected endpoint, the present one does not have.
    pub fn generation(&self) -> u64 {
        self.shared.started_again.load(Ordering::Acquire)
    }

    /// Makes the relay's ports exactly those of the connected endpoints.
    pub fn adopt_connected(&self) -> io::Result<()> {
        let mut client = self.shared.alive()?;
        self.shared.hand_over(&mut client)
    }

    /// The published ports that another program has.
    pub fn lost(&self) -> Vec<PortBinding> {
        let lost = self.shared.lost.lock();
        lost.unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    /// Ends the relay and removes its socket.
    pub fn quit(self) -> io::Result<()> {
        drop(self.watch);
        self.shared.lock().quit()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Client> {
        self.client
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The relay; if it ended, a new one that has the ports of all endpoints.
    fn alive(&self) -> io::Result<MutexGuard<'_, Client>> {
        let mut client = self.lock();
        if !client.revive()? {
            tracing::warn!("the port relay had ended; a new one was started");
            self.started_again.fetch_add(1, Ordering::AcqRel);
            self.hand_over(&mut client)?;
        }
        Ok(client)
    }

    fn hand_over(&self, client: &mut Client) -> io::Result<()> {
        let lost = client.adopt((self.connected)().iter().filter_map(adoption).collect())?;
        *self.lost.lock().unwrap_or_else(|e| e.into_inner()) = lost.clone();
        for binding in lost {
            let PortBinding {
                protocol,
                host_ip,
                host_port,
                ..
            } = binding;
            tracing::warn!(%protocol, %host_ip, host_port, "another program has a published port");
        }
        Ok(())
    }

    /// The connection to the relay as it is now, to listen for its end.
    fn connection(&self) -> Option<UnixStream> {
        self.lock().connection()
    }
}

fn watch(shared: &Shared, stop: &Stop) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        // Answers are for those who asked; only the end is of interest here.
        if let Some(stream) = shared.connection()
            && stop.wait(Some((stream.as_fd(), PollFlags::RDHUP)), None) == Woken::Stopped
        {
            return;
        }
        pause = next_pause(pause, begun.elapsed());
        if stop.wait(None, Some(pause)) == Woken::Stopped {
            return;
        }
        if let Err(error) = shared.alive() {
            tracing::warn!(%error, again_in = ?next_pause(pause, Duration::ZERO),
                "start the port relay again");
        }
    }
}

fn next_pause(last: Duration, lived: Duration) -> Duration {
    if lived >= STEADY {
        FIRST_PAUSE
    } else {
        (last * 2).min(LONGEST_PAUSE)
    }
}

/// `None` of an endpoint that publishes nothing.
fn adoption(endpoint: &Endpoint) -> Option<Adoption> {
    let address = endpoint.ipv4.map(IpAddr::V4);
    let target = address.or(endpoint.ipv6.map(IpAddr::V6))?;
    (!endpoint.ports.is_empty()).then(|| Adoption {
        container_id: super::holder_name(&endpoint.container_id, &endpoint.network),
        target,
        bindings: endpoint.ports.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_keeps_ending_is_started_ever_less_often() {
        let mut pause = FIRST_PAUSE;
        let mut waited = Duration::ZERO;
        for _ in 0..4 {
            pause = next_pause(pause, Duration::from_millis(1));
            waited += pause;
        }
        assert!(waited < Duration::from_secs(2), "{waited:?}");
        for _ in 0..20 {
            pause = next_pause(pause, Duration::ZERO);
        }
        assert_eq!(pause, LONGEST_PAUSE);
        assert_eq!(next_pause(pause, STEADY), FIRST_PAUSE);
    }
}
