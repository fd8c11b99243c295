//! Creating a network: from a request to a record (moby, `daemon/network.go`,
//! `libnetwork/{controller,network}.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_base::{Chain, Id, Timestamp};
use berth_docker::network::{ConfigReference, CreateRequest, CreateResponse, Ipam};
use berth_net::{Driver, NetworkRequest};

use super::subnets::subnet;
use super::{Kind, Network, ipam, is_predefined, options};
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Shared;

/// The address manager that there is.
const IPAM_DRIVER: &str = "default";

/// Makes a network; it exists, with its bridge and its record on the disk, when this returns.
pub async fn create(shared: &Arc<Shared>, request: CreateRequest) -> Result<CreateResponse> {
    check_name(&request.name)?;
    let id = Id::random();
    let request = complete(shared, request)?;
    shared.networks.reserve(&request.name, &id)?;
    let name = request.name.clone();
    let created = make(shared, id, request).await;
    if created.is_err() {
        shared.networks.release(&name);
    }
    created
}

/// The part that is undone when it fails: the name is taken already.
async fn make(shared: &Arc<Shared>, id: Id, request: CreateRequest) -> Result<CreateResponse> {
    let kind = match plan(&id, &request)? {
        None => Kind::Configuration {
            request: Box::new(request.clone()),
        },
        Some(wanted) => Kind::Own {
            made: Box::new(make_link(shared, wanted).await?),
            request: Box::new(request.clone()),
        },
    };
    let network = Network {
        id,
        name: request.name,
        created: Timestamp::now(),
        kind,
    };
    if let Err(error) = network.save(&shared.store).await {
        super::remove::remove_link(shared, &network).await.ok();
        return Err(error);
    }
    let id = network.id.to_string();
    shared.network_event(&network, "create", None);
    shared.networks.insert(network);
    Ok(CreateResponse {
        id,
        warning: String::new(),
    })
}

async fn make_link(shared: &Arc<Shared>, wanted: NetworkRequest) -> Result<berth_net::Network> {
    let Some(net) = shared.net.clone() else {
        return Err(Error::unavailable(
            "networks are switched off: the daemon was started with --bridge=none",
        ));
    };
    let id = wanted.id.clone();
    let work = shared
        .scope
        .spawn_blocking(move || net.create_network(wanted));
    match work.await {
        Ok(made) => made.map_err(|error| refusal(shared, &error, &id)),
        Err(_) => Err(Error::internal("making a network panicked")),
    }
}

/// Docker's words for what the network's own part refuses.
fn refusal(shared: &Shared, error: &berth_net::Error, id: &str) -> Error {
    use berth_net::Error as Net;
    match error {
        Net::SubnetOverlaps { .. } => Error::new(ErrorKind::Forbidden, error.to_string()),
        Net::PoolsExhausted => Error::invalid(error.to_string()),
        Net::BridgeTaken { name } => {
            let other = shared.networks.made().into_iter();
            let other = other
                .into_iter()
                .find(|it| it.bridge().is_some_and(|bridge| bridge.name == *name));
            let other = match &other {
                Some(other) => other.id.as_str(),
                None => "of another instance",
            };
            Error::new(
                ErrorKind::Forbidden,
                format!(
                    "cannot create network {id} ({name}): conflicts with network {other} ({name}): \
                     networks have same bridge name"
                ),
            )
        }
        Net::NotInSubnet {
            what: "gateway",
            address,
            ..
        } => Error::internal(format!(
            "failed to allocate gateway ({address}): Address already in use"
        )),
        Net::NoFreeAddress { .. } => {
            Error::internal("failed to allocate gateway (): no available addresses on this pool")
        }
        _ => Error::internal(Chain(error).to_string()),
    }
}

fn forbidden(message: &str) -> Error {
    Error::new(ErrorKind::Forbidden, message)
}

fn check_name(name: &str) -> Result<()> {
    if is_predefined(name) && !name.is_empty() {
        // The blank at the end is Docker's.
        let message = format!("operation is not permitted on predefined {name} network ");
        return Err(forbidden(&message));
    }
    if name.trim().is_empty() {
        return Err(Error::invalid("invalid name: name is empty"));
    }
    Ok(())
}

