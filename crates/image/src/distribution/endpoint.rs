//! Where a registry is: mirrors, schemes, trust.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_http::client;
use berth_http::proxy::Proxies;
use berth_http::resolve::Resolver;
use berth_http::tls::{self, Identity, Trust};
use berth_oci::reference::DEFAULT_DOMAIN;

use super::failure::Failure;
use super::{Config, Registries};

/// The host behind the name `docker.io`.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// Which registries may do without verified TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insecure {
    /// `host` or `host:port`, exactly as images name it.
    Host(String),
    /// Any host with an address in this network.
    Network { address: IpAddr, bits: u8 },
}

#[derive(Debug, thiserror::Error)]
#[error("insecure registry {0} is not valid: give host, host:port or a network in CIDR notation")]
pub struct InvalidInsecure(String);

/// One way to a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://host[:port][/prefix]`
    pub base: String,
    pub trust: Trust,
    /// `host[:port]`, which names the directory of its certificates.
    pub host: String,
    pub mirror: bool,
}

impl std::str::FromStr for Insecure {
    type Err = InvalidInsecure;

    fn from_str(text: &str) -> Result<Self, InvalidInsecure> {
        let invalid = || InvalidInsecure(text.to_owned());
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| invalid())?;
            let bits: u8 = bits.parse().map_err(|_| invalid())?;
            let width = if address.is_ipv4() { 32 } else { 128 };
            if bits > width {
                return Err(invalid());
            }
            return Ok(Self::Network { address, bits });
        }
        if text.is_empty() || text.contains("://") || text.contains(char::is_whitespace) {
            return Err(invalid());
        }
        Ok(Self::Host(text.to_owned()))
    }
}

/// The ways to the registry `domain`, in the order in which they are tried.
pub async fn endpoints(
    registries: &Registries,
    proxies: &Proxies,
    resolver: &Resolver,
    domain: &str,
) -> Vec<Endpoint> {
    if domain != DEFAULT_DOMAIN {
        return both_schemes(registries, proxies, resolver, domain).await;
    }
    let mut found = Vec::new();
    for mirror in &registries.mirrors {
        let text = mirror.to_string();
        let Some(host) = mirror.authority().map(ToString::to_string) else {
            continue;
        };
        let insecure = is_insecure(registries, proxies, resolver, &host).await;
        found.push(Endpoint {
            base: text.trim_end_matches('/').to_owned(),
            trust: if insecure {
                Trust::Anyone
            } else {
                Trust::System
            },
            host,
            mirror: true,
        });
    }
    found.push(Endpoint {
        base: format!("https://{DOCKER_HUB}"),
        trust: Trust::System,
        host: DOCKER_HUB.to_owned(),
        mirror: false,
    });
    found
}

/// Verified TLS only; for insecure registries unverified TLS, then none.
async fn both_schemes(
    registries: &Registries,
    proxies: &Proxies,
    resolver: &Resolver,
    domain: &str,
) -> Vec<Endpoint> {
    let endpoint = |scheme: &str, trust: Trust| Endpoint {
        base: format!("{scheme}://{domain}"),
        trust,
        host: domain.to_owned(),
        mirror: false,
    };
    if is_insecure(registries, proxies, resolver, domain).await {
        vec![
            endpoint("https", Trust::Anyone),
            endpoint("http", Trust::Anyone),
        ]
    } else {
        vec![endpoint("https", Trust::System)]
    }
}

async fn is_insecure(
    registries: &Registries,
    proxies: &Proxies,
    resolver: &Resolver,
    domain: &str,
) -> bool {
    let named = |rule: &Insecure| matches!(rule, Insecure::Host(host) if host == domain);
    if registries.insecure.iter().any(named) {
        return true;
    }
    let Ok(authority) = domain.parse::<http::uri::Authority>() else {
        return false;
    };
    let by_proxy = proxies
        .pick(true, authority.host(), authority.port_u16().unwrap_or(443))
        .is_some();
    let in_networks = |rule: &Insecure| matches!(rule, Insecure::Network { .. });
    if by_proxy && !registries.insecure.iter().any(in_networks) {
        // What a proxy reaches is not this machine's loopback, and the name may be one that only
        // the proxy can resolve.
        return false;
    }
    // A name that cannot be resolved fails later, with its own message.
    let addresses = resolver.lookup(authority.host()).await.unwrap_or_default();
    addresses.iter().any(|address| {
        address.is_loopback()
            || registries.insecure.iter().any(|rule| match rule {
                Insecure::Network {
                    address: network,
                    bits,
                } => contains(*network, *bits, *address),
                Insecure::Host(_) => false,
            })
    })
}

