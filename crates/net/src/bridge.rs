//! The links of networks: making a bridge with its addresses, or using the one that is there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use berth_sys::netlink::route::Family;
use berth_sys::netlink::{self, Socket, route};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::address::{Address, Cidr};
use crate::config::Config;
use crate::error::Error;
use crate::network::{self, Bridge, DEFAULT_NETWORK, Driver, Network, Subnet};
use crate::network::{SubnetRequest, Taken};

/// A network's link as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    /// Its link group: [`group`] of the instance that made it.
    pub group: u32,
}

/// Finds or makes the default bridge. Warnings are added to `warnings`.
pub fn ensure(
    socket: &mut Socket,
    config: &Config,
    warnings: &mut Vec<String>,
) -> Result<(Network, Link), Error> {
    // Two instances that choose at the same time would choose the same.
    let _lock = lock(&config.lock_file)?;
    let wanted = &config.bridge;
    let name = wanted.name.as_str();
    let found = look_up(socket, name)?;
    let Some(link) = found else {
        if wanted.user_managed {
            return Err(Error::BridgeMissing {
                name: name.to_owned(),
            });
        }
        let network = default_network(config, choose(socket, config)?);
        let bridge = default_bridge(config);
        let link = make(socket, &network, &bridge, group(&config.instance))?;
        return Ok((network, link));
    };
    if !wanted.user_managed {
        if let Some(mtu) = wanted.mtu.filter(|mtu| *mtu != link.mtu) {
            route::set_mtu(socket, link.index, mtu).map_err(failed("set the MTU of", name))?;
        }
        if !link.up {
            route::set_up(socket, link.index).map_err(failed("bring up", name))?;
        }
    }
    let address = match address_of(socket, &link)? {
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
            let added =
                route::add_address(socket, link.index, address.address.into(), address.prefix);
            added.map_err(failed("give an address to", name))?;
            address
        }
    };
    Ok((default_network(config, address), observe(socket, name)?))
}

/// Makes the bridge of a network as it should be: it may be absent, or half made.
pub fn restore(
    socket: &mut Socket,
    network: &Network,
    bridge: &Bridge,
    group: u32,
) -> Result<Link, Error> {
    let name = bridge.name.as_str();
    let Some(link) = look_up(socket, name)? else {
        return make(socket, network, bridge, group);
    };
    if !link.up {
        route::set_up(socket, link.index).map_err(failed("bring up", name))?;
    }
    give_addresses(socket, network, name, link.index)?;
    observe(socket, name)
}

/// The link of this name, if an instance of this group made it.
pub fn find_own(socket: &mut Socket, name: &str, group: u32) -> Result<Option<route::Link>, Error> {
    let link = route::link(socket, name).map_err(failed("look for the bridge", name))?;
    Ok(link.filter(|link| link.group == group))
}

/// Marks the bridges that an instance made. FNV-1a; small numbers are the administrator's.
pub fn group(instance: &str) -> u32 {
    const OURS: u32 = 1 << 30;
    OURS | fnv(instance) >> 2
}

/// FNV-1a.
pub fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
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

/// Whether the host forwards IPv6.
pub fn forwards_v6() -> bool {
    let setting = std::fs::read_to_string(FORWARDING6);
    // A kernel without IPv6 has nothing to be switched on.
    setting.map_or(true, |value| value.trim() != "0")
}

/// Switches forwarding of IPv6 on. A router does not listen to others, so the interfaces that did
/// are told to go on with it: else the host loses its own default route (`accept_ra` in the
/// kernel's ip-sysctl.rst). Their names are written to the file `changed` first.
pub fn forward_v6(changed: &Path) -> Result<(), Error> {
    let interfaces = std::fs::read_dir(INTERFACES).map_err(|source| Error::File {
        what: "list",
        path: INTERFACES.into(),
        source,
    })?;
    let names = interfaces
        .flatten()
        .filter_map(|interface| interface.file_name().into_string().ok());
    let listens = |name: &String| !matches!(name.as_str(), "all" | "default") && accepts(name, "1");
    let names: Vec<String> = names.filter(listens).collect();
    std::fs::write(changed, names.join("\n")).map_err(|source| Error::File {
        what: "write",
        path: changed.to_owned(),
        source,
    })?;
    for name in names {
        write_sysctl(&accept_ra(&name), EVEN_AS_ROUTER)?;
    }
    write_sysctl(FORWARDING6, "1")
}

