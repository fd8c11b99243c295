//! How a container gets its network at a start: which networks, in which order, under which
//! names, and which of them leads out.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use berth_base::{Chain, Id};
use berth_docker::network::EndpointSettings;
use berth_net::{EndpointRequest, Gateway, PortRequest};

use super::options::INTERFACE_PREFIX;
use super::{Kind, Network, conflict, ports, settings};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::record::{Connected, Record};
use crate::shared::Shared;
use crate::spec::container_of;

const INTERFACE: &str = "com.docker.network.endpoint.ifname";

/// How a container gets its network at a start.
#[derive(Debug, Clone, PartialEq)]
pub enum Join {
    Host,
    /// A namespace with nothing but a loopback.
    None,
    /// In the order of their interfaces; at least one.
    Networks(Vec<Place>),
    Container {
        id: Id,
        pid: i32,
    },
}

/// A container's place on one network, before it is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    pub network: Arc<Network>,
    pub interface: String,
    pub mac: Option<[u8; 6]>,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub link_local: Vec<IpAddr>,
    pub sysctls: Vec<(String, String)>,
    pub gateway: Gateway,
    pub ports: Vec<PortRequest>,
}

impl Join {
    pub fn plan(shared: &Shared, record: &Record) -> Result<Self> {
        let mode = record.host.network_mode.as_str();
        if let Some(reference) = container_of(mode) {
            return Self::container(shared, reference);
        }
        let mut networks: Vec<(Arc<Network>, &EndpointSettings)> = Vec::new();
        for (name, settings) in &record.endpoints {
            let network = shared.networks.find(name).map_err(while_starting)?;
            let others = networks.iter().map(|(other, _)| other.as_ref());
            if let Some(why) = conflict(&network, mode, others) {
                return Err(while_starting(Error::invalid(why)));
            }
            check_attachable(&network).map_err(while_starting)?;
            networks.push((network, settings));
        }
        if networks.iter().any(|(it, _)| it.kind == Kind::Host) {
            return Ok(Self::Host);
        }
        networks.retain(|(network, _)| network.kind != Kind::None);
        let disabled = shared.net.is_none() || record.config.network_disabled;
        if networks.is_empty() || disabled {
            return Ok(Self::None);
        }
        // The mode's network gives the first interface; the others follow by name.
        let first = shared.networks.of(mode).map(|network| network.id.clone());
        networks.sort_by_key(|(network, _)| Some(&network.id) != first.as_ref());
        places(record, &networks).map(Self::Networks)
    }

    fn container(shared: &Shared, reference: &str) -> Result<Self> {
        let found = shared.table.find(reference).map_err(|error| Error {
            message: format!("joining network namespace of container: {}", error.message),
            ..error
        })?;
        let view = found.view();
        let id = view.record.id.clone();
        match view.state.phase.pid() {
            Some(pid) => Ok(Self::Container { id, pid }),
            None => Err(Error::conflict(format!(
                "cannot join network namespace of a non running container: container {reference} \
                 is {}",
                view.state.phase.name()
            ))),
        }
    }

    /// The namespace, with nothing but a loopback if it is new. It is kept alive by the container
    /// from the launch on. Blocks.
    pub fn namespace(&self, shared: &Shared) -> Result<Option<OwnedFd>> {
        match self {
            Self::Host => Ok(None),
            Self::None | Self::Networks(_) => {
                let made = shared.net.as_ref().map(|net| net.create_namespace());
                let failed = |error: berth_net::Error| {
                    while_starting(Error::internal(Chain(&error).to_string()))
                };
                made.transpose().map_err(failed)
            }
            Self::Container { id, pid } => {
                let netns =
                    open_namespace(*pid).context(format!("join the network of container {id}"))?;
                // The process may have ended, and its number may be another's by now.
                let still = shared.table.find(id.as_str())?.view().state.phase.pid();
                if still != Some(*pid) {
                    return Err(Error::conflict(format!(
                        "cannot join network of a non running container: {id}"
                    )));
                }
                Ok(Some(netns))
            }
        }
    }

