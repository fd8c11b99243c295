//! The instance's bridge: making it with a subnet that is free, or using the one that is there.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use berth_sys::netlink::{self, Socket, route};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::address::{self, Cidr};
use crate::config::Config;
use crate::error::Error;

/// The bridge as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    pub index: u32,
    pub name: String,
    /// Its own address, with the subnet.
    pub address: Cidr,
    pub mtu: u32,
}

/// Finds or makes the bridge. Warnings are added to `warnings`.
pub fn ensure(
    socket: &mut Socket,
    config: &Config,
    warnings: &mut Vec<String>,
) -> Result<Bridge, Error> {
    // Two instances that choose at the same time would choose the same.
    let _lock = lock(&config.lock_file)?;
    let wanted = &config.bridge;
    let name = wanted.name.as_str();
    let found = route::link(socket, name).map_err(failed("look for the bridge", name))?;
    let index = match found {
        Some(link) if link.kind.as_deref() != Some("bridge") => {
            return Err(Error::NotABridge {
                name: name.to_owned(),
            });
        }
        Some(link) => {
            if let Some(mtu) = wanted
                .mtu
                .filter(|mtu| !wanted.user_managed && *mtu != link.mtu)
            {
                route::set_mtu(socket, link.index, mtu).map_err(failed("set the MTU of", name))?;
            }
            if !wanted.user_managed && !link.up {
                route::set_up(socket, link.index).map_err(failed("bring up", name))?;
            }
            link.index
        }
        None if wanted.user_managed => {
            return Err(Error::BridgeMissing {
                name: name.to_owned(),
            });
        }
        None => {
            let address = choose(socket, config)?;
            return make(socket, config, address);
        }
    };
    let addresses = route::addresses(socket).map_err(failed("list the addresses of", name))?;
    let own = addresses.iter().find(|network| network.link == index);
    let address = match own.map(|network| Cidr::new(network.address, network.prefix)) {
        Some(address) => {
            if let Some(other) = wanted.address.filter(|other| *other != address) {
                warnings.push(format!(
                    "bridge {name} has {address} already, so {other} is ignored"
                ));
            }
            address
        }
        None if wanted.user_managed => {
            return Err(Error::BridgeWithoutAddress {
                name: name.to_owned(),
            });
        }
        // Left by a daemon that was killed in between.
        None => {
            let address = choose(socket, config)?;
            let added = route::add_address(socket, index, address.address, address.prefix);
            added.map_err(failed("give an address to", name))?;
            address
        }
    };
    observe(socket, name, address)
}

/// Lets containers be reached by the host's loopback address, on this bridge only.
pub fn route_loopback(name: &str) -> Result<(), Error> {
    write_sysctl(
        &format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"),
        "1",
    )
}

/// Switches forwarding on. Returns whether it was off.
pub fn forward() -> Result<bool, Error> {
    let off = std::fs::read_to_string(FORWARDING).is_ok_and(|value| value.trim() == "0");
    if off {
        write_sysctl(FORWARDING, "1")?;
    }
    Ok(off)
}

/// Switches forwarding off again.
pub fn stop_forwarding() -> Result<(), Error> {
    write_sysctl(FORWARDING, "0")
}

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

fn make(socket: &mut Socket, config: &Config, address: Cidr) -> Result<Bridge, Error> {
    let name = config.bridge.name.as_str();
    let mac = mac_of(address.address);
    route::create_bridge(socket, name, mac, config.bridge.mtu)
        .map_err(failed("make the bridge", name))?;
    let configure = |socket: &mut Socket| {
        let link = route::link(socket, name)?.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        route::add_address(socket, link.index, address.address, address.prefix)
    };
    if let Err(error) = configure(socket) {
        if let Ok(Some(link)) = route::link(socket, name) {
            let _ = route::delete_link(socket, link.index);
        }
        return Err(failed("give an address to", name)(error));
    }
    observe(socket, name, address)
}

fn observe(socket: &mut Socket, name: &str, address: Cidr) -> Result<Bridge, Error> {
    let link = route::link(socket, name).map_err(failed("look at", name))?;
    let link = link.ok_or_else(|| Error::BridgeMissing {
        name: name.to_owned(),
    })?;
    Ok(Bridge {
        index: link.index,
        name: link.name,
        address,
        mtu: link.mtu,
    })
}

/// The subnet that was asked for, or the first of the pools that nothing on this host overlaps.
fn choose(socket: &mut Socket, config: &Config) -> Result<Cidr, Error> {
    if let Some(address) = config.bridge.address {
        return Ok(address);
    }
    let name = config.bridge.name.as_str();
    let routes = route::routes(socket).map_err(failed("list the routes beside", name))?;
    let addresses = route::addresses(socket).map_err(failed("list the addresses beside", name))?;
    let taken: Vec<Cidr> = routes
        .iter()
        .chain(&addresses)
        // A default route is no one's network.
        .filter(|network| network.prefix > 0)
        .map(|network| Cidr::new(network.address, network.prefix))
        .collect();
    let subnet = address::choose(&config.pools, &taken).ok_or(Error::PoolsExhausted)?;
    let gateway = Ipv4Addr::from(subnet.first() + 1);
    Ok(Cidr::new(gateway, subnet.prefix))
}

/// A hardware address that follows from the IP address, as Docker's do: locally administered.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// Held until it is dropped.
struct MachineLock {
    path: PathBuf,
    _file: File,
}

/// Waits for the lock. The file is there only while someone holds it, so that nothing is left
/// behind: whoever gets the lock of a file that was removed meanwhile begins again.
fn lock(path: &Path) -> Result<MachineLock, Error> {
    let take = || {
        loop {
            let options = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = rustix::fs::open(path, options, Mode::RUSR | Mode::WUSR)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            let held = rustix::fs::fstat(&file)?;
            match rustix::fs::stat(path) {
                Ok(named) if (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino) => {
                    return Ok(File::from(file));
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(io::Error::from(errno)),
            }
        }
    };
    let path = path.to_owned();
    match take() {
        Ok(file) => Ok(MachineLock { path, _file: file }),
        Err(source) => Err(Error::File {
            what: "lock",
            path,
            source,
        }),
    }
}

impl Drop for MachineLock {
    fn drop(&mut self) {
        // Before the descriptor is closed, so that it is still ours.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn write_sysctl(path: &str, value: &str) -> Result<(), Error> {
    std::fs::write(path, value).map_err(|source| Error::File {
        what: "write",
        path: path.into(),
        source,
    })
}

/// Says what was tried, and on what.
pub fn failed<'a>(what: &'a str, on: &'a str) -> impl FnOnce(netlink::Error) -> Error + 'a {
    move |error| Error::Netlink {
        what: format!("{what} {on}"),
        source: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn the_lock_has_one_holder_and_leaves_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lock");
        let holders = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = lock(&path).expect("the lock");
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        holders.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(!path.exists());
    }
}
