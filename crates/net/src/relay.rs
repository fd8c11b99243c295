//! The port relay: one process for an instance, beside the daemon, which it outlives.
//!
//! It holds every published port bound, so that a conflict is found when a port is asked for, by
//! the kernel's own rules, and no other program can take the port later. What arrives on those
//! sockets in spite of the firewall's DNAT it relays to the container: connections by IPv6
//! (`::1` among them) to containers that have IPv4 only, and everything where there is no DNAT
//! (`--iptables=false`, or a host's rules flushed by someone).
//!
//! One thread, one epoll loop, no tokio: it is forked by the launcher.

use std::os::unix::net::UnixListener;

mod bind;
mod client;
mod holder;
mod kept;
mod protocol;
mod server;
mod tcp;
mod udp;

pub(crate) use holder::{excludes, find as find_holder};
pub(crate) use kept::{Connected, Kept};
pub(crate) use protocol::{Publication, Refusal, Wanted};

/// Under which name the relay keeps the ports of an endpoint. An older daemon's are its
/// container's, which was on the default bridge.
pub(crate) fn holder_name(container_id: &str, network: &str) -> String {
    match network {
        crate::network::DEFAULT_NETWORK => container_id.to_owned(),
        other => format!("{container_id}/{other}"),
    }
}

/// Serves until the daemon says that it should end. The listening socket is the one that
/// [`crate::Net::open`] handed to its caller. Returns the exit code.
pub fn main(listener: UnixListener) -> i32 {
    // What fails here is only a limit lower than it could be.
    raise_descriptor_limit();
    let served = server::Server::new(listener).and_then(|server| server.run());
    match served {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "the port relay ends");
            1
        }
    }
}

/// Ten thousand published ports are twenty thousand sockets, and each connection is two.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const WANTED: u64 = 256 << 10;
    let hard = getrlimit(Resource::Nofile).maximum;
    let both = |limit| Rlimit {
        current: limit,
        maximum: limit,
    };
    let wanted = both(hard.map(|hard| hard.max(WANTED)));
    if setrlimit(Resource::Nofile, wanted).is_err() {
        // Without the capability to raise the hard limit.
        let _ = setrlimit(Resource::Nofile, both(hard));
    }
}