fn accept_ra(interface: &str) -> String {
    format!("{INTERFACES}/{interface}/accept_ra")
}

fn accepts(interface: &str, value: &str) -> bool {
    let setting = std::fs::read_to_string(accept_ra(interface));
    setting.is_ok_and(|setting| setting.trim() == value)
}

/// Switches forwarding of IPv6 off again; the interfaces that `changed` names are as they were,
/// unless someone else has changed them since.
pub fn stop_forwarding_v6(changed: &Path) -> Result<(), Error> {
    write_sysctl(FORWARDING6, "0")?;
    let names = std::fs::read_to_string(changed).unwrap_or_default();
    for name in names.lines().filter(|name| accepts(name, EVEN_AS_ROUTER)) {
        write_sysctl(&accept_ra(name), "1")?;
    }
    // It may have been a daemon of before that switched it on.
    let _ = std::fs::remove_file(changed);
    Ok(())
}

const INTERFACES: &str = "/proc/sys/net/ipv6/conf";
const EVEN_AS_ROUTER: &str = "2";

const FORWARDING6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// What the host has already of one family: routes and addresses.
pub fn taken<A: Address>(
    socket: &mut Socket,
    family: Family,
    of_family: impl Fn(IpAddr) -> Option<A>,
) -> Result<Vec<Cidr<A>>, Error> {
    let host = "the host";
    let routes = route::routes(socket, family).map_err(failed("list the routes of", host))?;
    let addresses =
        route::addresses(socket, family).map_err(failed("list the addresses of", host))?;
    let all = routes.iter().chain(&addresses);
    // A default route is no one's network.
    let networks = all.filter(|network| network.prefix > 0);
    let cidr =
        |network: &route::Network| Some(Cidr::new(of_family(network.address)?, network.prefix));
    Ok(networks.filter_map(cidr).collect())
}

pub fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

pub fn make(
    socket: &mut Socket,
    network: &Network,
    bridge: &Bridge,
    group: u32,
) -> Result<Link, Error> {
    let name = bridge.name.as_str();
    let bridge = route::NewBridge {
        name,
        mac: mac_of_bridge(network),
        mtu: network.mtu,
        group,
    };
    route::create_bridge(socket, &bridge).map_err(failed("make the bridge", name))?;
    let made = observe(socket, name).and_then(|link| {
        give_addresses(socket, network, name, link.index)?;
        Ok(link)
    });
    if made.is_err()
        && let Err(error) = take_back(socket, name, group)
    {
        tracing::warn!(%error, name, "take back a bridge");
    }
    made
}

fn take_back(socket: &mut Socket, name: &str, group: u32) -> Result<(), Error> {
    match find_own(socket, name, group)? {
        Some(link) => route::delete_link(socket, link.index).map_err(failed("remove", name)),
        None => Ok(()),
    }
}

fn give_addresses(
    socket: &mut Socket,
    network: &Network,
    name: &str,
    index: u32,
) -> Result<(), Error> {
    if let Some(address) = network.bridge_address() {
        let added = route::add_address(socket, index, address.address.into(), address.prefix);
        added.map_err(failed("give an address to", name))?;
    }
    if network.v6.is_some() {
        let setting = |what: &str| format!("/proc/sys/net/ipv6/conf/{name}/{what}");
        // Until the bridge's own link-local address is known to be nobody else's, which takes the
        // kernel a second or two, nothing would be forwarded to containers.
        write_sysctl(&setting("accept_dad"), "0")?;
        write_sysctl(&setting("disable_ipv6"), "0")?;
        // Containers are no routers of the host's.
        write_sysctl(&setting("accept_ra"), "0")?;
    }
    if let Some(address) = network.bridge_address6() {
        let added = route::add_address(socket, index, address.address.into(), address.prefix);
        added.map_err(failed("give an address to", name))?;
    }
    Ok(())
}

