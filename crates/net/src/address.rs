//! Subnets of both families: their text form, the pools they come from, the choice among them.

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address of one family, as a number of [`Address::BITS`] bits.
pub trait Address:
    Copy + Ord + Hash + fmt::Debug + fmt::Display + FromStr + Into<IpAddr> + 'static
{
    const BITS: u8;
    const FAMILY: &'static str;
    /// The last address of a subnet is everyone's, and no host's.
    const BROADCAST: bool;

    fn number(self) -> u128;

    /// Of the number's lowest bits.
    fn from_number(number: u128) -> Self;

    /// In the packet's order.
    fn bytes(self) -> Vec<u8>;
}

impl Address for Ipv4Addr {
    const BITS: u8 = 32;
    const FAMILY: &'static str = "IPv4";
    const BROADCAST: bool = true;

    fn number(self) -> u128 {
        u128::from(u32::from(self))
    }

    fn from_number(number: u128) -> Ipv4Addr {
        let [.., a, b, c, d] = number.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    }

    fn bytes(self) -> Vec<u8> {
        self.octets().to_vec()
    }
}

impl Address for Ipv6Addr {
    const BITS: u8 = 128;
    const FAMILY: &'static str = "IPv6";
    const BROADCAST: bool = false;

    fn number(self) -> u128 {
        u128::from(self)
    }

    fn from_number(number: u128) -> Ipv6Addr {
        Ipv6Addr::from(number)
    }

    fn bytes(self) -> Vec<u8> {
        self.octets().to_vec()
    }
}

/// An address with the length of its network's prefix: `172.17.0.1/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cidr<A = Ipv4Addr> {
    pub address: A,
    pub prefix: u8,
}

/// A range that is cut into subnets of one size (`--default-address-pool`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool<A = Ipv4Addr> {
    pub base: Cidr<A>,
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

impl<A> Cidr<A> {
    pub const fn new(address: A, prefix: u8) -> Cidr<A> {
        Cidr { address, prefix }
    }
}

impl<A: Address> Cidr<A> {
    pub fn mask(self) -> A {
        A::from_number(!self.host_bits())
    }

    /// The subnet itself: the address without its host bits.
    pub fn network(self) -> Cidr<A> {
        Cidr {
            address: A::from_number(self.first()),
            ..self
        }
    }

    pub fn first(self) -> u128 {
        self.address.number() & !self.host_bits()
    }

    pub fn last(self) -> u128 {
        self.address.number() | self.host_bits()
    }

    pub fn contains(self, address: A) -> bool {
        (self.first()..=self.last()).contains(&address.number())
    }

    /// Whether all addresses of the other are addresses of this.
    pub fn encloses(self, other: Cidr<A>) -> bool {
        self.first() <= other.first() && other.last() <= self.last()
    }

    pub fn overlaps(self, other: Cidr<A>) -> bool {
        self.first() <= other.last() && other.first() <= self.last()
    }

    /// Whether a host may have the address: all but the network's own and, with IPv4, the
    /// broadcast address. A subnet of one or two addresses has neither (RFC 3021, RFC 6164).
    pub fn is_host(self, address: A) -> bool {
        let number = address.number();
        if self.prefix >= A::BITS - 1 {
            return self.contains(address);
        }
        self.contains(address) && number != self.first() && !(A::BROADCAST && number == self.last())
    }

    /// Ones where the network's hosts differ.
    fn host_bits(self) -> u128 {
        let bits = u32::from(A::BITS.saturating_sub(self.prefix));
        1u128.checked_shl(bits).map_or(u128::MAX, |end| end - 1)
    }
}

impl<A: Address> fmt::Display for Cidr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl<A: Address> FromStr for Cidr<A> {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Cidr<A>, ParseCidrError> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let prefix = prefix.parse().ok().filter(|prefix| *prefix <= A::BITS)?;
            Some(Cidr {
                address: address.parse().ok()?,
                prefix,
            })
        };
        parse().ok_or_else(|| ParseCidrError(text.to_owned()))
    }
}

impl Pool {
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
}

impl Pool<Ipv6Addr> {
    /// Networks of 64 bits in a unique local one of 48 (RFC 4193), which follows from `seed`:
    /// what tells this instance from all others of the world.
    pub fn unique_local(seed: &str) -> Pool<Ipv6Addr> {
        const UNIQUE_LOCAL: u128 = 0xfd << 120;
        const GLOBAL_ID_BITS: u32 = 40;
        // FNV-1a of 64 bits, folded.
        let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let id = u128::from((hash ^ hash >> GLOBAL_ID_BITS) & ((1 << GLOBAL_ID_BITS) - 1));
        Pool {
            base: Cidr::new(Ipv6Addr::from(UNIQUE_LOCAL | id << 80), 48),
            size: 64,
        }
    }
}

impl<A: Address> Pool<A> {
    /// `None` if the subnets would be larger than the base, or too small for a container.
    pub fn new(base: Cidr<A>, size: u8) -> Option<Pool<A>> {
        let smallest = A::BITS - 2;
        (base.prefix..=smallest)
            .contains(&size)
            .then_some(Pool { base, size })
    }

