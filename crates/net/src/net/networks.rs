//! Making and removing networks, and finding them again after a restart.

use std::net::{IpAddr, Ipv6Addr};

use berth_sys::netlink::route::{self, Family};

use super::state::Known;
use super::{Net, lock, relayed};
use crate::address::{Address, Cidr};
use crate::bridge::{self, failed};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::network::{self, DEFAULT_NETWORK, GatewayMode, Network, NetworkRequest, Subnet, Taken};

impl Net {
    /// Chooses what is not given (subnets from the pools, without an overlap with the host's
    /// routes and with other networks), makes the bridge and the rules. All or nothing.
    pub fn create_network(&self, request: NetworkRequest) -> Result<Network, Error> {
        // Networks are made one after another, here and in other instances: two that choose at
        // the same time would choose the same.
        let _lock = bridge::lock(&self.config.lock_file)?;
        let network = self.plan_network(request)?;
        let made = self.make_network(&network);
        if made.is_err()
            && network.v6.is_some()
            && let Err(error) = self.end_unused_v6()
        {
            tracing::warn!(%error, "stop forwarding IPv6");
        }
        made.map(|()| network)
    }

    fn make_network(&self, network: &Network) -> Result<(), Error> {
        if network.v6.is_some() {
            self.begin_v6()?;
        }
        let mut socket = lock(&self.route);
        let name = network.bridge.as_str();
        let bridge = match bridge::look_up(&mut socket, name)? {
            // The administrator's, who named it.
            Some(_) => bridge::restore(&mut socket, network, self.group())?,
            None => bridge::make(&mut socket, network, self.group())?,
        };
        drop(socket);
        lock(&self.state).add_network(Known::new(network.clone(), bridge));
        let opened = self.open_network(network);
        if opened.is_err()
            && let Err(error) = self.remove_network(&network.id)
        {
            tracing::warn!(%error, network = network.id, "take back a network");
        }
        opened
    }

    /// Legal with no endpoint left; bridge and rules are gone when it returns.
    pub fn remove_network(&self, id: &str) -> Result<(), Error> {
        if id == DEFAULT_NETWORK {
            return Err(Error::NetworkInUse { id: id.to_owned() });
        }
        let known = lock(&self.state).remove_network(id)?;
        let network = &known.network;
        let live = self.firewall.as_ref();
        let closed = live.map_or(Ok(()), |live| live.remove_network(network));
        let removed = bridge::remove(&mut lock(&self.route), &network.bridge, self.group());
        closed.and(removed).and(self.end_unused_v6())
    }

    /// After a daemon's restart: makes the kernel's state exactly that of these networks and
    /// endpoints. The default bridge needs not be among the networks.
    pub fn restore(&self, networks: &[Network], endpoints: &[Endpoint]) -> Result<(), Error> {
        if networks.iter().any(|network| network.v6.is_some()) {
            self.begin_v6()?;
        }
        let mut restored = Vec::new();
        let own = |network: &&Network| network.id != DEFAULT_NETWORK;
        for network in networks.iter().filter(own) {
            let bridge = bridge::restore(&mut lock(&self.route), network, self.group())?;
            restored.push(Known::new(network.clone(), bridge));
        }
        lock(&self.state).replace(restored, endpoints);
        if let Some(live) = &self.firewall {
            live.fill()?;
        }
        for network in networks.iter().filter(own) {
            self.route_loopback(network)?;
        }
        let adopted = self.relay.adopt_connected();
        adopted.map_err(relayed("hand it the ports"))?;
        self.put_links_in_order(endpoints)?;
        self.end_unused_v6()
    }

    /// Lets the host forward IPv6. The rules come first, so that it never does so for others.
    fn begin_v6(&self) -> Result<(), Error> {
        let switch_on = self.config.ip_forward && !bridge::forwards_v6();
        if let Some(live) = &self.firewall {
            live.begin_v6(switch_on)?;
        }
        if switch_on {
            bridge::forward_v6()?;
        }
        Ok(())
    }

