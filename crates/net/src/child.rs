//! Networks whose interfaces are children of a link of the host's: macvlan and ipvlan (moby,
//! `libnetwork/drivers/{macvlan,ipvlan}`). No bridge, no port of the host's, no firewall: the
//! containers are hosts of the network that the parent is on.
//!
//! The parent is the user's, or made by us: a VLAN's sub-interface that is not there yet
//! (`eth0.10`), or a dummy for a network without a parent. Ours have the instance's link group.

use berth_sys::netlink::route::{self, ChildKind, MacvlanMode, ParentKind};
use berth_sys::netlink::{self, Socket};
use serde::{Deserialize, Serialize};

use crate::bridge::failed;
use crate::error::Error;

/// The tags that a VLAN may have (IEEE 802.1Q; 0 and 4095 are reserved).
const VLAN_IDS: std::ops::RangeInclusive<i64> = 1..=4094;

/// A link of the host's, and what containers' interfaces on it are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    pub parent: String,
    pub kind: ChildKind,
}

impl Child {
    /// Without a parent: a dummy of a name that follows from the network's id, as Docker's.
    pub fn without_parent(network: &str, kind: ChildKind) -> Child {
        let digits = network.get(..12).unwrap_or(network);
        let prefix = match kind {
            ChildKind::Macvlan(_) => "dm-",
            ChildKind::Ipvlan(..) => "di-",
        };
        Child {
            parent: format!("{prefix}{digits}"),
            kind,
        }
    }

    fn is_dummy_of(&self, network: &str) -> bool {
        Child::without_parent(network, self.kind).parent == self.parent
    }

    /// The hardware address of an interface: what was asked for or, as Docker, a random one. If it
    /// followed from the IP address, a restarted container would have to wait for the kernel to
    /// end the namespace of its last run, which still has it. `None`: it has none of its own.
    pub fn mac(&self, wanted: Option<[u8; 6]>) -> Option<[u8; 6]> {
        match self.kind {
            ChildKind::Macvlan(_) => Some(wanted.unwrap_or_else(random_mac)),
            ChildKind::Ipvlan(..) => None,
        }
    }

    /// Why it cannot be beside another network's on the same parent.
    pub fn conflict(&self, other: &Child, other_id: &str) -> Option<Error> {
        if self.parent != other.parent {
            return None;
        }
        let parent = self.parent.as_str();
        let passthru = |child: &Child| child.kind == ChildKind::Macvlan(MacvlanMode::Passthru);
        let why = match (self.kind, other.kind) {
            (ChildKind::Ipvlan(..), ChildKind::Ipvlan(..)) => {
                let dummy = Child::without_parent(other_id, other.kind).parent;
                format!("network {dummy} is already using parent interface {parent}")
            }
            (ChildKind::Macvlan(_), ChildKind::Macvlan(_)) if passthru(self) => format!(
                "cannot use mode passthru, macvlan network {other_id} is already using parent \
                 interface {parent}"
            ),
            (ChildKind::Macvlan(_), ChildKind::Macvlan(_)) if passthru(other) => format!(
                "macvlan network {other_id} is already using parent interface {parent} in mode \
                 passthru"
            ),
            // The kernel has only one kind at a time; that is a connection's affair, as in Docker.
            _ => return None,
        };
        Some(Error::Parent { why })
    }
}

/// Finds the parent, or makes it if it may be made.
pub fn ensure(socket: &mut Socket, network: &str, child: &Child, group: u32) -> Result<(), Error> {
    let name = child.parent.as_str();
    let known = route::has_kind(socket, child.kind);
    if !known.map_err(failed("ask the kernel for links like those on", name))? {
        let kind = child.kind.name();
        return Err(lacking(kind, &format!("{kind} interfaces")));
    }
    if look_up(socket, name)?.is_some() {
        return Ok(());
    }
    let kind = if child.is_dummy_of(network) {
        ParentKind::Dummy
    } else {
        sub_interface(socket, name)?
    };
    match route::create_parent(socket, name, group, kind) {
        Err(error) if error.is(libc::EOPNOTSUPP) => Err(lacking(
            kind.name(),
            match kind {
                ParentKind::Vlan { .. } => "VLANs",
                ParentKind::Dummy => "dummy interfaces, which a network without a parent needs",
            },
        )),
        other => other.map_err(failed("make the parent interface", name)),
    }
}

/// Removes a parent that we made. One that is gone is no error.
pub fn remove(socket: &mut Socket, child: &Child, group: u32) -> Result<(), Error> {
    match look_up(socket, &child.parent)?.filter(|link| link.group == group) {
        Some(link) => route::delete_link(socket, link.index)
            .map_err(failed("remove the parent interface", &child.parent)),
        None => Ok(()),
    }
}

/// The parent as it is now.
pub fn parent(socket: &mut Socket, child: &Child) -> Result<route::Link, Error> {
    let found = look_up(socket, &child.parent)?;
    found.ok_or_else(|| Error::Parent {
        why: format!(
            "the requested parent interface {} was not found on the Docker host",
            child.parent
        ),
    })
}