fn contains(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let shifted = |value: u128, width: u32| {
        let dropped = width.saturating_sub(u32::from(bits));
        value.checked_shr(dropped).unwrap_or(0)
    };
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            shifted(u32::from(a).into(), 32) == shifted(u32::from(b).into(), 32)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => shifted(a.into(), 128) == shifted(b.into(), 128),
        _ => false,
    }
}

/// How to reach `endpoint`: trust, certificates, proxies.
pub fn client_config(
    config: &Config,
    resolver: &Resolver,
    endpoint: &Endpoint,
) -> Result<client::Config, Failure> {
    let mut tls = tls::Config {
        trust: endpoint.trust,
        ..tls::Config::default()
    };
    if endpoint.base.starts_with("https:") {
        for directory in &config.certs_directories {
            add_certificates(&directory.join(&endpoint.host), &mut tls)?;
        }
    }
    let mut connector = berth_http::connect::Connector {
        resolver: resolver.clone(),
        ..Default::default()
    };
    connector.connect_timeout = config.connect_timeout;
    Ok(client::Config {
        tls,
        proxies: config.proxies.clone(),
        connector,
        header_timeout: Some(config.header_timeout),
        ..client::Config::default()
    })
}

/// Reads a directory in the layout of Docker's `certs.d`: `*.crt` are authorities, `*.cert` with
/// the `*.key` of the same name are ours.
fn add_certificates(directory: &Path, tls: &mut tls::Config) -> Result<(), Failure> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        // Most registries need none.
        return Ok(());
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    let setup = |error: tls::Error| Failure::Setup(berth_base::Chain(&error).to_string());
    for path in &paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls
                .roots
                .extend(tls::read_certificates(path).map_err(setup)?),
            Some("cert") => {
                let key = path.with_extension("key");
                if !paths.contains(&key) {
                    return Err(Failure::Setup(format!(
                        "missing key {} for client certificate {}. CA certificates must use the \
                         extension .crt",
                        name(&key),
                        name(path)
                    )));
                }
                let identity = Identity::from_pem_files(path, &key).map_err(setup)?;
                tls.identity = Some(Arc::new(identity));
            }
            Some("key") => {
                let certificate = path.with_extension("cert");
                if !paths.contains(&certificate) {
                    return Err(Failure::Setup(format!(
                        "missing client certificate {} for key {}",
                        name(&certificate),
                        name(path)
                    )));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_http::resolve::Files;

    async fn check(insecure: &[&str], mirrors: &[&str], domain: &str, expect: &[(&str, Trust)]) {
        let registries = Registries {
            insecure: insecure.iter().map(|rule| rule.parse().unwrap()).collect(),
            mirrors: mirrors.iter().map(|uri| uri.parse().unwrap()).collect(),
        };
        let resolver = Resolver::new(Files {
            hosts: "/nonexistent".into(),
            resolv_conf: "/nonexistent".into(),
        });
        let found: Vec<(String, Trust)> =
            endpoints(&registries, &Proxies::default(), &resolver, domain)
                .await
                .into_iter()
                .map(|endpoint| (endpoint.base, endpoint.trust))
                .collect();
        let expect: Vec<(String, Trust)> = expect
            .iter()
            .map(|(base, trust)| ((*base).to_owned(), *trust))
            .collect();
        assert_eq!(found, expect, "{domain}");
    }

    #[tokio::test]
    async fn endpoints_are_tried_in_dockers_order() {
        let (system, anyone) = (Trust::System, Trust::Anyone);
        check(
            &[],
            &[],
            "docker.io",
            &[("https://registry-1.docker.io", system)],
        )
        .await;
        check(
            &["10.1.0.0/16"],
            &["https://mirror.test/sub/", "http://10.1.2.3:5000"],
            "docker.io",
            &[
                ("https://mirror.test/sub", system),
                ("http://10.1.2.3:5000", anyone),
                ("https://registry-1.docker.io", system),
            ],
        )
        .await;
        check(
            &[],
            &[],
            "10.0.0.1:5000",
            &[("https://10.0.0.1:5000", system)],
        )
        .await;
        check(
            &["10.0.0.0/8"],
            &[],
            "10.0.0.1:5000",
            &[
                ("https://10.0.0.1:5000", anyone),
                ("http://10.0.0.1:5000", anyone),
            ],
        )
        .await;
        check(
            &["reg.test:5000"],
            &[],
            "reg.test:5000",
            &[
                ("https://reg.test:5000", anyone),
                ("http://reg.test:5000", anyone),
            ],
        )
        .await;
        check(
            &[],
            &[],
            "localhost:5000",
            &[
                ("https://localhost:5000", anyone),
                ("http://localhost:5000", anyone),
            ],
        )
        .await;
    }

    #[test]
    fn broken_rules_are_refused() {
        for bad in ["", "http://x", "1.2.3.4/33", "a b", "x/8"] {
            assert!(bad.parse::<Insecure>().is_err(), "{bad}");
        }
    }
}