    /// Without a network that has IPv6, the host is as it was before there was one.
    fn end_unused_v6(&self) -> Result<(), Error> {
        let state = lock(&self.state);
        let used = state.networks().any(|known| known.network.v6.is_some());
        drop(state);
        if used {
            return Ok(());
        }
        self.end_v6()
    }

    pub(super) fn end_v6(&self) -> Result<(), Error> {
        let Some(live) = &self.firewall else {
            return Ok(());
        };
        if live.end_v6()? && !self.others_bridge()? {
            bridge::stop_forwarding_v6()?;
        }
        Ok(())
    }

    /// Whether someone else may need forwarding by now.
    fn others_bridge(&self) -> Result<bool, Error> {
        let links = route::links(&mut lock(&self.route));
        let links = links.map_err(failed("list the links of", "the host"))?;
        let state = lock(&self.state);
        let is_own = |link: &route::Link| {
            link.group == self.group()
                || state
                    .networks()
                    .any(|known| known.bridge.index == link.index)
        };
        let is_bridge = |link: &route::Link| link.kind.as_deref() == Some("bridge");
        Ok(links.iter().any(|link| is_bridge(link) && !is_own(link)))
    }

    fn group(&self) -> u32 {
        bridge::group(&self.config.instance)
    }

    fn open_network(&self, network: &Network) -> Result<(), Error> {
        if let Some(live) = &self.firewall {
            live.add_network(network)?;
        }
        self.route_loopback(network)
    }

    /// Only with our table in force, since it opens the host's loopback to the bridge but for
    /// that.
    fn route_loopback(&self, network: &Network) -> Result<(), Error> {
        let translates = network.gateway_modes.v4.translates() && !network.internal;
        if self.firewall.is_some() && translates && network.v4.is_some() {
            bridge::route_loopback(&network.bridge)?;
        }
        Ok(())
    }

    fn plan_network(&self, request: NetworkRequest) -> Result<Network, Error> {
        let bridge = request.bridge_name();
        {
            let state = lock(&self.state);
            if state.network(&request.id).is_some() {
                return Err(Error::NetworkExists { id: request.id });
            }
            if state.networks().any(|known| known.bridge.name == bridge) {
                return Err(Error::BridgeTaken { name: bridge });
            }
        }
        let modes = request.gateway_modes;
        let isolated = [modes.v4, modes.v6].contains(&GatewayMode::Isolated);
        if isolated && !request.internal {
            return Err(Error::IsolatedNotInternal);
        }
        let pools = self.config.pools.as_slice();
        let v4 = request.v4.map(|wanted| {
            let taken = self.taken(Family::V4, |it| it.v4.as_ref(), bridge::v4)?;
            network::subnet(wanted, modes.v4, pools, &taken)
        });
        let pools = self.config.pools6.as_slice();
        let v6 = request.v6.map(|wanted| {
            let taken = self.taken(Family::V6, |it| it.v6.as_ref(), v6)?;
            network::subnet(wanted, modes.v6, pools, &taken)
        });
        Ok(Network {
            bridge,
            v4: v4.transpose()?,
            v6: v6.transpose()?,
            id: request.id,
            mtu: request.mtu,
            internal: request.internal,
            icc: request.icc,
            masquerade: request.masquerade,
            gateway_modes: modes,
            host_ip: request.host_ip,
        })
    }

    fn taken<A: Address>(
        &self,
        family: Family,
        subnet: impl Fn(&Network) -> Option<&Subnet<A>>,
        of_family: impl Fn(IpAddr) -> Option<A>,
    ) -> Result<Taken<A>, Error> {
        let state = lock(&self.state);
        let networks: Vec<Cidr<A>> = state
            .networks()
            .filter_map(|known| Some(subnet(&known.network)?.subnet))
            .collect();
        drop(state);
        Ok(Taken {
            networks,
            host: bridge::taken(&mut lock(&self.route), family, of_family)?,
        })
    }
}

fn v6(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}
