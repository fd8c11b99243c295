//! Which of a container's networks its default routes lead to.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use berth_sys::netlink::Socket;
use berth_sys::netlink::route::{self, Family};

use super::{Net, lock};
use crate::endpoint::Endpoint;
use crate::error::Error;

/// A default route: its interface and its gateway; `None`: there is to be none.
type Route = Option<(String, IpAddr)>;

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
        let v4 = find(network_v4)?.and_then(|it| route_to(it, it.gateway.map(IpAddr::V4)));
        let v6 = find(network_v6)?.and_then(|it| route_to(it, it.gateway6.map(IpAddr::V6)));
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

fn route_to(endpoint: &Endpoint, gateway: Option<IpAddr>) -> Route {
    Some((endpoint.interface.clone(), gateway?))
}

fn set_route(socket: &mut Socket, family: Family, wanted: Route) -> io::Result<()> {
    match wanted {
        Some((interface, gateway)) => {
            let link = route::link(socket, &interface)?.ok_or(io::ErrorKind::NotFound)?;
            route::replace_default_route(socket, link.index, gateway)?;
        }
        None => route::delete_default_route(socket, family)?,
    }
    Ok(())
}
