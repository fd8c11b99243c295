//! `network connect`, `create`, `disconnect`, `ls`, `prune` and `rm`.

use std::collections::BTreeMap;

use berth_docker::network::{
    ConfigReference, ConnectRequest, CreateRequest, CreateResponse, DisconnectRequest,
    EndpointIpamConfig, EndpointSettings, Network, PruneResponse,
};
use berth_docker_client::{Query, Request, query};

use crate::cli::{Cli, print};
use crate::command::{Arity, Command};
use crate::create::env::check_label;
use crate::create::mount::csv;
use crate::create::{network, pairs};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Parsed};
use crate::format::{self, Listing, Row};

use super::{FILTER, FORMAT, Failures, NO_TRUNC, confirm, filters, filters_query};

mod ipam;

/// A flag that may be repeated, or take several values between commas.
const fn strings(long: &'static str, help: &'static str) -> Flag {
    Flag::of(long, Kind::Many("strings"), help)
}

const fn map(long: &'static str, help: &'static str) -> Flag {
    Flag::of(long, Kind::Many("map"), help)
}

pub const CONNECT: Command = Command::leaf(
    "connect",
    "NETWORK CONTAINER",
    "Connect a container to a network",
    connect,
)
.flags(&[
    strings("alias", "Add a name of the container on this network"),
    strings("driver-opt", "Set an option of the driver"),
    Flag::int(
        "gw-priority",
        "The network with the highest gives the default route",
    )
    .default("0"),
    Flag::text("ip", "IPv4 address (172.30.100.104)"),
    Flag::text("ip6", "IPv6 address (2001:db8::33)"),
    Flag::list("link", "Link to another container").check(network::check_link),
    strings("link-local-ip", "Add a link-local address"),
])
.arity(Arity::Exactly(2));

pub const CREATE: Command = Command::leaf("create", "NETWORK", "Create a network", create)
    .flags(&[
        Flag::switch("attachable", "Let containers be connected by hand"),
        map(
            "aux-address",
            "Addresses that are taken already (name=address)",
        ),
        Flag::text("config-from", "The network to copy the configuration of"),
        Flag::switch("config-only", "Make a configuration for other networks"),
        Flag::text("driver", "The driver of the network")
            .short('d')
            .default("bridge"),
        strings("gateway", "The gateway's address in the subnet"),
        Flag::switch("ingress", "Make the network of swarm's published ports"),
        Flag::switch("internal", "Keep the network apart from the outside"),
        strings(
            "ip-range",
            "Give containers addresses of this part of the subnet",
        ),
        Flag::text("ipam-driver", "The driver that manages addresses").default("default"),
        map(
            "ipam-opt",
            "Set an option of the driver that manages addresses",
        ),
        Flag::switch("ipv4", "Give out IPv4 addresses").default("true"),
        Flag::switch("ipv6", "Give out IPv6 addresses"),
        Flag::list("label", "Set a label").check(check_label),
        map("opt", "Set an option of the driver").short('o'),
        Flag::text("scope", "How far the network reaches"),
        strings("subnet", "A subnet of the network (172.30.0.0/16)"),
    ])
    .arity(Arity::Exactly(1));

pub const DISCONNECT: Command = Command::leaf(
    "disconnect",
    "NETWORK CONTAINER",
    "Disconnect a container from a network",
    disconnect,
)
.flags(&[Flag::switch("force", "Disconnect it whatever its state is").short('f')])
.arity(Arity::Exactly(2));

pub const PRUNE: Command =
    Command::leaf("prune", "", "Remove all unused networks", prune).flags(&[
        Flag::of(
            "filter",
            Kind::Many("filter"),
            "Remove only what meets this (\"until=<timestamp>\")",
        ),
        Flag::switch("force", "Do not ask").short('f'),
    ]);

pub const RM: Command = Command::leaf(
    "rm",
    "NETWORK [NETWORK...]",
    "Remove one or more networks",
    remove,
)
.flags(&[Flag::switch("force", "Do not mind networks that are not there").short('f')])
.arity(Arity::AtLeast(1))
.named("rm", &["remove"])
.also(&["network rm", "network remove"]);

pub const LS: Command = Command::leaf("ls", "", "List networks", list)
    .flags(&[
        FILTER,
        FORMAT,
        NO_TRUNC,
        Flag::switch("quiet", "Show IDs only").short('q'),
    ])
    .named("ls", &["list"])
    .also(&["network ls", "network list"]);

const LISTING: Listing = Listing {
    type_name: "*network.networkContext",
    headers: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    quiet: "{{.ID}}",
};

fn list(cli: &Cli, flags: &Parsed) -> Outcome {
    let query = Query::new().with_some("filters", filters_query(&filters(flags.list("filter"))));
    let mut networks: Vec<Network> = cli.block_on(async {
        let request = Request::get("/networks").query(query);
        cli.client()?.call(request).await.map_err(Failure::from)
    })?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let full = flags.on("no-trunc");
    let rows = networks
        .iter()
        .map(|network| {
            let id = match full {
                true => network.id.as_str(),
                false => format::short_id(&network.id),
            };
            let labels = network.labels.clone();
            let all: Vec<String> = labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            Row::new()
                .text("ID", id)
                .text("Name", &network.name)
                .text("Driver", &network.driver)
                .text("Scope", &network.scope)
                .text("IPv4", network.enable_ipv4.to_string())
                .text("IPv6", network.enable_ipv6.to_string())
                .text("Internal", network.internal.to_string())
                .text("Labels", all.join(","))
                .text("CreatedAt", created(&network.created))
                .method("Label", move |name| {
                    labels.get(name).cloned().unwrap_or_default()
                })
        })
        .collect();
    LISTING.print(flags.text("format"), flags.on("quiet"), rows)?;
    Ok(0)
}