    /// Connects the namespace to the container's networks, if it has any: to all or to none.
    /// Blocks.
    pub fn connect(
        &self,
        shared: &Shared,
        record: &Record,
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<BTreeMap<String, Connected>> {
        let mut connected = BTreeMap::new();
        let (Self::Networks(places), Some(netns)) = (self, netns) else {
            return Ok(connected);
        };
        for place in places {
            match place.connect(shared, record, netns) {
                Ok(made) => drop(connected.insert(place.network.name.clone(), made)),
                Err(error) => {
                    shared.disconnect(&record.id, connected.values());
                    return Err(while_starting(error));
                }
            }
        }
        Ok(connected)
    }
}

/// The network namespace of a process.
pub fn open_namespace(pid: i32) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(
        format!("/proc/{pid}/ns/net"),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
}

fn while_starting(error: Error) -> Error {
    error.while_doing("failed to set up container networking")
}

/// A configuration is nothing that a container could be on.
pub fn check_attachable(network: &Network) -> Result<()> {
    match network.kind {
        Kind::Configuration { .. } => Err(Error::new(
            ErrorKind::Forbidden,
            "cannot create endpoint on configuration-only network",
        )),
        Kind::Default | Kind::Host | Kind::None | Kind::Own { .. } => Ok(()),
    }
}

/// Where a container is to be on each of its networks.
fn places(record: &Record, networks: &[(Arc<Network>, &EndpointSettings)]) -> Result<Vec<Place>> {
    let ranked = networks
        .iter()
        .map(|(network, settings)| (network.as_ref(), settings.gw_priority));
    let leads = gateways(ranked);
    let ports = ports(record)?;
    let mut taken = Vec::new();
    let mut places = Vec::with_capacity(networks.len());
    for (network, settings) in networks {
        let leads = Gateway {
            v4: leads.v4.as_ref() == Some(&network.id),
            v6: leads.v6.as_ref() == Some(&network.id),
        };
        let place = Place::new(record, network, settings, leads, &ports, &taken);
        let place = place.map_err(while_starting)?;
        taken.push(place.interface.clone());
        places.push(place);
    }
    // Only one network takes the published ports: the one that leads out by IPv4, if any does.
    let mut publishes = places.iter().position(|place| place.gateway.v4);
    publishes = publishes.or_else(|| places.iter().position(|place| place.gateway.v6));
    for (index, place) in places.iter_mut().enumerate() {
        if publishes != Some(index) {
            place.ports.clear();
        }
    }
    Ok(places)
}

/// The networks that a container's default routes lead to.
#[derive(Debug, Default, PartialEq)]
pub struct Gateways {
    pub v4: Option<Id>,
    pub v6: Option<Id>,
}

/// The networks that lead out, given each with its priority (moby, `libnetwork/sandbox.go`): by
/// priority, then one that has both families, then by name.
pub fn gateways<'a>(networks: impl Iterator<Item = (&'a Network, i64)>) -> Gateways {
    let mut ranked: Vec<_> = networks
        .map(|(network, priority)| {
            let leads = network.leads_out();
            let families = usize::from(leads.v4) + usize::from(leads.v6);
            (
                Reverse(priority),
                Reverse(families),
                &network.name,
                &network.id,
                leads,
            )
        })
        .collect();
    ranked.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
    let first = |leads: fn(&Gateway) -> bool| {
        let found = ranked.iter().find(|(.., gateway)| leads(gateway));
        found.map(|(_, _, _, id, _)| (*id).clone())
    };
    Gateways {
        v4: first(|gateway| gateway.v4),
        v6: first(|gateway| gateway.v6),
    }
}

impl Place {
    /// `taken` are the names of the interfaces that there are already.
    pub fn new(
        record: &Record,
        network: &Arc<Network>,
        settings: &EndpointSettings,
        gateway: Gateway,
        ports: &[PortRequest],
        taken: &[String],
    ) -> Result<Self> {
        let config = settings.ipam_config.clone().unwrap_or_default();
        Ok(Self {
            network: network.clone(),
            interface: interface(network, settings, taken),
            mac: mac(record, network, settings)?,
            ipv4: address(&config.ipv4_address, "IPv4")?,
            ipv6: address(&config.ipv6_address, "IPv6")?,
            link_local: config
                .link_local_ips
                .iter()
                .filter_map(|text| link_local(text).transpose())
                .collect::<Result<_>>()?,
            sysctls: settings::sysctls(settings)
                .filter_map(|text| text.split_once('='))
                .map(|(key, value)| (path(key), value.to_owned()))
                .collect(),
            gateway,
            ports: ports.to_vec(),
        })
    }

