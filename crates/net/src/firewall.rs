//! The instance's nftables table: which rules it has, and how published ports get into it.
//!
//! ```text
//! packet for a host's address ─► prerouting/output: maps `addressed`, `ports` ─► DNAT
//!                                forward:     to the bridge only established, DNAT, or from it
//!                                postrouting: masquerade what leaves, loopback and hairpins
//! ```
//!
//! A published port is an element of a hash map, so that the ten-thousandth costs a packet
//! nothing. All else is fixed when the instance starts.

use std::net::IpAddr;

use berth_sys::netlink::Error;
use berth_sys::netlink::Socket;
use berth_sys::nft::{
    self, Batch, Chain, Element, Expression, Family, Field, Hook, HookPoint, Map, MetaKey, Rule,
    Table, Verdict, concatenate,
};

use crate::address::Cidr;
use crate::endpoint::Endpoint;

mod firewalld;
pub mod foreign;
pub mod live;

/// Published at one address: address, protocol, port to address, port.
const ADDRESSED: &str = "addressed";
/// Published at all addresses: protocol, port to address, port.
const PORTS: &str = "ports";
/// The comment of the rule that keeps the host from becoming a router.
const GUARD: &str = "the host does not route for others";

/// What the table depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    pub instance: String,
    pub bridge: String,
    pub subnet: Cidr,
    pub icc: bool,
    pub masquerade: bool,
    /// Forwarding was off before us: forward for bridges only, as Docker's `FORWARD policy drop`
    /// in that case, but sparing the bridges of others.
    pub guard: bool,
}

/// The table's content, without the published ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    pub table: String,
    pub chains: Vec<Chain>,
    pub maps: Vec<Map>,
    pub rules: Vec<Rule>,
}

/// Decides the table's content.
pub fn plan(inputs: &Inputs) -> Ruleset {
    let Inputs { bridge, subnet, .. } = inputs;
    let base = |name: &str, kind, point, priority| Chain {
        name: name.to_owned(),
        hook: Some(Hook {
            kind,
            point,
            priority,
            drop_by_default: false,
        }),
    };
    let chains = vec![
        base("martian", "filter", HookPoint::Prerouting, -300),
        base("prerouting", "nat", HookPoint::Prerouting, -100),
        base("output", "nat", HookPoint::Output, -100),
        base("postrouting", "nat", HookPoint::Postrouting, 100),
        base("forward", "filter", HookPoint::Forward, 0),
    ];
    let maps = vec![
        Map {
            name: ADDRESSED.to_owned(),
            key: vec![Field::Ipv4Address, Field::Protocol, Field::Port],
            data: vec![Field::Ipv4Address, Field::Port],
        },
        Map {
            name: PORTS.to_owned(),
            key: vec![Field::Protocol, Field::Port],
            data: vec![Field::Ipv4Address, Field::Port],
        },
    ];
    let mut rules = Vec::new();
    let mut rule = |chain: &str, comment: Option<&str>, parts: &[Vec<Expression>]| {
        let comment = comment.map(str::to_owned);
        rules.push(Rule {
            chain: chain.to_owned(),
            expressions: parts.concat(),
            comment,
        });
    };

    // With route_localnet a container could reach the host's loopback, or pretend to be it.
    let foreign_loopback = Some("loopback addresses that did not come from lo");
    rule(
        "martian",
        foreign_loopback,
        &[not(input("lo")), to(LOOPBACK), verdict(Verdict::Drop)],
    );
    rule(
        "martian",
        foreign_loopback,
        &[not(input("lo")), from(LOOPBACK), verdict(Verdict::Drop)],
    );

    for chain in ["prerouting", "output"] {
        rule(chain, None, &[to_this_host(), look_up_addressed()]);
        rule(chain, None, &[to_this_host(), look_up_port()]);
    }

    let masquerade = || vec![Expression::Masquerade];
    if inputs.masquerade {
        rule(
            "postrouting",
            None,
            &[from(*subnet), not(output(bridge)), masquerade()],
        );
    }
    // 127.0.0.1 means something else to the container; and a container that calls its own
    // network's published port must get the answer by way of the host.
    rule(
        "postrouting",
        None,
        &[from(LOOPBACK), output(bridge), masquerade()],
    );
    rule(
        "postrouting",
        None,
        &[from(*subnet), output(bridge), translated(), masquerade()],
    );

    let accept = || verdict(Verdict::Accept);
    rule("forward", None, &[output(bridge), established(), accept()]);
    rule("forward", None, &[output(bridge), translated(), accept()]);
    if inputs.icc {
        rule("forward", None, &[input(bridge), output(bridge), accept()]);
    }
    let unpublished = Some("ports that are not published");
    rule(
        "forward",
        unpublished,
        &[output(bridge), verdict(Verdict::Drop)],
    );
    rule("forward", None, &[input(bridge), accept()]);
    if inputs.guard {
        rule(
            "forward",
            None,
            &[kind(MetaKey::InputKind, "bridge"), accept()],
        );
        rule(
            "forward",
            None,
            &[kind(MetaKey::OutputKind, "bridge"), accept()],
        );
        rule("forward", Some(GUARD), &[verdict(Verdict::Drop)]);
    }
    Ruleset {
        table: inputs.instance.clone(),
        chains,
        maps,
        rules,
    }
}