    /// The first of the pool's subnets that overlaps none of `taken`, which are in order and apart
    /// from each other.
    fn first_free(self, taken: &[Taken]) -> Option<Cidr<A>> {
        let size = self.size.clamp(self.base.prefix, A::BITS);
        let rest = Cidr::new(self.base.address, size).host_bits();
        let last = self.base.last();
        let mut first = self.base.first();
        loop {
            let next = taken.partition_point(|taken| taken.last < first);
            match taken.get(next) {
                Some(taken) if taken.first <= first + rest => {
                    // On to the subnet after the one that has its last address.
                    first = (taken.last | rest).checked_add(1)?;
                }
                _ => return Some(Cidr::new(A::from_number(first), size)),
            }
            if first > last {
                return None;
            }
        }
    }
}

/// The first and the last address of what is somebody's.
struct Taken {
    first: u128,
    last: u128,
}

/// As on the command line: `base=172.30.0.0/16,size=24`.
impl<A: Address> FromStr for Pool<A> {
    type Err = ParsePoolError;

    fn from_str(text: &str) -> Result<Pool<A>, ParsePoolError> {
        let bad = |what| ParsePoolError {
            text: text.to_owned(),
            what,
        };
        let (mut base, mut size) = (None, None);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("base", value)) => {
                    let value: Cidr<A> = value.parse().map_err(|_| bad("base is no subnet"))?;
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
pub fn choose<A: Address>(pools: &[Pool<A>], taken: &[Cidr<A>]) -> Option<Cidr<A>> {
    let mut sorted: Vec<Cidr<A>> = taken.to_vec();
    sorted.sort_by_key(|taken| taken.first());
    let mut merged: Vec<Taken> = Vec::new();
    for taken in sorted {
        match merged.last_mut() {
            Some(before) if taken.first() <= before.last => {
                before.last = before.last.max(taken.last())
            }
            _ => merged.push(Taken {
                first: taken.first(),
                last: taken.last(),
            }),
        }
    }
    pools.iter().find_map(|pool| pool.first_free(&merged))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<A: Address> Pool<A> {
        /// The pool's subnets, in order.
        fn subnets(self) -> impl Iterator<Item = Cidr<A>> {
            let size = self.size.clamp(self.base.prefix, A::BITS);
            let step = Cidr::new(self.base.address, size).host_bits();
            let last = self.base.last();
            let next = move |first: &u128| {
                let following = first.checked_add(step)?.checked_add(1)?;
                (following <= last).then_some(following)
            };
            std::iter::successors(Some(self.base.first()), next)
                .map(move |first| Cidr::new(A::from_number(first), size))
        }
    }

    /// What is found by leaps is what is found one by one.
    #[test]
    fn no_free_subnet_is_passed_over() {
        let mut random = 1u32;
        let mut number = move |below: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % below
        };
        for _ in 0..500 {
            let pools = [
                Pool::new(Cidr::new(Ipv4Addr::new(10, 0, 0, 0), 20), 24).expect("a pool"),
                Pool::new(Cidr::new(Ipv4Addr::new(10, 0, 8, 0), 22), 26).expect("a pool"),
            ];
            let taken: Vec<Cidr> = (0..number(20))
                .map(|_| {
                    let prefix = 22 + u8::try_from(number(11)).expect("small");
                    Cidr::new(Ipv4Addr::from(0x0a00_0000 + number(4096)), prefix)
                })
                .collect();
            let free = |subnet: &Cidr| !taken.iter().any(|other| other.overlaps(*subnet));
            let expect = pools.iter().flat_map(|pool| pool.subnets()).find(free);
            assert_eq!(choose(&pools, &taken), expect, "{taken:?}");
        }
    }

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
    fn all_addresses_of_the_smallest_subnets_are_hosts() {
        let hosts = |text: &str| {
            let subnet: Cidr = text.parse().expect("a subnet");
            let all = (subnet.first()..=subnet.last()).map(Ipv4Addr::from_number);
            all.filter(|it| subnet.is_host(*it)).count()
        };
        assert_eq!(hosts("10.0.0.0/30"), 2);
        assert_eq!(hosts("10.0.0.0/31"), 2);
        assert_eq!(hosts("10.0.0.0/32"), 1);
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
    fn a_unique_local_pool_has_subnets_of_64_bits_and_is_its_seeds() {
        let pool = Pool::unique_local("one");
        let subnets: Vec<Cidr<Ipv6Addr>> = pool.subnets().take(2).collect();
        assert_eq!(subnets[0].prefix, 64);
        assert_eq!(subnets[0].address.octets()[0], 0xfd);
        assert_eq!(subnets[1].first(), subnets[0].last() + 1);
        assert_eq!(pool.subnets().count(), 1 << 16);
        assert_ne!(Pool::unique_local("two"), pool);
        assert_eq!(choose(&[pool], &subnets[..1]), Some(subnets[1]));
    }

    #[test]
    fn nonsense_is_no_subnet() {
        for text in ["", "1.2.3.4", "1.2.3.4/33", "1.2.3/8", "a/8", "1.2.3.4/-1"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
