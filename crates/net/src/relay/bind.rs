//! Choosing and binding the sockets of published ports.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::protocol::{Refusal, Wanted};
use crate::endpoint::{PortBinding, Protocol};

/// Connections that wait for the relay to accept them.
const BACKLOG: i32 = 1024;
/// Where the kernel's own choice of ports is configured.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const EPHEMERAL_DEFAULT: (u16, u16) = (32768, 60999);

/// A bound socket, listening if it is TCP, not blocking. One that is bound to all addresses of
/// both families serves two bindings, so that ten thousand ports are ten thousand descriptors.
pub struct Bound {
    pub bindings: Vec<PortBinding>,
    pub socket: OwnedFd,
}

/// Binds all addresses of one wanted port. `next_random` is where the search for a random port
/// begins; it moves on, so that a port that was given back is not given out again at once.
pub fn bind(wanted: &Wanted, next_random: &mut u16) -> Result<Vec<Bound>, Refusal> {
    let mut refusal = None;
    match wanted.range {
        Some((first, last)) => {
            for port in first..=last {
                match bind_port(wanted, port) {
                    Ok(bound) => return Ok(bound),
                    Err(refused) => refusal = Some(refused),
                }
                if refusal.as_ref().is_some_and(|refused| !is_taken(refused)) {
                    break;
                }
            }
        }
        None => {
            let (first, last) = ephemeral_range();
            for _ in first..=last {
                let port = (*next_random).clamp(first, last);
                *next_random = if port == last { first } else { port + 1 };
                match bind_port(wanted, port) {
                    Ok(bound) => return Ok(bound),
                    Err(refused) => refusal = Some(refused),
                }
                if refusal.as_ref().is_some_and(|refused| !is_taken(refused)) {
                    break;
                }
            }
        }
    }
    Err(refusal.unwrap_or_else(|| refuse(wanted, wanted.host_ips.first(), 0, Errno::INVAL)))
}

fn is_taken(refusal: &Refusal) -> bool {
    refusal.errno == Errno::ADDRINUSE.raw_os_error()
}

fn bind_port(wanted: &Wanted, port: u16) -> Result<Vec<Bound>, Refusal> {
    let binding = |host_ip: &IpAddr| PortBinding {
        protocol: wanted.protocol,
        container_port: wanted.container_port,
        host_ip: *host_ip,
        host_port: port,
    };
    let bindings: Vec<PortBinding> = wanted.host_ips.iter().map(binding).collect();
    let mut bound = Vec::new();
    for bindings in join(bindings) {
        let host_ip = bindings[0].host_ip;
        match bind_all(bindings) {
            Ok(one) => bound.push(one),
            Err(errno) => return Err(refuse(wanted, Some(&host_ip), port, errno)),
        }
    }
    Ok(bound)
}

/// Puts those together that one socket can serve.
pub fn join(bindings: Vec<PortBinding>) -> Vec<Vec<PortBinding>> {
    let mut joined: Vec<Vec<PortBinding>> = Vec::new();
    let mut everywhere: HashMap<(Protocol, u16, u16), usize> = HashMap::new();
    for binding in bindings {
        let PortBinding {
            protocol,
            container_port,
            host_ip,
            host_port,
        } = binding;
        if !host_ip.is_unspecified() {
            joined.push(vec![binding]);
            continue;
        }
        match everywhere.entry((protocol, container_port, host_port)) {
            Entry::Occupied(at) => joined[*at.get()].push(binding),
            Entry::Vacant(at) => {
                at.insert(joined.len());
                joined.push(vec![binding]);
            }
        }
    }
    joined
}

/// Binds one socket for these bindings, as [`join`] put them together. On a host without IPv6
/// that of IPv4 remains.
pub fn bind_all(mut bindings: Vec<PortBinding>) -> Result<Bound, Errno> {
    let ipv4 = bindings
        .iter()
        .find(|binding| binding.host_ip.is_ipv4())
        .cloned();
    let ipv6 = bindings
        .iter()
        .find(|binding| binding.host_ip.is_ipv6())
        .cloned();
    let socket = match (ipv4, ipv6) {
        (Some(ipv4), Some(ipv6)) => match bind_address(&ipv6, true) {
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                bindings.retain(|binding| binding.host_ip.is_ipv4());
                bind_address(&ipv4, false)?
            }
            other => other?,
        },
        (Some(one), None) | (None, Some(one)) => bind_address(&one, false)?,
        (None, None) => return Err(Errno::INVAL),
    };
    Ok(Bound { bindings, socket })
}

fn bind_address(binding: &PortBinding, both_families: bool) -> Result<OwnedFd, Errno> {
    let PortBinding {
        protocol,
        host_ip,
        host_port,
        ..
    } = *binding;
    let family = if host_ip.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if host_ip.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !both_families)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of an earlier holder that are not quite over must not be in the way.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(host_ip, host_port))?;
    match protocol {
        Protocol::Tcp => rustix::net::listen(&socket, BACKLOG)?,
        Protocol::Udp => berth_sys::datagram::tell_destination(&socket, host_ip.is_ipv6())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?,
    }
    Ok(socket)
}

fn refuse(wanted: &Wanted, host_ip: Option<&IpAddr>, port: u16, errno: Errno) -> Refusal {
    Refusal {
        protocol: wanted.protocol,
        host_ip: host_ip.copied().unwrap_or(IpAddr::from([0, 0, 0, 0])),
        port,
        range: wanted.range,
        errno: errno.raw_os_error(),
        holder: None,
    }
}

fn ephemeral_range() -> (u16, u16) {
    let parse = || {
        let text = std::fs::read_to_string(EPHEMERAL).ok()?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let range = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        (range.0 <= range.1).then_some(range)
    };
    parse().unwrap_or(EPHEMERAL_DEFAULT)
}
