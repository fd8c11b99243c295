//! Links, addresses and routes, through rtnetlink.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{Emitable, ParseableParametrized};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{
    Error, Messages, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    Reply, Socket,
};

mod child;
mod port;

pub use child::{
    Child, ChildKind, IpvlanFlag, IpvlanMode, MacvlanMode, ParentKind, create_child, create_parent,
    has_kind,
};
pub use port::{PortMode, set_port_mode, silence_port};

// <linux/rtnetlink.h>
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_DELNEIGH: u16 = 29;

const MAKE: u16 = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
const CHANGE: u16 = NLM_F_REQUEST | NLM_F_ACK;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`, `vlan`; `None` for hardware.
    pub kind: Option<String>,
    /// The bridge that the link is a port of.
    pub master: Option<u32>,
    pub mtu: u32,
    pub mac: Vec<u8>,
    /// A number that tells links apart by their owner; 0 is nobody's.
    pub group: u32,
    pub up: bool,
    /// Has a carrier, and the kernel knows: packets are not dropped any more.
    pub running: bool,
}

/// Of addresses and routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// A network with the link that leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub link: u32,
    pub address: IpAddr,
    pub prefix: u8,
}

/// Where a default route leads: to a gateway, or to whoever answers on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Gateway(IpAddr),
    Link(Family),
}

/// A pair of links to be made: `name` as a port of `master`, `peer_name` in another namespace.
#[derive(Debug)]
pub struct Veth<'a> {
    pub name: &'a str,
    pub master: u32,
    pub mtu: u32,
    pub peer_name: &'a str,
    pub peer_mac: [u8; 6],
    pub peer_namespace: BorrowedFd<'a>,
}

pub fn links(socket: &mut Socket) -> Result<Vec<Link>, Error> {
    let replies = dump(socket, RTM_GETLINK, &LinkMessage::default())?;
    Ok(replies.iter().filter_map(parse_link).collect())
}

/// The link of this name, if there is one.
pub fn link(socket: &mut Socket, name: &str) -> Result<Option<Link>, Error> {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    let mut messages = Messages::new();
    messages.push(RTM_GETLINK, CHANGE, emit(&message));
    match socket.execute(messages) {
        Ok(replies) => Ok(replies.iter().find_map(parse_link)),
        Err(error) if error.is(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A bridge to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewBridge<'a> {
    pub name: &'a str,
    /// Given, so that it does not change with the bridge's ports.
    pub mac: [u8; 6],
    pub mtu: Option<u32>,
    /// Whose it is.
    pub group: u32,
}

/// Makes a bridge, already up.
///
/// It floods multicast rather than snooping, as it would without a querier anyway: with snooping,
/// every port that comes or goes has the kernel go through the timers of all others.
pub fn create_bridge(socket: &mut Socket, bridge: &NewBridge<'_>) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(bridge.name.to_owned()),
        LinkAttribute::Group(bridge.group),
        LinkAttribute::Address(bridge.mac.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
        ]),
    ];
    message
        .attributes
        .extend(bridge.mtu.map(LinkAttribute::Mtu));
    let mut messages = Messages::new();
    messages.push(RTM_NEWLINK, MAKE, emit(&message));
    socket.execute(messages).map(|_| ())
}

/// Makes a pair, both sides down.
pub fn create_veth(socket: &mut Socket, veth: &Veth<'_>) -> Result<(), Error> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(veth.peer_name.to_owned()),
        LinkAttribute::Address(veth.peer_mac.to_vec()),
        LinkAttribute::Mtu(veth.mtu),
        LinkAttribute::NetNsFd(veth.peer_namespace.as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(veth.name.to_owned()),
        LinkAttribute::Mtu(veth.mtu),
        LinkAttribute::Controller(veth.master),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    let mut messages = Messages::new();
    messages.push(RTM_NEWLINK, MAKE, emit(&message));
    socket.execute(messages).map(|_| ())
}

pub fn set_up(socket: &mut Socket, index: u32) -> Result<(), Error> {
    let mut messages = Messages::new();
    messages.push(RTM_SETLINK, CHANGE, emit(&up(index)));
    socket.execute(messages).map(|_| ())
}

pub fn set_up_by_name(socket: &mut Socket, name: &str) -> Result<(), Error> {
    let mut message = up(0);
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    let mut messages = Messages::new();
    messages.push(RTM_SETLINK, CHANGE, emit(&message));
    socket.execute(messages).map(|_| ())
}

pub fn set_mtu(socket: &mut Socket, index: u32, mtu: u32) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Mtu(mtu));
    let mut messages = Messages::new();
    messages.push(RTM_SETLINK, CHANGE, emit(&message));
    socket.execute(messages).map(|_| ())
}

/// The link has this hardware address. With `arp_notify` and `ndisc_notify` the kernel tells the
/// neighbours, also of one that it had already.
pub fn set_mac(socket: &mut Socket, index: u32, mac: &[u8]) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let mac = LinkAttribute::Address(mac.to_vec());
    message.attributes.push(mac);
    let mut messages = Messages::new();
    messages.push(RTM_SETLINK, CHANGE, emit(&message));
    socket.execute(messages).map(|_| ())
}

/// Makes a link a port of the bridge `master`.
pub fn set_master(socket: &mut Socket, index: u32, master: u32) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Controller(master));
    let mut messages = Messages::new();
    messages.push(RTM_SETLINK, CHANGE, emit(&message));
    socket.execute(messages).map(|_| ())
}

/// Brings a link up with these addresses, each with its prefix' length, and default routes to
/// these ways, in place of those that are there: one exchange.
pub fn configure(
    socket: &mut Socket,
    index: u32,
    addresses: &[(IpAddr, u8)],
    ways: &[Way],
) -> Result<(), Error> {
    let mut messages = Messages::new();
    messages.push(RTM_SETLINK, CHANGE, emit(&up(index)));
    for (address, prefix) in addresses {
        push_address(&mut messages, index, *address, *prefix);
    }
    for way in ways {
        push_default_route(&mut messages, index, *way);
    }
    socket.execute(messages).map(|_| ())
}

pub fn add_address(
    socket: &mut Socket,
    index: u32,
    address: IpAddr,
    prefix: u8,
) -> Result<(), Error> {
    let mut messages = Messages::new();
    push_address(&mut messages, index, address, prefix);
    socket.execute(messages).map(|_| ())
}

/// The default route leads this way from now on.
pub fn replace_default_route(socket: &mut Socket, index: u32, way: Way) -> Result<(), Error> {
    let mut messages = Messages::new();
    push_default_route(&mut messages, index, way);
    socket.execute(messages).map(|_| ())
}

/// Takes the default route away. It is no error if there is none.
pub fn delete_default_route(socket: &mut Socket, family: Family) -> Result<(), Error> {
    let mut message = default_route(family);
    // Of any scope: it may lead to a gateway or to a link.
    message.header.scope = RouteScope::NoWhere;
    let mut messages = Messages::new();
    messages.push(RTM_DELROUTE, CHANGE, emit(&message));
    match socket.execute(messages) {
        Err(error) if !error.is(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// The addresses of all links.
pub fn addresses(socket: &mut Socket, family: Family) -> Result<Vec<Network>, Error> {
    let mut message = AddressMessage::default();
    message.header.family = family.number();
    let replies = dump(socket, RTM_GETADDR, &message)?;
    let parse = |reply: &Reply| {
        let RouteNetlinkMessage::NewAddress(message) = decode(reply)? else {
            return None;
        };
        let mut found = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => found = Some(*address),
                // IPv6 has only this.
                AddressAttribute::Address(address) => found = found.or(Some(*address)),
                _ => {}
            }
        }
        Some(Network {
            link: message.header.index,
            address: found?,
            prefix: message.header.prefix_len,
        })
    };
    Ok(replies.iter().filter_map(parse).collect())
}

/// The networks that the host routes, in all tables, but the default route.
pub fn routes(socket: &mut Socket, family: Family) -> Result<Vec<Network>, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = family.number();
    let replies = dump(socket, RTM_GETROUTE, &message)?;
    let parse = |reply: &Reply| {
        let RouteNetlinkMessage::NewRoute(message) = decode(reply)? else {
            return None;
        };
        let (mut address, mut link) = (None, 0);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(found)) => {
                    address = Some(IpAddr::V4(*found));
                }
                RouteAttribute::Destination(RouteAddress::Inet6(found)) => {
                    address = Some(IpAddr::V6(*found));
                }
                RouteAttribute::Oif(index) => link = *index,
                _ => {}
            }
        }
        Some(Network {
            link,
            address: address?,
            prefix: message.header.destination_prefix_length,
        })
    };
    Ok(replies.iter().filter_map(parse).collect())
}

/// Removes links; those that are gone already are no error.
pub fn delete_link(socket: &mut Socket, index: u32) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    removed(socket, &message)
}

/// Removes all links of a group at once; an empty group is no error. Legal where each of them can
/// be removed.
pub fn delete_group(socket: &mut Socket, group: u32) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    removed(socket, &message)
}

fn removed(socket: &mut Socket, message: &LinkMessage) -> Result<(), Error> {
    let mut messages = Messages::new();
    messages.push(RTM_DELLINK, CHANGE, emit(message));
    match socket.execute(messages) {
        Err(error) if !error.is(libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}

/// Forgets which hardware address a neighbour had. An unknown neighbour is no error.
pub fn forget_neighbour(socket: &mut Socket, link: u32, address: IpAddr) -> Result<(), Error> {
    let mut message = NeighbourMessage::default();
    message.header.family = Family::of(address).number();
    message.header.ifindex = link;
    message.attributes = vec![NeighbourAttribute::Destination(match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    })];
    let mut messages = Messages::new();
    messages.push(RTM_DELNEIGH, CHANGE, emit(&message));
    match socket.execute(messages) {
        Err(error) if !error.is(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

fn up(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

impl Family {
    pub fn of(address: IpAddr) -> Family {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// `AF_INET` or `AF_INET6`.
    pub(super) fn byte(self) -> u8 {
        self.number().into()
    }

    fn number(self) -> AddressFamily {
        match self {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        }
    }
}

fn push_address(messages: &mut Messages, index: u32, address: IpAddr, prefix: u8) {
    let mut message = AddressMessage::default();
    message.header.family = Family::of(address).number();
    message.header.prefix_len = prefix;
    message.header.scope = scope(address);
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ];
    match address {
        IpAddr::V4(address) => {
            let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            let broadcast = Ipv4Addr::from(u32::from(address) | host_bits);
            let broadcast = AddressAttribute::Broadcast(broadcast);
            message.attributes.push(broadcast);
        }
        // Nobody else can have it, and it is to be used at once.
        IpAddr::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
    }
    messages.push(
        RTM_NEWADDR,
        MAKE & !NLM_F_EXCL | NLM_F_REPLACE,
        emit(&message),
    );
}

fn scope(address: IpAddr) -> AddressScope {
    let for_link = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if for_link {
        AddressScope::Link
    } else {
        AddressScope::Universe
    }
}

fn push_default_route(messages: &mut Messages, index: u32, way: Way) {
    let route = match way {
        Way::Gateway(gateway) => {
            let mut route = default_route(Family::of(gateway));
            let gateway = RouteAttribute::Gateway(gateway.into());
            route.attributes = vec![gateway, RouteAttribute::Oif(index)];
            route
        }
        Way::Link(family) => {
            let mut route = default_route(family);
            route.header.scope = RouteScope::Link;
            route.attributes = vec![RouteAttribute::Oif(index)];
            route
        }
    };
    messages.push(
        RTM_NEWROUTE,
        MAKE & !NLM_F_EXCL | NLM_F_REPLACE,
        emit(&route),
    );
}

fn default_route(family: Family) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family.number();
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route
}

fn dump(socket: &mut Socket, kind: u16, message: &impl Emitable) -> Result<Vec<Reply>, Error> {
    let mut messages = Messages::new();
    messages.push(kind, NLM_F_REQUEST | NLM_F_DUMP, emit(message));
    socket.dump(messages)
}

fn emit(message: &impl Emitable) -> impl FnOnce(&mut Vec<u8>) {
    move |out| {
        let start = out.len();
        out.resize(start + message.buffer_len(), 0);
        message.emit(&mut out[start..]);
    }
}

/// `None` for what this library does not understand, for example attributes of a newer kernel.
fn decode(reply: &Reply) -> Option<RouteNetlinkMessage> {
    RouteNetlinkMessage::parse_with_param(&reply.payload[..], reply.kind).ok()
}

fn parse_link(reply: &Reply) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = decode(reply)? else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        master: None,
        mtu: 0,
        mac: Vec::new(),
        group: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        running: message.header.flags.contains(LinkFlags::Running),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Address(mac) => link.mac = mac,
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(link)
}
