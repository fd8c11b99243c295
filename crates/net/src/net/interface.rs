//! The interfaces of containers: pairs with a port of a bridge, and children of other links.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use berth_sys::netlink::Socket;
use berth_sys::netlink::route::{self, PortMode};

use super::{Net, lock};
use crate::bridge::{self, Link, failed};
use crate::child::{self, Child};
use crate::error::Error;
use crate::namespace::{CARRIER_LOOK, CARRIER_TIMEOUT, Interface};
use crate::network::{Driver, Network};

/// Random names that are tried for a veth pair.
const NAME_ATTEMPTS: usize = 8;
/// How long the end of the namespace that an interface's predecessor was in is waited for.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_secs(5);
const PREDECESSOR_LOOK: Duration = Duration::from_millis(5);
/// How long the removal of an interface is waited for.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(5);
const REMOVAL_LOOK: Duration = Duration::from_micros(200);

impl Net {
    /// The same on a network's bridge, whose link is `link` as far as is known: if somebody has
    /// removed it, it is made again.
    pub(super) fn create_port(
        &self,
        network: &Network,
        link: Option<&Link>,
        netns: BorrowedFd<'_>,
        name: &str,
        peer_mac: [u8; 6],
    ) -> Result<String, Error> {
        let Some(link) = link else {
            let mended = self.mend_bridge(network)?;
            return self.create_veth(&mended, netns, name, peer_mac);
        };
        let refused = match self.create_veth(link, netns, name, peer_mac) {
            Err(error) => error,
            made => return made,
        };
        let found = bridge::look_up(&mut lock(&self.route), &link.name)?;
        if found.is_some_and(|found| found.index == link.index) {
            return Err(refused);
        }
        tracing::warn!(bridge = link.name, "somebody removed it; it is made again");
        let mended = self.mend_bridge(network)?;
        self.create_veth(&mended, netns, name, peer_mac)
    }

    /// `name` is the interface's in the container.
    pub(super) fn create_veth(
        &self,
        bridge: &Link,
        netns: BorrowedFd<'_>,
        name: &str,
        peer_mac: [u8; 6],
    ) -> Result<String, Error> {
        let mut waited = false;
        for _ in 0..NAME_ATTEMPTS {
            let mut socket = lock(&self.route);
            let own = veth_name(&self.config.instance);
            let veth = route::Veth {
                name: &own,
                master: bridge.index,
                mtu: bridge.mtu,
                peer_name: name,
                peer_mac,
                peer_namespace: netns,
            };
            match route::create_veth(&mut socket, &veth) {
                Ok(()) => return self.bring_up(&mut socket, own),
                Err(error) if !error.is(libc::EEXIST) => {
                    return Err(failed("make a veth pair on", &bridge.name)(error));
                }
                // The container's interface of this name may be one that is about to go.
                Err(_) if !waited => {
                    drop(socket);
                    self.reaper.settle();
                    waited = true;
                }
                Err(_) => {}
            }
        }
        Err(Error::InterfaceExists {
            name: name.to_owned(),
        })
    }

    /// Makes a child of a link of the host's in the container. Its predecessor may be about to go
    /// with the namespace that it was in: a passthru child is the only one of its parent.
    pub(super) fn create_child(
        &self,
        child: &Child,
        mtu: Option<u32>,
        netns: BorrowedFd<'_>,
        name: &str,
        mac: Option<[u8; 6]>,
    ) -> Result<(), Error> {
        // One that is there still does not pass.
        let passing = if self.has_children(&child.parent) {
            libc::EAGAIN
        } else {
            libc::EINVAL
        };
        retry(passing, || {
            let mut socket = lock(&self.route);
            let parent = child::parent(&mut socket, child)?;
            let wanted = route::Child {
                name,
                parent: parent.index,
                kind: child.kind,
                mac,
                mtu,
                namespace: netns,
            };
            Ok(route::create_child(&mut socket, &wanted))
        })?
        .map_err(child::refused(child))
    }

    /// Whether a container is connected to a network on this parent.
    fn has_children(&self, parent: &str) -> bool {
        let state = lock(&self.state);
        let mut networks = state.all().filter_map(|it| state.network(&it.network));
        networks
            .any(|it| matches!(&it.network.driver, Driver::Child(child) if child.parent == parent))
    }

    /// Brings the interface up. That of a child is refused while another has its hardware address
    /// (macvlan) or its address (ipvlan) on the same parent, which its predecessor may still have.
    pub(super) fn configure(
        &self,
        netns: BorrowedFd<'_>,
        interface: &Interface,
    ) -> Result<(), Error> {
        let configured = retry(libc::EADDRINUSE, || {
            Ok(self.visitor.configure(netns, interface.clone()))
        })?;
        configured.map_err(|source| Error::Netlink {
            what: format!("set up {} in the container", interface.name),
            source,
        })
    }

