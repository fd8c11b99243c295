//! Which requests go through which proxy: the meaning of HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

use std::net::IpAddr;

use http::Uri;

/// The proxies of a configuration. Plain data: nobody here reads the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` requests.
    pub http: Option<Uri>,
    /// For `https://` requests.
    pub https: Option<Uri>,
    /// Hosts that are reached directly.
    pub exceptions: Exceptions,
}

/// The parsed form of NO_PROXY.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions {
    everything: bool,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Network {
        address: IpAddr,
        bits: u8,
    },
    /// The name itself (unless it began with a dot) and all names below it.
    Domain {
        name: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Makes them of the three values as they stand in the environment or in daemon.json.
    ///
    /// A value without a scheme is taken as `http://`, as curl and Go do.
    pub fn parse(http: &str, https: &str, exceptions: &str) -> Result<Self, http::uri::InvalidUri> {
        let proxy = |text: &str| -> Result<Option<Uri>, http::uri::InvalidUri> {
            match text.trim() {
                "" => Ok(None),
                text if text.contains("://") => text.parse().map(Some),
                text => format!("http://{text}").parse().map(Some),
            }
        };
        Ok(Self {
            http: proxy(http)?,
            https: proxy(https)?,
            exceptions: Exceptions::parse(exceptions),
        })
    }

    /// The proxy for a request, if it goes through one.
    pub fn pick(&self, secure: bool, host: &str, port: u16) -> Option<&Uri> {
        let proxy = if secure { &self.https } else { &self.http };
        proxy
            .as_ref()
            .filter(|_| !self.exceptions.contains(host, port))
    }
}

/// A proxy's host and port, without the name and password that may stand before them.
pub fn without_credentials(proxy: &Uri) -> String {
    let authority = proxy.authority().map_or("", |authority| authority.as_str());
    let bare = authority.rsplit('@').next();
    bare.unwrap_or(authority).to_owned()
}

/// A proxy's address for everybody's eyes, with docker's mask over name and password.
pub fn masked(proxy: &str) -> String {
    let (scheme, rest) = proxy.split_once("://").unwrap_or(("", proxy));
    let Some((_, host)) = rest.rsplit_once('@') else {
        return proxy.to_owned();
    };
    match scheme {
        "" => format!("xxxxx:xxxxx@{host}"),
        scheme => format!("{scheme}://xxxxx:xxxxx@{host}"),
    }
}

impl Exceptions {
    /// Parses a comma-separated list of names, addresses and networks; `*` is everything.
    pub fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for word in text.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            if word == "*" {
                parsed.everything = true;
            } else {
                parsed.rules.push(Rule::parse(word));
            }
        }
        parsed
    }

    fn contains(&self, host: &str, port: u16) -> bool {
        let host = host
            .trim_matches(['[', ']'])
            .trim_end_matches('.')
            .to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        // Go never sends requests to this machine itself through a proxy.
        let local = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        local
            || self.everything
            || self.rules.iter().any(|rule| match (rule, address) {
                (Rule::Network { address, bits }, Some(host)) => {
                    same_network(*address, host, *bits)
                }
                (
                    Rule::Domain {
                        name,
                        itself,
                        port: only,
                    },
                    None,
                ) => {
                    only.is_none_or(|only| only == port)
                        && ((*itself && host == *name)
                            || host
                                .strip_suffix(name.as_str())
                                .is_some_and(|rest| rest.ends_with('.')))
                }
                _ => false,
            })
    }
}

impl Rule {
    fn parse(word: &str) -> Self {
        if let Some((address, bits)) = word.split_once('/')
            && let (Ok(address), Ok(bits)) = (address.parse(), bits.parse())
        {
            return Self::Network { address, bits };
        }
        if let Ok(address) = word.trim_matches(['[', ']']).parse() {
            return Self::Network { address, bits: 128 };
        }
        let (name, port) = match word.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok()),
            None => (word, None),
        };
        let name = name.to_ascii_lowercase();
        let bare = name.trim_start_matches("*.").trim_start_matches('.');
        Self::Domain {
            name: bare.to_owned(),
            itself: bare.len() == name.len(),
            port,
        }
    }
}

fn same_network(a: IpAddr, b: IpAddr, bits: u8) -> bool {
    let prefix = |bytes: &[u8]| {
        let mut value = [0; 16];
        value[..bytes.len()].copy_from_slice(bytes);
        u128::from_be_bytes(value)
    };
    let (a, b, width) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (prefix(&a.octets()), prefix(&b.octets()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (prefix(&a.octets()), prefix(&b.octets()), 128),
        _ => return false,
    };
    let bits = u32::from(bits).min(width);
    bits == 0 || (a ^ b) >> (128 - bits) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_match_names_below_networks_and_ports() {
        let exceptions =
            Exceptions::parse("example.com, .sub.org,10.0.0.0/8,192.168.1.7,host:5000,fd00::/8");
        let check = |host: &str, port: u16, expect: bool| {
            assert_eq!(exceptions.contains(host, port), expect, "{host}:{port}");
        };
        check("example.com", 443, true);
        check("a.Example.com", 443, true);
        check("notexample.com", 443, false);
        check("sub.org", 443, false);
        check("x.sub.org", 443, true);
        check("10.20.30.40", 80, true);
        check("11.20.30.40", 80, false);
        check("192.168.1.7", 80, true);
        check("192.168.1.8", 80, false);
        check("host", 5000, true);
        check("host", 80, false);
        check("[fd00::1]", 80, true);
        check("localhost", 80, true);
        check("127.0.0.9", 80, true);
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            without_credentials(&"http://a:b@p:1/".parse().unwrap()),
            "p:1"
        );
        assert_eq!(masked("http://a:b@p:1/"), "http://xxxxx:xxxxx@p:1/");
        assert_eq!(masked("a@p"), "xxxxx:xxxxx@p");
        assert_eq!(masked("http://p:1"), "http://p:1");
    }

    #[test]
    fn a_proxy_without_scheme_is_http() {
        let proxies = Proxies::parse("proxy:3128", "", "").unwrap();
        assert_eq!(
            proxies.pick(false, "a.example", 80).unwrap().to_string(),
            "http://proxy:3128/"
        );
        assert_eq!(proxies.pick(true, "a.example", 443), None);
    }
}