/// In the words that the driver's users know, and what the kernel said.
pub fn refused<'a>(child: &'a Child) -> impl FnOnce(netlink::Error) -> Error + 'a {
    move |error| {
        let kind = child.kind.name();
        let hint = match error.errno {
            // One parent has children of one kind only, and a passthru child is the only one.
            libc::EBUSY | libc::EINVAL => format!(
                " (the interface {} may have another's macvlan, ipvlan or bridge on it)",
                child.parent
            ),
            _ => String::new(),
        };
        Error::Parent {
            why: format!("failed to create the {kind} port: {error}{hint}"),
        }
    }
}

/// Locally administered.
fn random_mac() -> [u8; 6] {
    let mut random = [0u8; 4];
    // It fails only before the kernel's generator is seeded: long before there are containers.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let [a, b, c, d] = random;
    [0x02, 0x42, a, b, c, d]
}

fn look_up(socket: &mut Socket, name: &str) -> Result<Option<route::Link>, Error> {
    route::link(socket, name).map_err(failed("look for the parent interface", name))
}

fn lacking(module: &str, what: &str) -> Error {
    Error::Parent {
        why: format!(
            "this kernel has no {what}: its module {module} is neither built in nor can it be \
             loaded"
        ),
    }
}

/// `eth0.10`: the part of `eth0` with the tag 10.
fn sub_interface(socket: &mut Socket, name: &str) -> Result<ParentKind, Error> {
    let (link, id) = parse(name).map_err(|why| Error::Parent { why })?;
    let Some(found) = look_up(socket, link)? else {
        return Err(Error::Parent {
            why: format!("-o parent interface was not found on the host: {link}"),
        });
    };
    let id = id.map_err(|why| Error::Parent { why })?;
    Ok(ParentKind::Vlan {
        link: found.index,
        id,
    })
}

/// The parent's name and the tag, which is looked at only once the parent has been found.
fn parse(name: &str) -> Result<(&str, Result<u16, String>), String> {
    let mut parts = name.split('.');
    let (Some(link), Some(id)) = (parts.next(), parts.next()) else {
        return Err(format!(
            "invalid subinterface vlan name {name}, example formatting is eth0.10"
        ));
    };
    if parts.next().is_some() {
        return Err(format!(
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead \
             received {name}"
        ));
    }
    let number: i64 = id.parse().map_err(|_| {
        format!("unable to parse a valid vlan id from: {id} (ex. eth0.10 for vlan 10)")
    })?;
    let id = u16::try_from(number).ok();
    let id = id.filter(|_| VLAN_IDS.contains(&number));
    let outside = || format!("vlan id must be between 1-4094, received: {number}");
    Ok((link, id.ok_or_else(outside)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_sys::netlink::route::{IpvlanFlag, IpvlanMode};

    #[test]
    fn the_name_of_a_sub_interface_tells_parent_and_tag() {
        assert_eq!(parse("eth0.10"), Ok(("eth0", Ok(10))));
        let words = |name| match parse(name) {
            Err(why) | Ok((_, Err(why))) => why,
            Ok(found) => panic!("{found:?}"),
        };
        assert_eq!(
            words("nosuch"),
            "invalid subinterface vlan name nosuch, example formatting is eth0.10"
        );
        assert_eq!(
            words("eth0.1.2"),
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead \
             received eth0.1.2"
        );
        assert_eq!(
            words("eth0.x"),
            "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"
        );
        for (name, id) in [("eth0.0", 0), ("eth0.4095", 4095), ("eth0.-1", -1)] {
            let expect = format!("vlan id must be between 1-4094, received: {id}");
            assert_eq!(words(name), expect);
        }
    }

    #[test]
    fn a_parent_is_shared_as_in_docker() {
        let child = |kind| Child {
            parent: "eth0".to_owned(),
            kind,
        };
        let macvlan = |mode| child(ChildKind::Macvlan(mode));
        let ipvlan = || child(ChildKind::Ipvlan(IpvlanMode::L2, IpvlanFlag::Bridge));
        let words = |a: Child, b: Child| a.conflict(&b, "b").map(|it| it.to_string());
        let bridge = || macvlan(MacvlanMode::Bridge);
        let passthru = || macvlan(MacvlanMode::Passthru);
        assert_eq!(words(bridge(), macvlan(MacvlanMode::Vepa)), None);
        assert_eq!(words(bridge(), ipvlan()), None);
        assert_eq!(
            words(passthru(), bridge()).as_deref(),
            Some(
                "cannot use mode passthru, macvlan network b is already using parent interface \
                 eth0"
            )
        );
        assert_eq!(
            words(bridge(), passthru()).as_deref(),
            Some("macvlan network b is already using parent interface eth0 in mode passthru")
        );
        assert_eq!(
            words(ipvlan(), ipvlan()).as_deref(),
            Some("network di-b is already using parent interface eth0")
        );
        let other = Child {
            parent: "eth1".to_owned(),
            ..passthru()
        };
        assert_eq!(words(bridge(), other), None);
    }
}
