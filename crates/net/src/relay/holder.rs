//! Who has a port: the kernel's tables of sockets, then the descriptors of all processes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::endpoint::Protocol;
use crate::error::Holder;

/// The process that has the port bound in the calling thread's network namespace, at an address
/// that excludes `host_ip`. `None` if it is another user's or a container's and cannot be seen.
pub fn find(protocol: Protocol, host_ip: IpAddr, port: u16) -> Option<Holder> {
    let tables = [format!("{protocol}"), format!("{protocol}6")];
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
        .flat_map(|text| sockets(&text, protocol, host_ip, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| owner(&entry.path(), &inodes))
        .next()
}

fn owner(process: &Path, sockets: &[String]) -> Option<Holder> {
    let pid = process.file_name()?.to_str()?.parse().ok()?;
    let descriptors = fs::read_dir(process.join("fd")).ok()?.flatten();
    let mut links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.find(|link| {
        sockets
            .iter()
            .any(|socket| link.as_os_str() == socket.as_str())
    })?;
    let name = fs::read_to_string(process.join("comm")).ok()?;
    Some(Holder::Process {
        pid,
        name: name.trim().to_owned(),
    })
}

/// The inodes of the sockets in a table of `/proc/net` that are in the way.
fn sockets(table: &str, protocol: Protocol, host_ip: IpAddr, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let in_the_way = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (address, local_port) = fields.next()?.split_once(':')?;
        let state = fields.nth(1)?;
        let listens = protocol == Protocol::Udp || state == LISTEN;
        let taken = u16::from_str_radix(local_port, 16).ok()? == port;
        let inode = fields.nth(5)?.parse().ok()?;
        (listens && taken && excludes(parse_address(address)?, host_ip)).then_some(inode)
    };
    table.lines().skip(1).filter_map(in_the_way).collect()
}

/// Whether a socket at `one` keeps another from being bound at `other`.
pub fn excludes(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        // A socket of IPv6 may serve IPv4 as well; the tables do not say which do.
        (IpAddr::V6(one), IpAddr::V4(_)) => one.is_unspecified(),
        (IpAddr::V4(_), IpAddr::V6(_)) => other.is_unspecified(),
        (one, other) => one == other || one.is_unspecified() || other.is_unspecified(),
    }
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_holder_of_a_listening_socket_is_found() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("bind");
            let local = listener.local_addr().expect("an address");
            let holder = find(Protocol::Tcp, local.ip(), local.port());
            let Some(Holder::Process { pid, .. }) = holder else {
                panic!("{address}: {holder:?}")
            };
            assert_eq!(pid, std::process::id().cast_signed());
            assert_eq!(find(Protocol::Udp, local.ip(), local.port()), None);
        }
    }

    #[test]
    fn another_address_is_not_in_the_way() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("an address").port();
        assert_eq!(find(Protocol::Tcp, [127, 0, 0, 2].into(), port), None);
        assert!(find(Protocol::Tcp, [0, 0, 0, 0].into(), port).is_some());
    }
}
