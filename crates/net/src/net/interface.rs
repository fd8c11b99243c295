//! The pairs of interfaces between the bridge and the containers.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use berth_sys::netlink::Socket;
use berth_sys::netlink::route::{self, PortMode};

use super::{INTERFACE, Net, lock};
use crate::bridge::failed;
use crate::endpoint::Endpoint;
use crate::error::Error;

/// Random names that are tried for a veth pair.
const NAME_ATTEMPTS: usize = 8;
/// How long a carrier is waited for; a packet or two may be lost after that.
const CARRIER_TIMEOUT: Duration = Duration::from_secs(1);
const CARRIER_LOOK: Duration = Duration::from_micros(500);

impl Net {
    pub(super) fn create_veth(
        &self,
        netns: BorrowedFd<'_>,
        peer_mac: [u8; 6],
    ) -> Result<String, Error> {
        let mut socket = lock(&self.route);
        for _ in 0..NAME_ATTEMPTS {
            let name = veth_name(&self.config.instance);
            let veth = route::Veth {
                name: &name,
                master: self.bridge.index,
                mtu: self.bridge.mtu,
                peer_name: INTERFACE,
                peer_mac,
                peer_namespace: netns,
            };
            match route::create_veth(&mut socket, &veth) {
                Ok(()) => return self.bring_up(&mut socket, name),
                Err(error) if error.is(libc::EEXIST) => {}
                Err(error) => return Err(failed("make a veth pair on", &self.bridge.name)(error)),
            }
        }
        let error = io::Error::from(io::ErrorKind::AlreadyExists);
        Err(failed("make a veth pair on", &self.bridge.name)(
            error.into(),
        ))
    }

    /// A port of a bridge needs no IPv6 of its own; with it, each is a route in lists that the
    /// kernel goes through for every other.
    fn bring_up(&self, socket: &mut Socket, name: String) -> Result<String, Error> {
        // A kernel without IPv6 has no such file.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        match route::set_up_by_name(socket, &name) {
            Ok(()) => Ok(name),
            Err(error) => {
                self.reaper.remove(name);
                Err(failed("bring up a port of", &self.bridge.name)(error))
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

    pub(super) fn drop_unknown_interfaces(&self, endpoints: &[Endpoint]) -> Result<(), Error> {
        let links = route::links(&mut lock(&self.route));
        let links = links.map_err(failed("list the ports of", &self.bridge.name))?;
        let prefix = veth_prefix(&self.config.instance);
        let known = |name: &str| endpoints.iter().any(|endpoint| endpoint.veth == name);
        for link in links {
            let ours = link.master == Some(self.bridge.index) && link.name.starts_with(&prefix);
            if ours && !known(&link.name) {
                self.drop_interface(link.name);
            }
        }
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

/// Tells the ports of instances apart that share a user's bridge. FNV-1a, folded to 16 bits.
fn veth_prefix(instance: &str) -> String {
    let hash = instance.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("veth{:04x}", (hash >> 16) ^ (hash & 0xffff))
}
