//! Names to addresses without the C library: `/etc/hosts`, then DNS by `/etc/resolv.conf`.
//!
//! A statically linked glibc cannot load its name service modules, so `getaddrinfo` is no option.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};

/// Where names are looked up.
#[derive(Debug, Clone)]
pub struct Files {
    /// `/etc/hosts`.
    pub hosts: PathBuf,
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            hosts: "/etc/hosts".into(),
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }
}

/// Looks names up. Clones share the cache.
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    files: Files,
    cached: Arc<Mutex<Option<Cached>>>,
}

/// The resolver made from one version of `/etc/resolv.conf`.
struct Cached {
    modified: Option<SystemTime>,
    servers: String,
    resolver: TokioResolver,
}

impl std::fmt::Debug for Cached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cached")
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name does not exist, or has no address.
    #[error("no such host")]
    NotFound {
        /// The name server asked first.
        server: String,
    },
    /// No name server answered usefully.
    #[error("no answer from the name servers {server}")]
    Unanswered {
        server: String,
        source: Box<NetError>,
    },
    /// The configuration of the resolver is unusable.
    #[error("read the configuration of name resolution")]
    Configuration(#[source] Box<NetError>),
}

impl Error {
    /// Whether asking again later may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unanswered { .. })
    }
}

impl Resolver {
    /// A resolver that reads `files`.
    pub fn new(files: Files) -> Self {
        Self {
            files,
            cached: Arc::default(),
        }
    }

    /// The addresses of `host`: itself when it is an address; never empty.
    pub async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, Error> {
        let literal = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = literal.parse() {
            return Ok(vec![address]);
        }
        let hosts = std::fs::read_to_string(&self.files.hosts).unwrap_or_default();
        let mut addresses = in_hosts(&hosts, host);
        if addresses.is_empty() && is_localhost(host) {
            // RFC 6761 section 6.3: never asked of a name server.
            addresses = vec![
                IpAddr::from([127, 0, 0, 1]),
                IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
            ];
        }
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        let (resolver, server) = self.current()?;
        match resolver.lookup_ip(host).await {
            Ok(found) => {
                let found: Vec<IpAddr> = found.iter().collect();
                if found.is_empty() {
                    return Err(Error::NotFound { server });
                }
                Ok(found)
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Err(Error::NotFound { server }),
            Err(source) => Err(Error::Unanswered {
                server,
                source: Box::new(source),
            }),
        }
    }

    /// The resolver for `/etc/resolv.conf` as it is now: laptops change networks.
    fn current(&self) -> Result<(TokioResolver, String), Error> {
        let modified = std::fs::metadata(&self.files.resolv_conf)
            .and_then(|metadata| metadata.modified())
            .ok();
        let mut cached = self
            .cached
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(cached) = cached.as_ref()
            && cached.modified == modified
        {
            return Ok((cached.resolver.clone(), cached.servers.clone()));
        }
        let (config, options) = self.configuration()?;
        let servers = config
            .name_servers()
            .first()
            .map(|server| std::net::SocketAddr::from((server.ip, 53)).to_string())
            .unwrap_or_default();
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(configuration)?;
        *cached = Some(Cached {
            modified,
            servers: servers.clone(),
            resolver: resolver.clone(),
        });
        Ok((resolver, servers))
    }

    fn configuration(&self) -> Result<(ResolverConfig, ResolverOpts), Error> {
        let text = match std::fs::read(&self.files.resolv_conf) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(configuration(error.into())),
        };
        let (config, mut options) = hickory_resolver::system_conf::parse_resolv_conf(&text)
            // resolv.conf(5): without a name server the one on this machine is asked.
            .unwrap_or_else(|_| {
                let local = NameServerConfig::udp_and_tcp(IpAddr::from([127, 0, 0, 1]));
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![local]);
                (config, ResolverOpts::default())
            });
        options.use_hosts_file = ResolveHosts::Never;
        Ok((config, options))
    }
}

fn configuration(error: NetError) -> Error {
    Error::Configuration(Box::new(error))
}

/// The addresses that the text of a hosts file gives `name`.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.trim_end_matches('.');
    text.lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words
                .any(|word| word.eq_ignore_ascii_case(name))
                .then_some(address)
        })
        .collect()
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_by_any_of_their_names() {
        let text = "127.0.0.1 localhost\n10.0.0.7\tbox Box.example # a box\n::1 localhost ip6\n#9.9.9.9 box\n";
        let check = |name: &str, expect: &[&str]| {
            let found: Vec<String> = in_hosts(text, name).iter().map(IpAddr::to_string).collect();
            assert_eq!(found, expect, "{name}");
        };
        check("localhost", &["127.0.0.1", "::1"]);
        check("BOX", &["10.0.0.7"]);
        check("box.example.", &["10.0.0.7"]);
        check("elsewhere", &[]);
    }

    #[tokio::test]
    async fn addresses_and_localhost_need_no_name_server() {
        let nowhere = Files {
            hosts: "/nonexistent/hosts".into(),
            resolv_conf: "/nonexistent/resolv.conf".into(),
        };
        let resolver = Resolver::new(nowhere);
        assert_eq!(
            resolver.lookup("[::1]").await.unwrap(),
            [IpAddr::from(std::net::Ipv6Addr::LOCALHOST)]
        );
        assert_eq!(
            resolver.lookup("x.localhost").await.unwrap()[0],
            IpAddr::from([127, 0, 0, 1])
        );
    }
}
