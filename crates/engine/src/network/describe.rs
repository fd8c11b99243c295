//! Networks as the API shows them (moby, `daemon/network.go`, `daemon/network/filter.go`).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use berth_docker::filters::{Error as FilterError, Filters};
use berth_docker::network::{CreateRequest, Ipam, IpamConfig, Network as Wire, NetworkContainer};
use berth_net::Subnet;

use super::{Kind, Network};
use crate::error::{Error, Result};
use crate::record::{Connected, View};
use crate::shared::Shared;

const FILTERS: &[&str] = &["driver", "type", "name", "id", "label", "dangling", "scope"];

/// `GET /networks`; `detailed`: with the containers, which old clients expect.
pub fn list(shared: &Shared, filters: &Filters, detailed: bool) -> Result<Vec<Wire>> {
    let invalid = |error: FilterError| Error::invalid(error.to_string());
    filters.accept(FILTERS).map_err(invalid)?;
    for kind in filters.get("type") {
        if !matches!(kind, "builtin" | "custom") {
            return Err(Error::internal(format!("invalid filter: 'type'='{kind}'")));
        }
    }
    let dangling = dangling(filters)?;
    let used = dangling.map(|_| used(shared));
    let chosen = |network: &Arc<Network>| {
        let empty = BTreeMap::new();
        let request = network.request();
        let labels = request.and_then(|request| request.labels.as_ref());
        let kind = if network.is_own() {
            "custom"
        } else {
            "builtin"
        };
        let in_use = |used: &HashSet<String>| {
            !network.is_own() || network.link().is_some_and(|link| used.contains(link))
        };
        filters.matches("driver", network.driver())
            && filters.matches_any("name", |wanted| network.name.contains(wanted))
            && filters.matches_any("id", |wanted| network.id.as_str().contains(wanted))
            && filters.matches("type", kind)
            && filters.matches("scope", "local")
            && filters.matches_labels("label", labels.unwrap_or(&empty))
            && used
                .as_ref()
                .is_none_or(|used| Some(!in_use(used)) == dangling)
    };
    let all = shared.networks.all();
    Ok(all
        .iter()
        .filter(|network| chosen(network))
        .map(|network| describe(shared, network, detailed))
        .collect())
}

fn dangling(filters: &Filters) -> Result<Option<bool>> {
    let mut values = filters.get("dangling");
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(Error::invalid(
            "got more than one value for filter key \"dangling\"",
        )),
        (Some("1" | "true"), None) => Ok(Some(true)),
        (Some("0" | "false"), None) => Ok(Some(false)),
        (Some(_), None) => Err(Error::invalid(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \
             \"0\")",
        )),
    }
}

/// The networks on which a container is.
pub fn used(shared: &Shared) -> HashSet<String> {
    let all = shared.table.all();
    let of = |handle: &Arc<crate::container::Handle>| {
        let view = handle.view();
        let links = view.state.endpoints.values();
        links
            .map(|it| it.endpoint.network.clone())
            .collect::<Vec<_>>()
    };
    all.iter().flat_map(of).collect()
}

/// `GET /networks/{id}`.
pub fn inspect(shared: &Shared, reference: &str) -> Result<Wire> {
    let network = shared.networks.find(reference)?;
    Ok(describe(shared, &network, true))
}

fn describe(shared: &Shared, network: &Network, containers: bool) -> Wire {
    let mut described = Wire {
        name: network.name.clone(),
        id: network.id.to_string(),
        created: network.created.to_string(),
        scope: "local".to_owned(),
        driver: network.driver().to_owned(),
        enable_ipv4: true,
        ipam: Ipam {
            driver: "default".to_owned(),
            ..Ipam::default()
        },
        ..Wire::default()
    };
    match &network.kind {
        Kind::Default => describe_default(shared, &mut described),
        Kind::Own { request, made } => describe_own(request, Some(made), &mut described),
        Kind::Configuration { request } => describe_own(request, None, &mut described),
        Kind::Host | Kind::None => {}
    }
    if containers {
        described.containers = members(shared, network);
    }
    described
}

fn describe_default(shared: &Shared, described: &mut Wire) {
    let Some(net) = &shared.net else { return };
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

fn describe_own(request: &CreateRequest, made: Option<&berth_net::Network>, described: &mut Wire) {
    described.enable_ipv4 = request.enable_ipv4 != Some(false);
    described.enable_ipv6 = request.enable_ipv6 == Some(true);
    described.internal = request.internal;
    described.attachable = request.attachable;
    described.config_only = request.config_only;
    described.config_from = request.config_from.clone().unwrap_or_default();
    described.options = request.options.clone().unwrap_or_default();
    described.labels = request.labels.clone().unwrap_or_default();
    let asked = request.ipam.clone().unwrap_or_default();
    if !asked.driver.is_empty() {
        described.ipam.driver = asked.driver;
    }
    described.ipam.options = asked.options;
    // A subnet that was asked for is shown as it was; of one that was chosen all is told.
    let mut configs = Vec::new();
    let given = asked.config.unwrap_or_default();
    for v6 in [false, true] {
        let own = given.iter().filter(|it| it.subnet.contains(':') == v6);
        let before = configs.len();
        configs.extend(own.cloned());
        if configs.len() > before {
            continue;
        }
        let chosen = made.and_then(|made| match v6 {
            false => made.v4.as_ref().map(chosen),
            true => made.v6.as_ref().map(chosen),
        });
        configs.extend(chosen);
    }
    described.ipam.config = (!configs.is_empty()).then_some(configs);
}

fn chosen<A: berth_net::address::Address>(subnet: &Subnet<A>) -> IpamConfig {
    IpamConfig {
        subnet: subnet.subnet.to_string(),
        gateway: subnet
            .gateway
            .map(|address| address.to_string())
            .unwrap_or_default(),
        ..IpamConfig::default()
    }
}

/// The running containers on a network.
pub fn members(shared: &Shared, network: &Network) -> BTreeMap<String, NetworkContainer> {
    let all = shared.table.all();
    let member = |handle: &Arc<crate::container::Handle>| {
        let view = handle.view();
        let member = member(&view, network)?;
        Some((handle.id.to_string(), member))
    };
    all.iter().filter_map(member).collect()
}

fn member(view: &View, network: &Network) -> Option<NetworkContainer> {
    view.state.phase.pid()?;
    let mut container = NetworkContainer {
        name: view.record.name.clone(),
        ..NetworkContainer::default()
    };
    let Some(link) = network.link() else {
        // Nothing of the kernel's tells who is on it.
        let is_on = view.record.endpoints.contains_key(&network.name);
        return is_on.then_some(container);
    };
    let mut connected = view.state.endpoints.values();
    let Connected { id, endpoint } = connected.find(|it| it.endpoint.network == link)?;
    container.endpoint_id = id.to_string();
    container.mac_address = endpoint.mac_string();
    if let Some(ipv4) = endpoint.ipv4 {
        container.ipv4_address = format!("{ipv4}/{}", endpoint.prefix);
    }
    if let Some(ipv6) = endpoint.ipv6 {
        container.ipv6_address = format!("{ipv6}/{}", endpoint.prefix6);
    }
    Some(container)
}