/// Makes the table's chains and rules these. The published ports of an earlier daemon stay, so
/// that a restart is not noticed, unless the table is of another make.
pub fn apply(socket: &mut Socket, ruleset: &Ruleset) -> Result<(), Error> {
    let table = table(&ruleset.table);
    let fill = |batch: &mut Batch, flush: bool| {
        batch.add_table(table);
        for chain in &ruleset.chains {
            batch.add_chain(table, chain);
            if flush {
                batch.flush_chain(table, &chain.name);
            }
        }
        for map in &ruleset.maps {
            batch.add_map(table, map);
        }
        for rule in &ruleset.rules {
            batch.add_rule(table, rule);
        }
    };
    let mut kept = Batch::new();
    fill(&mut kept, true);
    if kept.commit(socket).is_ok() {
        return Ok(());
    }
    let mut anew = Batch::new();
    anew.add_table(table);
    anew.delete_table(table);
    fill(&mut anew, false);
    anew.commit(socket)
}

/// Removes the table. It is no error if it is gone.
pub fn remove(socket: &mut Socket, instance: &str) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.add_table(table(instance));
    batch.delete_table(table(instance));
    batch.commit(socket)
}

/// Whether the table has all its rules.
pub fn is_whole(socket: &mut Socket, ruleset: &Ruleset) -> Result<bool, Error> {
    for chain in &ruleset.chains {
        let there = nft::rules(socket, Family::Ip, &ruleset.table, &chain.name)?.len();
        let planned = ruleset
            .rules
            .iter()
            .filter(|rule| rule.chain == chain.name)
            .count();
        if there != planned {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the instance's table keeps the host from routing: it was made when forwarding was off.
pub fn is_guarded(socket: &mut Socket, instance: &str) -> Result<bool, Error> {
    let rules = nft::rules(socket, Family::Ip, instance, "forward")?;
    Ok(rules
        .iter()
        .any(|rule| rule.comment.as_deref() == Some(GUARD)))
}

/// Publishes the endpoint's ports.
pub fn publish(socket: &mut Socket, instance: &str, endpoint: &Endpoint) -> Result<(), Error> {
    let elements = elements(std::slice::from_ref(endpoint));
    let mut batch = Batch::new();
    batch.add_elements(table(instance), ADDRESSED, &elements.addressed);
    batch.add_elements(table(instance), PORTS, &elements.ports);
    batch.commit(socket)
}

/// Takes the endpoint's ports back.
pub fn withdraw(socket: &mut Socket, instance: &str, endpoint: &Endpoint) -> Result<(), Error> {
    let elements = elements(std::slice::from_ref(endpoint));
    let mut batch = Batch::new();
    batch.delete_elements(table(instance), ADDRESSED, &elements.addressed);
    batch.delete_elements(table(instance), PORTS, &elements.ports);
    batch.commit(socket)
}

/// Makes the published ports exactly those of these endpoints, in one step.
pub fn publish_only(
    socket: &mut Socket,
    instance: &str,
    endpoints: &[Endpoint],
) -> Result<(), Error> {
    let elements = elements(endpoints);
    let mut batch = Batch::new();
    batch.flush_map(table(instance), ADDRESSED);
    batch.flush_map(table(instance), PORTS);
    batch.add_elements(table(instance), ADDRESSED, &elements.addressed);
    batch.add_elements(table(instance), PORTS, &elements.ports);
    batch.commit(socket)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Elements {
    addressed: Vec<Element>,
    ports: Vec<Element>,
}

/// IPv6 bindings are the relay's.
fn elements(endpoints: &[Endpoint]) -> Elements {
    let mut elements = Elements::default();
    for endpoint in endpoints {
        for binding in &endpoint.ports {
            let IpAddr::V4(host) = binding.host_ip else {
                continue;
            };
            let protocol = [binding.protocol.number()];
            let port = binding.host_port.to_be_bytes();
            let target = binding.container_port.to_be_bytes();
            let data = concatenate(&[&endpoint.ipv4.octets(), &target]);
            if host.is_unspecified() {
                elements.ports.push(Element {
                    key: concatenate(&[&protocol, &port]),
                    data,
                });
            } else {
                let key = concatenate(&[&host.octets(), &protocol, &port]);
                elements.addressed.push(Element { key, data });
            }
        }
    }
    elements
}

fn table(instance: &str) -> Table<'_> {
    Table {
        family: Family::Ip,
        name: instance,
    }
}

const LOOPBACK: Cidr = Cidr::new(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
/// `NFT_REG32_00` and its followers: words of four bytes.
const REGISTERS: [u32; 3] = [8, 9, 10];
/// Length of an interface's name in the kernel, `IFNAMSIZ`.
const NAME_BYTES: usize = 16;

fn verdict(verdict: Verdict) -> Vec<Expression> {
    vec![Expression::Verdict(verdict)]
}

fn input(name: &str) -> Vec<Expression> {
    kind(MetaKey::InputName, name)
}

fn output(name: &str) -> Vec<Expression> {
    kind(MetaKey::OutputName, name)
}

fn kind(key: MetaKey, name: &str) -> Vec<Expression> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(NAME_BYTES, 0);
    vec![
        Expression::Meta {
            key,
            register: REGISTERS[0],
        },
        Expression::Equal(padded),
    ]
}

/// Turns the comparison at the end round.
fn not(mut expressions: Vec<Expression>) -> Vec<Expression> {
    if let Some(Expression::Equal(value)) = expressions.pop() {
        expressions.push(Expression::NotEqual(value));
    }
    expressions
}

fn from(subnet: Cidr) -> Vec<Expression> {
    address(12, subnet)
}

fn to(subnet: Cidr) -> Vec<Expression> {
    address(16, subnet)
}

fn address(offset: u32, subnet: Cidr) -> Vec<Expression> {
    let network = subnet.network().address.octets().to_vec();
    vec![
        Expression::NetworkHeader {
            offset,
            length: 4,
            register: REGISTERS[0],
        },
        Expression::MaskBytes(subnet.mask().to_be_bytes().to_vec()),
        Expression::Equal(network),
    ]
}

fn to_this_host() -> Vec<Expression> {
    const RTN_LOCAL: u32 = 2;
    vec![
        Expression::DestinationKind,
        Expression::Equal(RTN_LOCAL.to_ne_bytes().to_vec()),
    ]
}

fn established() -> Vec<Expression> {
    const ESTABLISHED: u32 = 1 << 1;
    const RELATED: u32 = 1 << 2;
    any_of(Expression::ConnectionState, ESTABLISHED | RELATED)
}

fn translated() -> Vec<Expression> {
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

fn look_up_addressed() -> Vec<Expression> {
    vec![
        Expression::NetworkHeader {
            offset: 16,
            length: 4,
            register: REGISTERS[0],
        },
        Expression::Meta {
            key: MetaKey::Protocol,
            register: REGISTERS[1],
        },
        destination_port(REGISTERS[2]),
        Expression::LookUp {
            map: ADDRESSED.to_owned(),
        },
        Expression::Dnat {
            address: REGISTERS[0],
            port: REGISTERS[1],
        },
    ]
}

fn look_up_port() -> Vec<Expression> {
    vec![
        Expression::Meta {
            key: MetaKey::Protocol,
            register: REGISTERS[0],
        },
        destination_port(REGISTERS[1]),
        Expression::LookUp {
            map: PORTS.to_owned(),
        },
        Expression::Dnat {
            address: REGISTERS[0],
            port: REGISTERS[1],
        },
    ]
}

fn destination_port(register: u32) -> Expression {
    Expression::TransportHeader {
        offset: 2,
        length: 2,
        register,
    }
}