    /// Makes the container's interface on this network. Blocks.
    pub fn connect(
        &self,
        shared: &Shared,
        record: &Record,
        netns: BorrowedFd<'_>,
    ) -> Result<Connected> {
        let (Some(net), Some(link)) = (&shared.net, self.network.link()) else {
            return Err(Error::unavailable(
                "networks are switched off: the daemon was started with --bridge=none",
            ));
        };
        if self.mac.is_some() && self.network.driver() == "ipvlan" {
            return Err(Error::internal(
                "ipvlan interfaces do not support custom mac address assignment",
            ));
        }
        let id = Id::random();
        let request = EndpointRequest {
            container_id: record.id.as_str(),
            netns,
            network: link,
            interface: &self.interface,
            mac: self.mac,
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            gateway: self.gateway,
            link_local: self.link_local.clone(),
            sysctls: self.sysctls.clone(),
            ports: self.ports.clone(),
        };
        let endpoint = net
            .connect(request)
            .map_err(|error| connect_error(&error, record, &self.network, &id))?;
        Ok(Connected { id, endpoint })
    }
}

/// `eth` or the network's own word, and the first number that is free.
fn interface(network: &Network, settings: &EndpointSettings, taken: &[String]) -> String {
    let options = settings.driver_opts.as_ref();
    if let Some(own) = options.and_then(|options| options.get(INTERFACE)) {
        return own.clone();
    }
    let labels = network.request().and_then(|it| it.options.as_ref());
    let prefix = labels.and_then(|labels| labels.get(INTERFACE_PREFIX));
    let prefix = prefix
        .filter(|it| !it.is_empty())
        .map_or("eth", String::as_str);
    let mut numbers = (0..=taken.len()).map(|number| format!("{prefix}{number}"));
    let free = numbers.find(|name| !taken.contains(name));
    free.expect("one more name than there are taken ones")
}

/// An address that is for its link only.
fn link_local(text: &str) -> Result<Option<IpAddr>> {
    let address = address::<IpAddr>(text, "link-local IP")?;
    let is_local = address.is_none_or(|address| match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    });
    match is_local {
        true => Ok(address),
        false => Err(Error::invalid(format!(
            "invalid link local IP address: {text}"
        ))),
    }
}

/// The path of a sysctl below `/proc/sys`: `net.ipv4.conf.ifname.x` is `net/ipv4/conf/IFNAME/x`.
fn path(key: &str) -> String {
    let words: Vec<&str> = key
        .splitn(5, '.')
        .map(|word| if word == "ifname" { "IFNAME" } else { word })
        .collect();
    words.join("/")
}

fn mac(record: &Record, network: &Network, settings: &EndpointSettings) -> Result<Option<[u8; 6]>> {
    // A container's own address is that on the network of its mode.
    let mode = record.host.network_mode.as_str();
    let is_main = mode == network.name || mode == network.id.as_str();
    let text = match settings.mac_address.as_str() {
        "" if is_main => record.config.mac_address.as_str(),
        given => given,
    };
    if text.is_empty() {
        return Ok(None);
    }
    match settings::mac(text) {
        Some(mac) => Ok(Some(mac)),
        None => Err(Error::invalid(format!("invalid MAC address: {text}"))),
    }
}

fn address<A: std::str::FromStr>(text: &str, what: &str) -> Result<Option<A>> {
    match text {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| Error::invalid(format!("invalid {what} address: {text}"))),
    }
}

