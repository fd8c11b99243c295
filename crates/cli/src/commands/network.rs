//! `network ls`. Networks of one's own come later.

use berth_docker::network::Network;
use berth_docker_client::{Query, Request};

use crate::cli::Cli;
use crate::command::Command;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};
use crate::format::{self, Listing, Row};

use super::{FILTER, FORMAT, NO_TRUNC, filters, filters_query};

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
