//! Links on top of other links: macvlan and ipvlan, and the sub-interfaces of a VLAN; and dummies,
//! which stand in for a link that is not there.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVlan, IpVlanFlags, IpVlanMode, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};

use serde::{Deserialize, Serialize};

use super::super::{Error, Messages, Socket};
use super::{MAKE, RTM_NEWLINK, emit};

/// What a child is, and how its parent treats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildKind {
    Macvlan(MacvlanMode),
    Ipvlan(IpvlanMode, IpvlanFlag),
}

/// Whom a macvlan link reaches on the same parent: nobody, everybody by way of a switch outside,
/// everybody, and with the last it is the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MacvlanMode {
    Private,
    Vepa,
    Bridge,
    Passthru,
}

/// Where an ipvlan link's packets are routed: in its own namespace, or in its parent's, and with
/// the last by the parent's netfilter too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpvlanMode {
    L2,
    L3,
    L3s,
}

/// Whom an ipvlan link reaches on the same parent, as [`MacvlanMode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpvlanFlag {
    Bridge,
    Private,
    Vepa,
}

/// A link to be made in another namespace, down.
#[derive(Debug)]
pub struct Child<'a> {
    pub name: &'a str,
    /// The index of a link in the socket's namespace.
    pub parent: u32,
    pub kind: ChildKind,
    /// `None`: an ipvlan link has its parent's.
    pub mac: Option<[u8; 6]>,
    /// `None` is the parent's.
    pub mtu: Option<u32>,
    pub namespace: BorrowedFd<'a>,
}

/// What a link that is made for others to be on top of is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParentKind {
    /// The tagged part of the link with this index.
    Vlan { link: u32, id: u16 },
    /// Leads nowhere.
    Dummy,
}

impl ChildKind {
    /// As the kernel calls it, as its module is called.
    pub fn name(self) -> &'static str {
        match self {
            ChildKind::Macvlan(_) => "macvlan",
            ChildKind::Ipvlan(..) => "ipvlan",
        }
    }

    /// Whether its default route leads to whoever answers on the link, rather than to a gateway.
    pub fn leads_to_link(self) -> bool {
        match self {
            ChildKind::Macvlan(_) | ChildKind::Ipvlan(IpvlanMode::L2, _) => false,
            ChildKind::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s, _) => true,
        }
    }

    fn kind(self) -> InfoKind {
        match self {
            ChildKind::Macvlan(_) => InfoKind::MacVlan,
            ChildKind::Ipvlan(..) => InfoKind::IpVlan,
        }
    }

    fn data(self) -> InfoData {
        match self {
            ChildKind::Macvlan(mode) => {
                let mode = match mode {
                    MacvlanMode::Private => MacVlanMode::Private,
                    MacvlanMode::Vepa => MacVlanMode::Vepa,
                    MacvlanMode::Bridge => MacVlanMode::Bridge,
                    MacvlanMode::Passthru => MacVlanMode::Passthrough,
                };
                InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)])
            }
            ChildKind::Ipvlan(mode, flag) => {
                let mode = match mode {
                    IpvlanMode::L2 => IpVlanMode::L2,
                    IpvlanMode::L3 => IpVlanMode::L3,
                    IpvlanMode::L3s => IpVlanMode::L3S,
                };
                let flags = match flag {
                    IpvlanFlag::Bridge => IpVlanFlags::empty(),
                    IpvlanFlag::Private => IpVlanFlags::Private,
                    IpvlanFlag::Vepa => IpVlanFlags::Vepa,
                };
                InfoData::IpVlan(vec![InfoIpVlan::Mode(mode), InfoIpVlan::Flags(flags)])
            }
        }
    }
}

impl ParentKind {
    /// As [`ChildKind::name`], and the module where it is called differently.
    pub fn name(self) -> &'static str {
        match self {
            ParentKind::Vlan { .. } => "8021q",
            ParentKind::Dummy => "dummy",
        }
    }
}

/// Whether the kernel can make such links; it loads the module if there is one. It is asked for one
/// without a parent, which it refuses for that reason if it knows the kind at all.
pub fn has_kind(socket: &mut Socket, kind: ChildKind) -> Result<bool, Error> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind.kind())])];
    match make(socket, &message) {
        Err(error) if error.is(libc::EOPNOTSUPP) => Ok(false),
        Err(error) if error.is(libc::EINVAL) => Ok(true),
        other => other.map(|()| true),
    }
}

pub fn create_child(socket: &mut Socket, child: &Child<'_>) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(child.name.to_owned()),
        LinkAttribute::Link(child.parent),
        LinkAttribute::NetNsFd(child.namespace.as_raw_fd()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(child.kind.kind()),
            LinkInfo::Data(child.kind.data()),
        ]),
    ];
    let mac = child.mac.map(|mac| LinkAttribute::Address(mac.to_vec()));
    message.attributes.extend(mac);
    message.attributes.extend(child.mtu.map(LinkAttribute::Mtu));
    make(socket, &message)
}

/// Makes a link for children, already up.
pub fn create_parent(
    socket: &mut Socket,
    name: &str,
    group: u32,
    kind: ParentKind,
) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Group(group),
    ];
    let info = match kind {
        ParentKind::Vlan { link, id } => {
            message.attributes.push(LinkAttribute::Link(link));
            vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)])),
            ]
        }
        ParentKind::Dummy => vec![LinkInfo::Kind(InfoKind::Dummy)],
    };
    message.attributes.push(LinkAttribute::LinkInfo(info));
    make(socket, &message)
}

fn make(socket: &mut Socket, message: &LinkMessage) -> Result<(), Error> {
    let mut messages = Messages::new();
    messages.push(RTM_NEWLINK, MAKE, emit(message));
    socket.execute(messages).map(|_| ())
}
