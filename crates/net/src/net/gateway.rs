//! Which of a container's networks its default routes lead to.

use std::io;
use std::os::fd::BorrowedFd;

use berth_sys::netlink::Socket;
use berth_sys::netlink::route::{self, Family, Way};

use super::{Net, lock};
use crate::error::Error;
use crate::network::Ways;

/// A default route: its interface and the way; `None`: there is to be none.
type Route = Option<(String, Way)>;

impl Net {
    /// The default routes of a running container lead to these networks from now on; `None` takes
    /// the family's route away, as a network without a gateway does.
    pub fn set_gateway(
        &self,
        container_id: &str,
        netns: BorrowedFd<'_>,
        network_v4: Option<&str>,
        network_v6: Option<&str>,
    ) -> Result<(), Error> {
        let state = lock(&self.state);
        let endpoints = state.of_container(container_id);
        let find = |network: Option<&str>| match network {
            None => Ok(None),
            Some(network) => match endpoints.iter().find(|it| it.network == network) {
                Some(endpoint) => Ok(Some(endpoint)),
                None => Err(Error::NotConnected {
                    container_id: container_id.to_owned(),
                    network: network.to_owned(),
                }),
            },
        };
        let ways = |network: &str| state.network(network).map(|it| it.network.ways());
        let route = |network, way: fn(Ways) -> Option<Way>| {
            let found = find(network)?;
            Ok(found.and_then(|it| Some((it.interface.clone(), way(ways(&it.network)?)?))))
        };
        let v4: Route = route(network_v4, |ways| ways.v4)?;
        let v6: Route = route(network_v6, |ways| ways.v6)?;
        let has_v6 = endpoints.iter().any(|endpoint| endpoint.ipv6.is_some());
        drop(state);
        let set = self.visitor.visit(netns, move || {
            let mut socket = Socket::route()?;
            set_route(&mut socket, Family::V4, v4)?;
            if has_v6 {
                set_route(&mut socket, Family::V6, v6)?;
            }
            Ok(())
        });
        set.map_err(|source| Error::Netlink {
            what: format!("set the default route of container {container_id}"),
            source,
        })
    }
}

fn set_route(socket: &mut Socket, family: Family, wanted: Route) -> io::Result<()> {
    match wanted {
        Some((interface, way)) => {
            let link = route::link(socket, &interface)?.ok_or(io::ErrorKind::NotFound)?;
            route::replace_default_route(socket, link.index, way)?;
        }
        None => route::delete_default_route(socket, family)?,
    }
    Ok(())
}
