//! What an instance's network is configured with: plain data, made from the daemon's flags.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use crate::address::{Cidr, Pool};

/// The network of one instance.
#[derive(Debug, Clone)]
pub struct Config {
    /// Names the nftables tables and the jump in foreign chains: `berth` or `berth-<6 hex>`.
    pub instance: String,
    pub bridge: BridgeConfig,
    /// Where networks' subnets are taken from if none is given.
    pub pools: Vec<Pool>,
    /// The same for IPv6.
    pub pools6: Vec<Pool<Ipv6Addr>>,
    pub firewall: Firewall,
    /// Where firewalld is spoken to.
    pub system_bus: PathBuf,
    /// Holds `relay.sock`.
    pub exec_root: PathBuf,
    /// Taken while a subnet is chosen, by every instance of the machine; it is there only then.
    pub lock_file: PathBuf,
    /// Containers of the bridge may reach each other.
    pub icc: bool,
    /// Switch `net.ipv4.ip_forward` on where it is off.
    pub ip_forward: bool,
    /// Containers leave with the host's address.
    pub masquerade: bool,
    /// Where ports are published if the request names no address.
    pub default_host_ip: IpAddr,
}

#[derive(Debug, Clone)]
pub struct BridgeConfig {
    pub name: String,
    /// The gateway's address and the subnet (`--bip`); `None` takes it from the pools.
    pub address: Option<Cidr>,
    /// `None` leaves the kernel's 1500.
    pub mtu: Option<u32>,
    /// The bridge is the user's (`--bridge NAME`): it is used as it is, never made, changed or
    /// removed.
    pub user_managed: bool,
}

/// How the firewalls of others are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Firewall {
    /// Own tables, a jump in the FORWARD chain of an iptables that is in use, a zone in a
    /// firewalld that runs.
    #[default]
    Auto,
    /// Own tables only; a rule that a foreign firewall lacks is reported, not inserted.
    Own,
    /// No rules at all (`--iptables=false`): ports are served by the relay, nothing is
    /// masqueraded.
    Off,
}

impl Config {
    /// The defaults of an instance, as Docker has them.
    pub fn new(instance: &str, bridge: &str, exec_root: impl Into<PathBuf>) -> Config {
        Config {
            instance: instance.to_owned(),
            bridge: BridgeConfig {
                name: bridge.to_owned(),
                address: None,
                mtu: None,
                user_managed: false,
            },
            pools: Pool::defaults(),
            pools6: vec![Pool::unique_local(instance)],
            firewall: Firewall::Auto,
            system_bus: PathBuf::from(berth_sys::dbus::SYSTEM_BUS),
            exec_root: exec_root.into(),
            lock_file: PathBuf::from("/run/berth-network.lock"),
            icc: true,
            ip_forward: true,
            masquerade: true,
            default_host_ip: IpAddr::from([0, 0, 0, 0]),
        }
    }
}
