//! From the ports of a request to what the relay binds, and from its refusal to an error.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::endpoint::{OpenPort, PortRequest};
use crate::error::{Error, Holder};
use crate::network::{GatewayMode, Network};
use crate::relay::{Refusal, Wanted};

/// What a request comes to in its network.
#[derive(Debug, Default)]
pub struct Plan {
    /// Bound on the host, and translated.
    pub bound: Vec<Wanted>,
    /// Open at the container's own addresses.
    pub open: Vec<OpenPort>,
}

/// An internal network publishes nothing, nor does one without a bridge. One that trusts interfaces
/// of the host's opens for them what it publishes. One that is routed opens what is published at all
/// addresses of its family; what is to be at a certain one cannot be, and is left out, as Docker
/// does.
pub fn plan(
    requests: &[PortRequest],
    network: &Network,
    default_host_ip: IpAddr,
    own: &[IpAddr],
) -> Plan {
    let mut plan = Plan::default();
    let Some(bridge) = network.bridge().filter(|_| !network.internal) else {
        return plan;
    };
    for request in requests {
        let mut wanted = wanted(request, bridge.host_ip.unwrap_or(default_host_ip));
        let mode = |host_ip: &IpAddr| network.publication_mode(bridge, *host_ip);
        let is_routed = |address: &IpAddr| {
            let mut same = wanted
                .host_ips
                .iter()
                .filter(|it| it.is_ipv6() == address.is_ipv6());
            same.any(|it| mode(it) == GatewayMode::Routed && it.is_unspecified())
        };
        let trusts = !bridge.trusted_interfaces.is_empty();
        for address in own.iter().filter(|address| trusts || is_routed(address)) {
            let open = OpenPort {
                address: *address,
                protocol: request.protocol,
                port: request.container_port,
            };
            // Two requests may publish the same port of the container.
            if !plan.open.contains(&open) {
                plan.open.push(open);
            }
        }
        wanted.host_ips.retain(|host_ip| mode(host_ip).translates());
        if !wanted.host_ips.is_empty() {
            plan.bound.push(wanted);
        }
    }
    plan
}

/// What to bind. A port without an address is published at all addresses of both families.
fn wanted(request: &PortRequest, default_host_ip: IpAddr) -> Wanted {
    let everywhere = request.host_ip.is_none() && default_host_ip.is_unspecified();
    let first = request.host_ip.unwrap_or(default_host_ip);
    let mut host_ips = vec![first];
    if everywhere && first.is_ipv4() {
        host_ips.push(Ipv6Addr::UNSPECIFIED.into());
    }
    Wanted {
        protocol: request.protocol,
        container_port: request.container_port,
        host_ips,
        range: request
            .host_ports
            .as_ref()
            .map(|range| (*range.start(), *range.end())),
    }
}

/// In Docker's words.
pub fn refused(refusal: Refusal) -> Error {
    let Refusal {
        protocol,
        host_ip,
        port,
        range,
        errno,
        holder,
    } = refusal;
    let host = SocketAddr::new(host_ip, port);
    if errno != libc::EADDRINUSE {
        return Error::Bind {
            host,
            protocol,
            source: io::Error::from_raw_os_error(errno),
        };
    }
    match (range, holder) {
        (Some((first, last)), _) if first < last => Error::RangeExhausted {
            host_ip,
            protocol,
            first,
            last,
        },
        (_, holder @ Some(Holder::Container { .. })) => Error::PortAllocated {
            host,
            protocol,
            holder,
        },
        (_, holder) => Error::PortInUse {
            host,
            protocol,
            holder,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Protocol;

    fn check(host_ip: Option<&str>, default: &str, expect: &[&str]) {
        let request = PortRequest {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: host_ip.map(|text| text.parse().expect("an address")),
            host_ports: None,
        };
        let wanted = wanted(&request, default.parse().expect("an address"));
        let host_ips: Vec<String> = wanted.host_ips.iter().map(IpAddr::to_string).collect();
        assert_eq!(host_ips, expect);
    }

    #[test]
    fn only_a_port_without_an_address_is_published_in_both_families() {
        check(None, "0.0.0.0", &["0.0.0.0", "::"]);
        check(None, "127.0.0.1", &["127.0.0.1"]);
        check(Some("0.0.0.0"), "0.0.0.0", &["0.0.0.0"]);
        check(Some("::1"), "0.0.0.0", &["::1"]);
    }

    #[test]
    fn refusals_name_the_holder() {
        let refusal = Refusal {
            protocol: Protocol::Tcp,
            host_ip: [0, 0, 0, 0].into(),
            port: 80,
            range: Some((80, 80)),
            errno: libc::EADDRINUSE,
            holder: Some(Holder::Container {
                id: "0123456789abcdef".to_owned(),
            }),
        };
        let text = refused(refusal.clone()).to_string();
        let expect = "Bind for 0.0.0.0:80 failed: port is already allocated \
                      (held by container 0123456789ab)";
        assert_eq!(text, expect);
        let holder = Some(Holder::Process {
            pid: 7,
            name: "nginx".to_owned(),
        });
        let text = refused(Refusal { holder, ..refusal }).to_string();
        let expect = "failed to bind host port 0.0.0.0:80/tcp: address already in use \
                      (held by process 7 (nginx))";
        assert_eq!(text, expect);
    }
}
