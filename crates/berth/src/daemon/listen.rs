//! Where the daemon listens: `unix://`, `tcp://` and the sockets that systemd handed over.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use berth_http::Listener;

use super::instance::SOCKET;
use super::settings::GROUP;

/// Docker's port without TLS.
const TCP_PORT: u16 = 2375;
/// Owner and group may use the socket: whoever may, is root on this host.
const SOCKET_MODE: u32 = 0o660;

/// One address of `--host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Unix(PathBuf),
    Tcp(SocketAddr),
    Inherited,
}

/// The addresses; the default socket if none is given.
pub fn parse(hosts: &[String]) -> Result<Vec<Host>> {
    if hosts.is_empty() {
        return Ok(vec![Host::Unix(PathBuf::from(SOCKET))]);
    }
    hosts.iter().map(|host| parse_one(host)).collect()
}

fn parse_one(host: &str) -> Result<Host> {
    let invalid =
        || anyhow!("invalid bind address ({host}): use unix://PATH, tcp://ADDRESS:PORT or fd://");
    match host.split_once("://") {
        Some(("unix", "")) => Ok(Host::Unix(PathBuf::from(SOCKET))),
        Some(("unix", path)) if path.starts_with('/') => Ok(Host::Unix(PathBuf::from(path))),
        Some(("tcp", address)) => tcp(address).ok_or_else(invalid),
        Some(("fd", _)) => Ok(Host::Inherited),
        None if host.starts_with('/') => Ok(Host::Unix(PathBuf::from(host))),
        _ => Err(invalid()),
    }
}

fn tcp(address: &str) -> Option<Host> {
    let address = address.trim_end_matches('/');
    let with_port = match address.parse::<std::net::IpAddr>() {
        Ok(ip) => return Some(Host::Tcp((ip, TCP_PORT).into())),
        Err(_) if address.starts_with(':') => format!("127.0.0.1{address}"),
        Err(_) => address.to_owned(),
    };
    if let Ok(address) = with_port.parse() {
        return Some(Host::Tcp(address));
    }
    match with_port.as_str() {
        "localhost" => Some(Host::Tcp(([127, 0, 0, 1], TCP_PORT).into())),
        name if name.starts_with("localhost:") => name
            .replace("localhost", "127.0.0.1")
            .to_socket_addrs()
            .ok()?
            .next()
            .map(Host::Tcp),
        _ => None,
    }
}

/// Opens all of them, or none. `listen_fds` is what systemd says.
pub async fn open(hosts: &[Host], group: Option<&str>, listen_fds: usize) -> Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for host in hosts {
        match host {
            Host::Unix(path) => listeners.push(unix(path, group)?),
            Host::Tcp(address) => {
                if !address.ip().is_loopback() {
                    tracing::warn!(
                        %address,
                        "the API on TCP without TLS gives root on this host to whoever reaches it"
                    );
                }
                listeners.push(Listener::tcp(*address).await?);
            }
            Host::Inherited => {
                if listen_fds == 0 {
                    bail!(
                        "fd:// was asked for, but systemd handed over no socket: start by the socket unit, or use unix://"
                    );
                }
                listeners.extend(Listener::inherited(listen_fds)?);
            }
        }
    }
    Ok(listeners)
}

fn unix(path: &Path, group: Option<&str>) -> Result<Listener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("create {}", directory.display()))?;
    }
    let gid = group_id(group)?;
    Ok(Listener::unix(path, SOCKET_MODE, gid)?)
}

/// A group that was named has to exist; the default one is used if it does.
fn group_id(group: Option<&str>) -> Result<Option<u32>> {
    let name = group.unwrap_or(GROUP);
    if let Ok(number) = name.parse::<u32>() {
        return Ok(Some(number));
    }
    let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse::<u32>().ok())?
    });
    match (found, group) {
        (None, Some(name)) => bail!("group {name} not found: create it with `groupadd {name}`"),
        (found, _) => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_as_dockerds() {
        let check = |text: &str, host: Host| assert_eq!(parse_one(text).unwrap(), host, "{text}");
        check("unix:///a/b", Host::Unix("/a/b".into()));
        check("unix://", Host::Unix(SOCKET.into()));
        check("fd://", Host::Inherited);
        check("tcp://127.0.0.1:1", Host::Tcp(([127, 0, 0, 1], 1).into()));
        check("tcp://0.0.0.0", Host::Tcp(([0, 0, 0, 0], TCP_PORT).into()));
        check("tcp://:99", Host::Tcp(([127, 0, 0, 1], 99).into()));
        check("tcp://localhost:7", Host::Tcp(([127, 0, 0, 1], 7).into()));
        for bad in ["", "x", "npipe://a", "unix://rel", "tcp://a:b"] {
            assert!(parse_one(bad).is_err(), "{bad}");
        }
    }
}
