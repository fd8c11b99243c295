//! The resolver's sockets in a container's namespace, and the rules that lead port 53 to them.
//!
//! ```text
//! a program in the container ─► 127.0.0.11:53 ─► DNAT inside the namespace ─► 127.0.0.11:high
//! ```
//!
//! The sockets listen on ports of the kernel's choice, so that port 53 stays free for a server of
//! the container's own. Their numbers stand in the comment of a rule: a daemon that comes after
//! binds the same, and flows that a program keeps open go on.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use berth_sys::netlink::Socket;
use berth_sys::nft::{
    self, Batch, Chain, Expression, Family, Hook, HookPoint, MetaKey, Rule, Table,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::endpoint::Protocol;
use crate::firewall::FIRST;

/// Where a container's `resolv.conf` points.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const DNS: u16 = 53;
const TABLE: Table<'static> = Table {
    family: Family::Ip,
    name: "berth-resolver",
};
const CHAIN: &str = "output";

/// What the container's programs ask arrives here. The sockets are of the container's namespace,
/// which lives as long as they are open.
#[derive(Debug)]
pub struct ResolverSockets {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
}

/// Works in the calling thread's namespace.
pub fn open() -> io::Result<ResolverSockets> {
    let mut socket = Socket::netfilter()?;
    let earlier = ports_of(&nft::rules(&mut socket, TABLE.family, TABLE.name, CHAIN)?);
    let (udp, tcp) = earlier.unwrap_or((0, 0));
    // Someone else may have the port by now.
    let udp = UdpSocket::bind((RESOLVER, udp)).or_else(|_| UdpSocket::bind((RESOLVER, 0)))?;
    let tcp = TcpListener::bind((RESOLVER, tcp)).or_else(|_| TcpListener::bind((RESOLVER, 0)))?;
    redirect(&mut socket, udp.local_addr()?, tcp.local_addr()?)?;
    Ok(ResolverSockets { udp, tcp })
}

/// A socket of the calling thread's namespace.
pub fn socket(protocol: Protocol, towards: SocketAddr) -> io::Result<OwnedFd> {
    let family = match towards {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match protocol {
        Protocol::Udp => SocketType::DGRAM,
        Protocol::Tcp => SocketType::STREAM,
    };
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Makes the table anew, in one step.
fn redirect(socket: &mut Socket, udp: SocketAddr, tcp: SocketAddr) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.add_table(TABLE);
    batch.delete_table(TABLE);
    batch.add_table(TABLE);
    let chain = Chain {
        name: CHAIN.to_owned(),
        hook: Some(Hook {
            kind: "nat",
            point: HookPoint::Output,
            priority: -100,
            drop_by_default: false,
        }),
    };
    batch.add_chain(TABLE, &chain);
    for (protocol, target) in [(Protocol::Udp, udp), (Protocol::Tcp, tcp)] {
        batch.add_rule(
            TABLE,
            &Rule {
                chain: CHAIN.to_owned(),
                expressions: rule(protocol, target.port()),
                comment: Some(format!("{} {}", udp.port(), tcp.port())),
            },
        );
    }
    Ok(batch.commit(socket)?)
}

fn rule(protocol: Protocol, port: u16) -> Vec<Expression> {
    vec![
        Expression::NetworkHeader {
            offset: 16,
            length: 4,
            register: FIRST,
        },
        Expression::Equal(RESOLVER.octets().to_vec()),
        Expression::Meta {
            key: MetaKey::Protocol,
            register: FIRST,
        },
        Expression::Equal(vec![protocol.number()]),
        Expression::TransportHeader {
            offset: 2,
            length: 2,
            register: FIRST,
        },
        Expression::Equal(DNS.to_be_bytes().to_vec()),
        Expression::Load {
            value: RESOLVER.octets().to_vec(),
            register: FIRST,
        },
        Expression::Load {
            value: port.to_be_bytes().to_vec(),
            register: FIRST + 1,
        },
        Expression::Dnat {
            family: Family::Ip,
            address: FIRST,
            port: FIRST + 1,
        },
    ]
}

/// The ports of an earlier daemon's sockets, from the rules that it left.
fn ports_of(rules: &[nft::RuleInfo]) -> Option<(u16, u16)> {
    let (udp, tcp) = rules.first()?.comment.as_deref()?.split_once(' ')?;
    Some((udp.parse().ok()?, tcp.parse().ok()?))
}
