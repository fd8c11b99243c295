//! The addresses of one subnet: which are taken, and which is next.

use std::collections::{HashSet, VecDeque};

use crate::address::{Address, Cidr};
use crate::error::Error;
use crate::network::Subnet;

/// Addresses that were never given out come first, in order; then those that were freed, the
/// longest free first. So a name or a cache that outlives a container does not lead to the next.
#[derive(Debug, Clone)]
pub struct Hosts<A> {
    subnet: Cidr<A>,
    /// Where addresses are chosen from.
    range: Cidr<A>,
    taken: HashSet<A>,
    /// The first that was never looked at, as a number.
    next: u128,
    freed: VecDeque<A>,
}

impl<A: Address> Hosts<A> {
    pub fn new(subnet: &Subnet<A>) -> Hosts<A> {
        let range = subnet.range.unwrap_or(subnet.subnet);
        let taken = subnet.auxiliary.values().copied().chain(subnet.gateway);
        Hosts {
            subnet: subnet.subnet,
            range,
            taken: taken.collect(),
            next: range.first(),
            freed: VecDeque::new(),
        }
    }

    pub fn prefix(&self) -> u8 {
        self.subnet.prefix
    }

    /// Takes the address that was asked for, or the next free one.
    pub fn reserve(&mut self, wanted: Option<A>) -> Result<A, Error> {
        let address = match wanted {
            Some(address) if !self.subnet.is_host(address) => {
                return Err(Error::AddressOutside {
                    address: address.into(),
                    subnet: self.subnet.to_string(),
                });
            }
            Some(address) if self.taken.contains(&address) => {
                return Err(Error::AddressInUse {
                    address: address.into(),
                });
            }
            Some(address) => address,
            None => self.next_free().ok_or_else(|| Error::NoFreeAddress {
                family: A::FAMILY,
                subnet: self.subnet.to_string(),
            })?,
        };
        self.taken.insert(address);
        Ok(address)
    }

    /// The address is a container's already.
    pub fn take(&mut self, address: A) {
        self.taken.insert(address);
    }

    pub fn release(&mut self, address: A) {
        // One that the cursor has not come to is found there.
        if self.taken.remove(&address)
            && self.range.contains(address)
            && address.number() < self.next
        {
            self.freed.push_back(address);
        }
    }

    /// What was reserved has not been used: it is the next again.
    pub fn give_back(&mut self, address: A) {
        if !self.taken.remove(&address) || !self.range.contains(address) {
            return;
        }
        match self.next.checked_sub(1) {
            Some(last) if last == address.number() => self.next = last,
            _ if address.number() < self.next => self.freed.push_front(address),
            _ => {}
        }
    }

    fn next_free(&mut self) -> Option<A> {
        while self.next <= self.range.last() {
            let address = A::from_number(self.next);
            // The range ends before the numbers do: the last address of all is multicast.
            self.next += 1;
            if self.subnet.is_host(address) && !self.taken.contains(&address) {
                return Some(address);
            }
        }
        // One that was asked for by its number meanwhile is taken, and comes back when it is freed.
        while let Some(address) = self.freed.pop_front() {
            if !self.taken.contains(&address) {
                return Some(address);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn hosts(subnet: &str, gateway: u8, range: Option<&str>) -> Hosts<Ipv4Addr> {
        Hosts::new(&Subnet {
            subnet: subnet.parse().expect("a subnet"),
            gateway: Some([10, 0, 0, gateway].into()),
            range: range.map(|text| text.parse().expect("a range")),
            auxiliary: BTreeMap::new(),
        })
    }

    fn next(hosts: &mut Hosts<Ipv4Addr>) -> Option<u8> {
        hosts.reserve(None).ok().map(|address| address.octets()[3])
    }

    #[test]
    fn freed_addresses_are_reused_last_and_the_longest_free_first() {
        let mut hosts = hosts("10.0.0.0/29", 2, None);
        assert_eq!([next(&mut hosts), next(&mut hosts)], [Some(1), Some(3)]);
        hosts.release([10, 0, 0, 3].into());
        assert_eq!(next(&mut hosts), Some(4));
        hosts.release([10, 0, 0, 1].into());
        let rest: Vec<u8> = std::iter::from_fn(|| next(&mut hosts)).collect();
        assert_eq!(rest, [5, 6, 3, 1]);
        assert!(matches!(
            hosts.reserve(None),
            Err(Error::NoFreeAddress { .. })
        ));
    }

    #[test]
    fn what_was_not_used_is_the_next_again() {
        let mut hosts = hosts("10.0.0.0/29", 1, None);
        assert_eq!([next(&mut hosts), next(&mut hosts)], [Some(2), Some(3)]);
        hosts.give_back([10, 0, 0, 3].into());
        assert_eq!(next(&mut hosts), Some(3));
        hosts.give_back([10, 0, 0, 2].into());
        let rest: Vec<u8> = std::iter::from_fn(|| next(&mut hosts)).collect();
        assert_eq!(rest, [4, 5, 6, 2]);
    }

    #[test]
    fn an_address_that_is_asked_for_is_nobody_elses() {
        let mut hosts = hosts("10.0.0.0/29", 1, None);
        let four: Ipv4Addr = [10, 0, 0, 4].into();
        hosts.reserve(Some(four)).expect("free");
        let again = hosts.reserve(Some(four));
        assert!(matches!(again, Err(Error::AddressInUse { .. })));
        hosts.release(four);
        assert_eq!(next(&mut hosts), Some(2));
        hosts.reserve(Some(four)).expect("free");
        let rest: Vec<u8> = std::iter::from_fn(|| next(&mut hosts)).collect();
        assert_eq!(rest, [3, 5, 6]);
        hosts.release(four);
        assert_eq!(next(&mut hosts), Some(4));
        assert_eq!(next(&mut hosts), None);
    }

    #[test]
    fn addresses_are_chosen_from_the_range_and_asked_for_anywhere() {
        let mut hosts = hosts("10.0.0.0/24", 1, Some("10.0.0.128/30"));
        hosts.reserve(Some([10, 0, 0, 9].into())).expect("free");
        hosts.release([10, 0, 0, 9].into());
        let all: Vec<u8> = std::iter::from_fn(|| next(&mut hosts)).collect();
        assert_eq!(all, [128, 129, 130, 131]);
    }

    #[test]
    fn the_edges_of_a_subnet_are_no_hosts() {
        let mut hosts = hosts("10.0.0.0/29", 1, None);
        for last in [0, 7, 8] {
            let refused = hosts.reserve(Some([10, 0, 0, last].into()));
            assert!(
                matches!(refused, Err(Error::AddressOutside { .. })),
                "{last}"
            );
        }
        let taken = hosts.reserve(Some([10, 0, 0, 1].into()));
        assert!(matches!(taken, Err(Error::AddressInUse { .. })));
    }

    #[test]
    fn ipv6_has_no_broadcast_address() {
        let mut hosts: Hosts<Ipv6Addr> = Hosts::new(&Subnet {
            subnet: "fd00::/126".parse().expect("a subnet"),
            gateway: "fd00::1".parse().ok(),
            range: None,
            auxiliary: BTreeMap::new(),
        });
        let all: Vec<String> = std::iter::from_fn(|| hosts.reserve(None).ok())
            .map(|address| address.to_string())
            .collect();
        assert_eq!(all, ["fd00::2", "fd00::3"]);
    }
}