/// The bridge of this name; something else of the name is an error.
pub fn look_up(socket: &mut Socket, name: &str) -> Result<Option<route::Link>, Error> {
    match route::link(socket, name).map_err(failed("look for the bridge", name))? {
        Some(link) if link.kind.as_deref() != Some("bridge") => Err(Error::NotABridge {
            name: name.to_owned(),
        }),
        found => Ok(found),
    }
}

fn address_of(socket: &mut Socket, link: &route::Link) -> Result<Option<Cidr>, Error> {
    let addresses = route::addresses(socket, Family::V4);
    let addresses = addresses.map_err(failed("list the addresses of", &link.name))?;
    let own = addresses.iter().find(|network| network.link == link.index);
    Ok(own.and_then(|network| Some(Cidr::new(v4(network.address)?, network.prefix))))
}

fn observe(socket: &mut Socket, name: &str) -> Result<Link, Error> {
    let link = look_up(socket, name)?;
    let link = link.ok_or_else(|| Error::BridgeMissing {
        name: name.to_owned(),
    })?;
    Ok(Link {
        index: link.index,
        name: link.name,
        mtu: link.mtu,
        group: link.group,
    })
}

/// The address that was asked for, or the gateway of the first subnet that nothing overlaps.
fn choose(socket: &mut Socket, config: &Config) -> Result<Cidr, Error> {
    if let Some(address) = config.bridge.address {
        return Ok(address);
    }
    let taken = Taken {
        networks: Vec::new(),
        host: taken(socket, Family::V4, v4)?,
    };
    let request = SubnetRequest::default();
    let chosen = network::subnet(request, true, &config.pools, &taken)?;
    let gateway = chosen.gateway.unwrap_or(chosen.subnet.address);
    Ok(Cidr::new(gateway, chosen.subnet.prefix))
}

fn default_network(config: &Config, address: Cidr) -> Network {
    Network {
        id: DEFAULT_NETWORK.to_owned(),
        v4: Some(Subnet {
            subnet: address.network(),
            gateway: Some(address.address),
            range: None,
            auxiliary: BTreeMap::new(),
        }),
        v6: None,
        mtu: config.bridge.mtu,
        internal: false,
        driver: Driver::Bridge(default_bridge(config)),
    }
}

fn default_bridge(config: &Config) -> Bridge {
    Bridge {
        name: config.bridge.name.clone(),
        icc: config.icc,
        masquerade: config.masquerade,
        ..Bridge::of(DEFAULT_NETWORK)
    }
}

/// A hardware address that follows from the IP address, as Docker's do: locally administered.
pub fn mac_of(address: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => fnv(&address.to_string()).to_be_bytes(),
    };
    [0x02, 0x42, a, b, c, d]
}

fn mac_of_bridge(network: &Network) -> [u8; 6] {
    let v4 = network.v4.as_ref();
    let v6 = network.v6.as_ref();
    // Without a gateway the subnet's own address is nobody else's.
    let v4 = v4.map(|v4| IpAddr::from(v4.gateway.unwrap_or(v4.subnet.address)));
    let v6 = v6.map(|v6| IpAddr::from(v6.gateway.unwrap_or(v6.subnet.address)));
    let address = v4.or(v6);
    mac_of(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

/// Held until it is dropped.
pub struct MachineLock {
    path: PathBuf,
    _file: File,
}

/// Waits for the lock. The file is there only while someone holds it, so that nothing is left
/// behind: whoever gets the lock of a file that was removed meanwhile begins again.
pub fn lock(path: &Path) -> Result<MachineLock, Error> {
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

pub fn write_sysctl(path: &str, value: &str) -> Result<(), Error> {
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
