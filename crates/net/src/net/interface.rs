//! The pairs of interfaces between the bridges and the containers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use berth_sys::netlink::Socket;
use berth_sys::netlink::route::{self, PortMode};

use super::{Net, lock};
use crate::bridge::{self, Bridge, failed};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::network::Network;

/// Random names that are tried for a veth pair.
const NAME_ATTEMPTS: usize = 8;
/// How long a carrier is waited for; a packet or two may be lost after that.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(1);
const CARRIER_LOOK: Duration = Duration::from_micros(500);
/// How long the removal of an interface is waited for.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(5);
const REMOVAL_LOOK: Duration = Duration::from_micros(200);

impl Net {
    /// `name` is the interface's in the container.
    pub(super) fn create_veth(
        &self,
        bridge: &Bridge,
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
    pub(super) fn forget_neighbour(&self, bridge: &Bridge, address: IpAddr) -> Result<(), Error> {
        let forgotten = route::forget_neighbour(&mut lock(&self.route), bridge.index, address);
        forgotten.map_err(failed("forget the neighbour on", &bridge.name))
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

    /// Ports and bridges that an earlier daemon of this instance left without a record of them
    /// go; the ports of a bridge that had to be made again are put on the new one.
    pub(super) fn put_links_in_order(&self, endpoints: &[Endpoint]) -> Result<(), Error> {
        let mut socket = lock(&self.route);
        let links = route::links(&mut socket).map_err(failed("list the links of", "the host"))?;
        let networks: HashMap<String, (Network, u32)> = lock(&self.state)
            .networks()
            .map(|known| {
                (
                    known.network.id.clone(),
                    (known.network.clone(), known.bridge.index),
                )
            })
            .collect();
        let group = bridge::group(&self.config.instance);
        let is_stray = |index: u32| !networks.values().any(|(_, known)| *known == index);
        let strays: Vec<&route::Link> = links
            .iter()
            .filter(|link| link.kind.as_deref() == Some("bridge"))
            .filter(|link| link.group == group && is_stray(link.index))
            .collect();
        let prefix = veth_prefix(&self.config.instance);
        let known: HashMap<&str, &Endpoint> = endpoints
            .iter()
            .map(|endpoint| (endpoint.veth.as_str(), endpoint))
            .collect();
        let (mut unknown, mut moved) = (Vec::new(), Vec::new());
        for link in links.iter().filter(|link| link.name.starts_with(&prefix)) {
            let master = link.master;
            match known.get(link.name.as_str()) {
                Some(endpoint) => {
                    let network = networks.get(&endpoint.network);
                    if let Some((network, bridge)) = network.filter(|it| master != Some(it.1)) {
                        let put = route::set_master(&mut socket, link.index, *bridge);
                        put.map_err(failed("put on its bridge", &link.name))?;
                        moved.push((link.name.clone(), network, !endpoint.ports.is_empty()));
                    }
                }
                // Two instances may have the same digits; a port without a bridge is anybody's.
                None if master.is_some_and(|master| {
                    !is_stray(master) || strays.iter().any(|stray| stray.index == master)
                }) =>
                {
                    unknown.push(link.name.clone());
                }
                None => {}
            }
        }
        for stray in strays {
            let removed = route::delete_link(&mut socket, stray.index);
            removed.map_err(failed("remove the bridge", &stray.name))?;
        }
        drop(socket);
        for (veth, network, publishes) in moved {
            self.set_mode_of(&veth, network, publishes)?;
        }
        unknown
            .into_iter()
            .for_each(|veth| self.drop_interface(veth));
        Ok(())
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
fn veth_prefix(instance: &str) -> String {
    let hash = bridge::fnv(instance);
    format!("veth{:04x}", (hash >> 16) ^ (hash & 0xffff))
}
