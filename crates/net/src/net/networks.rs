//! Making and removing networks, and finding them again after a restart.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use berth_sys::netlink::route::{self, Family};

use super::state::Known;
use super::{Net, lock, relayed};
use crate::address::{Address, Cidr};
use crate::bridge::{self, Link, failed};
use crate::child::{self, Child};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::network::{
    self, Bridge, DEFAULT_NETWORK, Driver, GatewayMode, Network, NetworkRequest, Subnet, Taken,
};

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
            && network.forwards_v6()
            && let Err(error) = self.end_unused_v6()
        {
            tracing::warn!(%error, "stop forwarding IPv6");
        }
        made.map(|()| network)
    }

    fn make_network(&self, network: &Network) -> Result<(), Error> {
        let link = match &network.driver {
            Driver::Bridge(bridge) => {
                if network.v6.is_some() {
                    self.begin_v6()?;
                }
                // It may be the administrator's, who named it.
                let link = bridge::restore(&mut lock(&self.route), network, bridge, self.group());
                Some(link?)
            }
            Driver::Child(child) => {
                child::ensure(&mut lock(&self.route), &network.id, child, self.group())?;
                None
            }
        };
        lock(&self.state).add_network(Known::new(network.clone(), link));
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
        let Known { network, .. } = lock(&self.state).remove_network(id)?;
        match &network.driver {
            Driver::Bridge(bridge) => {
                let live = self.firewall.as_ref();
                let closed = live.map_or(Ok(()), |live| live.remove_network(&network));
                let removed = self.remove_bridge(&bridge.name);
                closed.and(removed).and(self.end_unused_v6())
            }
            Driver::Child(child) => self.remove_parent(child),
        }
    }

    /// Makes a network's bridge that is gone, with the ports of those who are connected.
    pub(super) fn mend_bridge(&self, network: &Network) -> Result<Link, Error> {
        let missing = |bridge: &Bridge| Error::BridgeMissing {
            name: bridge.name.clone(),
        };
        let bridge = network.bridge();
        let bridge = bridge.expect("only networks with a bridge have ports");
        if network.id == DEFAULT_NETWORK && self.config.bridge.user_managed {
            return Err(missing(bridge));
        }
        let link = bridge::restore(&mut lock(&self.route), network, bridge, self.group())?;
        let mut state = lock(&self.state);
        state.set_link(&network.id, &link);
        let endpoints = state.all().filter(|it| it.network == network.id);
        let endpoints: Vec<Endpoint> = endpoints.cloned().collect();
        drop(state);
        self.route_loopback(network)?;
        for endpoint in endpoints {
            let Some(veth) = &endpoint.veth else { continue };
            let mut socket = lock(&self.route);
            // Its container may be ending.
            let Some(port) = route::link(&mut socket, veth).map_err(failed("look at", veth))?
            else {
                continue;
            };
            let put = route::set_master(&mut socket, port.index, link.index);
            put.map_err(failed("put on its bridge", veth))?;
            drop(socket);
            self.set_mode_of(veth, bridge, !endpoint.ports.is_empty())?;
        }
        Ok(link)
    }

    /// Unless it was there before the network.
    fn remove_bridge(&self, name: &str) -> Result<(), Error> {
        let own = bridge::find_own(&mut lock(&self.route), name, self.group())?;
        own.map_or(Ok(()), |link| self.delete_interface(link.name))
    }

    /// Another network may have the same parent.
    fn remove_parent(&self, child: &Child) -> Result<(), Error> {
        let state = lock(&self.state);
        let is_parent = |known: &Known| matches!(&known.network.driver, Driver::Child(it) if it.parent == child.parent);
        let used = state.networks().any(is_parent);
        drop(state);
        if used {
            return Ok(());
        }
        child::remove(&mut lock(&self.route), child, self.group())
    }

    /// After a daemon's restart: makes the kernel's state exactly that of these networks and
    /// endpoints. The default bridge needs not be among the networks.
    pub fn restore(&self, networks: &[Network], endpoints: &[Endpoint]) -> Result<(), Error> {
        if networks.iter().any(Network::forwards_v6) {
            self.begin_v6()?;
        }
        let mut restored = Vec::new();
        let own = |network: &&Network| network.id != DEFAULT_NETWORK;
        for network in networks.iter().filter(own) {
            let mut socket = lock(&self.route);
            let found = match &network.driver {
                Driver::Bridge(bridge) => {
                    bridge::restore(&mut socket, network, bridge, self.group()).map(Some)
                }
                Driver::Child(child) => {
                    child::ensure(&mut socket, &network.id, child, self.group()).map(|()| None)
                }
            };
            // A parent may be unplugged, a name be another's by now; the containers of other
            // networks run on. Whoever connects is told.
            let link = found.unwrap_or_else(|error| {
                let error = berth_base::Chain(&error).to_string();
                tracing::error!(error, network = network.id, "restore a network");
                None
            });
            restored.push(Known::new(network.clone(), link));
        }
        lock(&self.state).replace(restored, endpoints);
        if let Some(live) = &self.firewall {
            live.fill()?;
        }
        for network in networks.iter().filter(own) {
            if self.has_link(&network.id) {
                self.route_loopback(network)?;
            }
        }
        let adopted = self.relay.adopt_connected();
        adopted.map_err(relayed("hand it the ports"))?;
        self.put_links_in_order(endpoints)?;
        self.end_unused_v6()
    }

    fn has_link(&self, id: &str) -> bool {
        let state = lock(&self.state);
        state.network(id).is_some_and(|known| known.link.is_some())
    }

    /// Lets the host forward IPv6. The rules come first, so that it never does so for others.
    fn begin_v6(&self) -> Result<(), Error> {
        let switch_on = self.config.ip_forward && !bridge::forwards_v6();
        if let Some(live) = &self.firewall {
            live.begin_v6(switch_on)?;
        }
        if switch_on {
            bridge::forward_v6(&self.changed_interfaces())?;
        }
        Ok(())
    }

    /// Which interfaces of the host go on listening to routers only for our sake.
    fn changed_interfaces(&self) -> PathBuf {
        self.config.exec_root.join("accept-ra")
    }

    /// Without a network that has IPv6, the host is as it was before there was one.
    fn end_unused_v6(&self) -> Result<(), Error> {
        let state = lock(&self.state);
        let used = state.networks().any(|known| known.network.forwards_v6());
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
            bridge::stop_forwarding_v6(&self.changed_interfaces())?;
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
                || state.networks().any(|known| {
                    known
                        .link
                        .as_ref()
                        .is_some_and(|own| own.index == link.index)
                })
        };
        let is_bridge = |link: &route::Link| link.kind.as_deref() == Some("bridge");
        Ok(links.iter().any(|link| is_bridge(link) && !is_own(link)))
    }

    fn group(&self) -> u32 {
        bridge::group(&self.config.instance)
    }

    fn open_network(&self, network: &Network) -> Result<(), Error> {
        if network.bridge().is_none() {
            return Ok(());
        }
        if let Some(live) = &self.firewall {
            live.add_network(network)?;
        }
        self.route_loopback(network)
    }

    /// Only with our table in force, since it opens the host's loopback to the bridge but for
    /// that.
    fn route_loopback(&self, network: &Network) -> Result<(), Error> {
        let Some(bridge) = network.bridge() else {
            return Ok(());
        };
        let translates = bridge.gateway_modes.v4.translates() && !network.internal;
        if self.firewall.is_some() && translates && network.v4.is_some() {
            bridge::route_loopback(&bridge.name)?;
        }
        Ok(())
    }

    fn plan_network(&self, request: NetworkRequest) -> Result<Network, Error> {
        self.check_driver(&request)?;
        let wants = request.wants_gateway(|modes| modes.v4);
        let v4 = request.v4.clone().map(|wanted| {
            let taken = self.taken(Family::V4, |it| it.v4.as_ref(), bridge::v4)?;
            network::subnet(wanted, wants, &self.config.pools, &taken)
        });
        let wants = request.wants_gateway(|modes| modes.v6);
        let v6 = request.v6.clone().map(|wanted| {
            let taken = self.taken(Family::V6, |it| it.v6.as_ref(), v6)?;
            network::subnet(wanted, wants, &self.config.pools6, &taken)
        });
        let NetworkRequest {
            id,
            mtu,
            internal,
            driver,
            ..
        } = request;
        Ok(Network {
            id,
            v4: v4.transpose()?,
            v6: v6.transpose()?,
            mtu,
            internal,
            driver,
        })
    }

    /// Whether it can be beside the other networks.
    fn check_driver(&self, request: &NetworkRequest) -> Result<(), Error> {
        let state = lock(&self.state);
        if state.network(&request.id).is_some() {
            let id = request.id.clone();
            return Err(Error::NetworkExists { id });
        }
        let mut others = state.networks().map(|known| &known.network);
        match &request.driver {
            Driver::Bridge(bridge) => {
                let is_same = |it: &Bridge| it.name == bridge.name;
                if others.any(|other| other.bridge().is_some_and(is_same)) {
                    let name = bridge.name.clone();
                    return Err(Error::BridgeTaken { name });
                }
                let modes = bridge.gateway_modes;
                let isolated = [modes.v4, modes.v6].contains(&GatewayMode::Isolated);
                if isolated && !request.internal {
                    return Err(Error::IsolatedNotInternal);
                }
            }
            Driver::Child(child) => {
                let conflict = |other: &Network| match &other.driver {
                    Driver::Child(own) => child.conflict(own, &other.id),
                    Driver::Bridge(_) => None,
                };
                if let Some(error) = others.find_map(conflict) {
                    return Err(error);
                }
            }
        }
        Ok(())
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