/// Checks what can be checked, and settles what the request left open.
fn complete(shared: &Shared, mut request: CreateRequest) -> Result<CreateRequest> {
    if request.driver.is_empty() {
        "bridge".clone_into(&mut request.driver);
    }
    if request.driver == "overlay" {
        return Err(forbidden(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" \
             to connect this node to swarm and try again.",
        ));
    }
    let labels = request.options.get_or_insert_default();
    for (given, label) in [
        (request.enable_ipv4, options::ENABLE_V4),
        (request.enable_ipv6, options::ENABLE_V6),
    ] {
        if given.is_some() {
            labels.remove(label);
        }
    }
    let v4 = options::enabled(request.enable_ipv4, labels, false)?;
    let v6 = options::enabled(request.enable_ipv6, labels, true)?;
    (request.enable_ipv4, request.enable_ipv6) = (Some(v4), Some(v6));
    if let Some(ipam) = &request.ipam {
        ipam::check(ipam, v6)?;
    }
    check_scope(&request)?;
    if let Some(from) = request.config_from.take_if(|it| !it.network.is_empty()) {
        return configured(shared, request, from);
    }
    request.config_from = None;
    Ok(request)
}

fn check_scope(request: &CreateRequest) -> Result<()> {
    let operator =
        request.ingress || request.internal || request.attachable || !request.scope.is_empty();
    if request.config_only && operator {
        return Err(forbidden(
            "configuration network can only contain network specific fields. Network operator \
             fields like [ ingress | internal | attachable | scope ] are not supported.",
        ));
    }
    if request.config_only {
        return Ok(());
    }
    check_driver(&request.driver)?;
    if request.ingress {
        return Err(forbidden(
            "Ingress network can only be global scope network",
        ));
    }
    match request.scope.as_str() {
        "" | "local" => Ok(()),
        "swarm" => Err(forbidden(
            "cannot create a swarm scoped network when swarm is not active",
        )),
        other => Err(Error::invalid(format!("invalid network scope: {other}"))),
    }
}

fn check_driver(driver: &str) -> Result<()> {
    match driver {
        "bridge" | "macvlan" | "ipvlan" => Ok(()),
        "host" | "null" => Err(forbidden(&format!(
            "only one instance of {driver:?} network is allowed"
        ))),
        other => Err(Error::not_found(format!("plugin {other:?} not found"))),
    }
}

/// A network whose configuration is another's.
fn configured(
    shared: &Shared,
    request: CreateRequest,
    from: ConfigReference,
) -> Result<CreateRequest> {
    if request.config_only {
        return Err(forbidden(
            "a configuration network cannot depend on another configuration network",
        ));
    }
    let is_some =
        |map: &Option<BTreeMap<String, String>>| map.as_ref().is_some_and(|map| !map.is_empty());
    let ipam = request.ipam.clone().unwrap_or_default();
    let own = !matches!(ipam.driver.as_str(), "" | IPAM_DRIVER)
        || request.enable_ipv4 == Some(false)
        || request.enable_ipv6 == Some(true)
        || is_some(&request.labels)
        || is_some(&ipam.options)
        || ipam.config.is_some_and(|config| !config.is_empty());
    if own {
        return Err(forbidden(
            "user specified configurations are not supported if the network depends on a \
             configuration network",
        ));
    }
    if is_some(&request.options) {
        return Err(forbidden(
            "network driver options are not supported if the network depends on a configuration \
             network",
        ));
    }
    let missing = || {
        Error::not_found(format!(
            "configuration network {:?} does not exist",
            from.network
        ))
    };
    let found = shared.networks.find(&from.network).map_err(|_| missing())?;
    let Kind::Configuration { request: model } = &found.kind else {
        return Err(missing());
    };
    Ok(CreateRequest {
        enable_ipv4: model.enable_ipv4,
        enable_ipv6: model.enable_ipv6,
        ipam: model.ipam.clone(),
        options: model.options.clone(),
        labels: model.labels.clone(),
        config_from: Some(ConfigReference {
            network: found.name.clone(),
        }),
        ..request
    })
}

/// What the kernel shall have of it; `None` of a configuration.
fn plan(id: &Id, request: &CreateRequest) -> Result<Option<NetworkRequest>> {
    if request.config_only {
        return Ok(None);
    }
    let labels = request.options.clone().unwrap_or_default();
    let (driver, mtu, internal) = match request.driver.as_str() {
        driver @ ("macvlan" | "ipvlan") => {
            let (child, mtu) = options::child(driver, id.as_str(), &labels)?;
            let internal = request.internal || !options::has_parent(&labels);
            (Driver::Child(child), mtu, internal)
        }
        _ => {
            let (bridge, mtu) = options::bridge(id.as_str(), &labels, request.internal)?;
            check_routers(request)?;
            (Driver::Bridge(bridge), mtu, request.internal)
        }
    };
    let ipam = request.ipam.clone().unwrap_or_default();
    check_ipam_driver(&ipam)?;
    let (v4, v6) = (
        request.enable_ipv4 != Some(false),
        request.enable_ipv6 == Some(true),
    );
    if !v4 && !v6 {
        return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
    }
    let configs = ipam.config.unwrap_or_default();
    Ok(Some(NetworkRequest {
        id: id.to_string(),
        v4: subnet(&request.driver, &configs, v4)?,
        v6: subnet(&request.driver, &configs, v6)?,
        mtu,
        internal,
        driver,
    }))
}

