//! The parts that the rules are put together from: each a match, or what is done.

use std::net::{Ipv4Addr, Ipv6Addr};

use berth_sys::nft::{Expression, Family, MetaKey, Verdict, interface_name};

use super::{ADDRESSED, OPEN, PORTS, SOURCES};
use crate::address::{Address, Cidr};

pub const LOOPBACK: Cidr = Cidr::new(Ipv4Addr::new(127, 0, 0, 0), 8);
pub const LOOPBACK6: Cidr<Ipv6Addr> = Cidr::new(Ipv6Addr::LOCALHOST, 128);
pub const LINK_LOCAL6: Cidr<Ipv6Addr> = Cidr::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
/// `NFT_REG32_00`: registers are words of four bytes.
pub const FIRST: u32 = 8;
/// An interface's name takes four of them.
const NAME_REGISTERS: u32 = 4;

pub fn verdict(verdict: Verdict) -> Vec<Expression> {
    vec![Expression::Verdict(verdict)]
}

pub fn input(name: &str) -> Vec<Expression> {
    kind(MetaKey::InputName, name)
}

/// Of a packet that came in by no interface. By number: `nft` prints an empty name, but reads none.
pub fn no_input() -> Vec<Expression> {
    let none = 0u32.to_ne_bytes().to_vec();
    vec![load(MetaKey::InputIndex, FIRST), Expression::Equal(none)]
}

pub fn output(name: &str) -> Vec<Expression> {
    kind(MetaKey::OutputName, name)
}

pub fn kind(key: MetaKey, name: &str) -> Vec<Expression> {
    vec![load(key, FIRST), Expression::Equal(interface_name(name))]
}

fn load(key: MetaKey, register: u32) -> Expression {
    Expression::Meta { key, register }
}

fn in_set(set: &str) -> Expression {
    Expression::Among {
        set: set.to_owned(),
    }
}

pub fn input_among(set: &str) -> Vec<Expression> {
    vec![load(MetaKey::InputName, FIRST), in_set(set)]
}

pub fn output_among(set: &str) -> Vec<Expression> {
    vec![load(MetaKey::OutputName, FIRST), in_set(set)]
}

pub fn output_beyond(set: &str) -> Vec<Expression> {
    let set = set.to_owned();
    vec![
        load(MetaKey::OutputName, FIRST),
        Expression::NotAmong { set },
    ]
}

/// Where it came in and where it goes out, as a pair.
pub fn among(set: &str) -> Vec<Expression> {
    vec![
        load(MetaKey::InputName, FIRST),
        load(MetaKey::OutputName, FIRST + NAME_REGISTERS),
        in_set(set),
    ]
}

/// Turns the comparison at the end round.
pub fn not(mut expressions: Vec<Expression>) -> Vec<Expression> {
    if let Some(Expression::Equal(value)) = expressions.pop() {
        expressions.push(Expression::NotEqual(value));
    }
    expressions
}

pub fn from<A: Address>(subnet: Cidr<A>) -> Vec<Expression> {
    let offset = if A::BITS == 32 { 12 } else { 8 };
    address(offset, subnet)
}

pub fn to<A: Address>(subnet: Cidr<A>) -> Vec<Expression> {
    let offset = if A::BITS == 32 { 16 } else { 24 };
    address(offset, subnet)
}

fn address<A: Address>(offset: u32, subnet: Cidr<A>) -> Vec<Expression> {
    vec![
        Expression::NetworkHeader {
            offset,
            length: u32::from(A::BITS / 8),
            register: FIRST,
        },
        Expression::MaskBytes(subnet.mask().bytes()),
        Expression::Equal(subnet.network().address.bytes()),
    ]
}

pub fn to_this_host() -> Vec<Expression> {
    local(Expression::DestinationKind)
}

pub fn from_this_host() -> Vec<Expression> {
    local(Expression::SourceKind)
}

fn local(load: Expression) -> Vec<Expression> {
    const RTN_LOCAL: u32 = 2;
    vec![load, Expression::Equal(RTN_LOCAL.to_ne_bytes().to_vec())]
}

pub fn established() -> Vec<Expression> {
    const ESTABLISHED: u32 = 1 << 1;
    const RELATED: u32 = 1 << 2;
    any_of(Expression::ConnectionState, ESTABLISHED | RELATED)
}

pub fn translated() -> Vec<Expression> {
    const IPS_DST_NAT: u32 = 1 << 5;
    any_of(Expression::ConnectionStatus, IPS_DST_NAT)
}

fn any_of(load: Expression, bits: u32) -> Vec<Expression> {
    vec![
        load,
        Expression::Mask(bits),
        Expression::NotEqual(vec![0; 4]),
    ]
}

pub fn echo_request(family: Family) -> Vec<Expression> {
    let (protocol, echo) = match family {
        Family::Ip6 => (58, 128),
        Family::Ip | Family::Inet => (1, 8),
    };
    vec![
        load(MetaKey::Protocol, FIRST),
        Expression::Equal(vec![protocol]),
        Expression::TransportHeader {
            offset: 0,
            length: 1,
            register: FIRST,
        },
        Expression::Equal(vec![echo]),
    ]
}

/// Loads the destination's address, protocol and port.
fn load_destination(family: Family) -> Vec<Expression> {
    let (offset, length) = match family {
        Family::Ip6 => (24, 16),
        Family::Ip | Family::Inet => (16, 4),
    };
    let next = FIRST + length / 4;
    vec![
        Expression::NetworkHeader {
            offset,
            length,
            register: FIRST,
        },
        load(MetaKey::Protocol, next),
        destination_port(next + 1),
    ]
}

pub fn look_up_addressed(family: Family) -> Vec<Expression> {
    let mut expressions = load_destination(family);
    expressions.push(Expression::LookUp {
        map: ADDRESSED.to_owned(),
    });
    expressions.push(redirect(family));
    expressions
}

pub fn look_up_open(family: Family) -> Vec<Expression> {
    let mut expressions = load_destination(family);
    expressions.push(in_set(OPEN));
    expressions
}

/// Where it came in decides which address it leaves with.
pub fn look_up_source(family: Family) -> Vec<Expression> {
    vec![
        load(MetaKey::InputName, FIRST),
        Expression::LookUp {
            map: SOURCES.to_owned(),
        },
        Expression::Snat {
            family,
            address: FIRST,
        },
    ]
}

pub fn look_up_port(family: Family) -> Vec<Expression> {
    vec![
        load(MetaKey::Protocol, FIRST),
        destination_port(FIRST + 1),
        Expression::LookUp {
            map: PORTS.to_owned(),
        },
        redirect(family),
    ]
}

/// To what a map gave.
fn redirect(family: Family) -> Expression {
    let address_registers = match family {
        Family::Ip6 => 4,
        Family::Ip | Family::Inet => 1,
    };
    Expression::Dnat {
        family,
        address: FIRST,
        port: FIRST + address_registers,
    }
}

fn destination_port(register: u32) -> Expression {
    Expression::TransportHeader {
        offset: 2,
        length: 2,
        register,
    }
}
