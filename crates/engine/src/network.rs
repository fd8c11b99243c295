//! A container's place on the network, and the three networks that always are: `bridge`, `host`
//! and `none`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{BorrowedFd, OwnedFd};

use berth_base::{Chain, Id};
use berth_docker::filters::Filters;
use berth_docker::network::{EndpointSettings, Ipam, IpamConfig, Network, NetworkContainer};
use berth_docker::port::{Port, PortMap, Protocol as DockerProtocol};
use berth_net::{EndpointRequest, PortRequest, Protocol};
use berth_store::{Store, Txn};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::record::{Connected, Record, View};
use crate::shared::Shared;
use crate::spec::container_of;

const KEY: &str = "networks";

/// One of the three.
#[derive(Debug, Clone, Copy)]
pub struct Predefined<'a> {
    pub id: &'a Id,
    pub name: &'static str,
    pub driver: &'static str,
}

/// The ids of the three networks; they are made once and kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Networks {
    pub created: berth_base::Timestamp,
    bridge: Id,
    host: Id,
    none: Id,
}

impl Networks {
    /// Reads the ids, or makes them at the first start.
    pub async fn open(store: &Store) -> Result<Self> {
        if let Some(item) = store.get(KEY).context("read the networks' ids")?
            && let Ok(networks) = serde_json::from_slice(&item.value)
        {
            return Ok(networks);
        }
        let networks = Self {
            created: berth_base::Timestamp::now(),
            bridge: Id::random(),
            host: Id::random(),
            none: Id::random(),
        };
        let value = serde_json::to_vec(&networks).context("encode the networks' ids")?;
        store
            .txn(Txn::put(KEY, value))
            .await
            .context("record the networks' ids")?;
        Ok(networks)
    }

    pub fn all(&self) -> [Predefined<'_>; 3] {
        [
            Predefined {
                id: &self.bridge,
                name: "bridge",
                driver: "bridge",
            },
            Predefined {
                id: &self.host,
                name: "host",
                driver: "host",
            },
            Predefined {
                id: &self.none,
                name: "none",
                driver: "null",
            },
        ]
    }

    /// The network behind a container's network mode; `None` for `container:…`.
    pub fn of(&self, mode: &str) -> Option<Predefined<'_>> {
        let name = if matches!(mode, "" | "default") {
            "bridge"
        } else {
            mode
        };
        self.all()
            .into_iter()
            .find(|network| network.name == name || network.id.as_str() == mode)
    }

    fn find(&self, reference: &str) -> Result<Predefined<'_>> {
        let all = self.all();
        let exact = |network: &&Predefined<'_>| {
            network.name == reference || network.id.as_str() == reference
        };
        if let Some(found) = all.iter().find(exact) {
            return Ok(*found);
        }
        let mut matching = all
            .iter()
            .filter(|network| !reference.is_empty() && network.id.as_str().starts_with(reference));
        match (matching.next(), matching.next()) {
            (Some(found), None) => Ok(*found),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "network {reference} is ambiguous (matches found based on network ID prefix)"
            ))),
            (None, _) => Err(Error::not_found(format!("network {reference} not found"))),
        }
    }
}

/// How a container gets its network at a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    Host,
    /// A namespace with nothing but a loopback.
    None,
    Bridge {
        mac: Option<[u8; 6]>,
        ipv4: Option<Ipv4Addr>,
        ports: Vec<PortRequest>,
    },
    Container {
        id: Id,
        pid: i32,
    },
}

impl Join {
    pub fn plan(shared: &Shared, record: &Record) -> Result<Self> {
        let mode = record.host.network_mode.as_str();
        if let Some(reference) = container_of(mode) {
            let found = shared.table.find(reference).map_err(|error| Error {
                message: format!("joining network namespace of container: {}", error.message),
                ..error
            })?;
            let view = found.view();
            let id = view.record.id.clone();
            return match view.state.phase.pid() {
                Some(pid) => Ok(Self::Container { id, pid }),
                None => Err(Error::conflict(format!(
                    "cannot join network namespace of a non running container: container \
                     {reference} is {}",
                    view.state.phase.name()
                ))),
            };
        }
        match shared.networks.of(mode).map(|network| network.name) {
            Some("host") => Ok(Self::Host),
            Some("bridge") if shared.net.is_some() && !record.config.network_disabled => {
                Ok(Self::Bridge {
                    mac: mac(record)?,
                    ipv4: ipv4(&record.endpoint)?,
                    ports: ports(record)?,
                })
            }
            Some(_) => Ok(Self::None),
            None => Err(Error::not_found(format!(
                "failed to set up container networking: network {mode} not found"
            ))),
        }
    }

