//! Forgetting tracked connections, through ctnetlink.
//!
//! A flow of UDP that goes on without a pause keeps the translation that it began with; when a
//! port is published or taken away, such flows must begin anew.

use std::net::IpAddr;

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
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
// The bits of CTA_FILTER_*_FLAGS (net/netfilter/nf_internals.h).
const FILTER_IP_SRC: u32 = 1 << 0;
const FILTER_PROTO_NUM: u32 = 1 << 3;
const FILTER_PROTO_DST_PORT: u32 = 1 << 5;

/// Forgets the connections that this address answers (the translated ones included).
pub fn forget_answered_by(socket: &mut Socket, address: IpAddr) -> Result<(), Error> {
    forget(socket, Family::of(address), |out| {
        nest(out, CTA_TUPLE_REPLY, |out| put_source(out, address));
        filter(out, 0, FILTER_IP_SRC);
    })
}

/// Forgets the connections that this address began (the translated ones included).
pub fn forget_begun_by(socket: &mut Socket, address: IpAddr) -> Result<(), Error> {
    forget(socket, Family::of(address), |out| {
        nest(out, CTA_TUPLE_ORIG, |out| put_source(out, address));
        filter(out, FILTER_IP_SRC, 0);
    })
}

fn put_source(out: &mut Vec<u8>, address: IpAddr) {
    nest(out, CTA_TUPLE_IP, |out| match address {
        IpAddr::V4(address) => put(out, CTA_IP_V4_SRC, &address.octets()),
        IpAddr::V6(address) => put(out, CTA_IP_V6_SRC, &address.octets()),
    });
}

/// Forgets the connections of this protocol that were made to this port.
pub fn forget_port(
    socket: &mut Socket,
    family: Family,
    protocol: u8,
    port: u16,
) -> Result<(), Error> {
    forget(socket, family, |out| {
        nest(out, CTA_TUPLE_ORIG, |out| {
            nest(out, CTA_TUPLE_PROTO, |out| {
                put(out, CTA_PROTO_NUM, &[protocol]);
                put(out, CTA_PROTO_DST_PORT, &port.to_be_bytes());
            });
        });
        filter(out, FILTER_PROTO_NUM | FILTER_PROTO_DST_PORT, 0);
    })
}

fn filter(out: &mut Vec<u8>, original: u32, reply: u32) {
    nest(out, CTA_FILTER, |out| {
        put(out, CTA_FILTER_ORIG_FLAGS, &original.to_ne_bytes());
        put(out, CTA_FILTER_REPLY_FLAGS, &reply.to_ne_bytes());
    });
}

/// One by one: older kernels know the filter for lists only, 6.1 among them.
fn forget(
    socket: &mut Socket,
    family: Family,
    filter: impl FnOnce(&mut Vec<u8>),
) -> Result<(), Error> {
    let mut list = Messages::new();
    list.push(kind(IPCTNL_MSG_CT_GET), NLM_F_REQUEST | NLM_F_DUMP, |out| {
        out.extend([family.byte(), 0, 0, 0]);
        filter(out);
    });
    for found in socket.dump(list)? {
        let attributes = found.payload.get(NFGENMSG_BYTES..).unwrap_or_default();
        let Some(tuple) = find(attributes, CTA_TUPLE_ORIG) else {
            continue;
        };
        let mut message = Messages::new();
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        message.push(kind(IPCTNL_MSG_CT_DELETE), flags, |out| {
            out.extend([family.byte(), 0, 0, 0]);
            nest(out, CTA_TUPLE_ORIG, |out| out.extend(tuple));
            // Another one may have the same tuple by now.
            for kind in [CTA_ID, CTA_ZONE] {
                if let Some(value) = find(attributes, kind) {
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

fn kind(message: u16) -> u16 {
    NFNL_SUBSYS_CTNETLINK << 8 | message
}
