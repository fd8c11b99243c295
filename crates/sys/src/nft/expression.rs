//! The expressions that rules are made of, and their encoding.

use super::Family;
use crate::netlink::attributes::{nest, put, put_be32, put_text};

/// One step of a rule. Registers are numbered in words of four bytes from 8 on (`NFT_REG32_00`);
/// where none is named the first is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Loads a property of the packet.
    Meta {
        key: MetaKey,
        register: u32,
    },
    /// Loads bytes of the IP header.
    NetworkHeader {
        offset: u32,
        length: u32,
        register: u32,
    },
    /// Loads bytes of the TCP or UDP header.
    TransportHeader {
        offset: u32,
        length: u32,
        register: u32,
    },
    /// Loads the connection's state bits (`IP_CT_*`).
    ConnectionState,
    /// Loads the connection's status bits (`IPS_*`).
    ConnectionStatus,
    /// Loads the kind of the destination address (`RTN_*`).
    DestinationKind,
    /// Loads the kind of the source address (`RTN_*`).
    SourceKind,
    /// Loads a value.
    Load {
        value: Vec<u8>,
        register: u32,
    },
    /// Keeps the bits of the mask, in the host's order.
    Mask(u32),
    /// Keeps the bits of the mask, in the packet's order.
    MaskBytes(Vec<u8>),
    /// Goes on if the register begins with these bytes.
    Equal(Vec<u8>),
    /// Goes on if the register does not begin with these bytes.
    NotEqual(Vec<u8>),
    /// Replaces the key in the first registers by the map's data, or ends the rule.
    LookUp {
        map: String,
    },
    /// Goes on if the set has the key in the first registers.
    Among {
        set: String,
    },
    /// Goes on if the set does not have it.
    NotAmong {
        set: String,
    },
    /// Goes on if the interface that the packet came in by is in this link group: iptables'
    /// `devgroup`, which its program can show, as it cannot nftables' own.
    InputGroup(u32),
    /// The same of the interface that it goes out by.
    OutputGroup(u32),
    /// Redirects to the address and the port in these registers.
    Dnat {
        family: Family,
        address: u32,
        port: u32,
    },
    /// Sends from the address in this register.
    Snat {
        family: Family,
        address: u32,
    },
    Masquerade,
    Counter,
    Verdict(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaKey {
    /// The number of an interface; 0 where there is none.
    InputIndex,
    InputName,
    OutputName,
    Protocol,
    /// `bridge`, `veth`; ends the rule for hardware.
    InputKind,
    OutputKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Jump(String),
}

const FIRST: u32 = 8;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

impl Expression {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Expression::Meta { key, register } => write(out, "meta", |out| {
                put_be32(out, 2, key.number());
                put_be32(out, 1, *register);
            }),
            Expression::NetworkHeader {
                offset,
                length,
                register,
            } => {
                payload(out, 1, [*offset, *length, *register]);
            }
            Expression::TransportHeader {
                offset,
                length,
                register,
            } => {
                payload(out, 2, [*offset, *length, *register]);
            }
            Expression::ConnectionState => connection(out, 0),
            Expression::ConnectionStatus => connection(out, 2),
            Expression::SourceKind => address_kind(out, 1 << 0),
            Expression::DestinationKind => address_kind(out, 1 << 1),
            Expression::Load { value, register } => write(out, "immediate", |out| {
                put_be32(out, 1, *register);
                nest(out, 2, |out| put(out, DATA_VALUE, value));
            }),
            Expression::Mask(mask) => bitwise(out, &mask.to_ne_bytes()),
            Expression::MaskBytes(mask) => bitwise(out, mask),
            Expression::Equal(value) => compare(out, 0, value),
            Expression::NotEqual(value) => compare(out, 1, value),
            Expression::LookUp { map } => write(out, "lookup", |out| {
                put_text(out, 1, map);
                put_be32(out, 2, FIRST);
                put_be32(out, 3, FIRST);
            }),
            Expression::Among { set } => write(out, "lookup", |out| {
                put_text(out, 1, set);
                put_be32(out, 2, FIRST);
            }),
            Expression::NotAmong { set } => write(out, "lookup", |out| {
                const INVERTED: u32 = 1;
                put_text(out, 1, set);
                put_be32(out, 2, FIRST);
                put_be32(out, 5, INVERTED);
            }),
            Expression::InputGroup(group) => device_group(out, [1, *group, u32::MAX, 0, 0]),
            Expression::OutputGroup(group) => device_group(out, [4, 0, 0, *group, u32::MAX]),
            Expression::Dnat {
                family,
                address,
                port,
            } => write(out, "nat", |out| {
                const DNAT: u32 = 1;
                put_be32(out, 1, DNAT);
                put_be32(out, 2, u32::from(family.number()));
                put_be32(out, 3, *address);
                put_be32(out, 5, *port);
            }),
            Expression::Snat { family, address } => write(out, "nat", |out| {
                const SNAT: u32 = 0;
                put_be32(out, 1, SNAT);
                put_be32(out, 2, u32::from(family.number()));
                put_be32(out, 3, *address);
            }),
            Expression::Masquerade => write(out, "masq", |_| {}),
            Expression::Counter => write(out, "counter", |_| {}),
            Expression::Verdict(verdict) => write(out, "immediate", |out| {
                const VERDICT_REGISTER: u32 = 0;
                put_be32(out, 1, VERDICT_REGISTER);
                nest(out, 2, |out| {
                    nest(out, DATA_VERDICT, |out| verdict.write(out))
                });
            }),
        }
    }
}