    /// The namespace, with nothing but a loopback if it is new. It is kept alive by the container
    /// from the launch on. Blocks.
    pub fn namespace(&self, shared: &Shared) -> Result<Option<OwnedFd>> {
        let failed = |error: berth_net::Error| {
            Error::internal(format!(
                "failed to set up container networking: {}",
                Chain(&error)
            ))
        };
        match self {
            Self::Host => Ok(None),
            Self::None | Self::Bridge { .. } => {
                let made = shared.net.as_ref().map(|net| net.create_namespace());
                made.transpose().map_err(failed)
            }
            Self::Container { id, pid } => {
                let path = format!("/proc/{pid}/ns/net");
                let netns = rustix::fs::open(
                    path,
                    rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
                    rustix::fs::Mode::empty(),
                )
                .context(format!("join the network of container {id}"))?;
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

    /// Connects the namespace to the bridge, if that is what this is. Blocks.
    pub fn connect(
        &self,
        shared: &Shared,
        record: &Record,
        netns: Option<BorrowedFd<'_>>,
    ) -> Result<Option<Connected>> {
        let (Self::Bridge { mac, ipv4, ports }, Some(net), Some(netns)) =
            (self, &shared.net, netns)
        else {
            return Ok(None);
        };
        let id = Id::random();
        let request = EndpointRequest {
            mac: *mac,
            ipv4: *ipv4,
            ports: ports.clone(),
            ..EndpointRequest::new(record.id.as_str(), netns)
        };
        let endpoint = net
            .connect(request)
            .map_err(|error| connect_error(&error, record, &id))?;
        Ok(Some(Connected { id, endpoint }))
    }
}

/// Docker's words around a failed connection.
fn connect_error(error: &berth_net::Error, record: &Record, endpoint: &Id) -> Error {
    use berth_net::Error as Net;
    let chain = Chain(error);
    match error {
        Net::PortAllocated { .. }
        | Net::PortInUse { .. }
        | Net::Bind { .. }
        | Net::RangeExhausted { .. } => Error::internal(format!(
            "failed to set up container networking: driver failed programming external \
             connectivity on endpoint {} ({endpoint}): {chain}",
            record.name
        )),
        Net::AddressInUse { .. } | Net::AddressOutside { .. } => {
            Error::invalid(format!("failed to set up container networking: {chain}"))
        }
        _ => Error::internal(format!("failed to set up container networking: {chain}")),
    }
}

fn mac(record: &Record) -> Result<Option<[u8; 6]>> {
    let text = match record.endpoint.mac_address.as_str() {
        "" => record.config.mac_address.as_str(),
        given => given,
    };
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || Error::invalid(format!("invalid MAC address: {text}"));
    let mut mac = [0u8; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts
            .next()
            .filter(|part| part.len() == 2)
            .ok_or_else(invalid)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
    }
    if parts.next().is_some() {
        Err(invalid())
    } else {
        Ok(Some(mac))
    }
}

fn ipv4(endpoint: &EndpointSettings) -> Result<Option<Ipv4Addr>> {
    match endpoint
        .ipam_config
        .as_ref()
        .map(|config| config.ipv4_address.as_str())
    {
        None | Some("") => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| Error::invalid(format!("invalid IPv4 address: {text}"))),
    }
}

/// What is published: the bindings, and with `-P` every exposed port that has none.
pub fn ports(record: &Record) -> Result<Vec<PortRequest>> {
    let empty = PortMap::new();
    let bindings = record.host.port_bindings.as_ref().unwrap_or(&empty);
    let mut requests = Vec::new();
    for (text, list) in bindings {
        let (protocol, container_port) = port(text)?;
        for binding in list.iter().flatten() {
            let host_ip = match binding.host_ip.as_str() {
                "" => None,
                text => Some(
                    text.trim_matches(['[', ']'])
                        .parse::<IpAddr>()
                        .map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?,
                ),
            };
            requests.push(PortRequest {
                protocol,
                container_port,
                host_ip,
                host_ports: host_ports(&binding.host_port)?,
            });
        }
    }
    if record.host.publish_all_ports {
        for text in record.config.exposed_ports.keys() {
            let bound = bindings
                .get(text)
                .and_then(Option::as_ref)
                .is_some_and(|list| !list.is_empty());
            if !bound {
                let (protocol, container_port) = port(text)?;
                requests.push(PortRequest {
                    protocol,
                    container_port,
                    host_ip: None,
                    host_ports: None,
                });
            }
        }
    }
    Ok(requests)
}

fn port(text: &str) -> Result<(Protocol, u16)> {
    let port: Port = text.parse().map_err(|error| {
        Error::invalid(format!("invalid port specification: {text:?}: {error}"))
    })?;
    match port.protocol {
        DockerProtocol::Tcp => Ok((Protocol::Tcp, port.number)),
        DockerProtocol::Udp => Ok((Protocol::Udp, port.number)),
        DockerProtocol::Sctp => Err(Error::invalid("publishing SCTP ports is not supported")),
    }
}

fn host_ports(text: &str) -> Result<Option<std::ops::RangeInclusive<u16>>> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || Error::invalid(format!("invalid port specification: {text:?}"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first: u16 = first.parse().map_err(|_| invalid())?;
    let last: u16 = last.parse().map_err(|_| invalid())?;
    match (first, last) {
        (0, 0) => Ok(None),
        _ if first > last => Err(invalid()),
        _ => Ok(Some(first..=last)),
    }
}

/// `GET /networks`.
pub fn list(shared: &Shared, filters: &Filters) -> Result<Vec<Network>> {
    filters
        .accept(&["driver", "type", "name", "id", "label", "dangling", "scope"])
        .map_err(|error| Error::invalid(error.to_string()))?;
    for kind in filters.get("type") {
        if !matches!(kind, "builtin" | "custom") {
            return Err(Error::invalid(format!("invalid filter: 'type'='{kind}'")));
        }
    }
    let dangling = filters
        .flag("dangling")
        .map_err(|error| Error::invalid(error.to_string()))?;
    Ok(shared
        .networks
        .all()
        .into_iter()
        .filter(|network| {
            filters.matches("driver", network.driver)
                && filters.matches_any("name", |wanted| network.name.contains(wanted))
                && filters.matches_any("id", |wanted| network.id.as_str().contains(wanted))
                && filters.matches("type", "builtin")
                && filters.matches("scope", "local")
                && !filters.contains("label")
                && dangling != Some(true)
        })
        .map(|network| describe(shared, network, false))
        .collect())
}

/// `GET /networks/{id}`.
pub fn inspect(shared: &Shared, reference: &str) -> Result<Network> {
    Ok(describe(shared, shared.networks.find(reference)?, true))
}

fn describe(shared: &Shared, network: Predefined<'_>, containers: bool) -> Network {
    let mut described = Network {
        name: network.name.to_owned(),
        id: network.id.to_string(),
        created: shared.networks.created.to_string(),
        scope: "local".to_owned(),
        driver: network.driver.to_owned(),
        enable_ipv4: true,
        ipam: Ipam {
            driver: "default".to_owned(),
            ..Ipam::default()
        },
        ..Network::default()
    };
    if let ("bridge", Some(net)) = (network.name, &shared.net) {
        let bridge = net.bridge();
        described.ipam.config = Some(vec![IpamConfig {
            subnet: bridge.subnet.to_string(),
            gateway: bridge.gateway.to_string(),
            ..IpamConfig::default()
        }]);
        let option = |key: &str, value: String| (format!("com.docker.network.{key}"), value);
        described.options = BTreeMap::from([
            option("bridge.default_bridge", "true".to_owned()),
            option("bridge.enable_icc", bridge.icc.to_string()),
            option("bridge.enable_ip_masquerade", bridge.masquerade.to_string()),
            option("bridge.host_binding_ipv4", "0.0.0.0".to_owned()),
            option("bridge.name", bridge.name.clone()),
            option("driver.mtu", bridge.mtu.to_string()),
        ]);
    }
    if containers {
        for handle in shared.table.all() {
            let view = handle.view();
            if shared
                .networks
                .of(&view.record.host.network_mode)
                .map(|it| it.name)
                == Some(network.name)
                && let Some(container) = member(&view)
            {
                described
                    .containers
                    .insert(view.record.id.to_string(), container);
            }
        }
    }
    described
}

/// A running container as its network lists it.
fn member(view: &View) -> Option<NetworkContainer> {
    view.state.phase.pid()?;
    let mut container = NetworkContainer {
        name: view.record.name.clone(),
        ..NetworkContainer::default()
    };
    if let Some(Connected { id, endpoint }) = &view.state.endpoint {
        container.endpoint_id = id.to_string();
        container.mac_address = endpoint.mac_string();
        if let Some(ipv4) = endpoint.ipv4 {
            container.ipv4_address = format!("{ipv4}/{}", endpoint.prefix);
        }
    }
    Some(container)
}