fn path(network: &str, action: &str) -> String {
    format!("/networks/{}{action}", query::segment(network))
}

/// All values of a flag that takes several between commas.
fn all(flags: &Parsed, long: &str) -> Vec<String> {
    let values = flags.list(long).iter();
    values.flat_map(|value| csv(value)).collect()
}

fn connect(cli: &Cli, flags: &Parsed) -> Outcome {
    let mut driver_opts = BTreeMap::new();
    for option in all(flags, "driver-opt") {
        let pair = option
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()));
        let Some((key, value)) = pair.filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::new(
                "invalid key/value pair format in driver options",
            ));
        };
        driver_opts.insert(key.to_owned(), value.to_owned());
    }
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: flags.text("ip").to_owned(),
            ipv6_address: flags.text("ip6").to_owned(),
            link_local_ips: all(flags, "link-local-ip"),
        }),
        links: Some(flags.list("link").to_vec()),
        aliases: Some(all(flags, "alias")),
        driver_opts: Some(driver_opts),
        gw_priority: flags.int("gw-priority"),
        ..EndpointSettings::default()
    };
    let request = ConnectRequest {
        container: flags.arg(1).to_owned(),
        endpoint_config: Some(endpoint),
    };
    tell(cli, flags, "/connect", &request)
}

fn disconnect(cli: &Cli, flags: &Parsed) -> Outcome {
    let request = DisconnectRequest {
        container: flags.arg(1).to_owned(),
        force: flags.on("force"),
    };
    tell(cli, flags, "/disconnect", &request)
}

fn tell<T: serde::Serialize>(cli: &Cli, flags: &Parsed, action: &str, request: &T) -> Outcome {
    cli.block_on(async {
        let request = Request::post(path(flags.arg(0), action)).json(request)?;
        cli.client()?.tell(request).await?;
        Ok(0)
    })
}

fn create(cli: &Cli, flags: &Parsed) -> Outcome {
    let given = |long: &str| flags.changed(long).then(|| flags.on(long));
    let from = flags.text("config-from");
    let request = CreateRequest {
        name: flags.arg(0).to_owned(),
        driver: flags.text("driver").to_owned(),
        scope: flags.text("scope").to_owned(),
        enable_ipv4: given("ipv4"),
        enable_ipv6: given("ipv6"),
        ipam: Some(ipam::plan(&ipam::Options {
            driver: flags.text("ipam-driver").to_owned(),
            subnets: all(flags, "subnet"),
            ranges: all(flags, "ip-range"),
            gateways: all(flags, "gateway"),
            auxiliary: pairs(flags.list("aux-address")),
            options: pairs(flags.list("ipam-opt")),
        })?),
        internal: flags.on("internal"),
        attachable: flags.on("attachable"),
        ingress: flags.on("ingress"),
        config_only: flags.on("config-only"),
        config_from: (!from.is_empty()).then(|| ConfigReference {
            network: from.to_owned(),
        }),
        options: Some(pairs(flags.list("opt"))),
        labels: Some(pairs(flags.list("label"))),
    };
    cli.block_on(async {
        let request = Request::post("/networks/create").json(&request)?;
        let created: CreateResponse = cli.client()?.call(request).await?;
        print(format!("{}\n", created.id))?;
        Ok(0)
    })
}

fn remove(cli: &Cli, flags: &Parsed) -> Outcome {
    cli.block_on(async {
        let client = cli.client()?;
        let mut failures = Failures::default();
        for name in &flags.args {
            match client.tell(Request::delete(path(name, ""))).await {
                Ok(()) => print(format!("{name}\n"))?,
                Err(error) if flags.on("force") && is_missing(&error) => {}
                Err(error) => failures.push(error),
            }
        }
        if !failures.is_empty() {
            // Docker's client adds this line.
            failures.push(Failure::new("exit status 1"));
        }
        failures.outcome()
    })
}

fn is_missing(error: &berth_docker_client::Error) -> bool {
    error.status().is_some_and(|status| status.as_u16() == 404)
}

fn prune(cli: &Cli, flags: &Parsed) -> Outcome {
    const WARNING: &str =
        "WARNING! This will remove all custom networks not used by at least one container.";
    if !flags.on("force") && !confirm(WARNING)? {
        return Err(Failure::silent(1));
    }
    let query = Query::new().with_some("filters", filters_query(&filters(flags.list("filter"))));
    cli.block_on(async {
        let request = Request::post("/networks/prune").query(query);
        let report: PruneResponse = cli.client()?.call(request).await?;
        let deleted = report.networks_deleted.unwrap_or_default();
        if !deleted.is_empty() {
            print(format!("Deleted Networks:\n{}\n\n", deleted.join("\n")))?;
        }
        Ok(0)
    })
}

/// Go's default notation, with the fraction that the time has.
fn created(text: &str) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => time
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S%.f %z %Z")
            .to_string(),
        Err(_) => text.to_owned(),
    }
}
