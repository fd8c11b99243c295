//! Where a daemon listens: `unix://`, `tcp://`, `http://`, `https://` and `ssh://`.

use std::fmt;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Unix(PathBuf),
    Tcp {
        authority: String,
        /// A path below which the API lives, without the last slash.
        path: String,
    },
    Ssh {
        user: Option<String>,
        host: String,
        port: Option<u16>,
        /// The remote daemon's socket, where it is not its default.
        socket: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHost {
    #[error("{0}")]
    Address(String),
    #[error("ssh host connection is not valid: invalid SSH URL: {0}")]
    Ssh(String),
}

/// The port of `tcp://host`, with and without TLS.
const PLAIN_PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;

impl Host {
    /// Understands what `-H` and `DOCKER_HOST` take.
    pub fn parse(text: &str, tls: bool) -> Result<Self, InvalidHost> {
        let text = text.trim();
        let invalid = || InvalidHost::Address(format!("invalid bind address format: {text}"));
        let (scheme, rest) = match text.split_once("://") {
            Some(parts) => parts,
            None if text.starts_with('/') => ("unix", text),
            None => ("tcp", text),
        };
        match scheme {
            "unix" if rest.is_empty() => Ok(Self::Unix("/var/run/docker.sock".into())),
            "unix" => Ok(Self::Unix(rest.into())),
            "tcp" | "http" | "https" => {
                let (authority, path) = match rest.split_once('/') {
                    Some((authority, path)) => (authority, path.trim_end_matches('/')),
                    None => (rest, ""),
                };
                let port = if tls { TLS_PORT } else { PLAIN_PORT };
                let path = if path.is_empty() {
                    String::new()
                } else {
                    format!("/{path}")
                };
                Ok(Self::Tcp {
                    authority: with_port(authority, port).ok_or_else(invalid)?,
                    path,
                })
            }
            "ssh" => parse_ssh(rest).map_err(InvalidHost::Ssh),
            _ => Err(invalid()),
        }
    }
}

/// `host`, `host:port`, `:port` or `[::1]:port`, completed.
fn with_port(authority: &str, default: u16) -> Option<String> {
    let (host, port) = match authority.rsplit_once(':') {
        _ if authority.ends_with(']') => (authority, None),
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let host = if host.is_empty() { "localhost" } else { host };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => default,
    };
    Some(format!("{host}:{port}"))
}

/// The refusals are docker's.
fn parse_ssh(rest: &str) -> Result<Host, String> {
    let (rest, fragment) = cut(rest, '#');
    let (rest, query) = cut(rest, '?');
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, (!path.is_empty()).then(|| format!("/{path}"))),
        None => (rest, None),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user.to_owned()), host),
        None => (None, authority),
    };
    let (host, port) = match host.rsplit_once(':') {
        Some((host, "")) => (host, None),
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            let number = port.parse();
            let number = number.map_err(|_| format!("invalid port {:?}", format!(":{port}")))?;
            (name, Some(number))
        }
        _ => (host, None),
    };
    // ssh takes an IPv6 address without the brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if user.as_deref().is_some_and(|user| user.contains(':')) {
        return Err("plain-text password is not supported".to_owned());
    }
    if host.is_empty() {
        return Err("hostname is empty".to_owned());
    }
    // ssh would read it as an option, were it not for the `--` before it.
    if host.starts_with('-') {
        return Err(format!("invalid hostname {host:?}"));
    }
    if let Some(query) = query {
        return Err(format!("query parameters are not allowed: {query:?}"));
    }
    if let Some(fragment) = fragment {
        return Err(format!("fragments are not allowed: {fragment:?}"));
    }
    Ok(Host::Ssh {
        user,
        host: host.to_owned(),
        port,
        socket: path,
    })
}

fn cut(text: &str, mark: char) -> (&str, Option<&str>) {
    match text.split_once(mark) {
        Some((text, rest)) => (text, Some(rest)),
        None => (text, None),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "unix://{}", path.display()),
            Self::Tcp { authority, path } => write!(out, "tcp://{authority}{path}"),
            // As docker names it: the far end of the tunnel, not the way to it.
            Self::Ssh { .. } => write!(out, "http://{}", crate::client::SSH_AUTHORITY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_completed_and_print_as_docker_prints_them() {
        let check = |text: &str, tls, printed: &str| {
            assert_eq!(Host::parse(text, tls).unwrap().to_string(), printed);
        };
        check("unix:///run/x.sock", false, "unix:///run/x.sock");
        check("unix://", false, "unix:///var/run/docker.sock");
        check("tcp://127.0.0.1:99", false, "tcp://127.0.0.1:99");
        check("tcp://engine", true, "tcp://engine:2376");
        check("tcp://:1", false, "tcp://localhost:1");
        check("tcp://[::1]:4", false, "tcp://[::1]:4");
        check("tcp://[::1]", false, "tcp://[::1]:2375");
    }

    #[test]
    fn ssh_hosts_have_users_and_ports_and_never_options() {
        assert_eq!(
            Host::parse("ssh://me@box:22", false),
            Ok(Host::Ssh {
                user: Some("me".into()),
                host: "box".into(),
                port: Some(22),
                socket: None
            })
        );
        let refused = |text: &str, words: &str| {
            let message = Host::parse(text, false).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        refused("ssh://-oProxyCommand=x", "invalid hostname");
        refused("ssh://", "hostname is empty");
        refused("ssh://me:word@box", "plain-text password is not supported");
        refused(
            "ssh://box/a?b=c",
            "query parameters are not allowed: \"b=c\"",
        );
        refused("ssh://box#f", "fragments are not allowed: \"f\"");
        refused("ssh://box:many", "invalid port \":many\"");
        assert!(Host::parse("gopher://x", false).is_err());
        assert!(Host::parse("tcp://x:y", false).is_err());
    }
}
