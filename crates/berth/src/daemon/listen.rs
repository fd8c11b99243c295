//! Where the daemon listens: `unix://`, `tcp://` and the sockets that systemd handed over.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use berth_http::Listener;
use berth_http::tls::Identity;
use berth_http::tls::rustls::ServerConfig;

use super::instance::SOCKET;
use super::settings::{GROUP, Settings};

/// Docker's ports, without TLS and with it.
const TCP_PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;
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
pub fn parse(hosts: &[String], tls: bool) -> Result<Vec<Host>> {
    if hosts.is_empty() {
        return Ok(vec![Host::Unix(PathBuf::from(SOCKET))]);
    }
    let port = if tls { TLS_PORT } else { TCP_PORT };
    hosts.iter().map(|host| parse_one(host, port)).collect()
}

fn parse_one(host: &str, port: u16) -> Result<Host> {
    let invalid =
        || anyhow!("invalid bind address ({host}): use unix://PATH, tcp://ADDRESS:PORT or fd://");
    match host.split_once("://") {
        Some(("unix", "")) => Ok(Host::Unix(PathBuf::from(SOCKET))),
        Some(("unix", path)) if path.starts_with('/') => Ok(Host::Unix(PathBuf::from(path))),
        Some(("tcp", address)) => tcp(address, port).ok_or_else(invalid),
        Some(("fd", _)) => Ok(Host::Inherited),
        None if host.starts_with('/') => Ok(Host::Unix(PathBuf::from(host))),
        _ => Err(invalid()),
    }
}

fn tcp(address: &str, port: u16) -> Option<Host> {
    let address = address.trim_end_matches('/');
    let with_port = match address.parse::<std::net::IpAddr>() {
        Ok(ip) => return Some(Host::Tcp((ip, port).into())),
        Err(_) if address.starts_with(':') => format!("127.0.0.1{address}"),
        Err(_) => address.to_owned(),
    };
    if let Ok(address) = with_port.parse() {
        return Some(Host::Tcp(address));
    }
    match with_port.as_str() {
        "localhost" => Some(Host::Tcp(([127, 0, 0, 1], port).into())),
        name if name.starts_with("localhost:") => name
            .replace("localhost", "127.0.0.1")
            .to_socket_addrs()
            .ok()?
            .next()
            .map(Host::Tcp),
        _ => None,
    }
}

/// Reads certificates and keys, with dockerd's rules: TLS is for TCP only, and clients show a
/// certificate unless `tlsverify` is given as `false`.
pub fn tls(settings: &Settings, certificates: &Path) -> Result<Option<Arc<ServerConfig>>> {
    // Whoever says anything about verifying wants TLS.
    if settings.tlsverify.is_none() && settings.tls != Some(true) {
        return Ok(None);
    }
    let or_default = |given: &Option<PathBuf>, name: &str| {
        let default = || certificates.join(name);
        given.clone().unwrap_or_else(default)
    };
    let invalid = "invalid TLS configuration";
    let clients = match settings.tlsverify {
        Some(false) => None,
        Some(true) | None => {
            let authority = or_default(&settings.tlscacert, "ca.pem");
            Some(berth_http::tls::read_certificates(&authority).context(invalid)?)
        }
    };
    let identity = Identity::from_pem_files(
        &or_default(&settings.tlscert, "cert.pem"),
        &or_default(&settings.tlskey, "key.pem"),
    );
    let config = berth_http::tls::server_config(&identity.context(invalid)?, clients);
    Ok(Some(config.context(invalid)?))
}

/// Opens all of them, or none. `listen_fds` is what systemd says.
pub async fn open(
    hosts: &[Host],
    group: Option<&str>,
    tls: Option<&Arc<ServerConfig>>,
    listen_fds: usize,
) -> Result<Vec<Listener>> {
    let secured = |listener: Listener| match tls {
        Some(config) => listener.with_tls(Arc::clone(config)),
        None => listener,
    };
    let mut listeners = Vec::new();
    for host in hosts {
        match host {
            Host::Unix(path) => listeners.push(unix(path, group)?),
            Host::Tcp(address) => {
                if tls.is_none() && !address.ip().is_loopback() {
                    tracing::warn!(
                        %address,
                        "the API on TCP without TLS gives root on this host to whoever reaches it"
                    );
                }
                listeners.push(secured(Listener::tcp(*address).await?));
            }
            Host::Inherited => {
                if listen_fds == 0 {
                    bail!(
                        "fd:// was asked for, but systemd handed over no socket: start by the socket unit, or use unix://"
                    );
                }
                listeners.extend(Listener::inherited(listen_fds)?.into_iter().map(secured));
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
        let check =
            |text: &str, host: Host| assert_eq!(parse_one(text, TCP_PORT).unwrap(), host, "{text}");
        check("unix:///a/b", Host::Unix("/a/b".into()));
        check("unix://", Host::Unix(SOCKET.into()));
        check("fd://", Host::Inherited);
        check("tcp://127.0.0.1:1", Host::Tcp(([127, 0, 0, 1], 1).into()));
        check("tcp://0.0.0.0", Host::Tcp(([0, 0, 0, 0], TCP_PORT).into()));
        check("tcp://:99", Host::Tcp(([127, 0, 0, 1], 99).into()));
        check("tcp://localhost:7", Host::Tcp(([127, 0, 0, 1], 7).into()));
        for bad in ["", "x", "npipe://a", "unix://rel", "tcp://a:b"] {
            assert!(parse_one(bad, TCP_PORT).is_err(), "{bad}");
        }
    }
}
