//! The subnet of one family that a network is asked for (moby, `libnetwork/drivers/bridge`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_docker::network::IpamConfig;
use berth_net::SubnetRequest;

use super::ipam::Block;
use crate::error::{Error, ErrorKind, Result};

/// One family of addresses.
pub trait Family: Copy + Ord {
    fn of(address: IpAddr) -> Option<Self>;
    /// Why the network's own block, with the bridge's address, cannot be used.
    fn refuse(block: Block, bridge: Block) -> Option<String>;
}

impl Family for Ipv4Addr {
    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    fn refuse(_: Block, _: Block) -> Option<String> {
        None
    }
}

impl Family for Ipv6Addr {
    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }

    fn refuse(block: Block, bridge: Block) -> Option<String> {
        let link_local = Block {
            address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)),
            prefix: 64,
        };
        if block.address.is_multicast() {
            return Some(format!("multicast subnet '{bridge}' is not allowed"));
        }
        let clash = block != link_local && block.overlaps(link_local);
        clash.then(|| format!("'{bridge}' clashes with the Link-Local prefix 'fe80::/64'"))
    }
}

/// The subnet of one family that is asked for. What it says was checked before.
pub fn subnet<A: Family>(
    driver: &str,
    configs: &[IpamConfig],
    on: bool,
) -> Result<Option<SubnetRequest<A>>> {
    if !on {
        return Ok(None);
    }
    let mut own = configs.iter().filter_map(|config| {
        let block = config.subnet.parse::<Block>().ok()?;
        Some((config, block, A::of(block.address)?))
    });
    let mut wanted = SubnetRequest::default();
    let Some((config, block, address)) = own.next() else {
        return Ok(Some(wanted));
    };
    if own.next().is_some() {
        return Err(Error::new(
            ErrorKind::Forbidden,
            format!("{driver} driver doesn't support multiple subnets"),
        ));
    }
    let bridge = match config.gateway.parse() {
        Ok(address) => Block { address, ..block },
        Err(_) => block.first(),
    };
    if let Some(why) = A::refuse(block, bridge) {
        return Err(Error::invalid(why));
    }
    for (name, text) in &config.auxiliary_addresses {
        if text.parse() == Ok(bridge.address) {
            return Err(Error::internal(format!(
                "failed to allocate secondary ip address ({name}:{text}): Address already in use"
            )));
        }
    }
    let parse = |text: &str| A::of(text.parse().ok()?);
    wanted.subnet = Some(berth_net::address::Cidr::new(address, block.prefix));
    wanted.gateway = parse(&config.gateway);
    wanted.range = config.ip_range.parse::<Block>().ok().and_then(|range| {
        let address = A::of(range.address)?;
        Some(berth_net::address::Cidr::new(address, range.prefix))
    });
    wanted.auxiliary = config
        .auxiliary_addresses
        .iter()
        .filter_map(|(name, text)| Some((name.clone(), parse(text)?)))
        .collect();
    Ok(Some(wanted))
}
