//! Who has a port: the kernel's tables of sockets, then the descriptors of all processes.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use crate::endpoint::Protocol;
use crate::error::Holder;
use crate::sockets;

/// The process that has the port bound in the calling thread's network namespace, at an address
/// that excludes `host_ip`. `None` if it is another user's or a container's and cannot be seen.
pub fn find(protocol: Protocol, host_ip: IpAddr, port: u16) -> Option<Holder> {
    let inodes: Vec<String> = sockets::bound(Path::new("/proc/thread-self/net"))
        .into_iter()
        .filter(|it| it.protocol == protocol && it.port == port)
        .filter(|it| excludes(it.address, host_ip))
        .map(|it| format!("socket:[{}]", it.inode))
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

/// Whether a socket at `one` keeps another from being bound at `other`.
pub fn excludes(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        // A socket of IPv6 may serve IPv4 as well; the tables do not say which do.
        (IpAddr::V6(one), IpAddr::V4(_)) => one.is_unspecified(),
        (IpAddr::V4(_), IpAddr::V6(_)) => other.is_unspecified(),
        (one, other) => one == other || one.is_unspecified() || other.is_unspecified(),
    }
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
