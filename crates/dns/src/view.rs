//! What one container sees: the zones of its networks in order, its links, where the rest is
//! asked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::forward::Forwarder;
use crate::zone::{Family, Zone, key};

/// What a container's queries are answered from. Made anew when its networks change
/// ([`crate::Listening::show`]).
#[derive(Debug, Clone, Default)]
pub struct View {
    /// In the order in which they are asked: Docker's is by gateway priority, then networks with
    /// a way out before internal ones, then by name.
    pub networks: Vec<Membership>,
    /// The container's `resolv.conf` has an `ndots` of the host's or the user's. Then addresses of
    /// a single label that nobody has are not asked of other servers: the client comes again with
    /// its search domain.
    pub ndots_set: bool,
    /// Where unknown names are asked; `None` for a container on internal networks only.
    pub forwarder: Option<Arc<Forwarder>>,
}

/// A network that the container is in.
#[derive(Debug, Clone)]
pub struct Membership {
    pub zone: Arc<Zone>,
    /// By alias, the name in the zone that it stands for.
    links: HashMap<String, String>,
}

impl Membership {
    /// `links` are pairs of a name in the zone and its alias, as of `--link NAME:ALIAS`: only this
    /// container knows the alias.
    pub fn new(zone: Arc<Zone>, links: impl IntoIterator<Item = (String, String)>) -> Self {
        let links = links.into_iter();
        Self {
            zone,
            links: links
                .map(|(name, alias)| (key(&alias), key(&name)))
                .collect(),
        }
    }
}

impl View {
    /// The addresses of a name (in lower case, without the last dot); `None` when nobody here has
    /// it. `a.b.c` is a container of that name in any of the networks, `a.b` in network `c`, or
    /// `a` in network `b.c`, in this order.
    pub(crate) fn addresses(&self, name: &str, family: Family) -> Option<Vec<IpAddr>> {
        let parts = name
            .rmatch_indices('.')
            .map(|(dot, _)| (&name[..dot], Some(&name[dot + 1..])));
        std::iter::once((name, None))
            .chain(parts)
            .find_map(|(name, network)| {
                self.linked(name, network, family)
                    .or_else(|| self.named(name, network, family))
            })
    }

    /// Who has the address.
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<String> {
        self.networks
            .iter()
            .find_map(|network| network.zone.name_of(address))
    }

    fn linked(&self, alias: &str, network: Option<&str>, family: Family) -> Option<Vec<IpAddr>> {
        self.among(network)
            .find_map(|network| network.zone.find(network.links.get(alias)?, family))
    }

    fn named(&self, name: &str, network: Option<&str>, family: Family) -> Option<Vec<IpAddr>> {
        self.among(network)
            // A link hides a container of the alias's name.
            .filter(|network| !network.links.contains_key(name))
            .find_map(|network| network.zone.find(name, family))
    }

    fn among<'a>(&'a self, network: Option<&'a str>) -> impl Iterator<Item = &'a Membership> {
        self.networks
            .iter()
            .filter(move |member| network.is_none_or(|name| member.zone.suffix() == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, records: &[(&str, u8)]) -> Arc<Zone> {
        let zone = Zone::new(name);
        for (name, last) in records {
            let address = IpAddr::from([10, 0, 0, *last]);
            zone.insert(name, &[(*name).to_owned()], &[address]);
        }
        Arc::new(zone)
    }

    fn check(view: &View, name: &str, expect: Option<u8>) {
        let expect = expect.map(|last| vec![IpAddr::from([10, 0, 0, last])]);
        assert_eq!(view.addresses(name, Family::V4), expect, "{name}");
    }

    #[test]
    fn names_are_found_with_and_without_their_network_in_order() {
        let view = View {
            networks: vec![
                Membership::new(zone("front", &[("web", 1), ("a.b", 2)]), []),
                Membership::new(
                    zone("Back.end", &[("web", 3), ("db", 4), ("web.front", 5)]),
                    [],
                ),
            ],
            ..View::default()
        };
        check(&view, "web", Some(1));
        check(&view, "db", Some(4));
        check(&view, "a.b", Some(2));
        check(&view, "a.b.front", Some(2));
        check(&view, "web.back.end", Some(3));
        check(&view, "db.front", None);
        // The whole name comes before its parts.
        check(&view, "web.front", Some(5));
        check(&view, "", None);
        check(&view, "elsewhere", None);
    }

    #[test]
    fn a_link_is_known_to_its_container_alone_and_hides_the_name() {
        let back = zone("back", &[("postgres", 1), ("db", 2)]);
        let links = [("postgres".to_owned(), "DB".to_owned())];
        let linked = View {
            networks: vec![Membership::new(Arc::clone(&back), links)],
            ..View::default()
        };
        check(&linked, "db", Some(1));
        check(&linked, "db.back", Some(1));
        check(&linked, "postgres", Some(1));
        let other = View {
            networks: vec![Membership::new(back, [])],
            ..View::default()
        };
        check(&other, "db", Some(2));
    }

    #[test]
    fn a_link_to_nobody_is_not_known() {
        let links = [("gone".to_owned(), "db".to_owned())];
        let view = View {
            networks: vec![Membership::new(zone("back", &[("db", 2)]), links)],
            ..View::default()
        };
        check(&view, "db", None);
    }
}
