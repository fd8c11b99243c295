//! Forgetting tracked connections, through ctnetlink.
//!
//! A flow of UDP that goes on without a pause keeps the translation that it began with; when a
//! port is published or taken away, such flows must begin anew.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::attributes::{find, nest, put};
use super::route::Family;
use super::{Error, Messages, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, Socket};

// <linux/netfilter/nfnetlink.h>, <linux/netfilter/nfnetlink_conntrack.h>
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const NFGENMSG_BYTES: usize = 4;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// What is tracked of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracked {
    /// Who began it.
    pub begun_by: IpAddr,
    /// Who answers it, behind all translation.
    pub answered_by: IpAddr,
    /// The number of the protocol, and the port that was asked for; 0 where there are none.
    pub protocol: u8,
    pub port: u16,
}

/// Forgets the connections of a family that are wanted gone. The kernel goes through its whole
/// table, which takes about 50 ns a bucket (milliseconds on a machine with much memory), however
/// few connections there are. (A filter of the kernel's, which would find one address only, costs
/// the same.)
pub fn forget(
    socket: &mut Socket,
    family: Family,
    unwanted: impl Fn(&Tracked) -> bool,
) -> Result<(), Error> {
    let mut list = Messages::new();
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    list.push(kind(IPCTNL_MSG_CT_GET), flags, |out| {
        out.extend([family.byte(), 0, 0, 0]);
    });
    let mut gone = Vec::new();
    socket.dump_each(list, |payload| {
        let attributes = payload.get(NFGENMSG_BYTES..).unwrap_or_default();
        if read(attributes).is_some_and(|tracked| unwanted(&tracked)) {
            gone.push(attributes.to_vec());
        }
    })?;
    for attributes in gone {
        let mut message = Messages::new();
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        message.push(kind(IPCTNL_MSG_CT_DELETE), flags, |out| {
            out.extend([family.byte(), 0, 0, 0]);
            let tuple = find(&attributes, CTA_TUPLE_ORIG).unwrap_or_default();
            nest(out, CTA_TUPLE_ORIG, |out| out.extend(tuple));
            // Another one may have the same tuple by now.
            for kind in [CTA_ID, CTA_ZONE] {
                if let Some(value) = find(&attributes, kind) {
                    put(out, kind, value);
                }
            }
        });
        match socket.execute(message) {
            // It has ended meanwhile.
            Err(error) if error.is(libc::ENOENT) => {}
            other => drop(other?),
        }
    }
    Ok(())
}

fn read(attributes: &[u8]) -> Option<Tracked> {
    let original = find(attributes, CTA_TUPLE_ORIG)?;
    let proto = find(original, CTA_TUPLE_PROTO)?;
    let port = find(proto, CTA_PROTO_DST_PORT).and_then(|value| value.try_into().ok());
    Some(Tracked {
        begun_by: source(original)?,
        answered_by: source(find(attributes, CTA_TUPLE_REPLY)?)?,
        protocol: *find(proto, CTA_PROTO_NUM)?.first()?,
        port: port.map_or(0, u16::from_be_bytes),
    })
}

fn source(tuple: &[u8]) -> Option<IpAddr> {
    let ip = find(tuple, CTA_TUPLE_IP)?;
    if let Some(value) = find(ip, CTA_IP_V4_SRC) {
        let bytes: [u8; 4] = value.try_into().ok()?;
        return Some(Ipv4Addr::from(bytes).into());
    }
    let bytes: [u8; 16] = find(ip, CTA_IP_V6_SRC)?.try_into().ok()?;
    Some(Ipv6Addr::from(bytes).into())
}

fn kind(message: u16) -> u16 {
    NFNL_SUBSYS_CTNETLINK << 8 | message
}