    /// The interface in the container is gone when this returns.
    pub(super) fn delete_child(&self, netns: BorrowedFd<'_>, name: &str) -> Result<(), Error> {
        let removed = self.visitor.remove(netns, name.to_owned());
        removed.map_err(|source| Error::Netlink {
            what: format!("remove {name} from the container"),
            source,
        })
    }

    /// A port of a bridge needs no IPv6 of its own; with it, each is a route in lists that the
    /// kernel goes through for every other.
    fn bring_up(&self, socket: &mut Socket, name: String) -> Result<String, Error> {
        // A kernel without IPv6 has no such file.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        match route::set_up_by_name(socket, &name) {
            Ok(()) => Ok(name),
            Err(error) => {
                self.reaper.remove(name.clone());
                Err(failed("bring up a bridge's port", &name)(error))
            }
        }
    }

    /// The kernel notices a new carrier in a work queue of its own, and drops packets until then.
    /// Since Linux 6.8 asking for the link makes it notice at once; before, it takes a moment.
    pub(super) fn await_carrier(&self, name: &str) -> Result<(), Error> {
        let deadline = Instant::now() + CARRIER_TIMEOUT;
        loop {
            let link = route::link(&mut lock(&self.route), name);
            let link = link.map_err(failed("look at", name))?;
            if link.is_none_or(|link| link.running) || Instant::now() > deadline {
                return Ok(());
            }
            std::thread::sleep(CARRIER_LOOK);
        }
    }

    pub(super) fn set_port_mode(&self, veth: &str, mode: PortMode) -> Result<(), Error> {
        let mut socket = lock(&self.route);
        let set = match route::link(&mut socket, veth) {
            Ok(Some(link)) => route::set_port_mode(&mut socket, link.index, mode),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        set.map_err(failed("set up the bridge's port", veth))
    }

    /// The host may remember the address's last holder.
    pub(super) fn forget_neighbour(&self, bridge: &str, address: IpAddr) -> Result<(), Error> {
        let mut socket = lock(&self.route);
        let forgotten = match route::link(&mut socket, bridge) {
            Ok(Some(link)) => route::forget_neighbour(&mut socket, link.index, address),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        forgotten.map_err(failed("forget the neighbour on", bridge))
    }

    /// The interface goes silent now, and away later.
    pub(super) fn drop_interface(&self, veth: String) {
        let mut socket = lock(&self.route);
        let silenced = match route::link(&mut socket, &veth) {
            Ok(Some(link)) => route::silence_port(&mut socket, link.index),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = silenced {
            tracing::warn!(%error, veth, "silence a container's interface");
        }
        drop(socket);
        self.reaper.remove(veth);
    }

    /// The interface is gone when this returns. Another thread removes it: whoever does has to
    /// wait for the kernel's readers after nobody can see it any more.
    pub(super) fn delete_interface(&self, veth: String) -> Result<(), Error> {
        self.reaper.remove_now(veth.clone());
        let deadline = Instant::now() + REMOVAL_TIMEOUT;
        loop {
            let link = route::link(&mut lock(&self.route), &veth);
            match link.map_err(failed("look at", &veth))? {
                None => return Ok(()),
                Some(_) if Instant::now() > deadline => {
                    return Err(Error::InterfaceExists { name: veth });
                }
                Some(_) => std::thread::sleep(REMOVAL_LOOK),
            }
        }
    }
}

/// An error of the kernel's, of either kind.
trait Errno {
    fn errno(&self) -> Option<i32>;
}

impl Errno for berth_sys::netlink::Error {
    fn errno(&self) -> Option<i32> {
        Some(self.errno)
    }
}

impl Errno for std::io::Error {
    fn errno(&self) -> Option<i32> {
        self.raw_os_error()
    }
}

/// Does it again while the kernel refuses it for this reason, which may pass.
fn retry<T, E: Errno>(
    passing: i32,
    mut work: impl FnMut() -> Result<Result<T, E>, Error>,
) -> Result<Result<T, E>, Error> {
    let deadline = Instant::now() + PREDECESSOR_TIMEOUT;
    loop {
        match work()? {
            Err(error) if error.errno() == Some(passing) && Instant::now() < deadline => {
                std::thread::sleep(PREDECESSOR_LOOK);
            }
            done => return Ok(done),
        }
    }
}

/// `veth`, four digits that are the instance's, seven random ones.
fn veth_name(instance: &str) -> String {
    let mut random = [0u8; 4];
    // The kernel's generator fails only before it is seeded; the name's retry covers that.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    format!(
        "{}{:07x}",
        veth_prefix(instance),
        u32::from_ne_bytes(random) >> 4
    )
}

/// Tells the ports of instances apart that share a user's bridge: a hash, folded to 16 bits.
pub(super) fn veth_prefix(instance: &str) -> String {
    let hash = bridge::fnv(instance);
    format!("veth{:04x}", (hash >> 16) ^ (hash & 0xffff))
}