/// An internal bridge has no way out, so no router can be the gateway.
fn check_routers(request: &CreateRequest) -> Result<()> {
    let configs = request
        .ipam
        .iter()
        .flat_map(|ipam| ipam.config.iter().flatten());
    let mut names = configs.flat_map(|config| config.auxiliary_addresses.keys());
    let declared = names.any(|name| berth_net::DEFAULT_GATEWAYS.contains(&name.as_str()));
    match request.internal && declared {
        true => Err(Error::invalid(
            "no gateway can be set on an internal bridge network",
        )),
        false => Ok(()),
    }
}

fn check_ipam_driver(ipam: &Ipam) -> Result<()> {
    match ipam.driver.as_str() {
        "" | IPAM_DRIVER => Ok(()),
        other => Err(Error::not_found(format!("plugin {other:?} not found"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(text: &str) -> Result<Option<NetworkRequest>> {
        let mut request: CreateRequest = serde_json::from_str(text).unwrap();
        "bridge".clone_into(&mut request.driver);
        plan(&Id::random(), &request)
    }

    #[test]
    fn a_request_becomes_what_the_kernel_shall_have() {
        let wanted = planned(
            r#"{"Name":"n","EnableIPv6":true,"Internal":true,"IPAM":{"Config":[
                {"Subnet":"10.9.0.0/16","IPRange":"10.9.4.0/24","Gateway":"10.9.0.9",
                 "AuxiliaryAddresses":{"a":"10.9.0.7"}},{"Subnet":"fd00:9::/64"}]},
                "Options":{"com.docker.network.driver.mtu":"1400"}}"#,
        );
        let wanted = wanted.unwrap().unwrap();
        let (v4, v6) = (wanted.v4.unwrap(), wanted.v6.unwrap());
        assert_eq!(v4.subnet.unwrap().to_string(), "10.9.0.0/16");
        assert_eq!(v4.range.unwrap().to_string(), "10.9.4.0/24");
        assert_eq!(v4.gateway, Some([10, 9, 0, 9].into()));
        assert_eq!(v4.auxiliary["a"], std::net::Ipv4Addr::new(10, 9, 0, 7));
        assert_eq!(v6.subnet.unwrap().to_string(), "fd00:9::/64");
        assert_eq!((wanted.mtu, wanted.internal), (Some(1400), true));
        assert!(
            planned(r#"{"Name":"n","ConfigOnly":true}"#)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn what_the_driver_cannot_do_is_refused_in_dockers_words() {
        let check = |text: &str, kind, words: &str| {
            let error = planned(text).unwrap_err();
            assert_eq!((error.kind, error.message.as_str()), (kind, words));
        };
        check(
            r#"{"EnableIPv4":false}"#,
            ErrorKind::Invalid,
            "IPv4 or IPv6 must be enabled",
        );
        check(
            r#"{"IPAM":{"Config":[{"Subnet":"10.1.0.0/16"},{"Subnet":"10.2.0.0/16"}]}}"#,
            ErrorKind::Forbidden,
            "bridge driver doesn't support multiple subnets",
        );
        check(
            r#"{"EnableIPv6":true,"IPAM":{"Config":[{"Subnet":"fe80::/32"}]}}"#,
            ErrorKind::Invalid,
            "'fe80::1/32' clashes with the Link-Local prefix 'fe80::/64'",
        );
        check(
            r#"{"IPAM":{"Driver":"dhcp"}}"#,
            ErrorKind::NotFound,
            "plugin \"dhcp\" not found",
        );
    }

    #[test]
    fn names_and_drivers_that_cannot_be_are_refused() {
        let words = |error: Error| error.message;
        assert_eq!(
            check_name("host").map_err(words),
            Err("operation is not permitted on predefined host network ".to_owned())
        );
        assert_eq!(
            check_name(" ").map_err(words),
            Err("invalid name: name is empty".to_owned())
        );
        assert_eq!(
            check_driver("host").map_err(words),
            Err("only one instance of \"host\" network is allowed".to_owned())
        );
        assert_eq!(
            check_driver("x").map_err(words),
            Err("plugin \"x\" not found".to_owned())
        );
    }
}
