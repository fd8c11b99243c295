//! The sockets of a network namespace that receive, read from the kernel's tables in /proc.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::endpoint::Protocol;

/// A socket of TCP that listens, or one of UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    pub protocol: Protocol,
    pub address: IpAddr,
    pub port: u16,
    /// Of UDP: it receives from one sender only.
    pub connected: bool,
    /// What the descriptors of its processes are linked to, as `socket:[INODE]`.
    pub inode: u64,
}

/// Those of the namespace that `directory` shows: `/proc/thread-self/net`, `/proc/PID/net`.
pub fn bound(directory: &Path) -> Vec<Bound> {
    let tables = [Protocol::Tcp, Protocol::Udp].map(|protocol| {
        ["", "6"].map(|family| (protocol, directory.join(format!("{protocol}{family}"))))
    });
    let mut found = Vec::new();
    for (protocol, table) in tables.into_iter().flatten() {
        // A kernel without IPv6 has two of them.
        let text = fs::read_to_string(table).unwrap_or_default();
        found.extend(
            text.lines()
                .skip(1)
                .filter_map(|line| parse(line, protocol)),
        );
    }
    found
}

fn parse(line: &str, protocol: Protocol) -> Option<Bound> {
    const LISTEN: &str = "0A";
    const UNCONNECTED: &str = "07";
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    (protocol == Protocol::Udp || state == LISTEN).then_some(())?;
    Some(Bound {
        protocol,
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        connected: protocol == Protocol::Udp && state != UNCONNECTED,
        inode: fields.nth(5)?.parse().ok()?,
    })
}

/// Words of 32 bits in the host's order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let value = u32::from_str_radix(hex.get(8 * at..8 * at + 8)?, 16).ok()?;
        Some(value.to_ne_bytes())
    };
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    Some(Ipv6Addr::from(bytes).into())
}
