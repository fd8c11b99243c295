//! IPv4 subnets: their text form, the pools they come from, and the choice among them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address with the length of its network's prefix: `172.17.0.1/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cidr {
    pub address: Ipv4Addr,
    pub prefix: u8,
}

/// A range that is cut into subnets of one size (`--default-address-pool`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    pub base: Cidr,
    /// Length of each subnet's prefix.
    pub size: u8,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid CIDR address: {0}")]
pub struct ParseCidrError(String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid address pool {text}: {what}")]
pub struct ParsePoolError {
    text: String,
    what: &'static str,
}

impl Cidr {
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Cidr {
        Cidr { address, prefix }
    }

    pub fn mask(self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.prefix))
            .unwrap_or(0)
    }

    /// The subnet itself: the address without its host bits.
    pub fn network(self) -> Cidr {
        Cidr {
            address: Ipv4Addr::from(u32::from(self.address) & self.mask()),
            ..self
        }
    }

    pub fn first(self) -> u32 {
        u32::from(self.address) & self.mask()
    }

    pub fn last(self) -> u32 {
        self.first() | !self.mask()
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == self.first()
    }

    pub fn overlaps(self, other: Cidr) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }

    /// The addresses that hosts may have: all but the network's and the broadcast address.
    pub fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.first().saturating_add(1)..self.last()).map(Ipv4Addr::from)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Cidr, ParseCidrError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
            Some(Cidr {
                address: address.parse().ok()?,
                prefix,
            })
        };
        parse().ok_or_else(|| ParseCidrError(text.to_owned()))
    }
}

impl Pool {
    /// `None` if the subnets would be larger than the base, or too small for a container.
    pub fn new(base: Cidr, size: u8) -> Option<Pool> {
        const SMALLEST: u8 = 30;
        (base.prefix..=SMALLEST)
            .contains(&size)
            .then_some(Pool { base, size })
    }

    /// Docker's: a lone instance gets 172.17.0.0/16.
    pub fn defaults() -> Vec<Pool> {
        let pool = |a, b, prefix, size| Pool {
            base: Cidr::new([a, b, 0, 0].into(), prefix),
            size,
        };
        let mut pools: Vec<Pool> = (17..20).map(|b| pool(172, b, 16, 16)).collect();
        pools.extend([20, 24, 28].map(|b| pool(172, b, 14, 16)));
        pools.push(pool(192, 168, 16, 20));
        pools
    }

    /// The pool's subnets, in order.
    pub fn subnets(self) -> impl Iterator<Item = Cidr> {
        let size = self.size.clamp(self.base.prefix, 32);
        let count = 1u64 << (size - self.base.prefix);
        let step = 1u64 << (32 - size);
        let first = u64::from(self.base.first());
        (0..count).filter_map(move |n| {
            let address = u32::try_from(first + n * step).ok()?;
            Some(Cidr {
                address: Ipv4Addr::from(address),
                prefix: size,
            })
        })
    }
}

/// As on the command line: `base=172.30.0.0/16,size=24`.
impl FromStr for Pool {
    type Err = ParsePoolError;

    fn from_str(text: &str) -> Result<Pool, ParsePoolError> {
        let bad = |what| ParsePoolError {
            text: text.to_owned(),
            what,
        };
        let (mut base, mut size) = (None, None);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("base", value)) => {
                    let value: Cidr = value.parse().map_err(|_| bad("base is no IPv4 subnet"))?;
                    base = Some(value.network());
                }
                Some(("size", value)) => {
                    size = Some(value.parse().map_err(|_| bad("size is no number"))?);
                }
                _ => return Err(bad("only base=SUBNET and size=LENGTH are known")),
            }
        }
        let base = base.ok_or_else(|| bad("base is missing"))?;
        let size = size.ok_or_else(|| bad("size is missing"))?;
        Pool::new(base, size).ok_or_else(|| bad("size does not fit the base"))
    }
}

/// The first subnet of the pools that overlaps none of `taken`.
pub fn choose(pools: &[Pool], taken: &[Cidr]) -> Option<Cidr> {
    let free = |subnet: &Cidr| !taken.iter().any(|other| other.overlaps(*subnet));
    pools.iter().flat_map(|pool| pool.subnets()).find(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(taken: &[&str], expect: &str) {
        let taken: Vec<Cidr> = taken
            .iter()
            .map(|text| text.parse().expect("a subnet"))
            .collect();
        let chosen = choose(&Pool::defaults(), &taken).expect("a free subnet");
        assert_eq!(chosen.to_string(), expect);
    }

    #[test]
    fn a_lone_instance_gets_dockers_subnet() {
        check(&[], "172.17.0.0/16");
        check(&["192.0.2.2/24", "127.0.0.1/8"], "172.17.0.0/16");
    }

    #[test]
    fn taken_subnets_are_passed_over() {
        check(&["172.17.0.1/16"], "172.18.0.0/16");
        check(&["172.17.200.0/24", "172.18.1.1/32"], "172.19.0.0/16");
        check(&["172.16.0.0/14", "172.20.0.0/16"], "172.21.0.0/16");
        check(&["172.16.0.0/12"], "192.168.0.0/20");
        check(&["172.16.0.0/12", "192.168.1.0/24"], "192.168.16.0/20");
    }

    #[test]
    fn no_subnet_is_left_when_all_is_routed() {
        assert_eq!(
            choose(&Pool::defaults(), &["0.0.0.0/0".parse().expect("a subnet")]),
            None
        );
    }

    #[test]
    fn pools_are_read_from_the_command_line() {
        let pool: Pool = "base=10.5.0.0/16,size=24".parse().expect("a pool");
        let subnets: Vec<String> = pool.subnets().take(2).map(|one| one.to_string()).collect();
        assert_eq!(subnets, ["10.5.0.0/24", "10.5.1.0/24"]);
        for text in [
            "",
            "base=10.5.0.0/16",
            "size=24",
            "base=x,size=24",
            "base=10.5.0.0/16,size=8",
        ] {
            assert!(text.parse::<Pool>().is_err(), "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_subnet() {
        for text in ["", "1.2.3.4", "1.2.3.4/33", "1.2.3/8", "a/8", "1.2.3.4/-1"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