/// Docker's words around a failed connection.
fn connect_error(
    error: &berth_net::Error,
    record: &Record,
    network: &Network,
    endpoint: &Id,
) -> Error {
    use berth_net::Error as Net;
    let chain = Chain(error);
    match error {
        Net::PortAllocated { .. }
        | Net::PortInUse { .. }
        | Net::Bind { .. }
        | Net::RangeExhausted { .. } => publish_error(error, record, endpoint),
        Net::AddressInUse { .. } => Error::new(ErrorKind::Forbidden, chain.to_string()),
        Net::AddressOutside { .. } => Error::invalid("requested address is out of range"),
        Net::NoFreeAddress { family, .. } => Error::internal(format!(
            "no available {family} addresses on this network's address pools: {} ({})",
            network.name, network.id
        )),
        Net::UnknownNetwork { .. } => {
            Error::not_found(format!("network {} not found", network.name))
        }
        Net::Connected { .. } => Error::new(
            ErrorKind::Forbidden,
            format!(
                "endpoint with name {} already exists in network {}",
                record.name, network.name
            ),
        ),
        _ => Error::internal(chain.to_string()),
    }
}

/// Docker's words around ports that cannot be published.
pub fn publish_error(error: &berth_net::Error, record: &Record, endpoint: &Id) -> Error {
    Error::internal(format!(
        "driver failed programming external connectivity on endpoint {} ({endpoint}): {}",
        record.name,
        Chain(error)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_base::Timestamp;

    fn own(name: &str, internal: bool, v6: bool) -> Arc<Network> {
        let subnet = serde_json::json!({
            "subnet": {"address": "10.1.0.0", "prefix": 16}, "gateway": "10.1.0.1",
            "range": null, "auxiliary": {}});
        let subnet6 = serde_json::json!({
            "subnet": {"address": "fd00::", "prefix": 64}, "gateway": "fd00::1",
            "range": null, "auxiliary": {}});
        let id = Id::random();
        let made = serde_json::json!({
            "id": id.as_str(), "v4": subnet, "v6": v6.then_some(subnet6), "mtu": null,
            "internal": internal, "driver": {"bridge": berth_net::Bridge::of(id.as_str())}});
        Arc::new(Network {
            id,
            name: name.to_owned(),
            created: Timestamp::now(),
            kind: Kind::Own {
                request: Box::default(),
                made: Box::new(serde_json::from_value(made).unwrap()),
            },
        })
    }

    fn leading(networks: &[(&Arc<Network>, i64)]) -> (String, String) {
        let leads = gateways(
            networks
                .iter()
                .map(|(it, priority)| (it.as_ref(), *priority)),
        );
        let name = |id: Option<Id>| {
            let found = networks.iter().find(|(it, _)| Some(&it.id) == id.as_ref());
            found.map_or(String::new(), |(it, _)| it.name.clone())
        };
        (name(leads.v4), name(leads.v6))
    }

    #[test]
    fn the_way_out_is_chosen_by_priority_then_families_then_name() {
        let (a, b, c) = (
            own("a", false, false),
            own("b", false, false),
            own("c", false, true),
        );
        let inner = own("0", true, true);
        let pair = |v4: &str, v6: &str| (v4.to_owned(), v6.to_owned());
        assert_eq!(leading(&[(&b, 0), (&a, 0)]), pair("a", ""));
        assert_eq!(leading(&[(&a, 0), (&b, 1)]), pair("b", ""));
        assert_eq!(leading(&[(&a, 0), (&c, 0)]), pair("c", "c"));
        assert_eq!(leading(&[(&a, 1), (&c, 0)]), pair("a", "c"));
        assert_eq!(leading(&[(&inner, 9), (&a, -1)]), pair("a", ""));
        assert_eq!(leading(&[(&inner, 0)]), pair("", ""));
    }

    #[test]
    fn interfaces_are_numbered_unless_they_are_named() {
        let network = own("a", false, false);
        let plain = EndpointSettings::default();
        let taken = ["eth0".to_owned()];
        assert_eq!(interface(&network, &plain, &[]), "eth0");
        assert_eq!(interface(&network, &plain, &taken), "eth1");
        assert_eq!(interface(&network, &plain, &["eth1".to_owned()]), "eth0");
        let named = EndpointSettings {
            driver_opts: Some([(INTERFACE.to_owned(), "lan".to_owned())].into()),
            ..EndpointSettings::default()
        };
        assert_eq!(interface(&network, &named, &taken), "lan");
    }
}