impl MetaKey {
    fn number(self) -> u32 {
        match self {
            MetaKey::InputIndex => 4,
            MetaKey::InputName => 6,
            MetaKey::OutputName => 7,
            MetaKey::Protocol => 16,
            MetaKey::InputKind => 26,
            MetaKey::OutputKind => 27,
        }
    }
}

impl Verdict {
    fn write(&self, out: &mut Vec<u8>) {
        let (code, chain) = match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
        };
        put_be32(out, 1, i32::cast_unsigned(code));
        if let Some(chain) = chain {
            put_text(out, 2, chain);
        }
    }
}

fn write(out: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Vec<u8>)) {
    const ELEMENT: u16 = 1;
    nest(out, ELEMENT, |out| {
        put_text(out, 1, name);
        nest(out, 2, data);
    });
}

fn payload(out: &mut Vec<u8>, base: u32, [offset, length, register]: [u32; 3]) {
    write(out, "payload", |out| {
        put_be32(out, 1, register);
        put_be32(out, 2, base);
        put_be32(out, 3, offset);
        put_be32(out, 4, length);
    });
}

fn connection(out: &mut Vec<u8>, key: u32) {
    write(out, "ct", |out| {
        put_be32(out, 2, key);
        put_be32(out, 1, FIRST);
    });
}

/// `struct xt_devgroup_info` (`<linux/netfilter/xt_devgroup.h>`): which sides, group and mask of
/// the input, of the output; aligned to eight bytes.
fn device_group(out: &mut Vec<u8>, info: [u32; 5]) {
    write(out, "match", |out| {
        put_text(out, 1, "devgroup");
        put_be32(out, 2, 0);
        let mut bytes: Vec<u8> = info.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        put(out, 3, &bytes);
    });
}

/// `which` is `NFTA_FIB_F_SADDR` or `NFTA_FIB_F_DADDR`.
fn address_kind(out: &mut Vec<u8>, which: u32) {
    const ADDRESS_TYPE: u32 = 3;
    write(out, "fib", |out| {
        put_be32(out, 3, which);
        put_be32(out, 2, ADDRESS_TYPE);
        put_be32(out, 1, FIRST);
    });
}

fn bitwise(out: &mut Vec<u8>, mask: &[u8]) {
    write(out, "bitwise", |out| {
        put_be32(out, 1, FIRST);
        put_be32(out, 2, FIRST);
        put_be32(out, 3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
        nest(out, 4, |out| put(out, DATA_VALUE, mask));
        nest(out, 5, |out| put(out, DATA_VALUE, &vec![0; mask.len()]));
    });
}

fn compare(out: &mut Vec<u8>, operation: u32, value: &[u8]) {
    write(out, "cmp", |out| {
        put_be32(out, 1, FIRST);
        put_be32(out, 2, operation);
        nest(out, 3, |out| put(out, DATA_VALUE, value));
    });
}
