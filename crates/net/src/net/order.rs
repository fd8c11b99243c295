//! The host's links after a restart: what an earlier daemon left without a record goes.

use std::collections::{HashMap, HashSet};

use berth_sys::netlink::route;

use super::interface::veth_prefix;
use super::{Net, lock};
use crate::bridge::{self, failed};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::network::{Bridge, Driver};

impl Net {
    /// Ports, bridges and parents that an earlier daemon of this instance left without a record of
    /// them go; the ports of a bridge that had to be made again are put on the new one.
    pub(super) fn put_links_in_order(&self, endpoints: &[Endpoint]) -> Result<(), Error> {
        let mut socket = lock(&self.route);
        let links = route::links(&mut socket).map_err(failed("list the links of", "the host"))?;
        let (bridges, parents) = self.own_links();
        let known: HashSet<u32> = bridges.values().map(|(_, index)| *index).collect();
        let group = bridge::group(&self.config.instance);
        let strays: HashMap<u32, &str> = links
            .iter()
            .filter(|link| link.group == group && !known.contains(&link.index))
            .filter(|link| match link.kind.as_deref() {
                Some("bridge") => true,
                Some("vlan" | "dummy") => !parents.contains(&link.name),
                _ => false,
            })
            .map(|link| (link.index, link.name.as_str()))
            .collect();
        let prefix = veth_prefix(&self.config.instance);
        let wanted: HashMap<&str, &Endpoint> = endpoints
            .iter()
            .filter_map(|endpoint| Some((endpoint.veth.as_deref()?, endpoint)))
            .collect();
        let (mut unknown, mut moved) = (Vec::new(), Vec::new());
        for link in links.iter().filter(|link| link.name.starts_with(&prefix)) {
            let master = link.master;
            match wanted.get(link.name.as_str()) {
                Some(endpoint) => {
                    let place = bridges.get(&endpoint.network);
                    if let Some((bridge, index)) = place.filter(|it| master != Some(it.1)) {
                        let put = route::set_master(&mut socket, link.index, *index);
                        put.map_err(failed("put on its bridge", &link.name))?;
                        moved.push((&link.name, bridge, !endpoint.ports.is_empty()));
                    }
                }
                // Two instances may have the same digits; a port without a bridge is anybody's.
                None if master
                    .is_some_and(|it| known.contains(&it) || strays.contains_key(&it)) =>
                {
                    unknown.push(link.name.clone());
                }
                None => {}
            }
        }
        for (index, name) in strays {
            let removed = route::delete_link(&mut socket, index);
            removed.map_err(failed("remove the link", name))?;
        }
        drop(socket);
        for (veth, bridge, publishes) in moved {
            self.set_mode_of(veth, bridge, publishes)?;
        }
        unknown
            .into_iter()
            .for_each(|veth| self.drop_interface(veth));
        Ok(())
    }

    /// The bridges with their links, by their networks' ids, and the names of the parents of others.
    fn own_links(&self) -> (HashMap<String, (Bridge, u32)>, HashSet<String>) {
        let (mut bridges, mut parents) = (HashMap::new(), HashSet::new());
        for known in lock(&self.state).networks() {
            match (&known.network.driver, &known.link) {
                (Driver::Bridge(bridge), Some(link)) => {
                    bridges.insert(known.network.id.clone(), (bridge.clone(), link.index));
                }
                (Driver::Bridge(_), None) => {}
                (Driver::Child(child), _) => {
                    parents.insert(child.parent.clone());
                }
            }
        }
        (bridges, parents)
    }
}
