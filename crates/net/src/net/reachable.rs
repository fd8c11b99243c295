//! Which published ports there are, and who gets to them.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use berth_sys::netlink::route::{self, Family};

use super::{Net, lock};
use crate::bridge::failed;
use crate::endpoint::{Endpoint, PortBinding, Protocol};
use crate::error::{Error, Holder};
use crate::firewall::Obstacles;
use crate::reach::{self, Addresses, Reach, Reachable, Transit, WantedPort};
use crate::relay;
use crate::sockets::{self, Bound};

impl Net {
    /// All published ports of the connected endpoints. Reads the machine's links, addresses and
    /// rules; takes some milliseconds.
    pub fn reachable(&self) -> Result<Vec<Reachable>, Error> {
        let endpoints: Vec<Endpoint> = lock(&self.state)
            .all()
            .filter(|endpoint| endpoint.is_published())
            .cloned()
            .collect();
        let addresses = self.addresses()?;
        let obstacles = self.obstacles()?;
        let lost = self.relay.lost();
        let mut found = Vec::new();
        for endpoint in &endpoints {
            for binding in &endpoint.ports {
                let reach = addresses.reach(binding.host_ip);
                let mut one = self.one(endpoint, binding.clone(), reach, &obstacles);
                if lost.contains(binding) {
                    one.lost_to = Some(self.holder_of(binding));
                }
                found.push(one);
            }
            for open in &endpoint.open {
                let mut one = self.one(
                    endpoint,
                    reach::as_binding(open),
                    reach::scope(open.address),
                    &obstacles,
                );
                one.way = Transit::Routed;
                found.push(one);
            }
        }
        Ok(found)
    }

    /// Who gets to what a process of the machine has bound, and the firewalls that may keep some
    /// of them out.
    pub fn reach_of(&self, bound: &[Bound]) -> Result<Vec<(Reach, Vec<String>)>, Error> {
        let addresses = self.addresses()?;
        let obstacles = self.obstacles()?;
        let one = |bound: &Bound| {
            let reach = addresses.reach(bound.address);
            let passed = obstacles.input(bound.address.is_ipv6());
            let (reach, behind, closed_by) = behind(reach, passed);
            (reach, behind.into_iter().chain(closed_by).collect())
        };
        Ok(bound.iter().map(one).collect())
    }

    /// Who keeps these ports of the machine from being published; `None` of those that are free.
    pub fn holders(&self, wanted: &[WantedPort]) -> Vec<Option<Holder>> {
        let bound = sockets::bound(Path::new("/proc/thread-self/net"));
        let holder = |wanted: &WantedPort| {
            let WantedPort { protocol, port, .. } = *wanted;
            let host_ip = wanted.host_ip.unwrap_or(self.config.default_host_ip);
            let takes = |it: &&Bound| it.protocol == protocol && it.port == port;
            let mut takers = bound.iter().filter(takes);
            if !takers.any(|it| relay::excludes(it.address, host_ip)) {
                return None;
            }
            let publishes = |endpoint: &&Endpoint| {
                let mut bindings = endpoint.ports.iter();
                bindings.any(|binding| {
                    (binding.protocol, binding.host_port) == (protocol, port)
                        && relay::excludes(binding.host_ip, host_ip)
                })
            };
            let state = lock(&self.state);
            let ours = state.all().find(publishes);
            let ours = ours.map(|endpoint| Holder::Container {
                id: endpoint.container_id.clone(),
            });
            drop(state);
            Some(ours.unwrap_or_else(|| process(protocol, host_ip, port)))
        };
        wanted.iter().map(holder).collect()
    }

    fn holder_of(&self, binding: &PortBinding) -> Holder {
        process(binding.protocol, binding.host_ip, binding.host_port)
    }

    fn addresses(&self) -> Result<Addresses, Error> {
        let mut socket = lock(&self.route);
        let links = route::links(&mut socket).map_err(failed("list the links of", "the host"))?;
        let mut all = Vec::new();
        for family in [Family::V4, Family::V6] {
            let listed = route::addresses(&mut socket, family);
            all.extend(listed.map_err(failed("list the addresses of", "the host"))?);
        }
        Ok(Addresses::new(&links, &all))
    }

    fn obstacles(&self) -> Result<Obstacles, Error> {
        let live = self.firewall.as_ref();
        live.map_or(Ok(Obstacles::default()), |live| live.obstacles())
    }

    fn one(
        &self,
        endpoint: &Endpoint,
        binding: PortBinding,
        reach: Reach,
        obstacles: &Obstacles,
    ) -> Reachable {
        let v6 = binding.host_ip.is_ipv6();
        let own = match v6 {
            false => endpoint.ipv4.map(IpAddr::V4),
            true => endpoint.ipv6.map(IpAddr::V6),
        };
        // The kernel does not lead ::1 out of the machine.
        let translates = self.firewall.is_some() && !(v6 && binding.host_ip.is_loopback());
        let way = match own {
            Some(_) if translates => Transit::Nat,
            _ => Transit::Relay,
        };
        let target = own.or_else(|| endpoint.addresses().first().copied());
        let target = target.unwrap_or(binding.host_ip);
        let passed = match way {
            Transit::Relay => obstacles.input(v6),
            Transit::Nat | Transit::Routed => obstacles.forward(v6),
        };
        let (reach, behind, closed_by) = behind(reach, passed);
        Reachable {
            container_id: endpoint.container_id.clone(),
            network: endpoint.network.clone(),
            target: SocketAddr::new(target, binding.container_port),
            binding,
            way,
            reach,
            behind,
            closed_by,
            lost_to: None,
        }
    }
}

/// Nothing of the machine's own passes the chains that lead in or through.
fn behind(
    reach: Reach,
    obstacles: &[crate::firewall::Obstacle],
) -> (Reach, Vec<String>, Option<String>) {
    if reach <= Reach::Machine {
        return (reach, Vec::new(), None);
    }
    if let Some(closes) = obstacles.iter().find(|obstacle| obstacle.closes) {
        return (Reach::Machine, Vec::new(), Some(closes.name.clone()));
    }
    let names = obstacles.iter().map(|obstacle| obstacle.name.clone());
    (reach, names.collect(), None)
}

/// One that cannot be seen is another's all the same.
fn process(protocol: Protocol, host_ip: IpAddr, port: u16) -> Holder {
    relay::find_holder(protocol, host_ip, port).unwrap_or(Holder::Unknown)
}
