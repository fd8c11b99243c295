//! `ps`: the list of containers.

use berth_base::Timestamp;
use berth_docker::container::{Summary, SummaryPort};
use berth_docker_client::{Query, Request};

use crate::cli::Cli;
use crate::command::Command;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};
use crate::format::{self, Listing, Row};
use crate::template::Value;

use super::{FILTER, FORMAT, NO_TRUNC, filters, filters_query};

pub const PS: Command = Command::leaf("ps", "", "List containers", run)
    .flags(&[
        Flag::switch("all", "Show also those that do not run").short('a'),
        FILTER,
        FORMAT,
        Flag::int("last", "Show the n that were created last, in any state")
            .short('n')
            .default("-1"),
        Flag::switch("latest", "Show the one that was created last, in any state").short('l'),
        NO_TRUNC,
        Flag::switch("quiet", "Show IDs only").short('q'),
        Flag::switch("size", "Show the sizes of the files").short('s'),
    ])
    .also(&["container ls", "container list", "container ps", "ps"]);

const LISTING: Listing = Listing {
    type_name: "*formatter.ContainerContext",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Names", "NAMES"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Ports", "PORTS"),
        ("State", "STATE"),
        ("Status", "STATUS"),
        ("Size", "SIZE"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
        ("Platform", "PLATFORM"),
    ],
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    quiet: "{{.ID}}",
};

const SIZED: Listing = Listing {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    ..LISTING
};

fn run(cli: &Cli, flags: &Parsed) -> Outcome {
    let filters = filters(flags.list("filter"));
    let limit = match flags.on("latest") {
        true => 1,
        false => flags.int("last"),
    };
    let configured = match flags.changed("format") || flags.on("quiet") {
        true => None,
        false => cli.config().text("psFormat").map(str::to_owned),
    };
    let text = configured.unwrap_or_else(|| flags.text("format").to_owned());
    // `{{json .}}` shows the size too; docker does not count it for plain `json`.
    let shows_size = text.contains(".Size") || text.contains("json .}");
    let size = flags.on("size") || (!flags.changed("size") && shows_size);
    let query = Query::new()
        .with_if("all", flags.on("all"))
        .with_some("limit", (limit > 0).then(|| limit.to_string()))
        .with_if("size", size)
        .with_some("filters", filters_query(&filters));
    let containers: Vec<Summary> = cli.block_on(async {
        let request = Request::get("/containers/json").query(query);
        cli.client()?.call(request).await.map_err(Failure::from)
    })?;
    let now = Timestamp::now();
    let full = flags.on("no-trunc");
    let rows = containers
        .iter()
        .map(|container| row(container, full, now))
        .collect();
    let listing = if flags.on("size") { SIZED } else { LISTING };
    listing.print(&text, flags.on("quiet"), rows)?;
    Ok(0)
}

/// A container's line; `full` shortens nothing.
pub fn row(container: &Summary, full: bool, now: Timestamp) -> Row {
    let id = match full {
        true => container.id.clone(),
        false => format::short_id(&container.id).to_owned(),
    };
    let command = match full {
        true => container.command.clone(),
        false => format::ellipsis(&container.command, 20),
    };
    let labels = container.labels.clone();
    let all_labels: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mounts: Vec<String> = container
        .mounts
        .iter()
        .map(|mount| {
            let name = if mount.name.is_empty() {
                &mount.source
            } else {
                &mount.name
            };
            match full {
                true => name.clone(),
                false => format::ellipsis(name, 15),
            }
        })
        .collect();
    let local = container
        .mounts
        .iter()
        .filter(|mount| mount.driver == "local")
        .count();
    let networks: Vec<&str> = container
        .network_settings
        .networks
        .keys()
        .map(String::as_str)
        .collect();
    Row::new()
        .text("ID", id)
        .text("Names", names(&container.names, full))
        .text("Image", image(container, full))
        .text("Command", format!("{command:?}"))
        .text("CreatedAt", format::go_time(container.created))
        .text("RunningFor", format::ago(container.created, now))
        .value("Platform", Value::NilPointer)
        .text("Ports", ports(&container.ports))
        .text("State", &container.state)
        .text("Status", &container.status)
        .text("Size", size(container))
        .text("Labels", all_labels.join(","))
        .text("Mounts", mounts.join(","))
        .text("LocalVolumes", local.to_string())
        .text("Networks", networks.join(","))
        .method("Label", move |name| {
            labels.get(name).cloned().unwrap_or_default()
        })
}

/// Names without their slash; those that links gave only when nothing is shortened.
fn names(names: &[String], full: bool) -> String {
    let names: Vec<&str> = names
        .iter()
        .map(|name| name.trim_start_matches('/'))
        .collect();
    if full {
        return names.join(",");
    }
    let own: Vec<&str> = names
        .into_iter()
        .filter(|name| !name.contains('/'))
        .take(1)
        .collect();
    own.join(",")
}

/// The name it was made from, or a short id where that name means another image by now.
fn image(container: &Summary, full: bool) -> String {
    if container.image.is_empty() {
        return "<no image>".to_owned();
    }
    if full {
        return container.image.clone();
    }
    let short = format::short_id(&container.image_id);
    if short == format::short_id(&container.image) {
        return short.to_owned();
    }
    match container.image.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => container.image.clone(),
    }
}

fn size(container: &Summary) -> String {
    let own = format::decimal_size(container.size_rw.unwrap_or(0));
    match container.size_root_fs {
        Some(all) if all > 0 => format!("{own} (virtual {})", format::decimal_size(all)),
        _ => own,
    }
}

/// Ports in docker's short form: neighbours as ranges, `0.0.0.0:80->80/tcp, 443/tcp`.
pub fn ports(ports: &[SummaryPort]) -> String {
    let mut ports: Vec<&SummaryPort> = ports.iter().collect();
    ports.sort_by(|a, b| {
        let key = |port: &SummaryPort| {
            (
                port.private_port,
                port.ip.clone(),
                port.public_port,
                port.protocol.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    let mut groups: Vec<Group> = Vec::new();
    let mut mapped = Vec::new();
    for port in ports {
        let address = if port.public_port > 0 {
            port.ip.as_str()
        } else {
            ""
        };
        // A port that is published elsewhere is shown on its own.
        if port.public_port > 0 && port.public_port != port.private_port {
            mapped.push(format!(
                "{}->{}/{}",
                join_address(&port.ip, &port.public_port.to_string()),
                port.private_port,
                port.protocol
            ));
            continue;
        }
        let open = groups.iter_mut().find(|group| {
            group.address == address
                && group.protocol == port.protocol
                && group.published == (port.public_port > 0)
                && (group.last == port.private_port
                    || group.last.checked_add(1) == Some(port.private_port))
        });
        match open {
            Some(group) => group.last = port.private_port,
            None => groups.push(Group {
                address: address.to_owned(),
                protocol: port.protocol.clone(),
                published: port.public_port > 0,
                first: port.private_port,
                last: port.private_port,
            }),
        }
    }
    let mut all: Vec<String> = groups.iter().map(Group::shown).collect();
    all.extend(mapped);
    all.join(", ")
}

struct Group {
    address: String,
    protocol: String,
    published: bool,
    first: u16,
    last: u16,
}

impl Group {
    fn shown(&self) -> String {
        let range = match self.first == self.last {
            true => self.first.to_string(),
            false => format!("{}-{}", self.first, self.last),
        };
        let host = match self.published {
            true => format!("{}->", join_address(&self.address, &range)),
            false => String::new(),
        };
        format!("{host}{range}/{}", self.protocol)
    }
}

pub fn join_address(address: &str, port: &str) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, private: u16, public: u16) -> SummaryPort {
        SummaryPort {
            ip: ip.into(),
            private_port: private,
            public_port: public,
            protocol: "tcp".into(),
        }
    }

    #[test]
    fn ports_are_grouped_into_ranges() {
        assert_eq!(
            ports(&[port("", 81, 0), port("", 80, 0), port("", 90, 0)]),
            "80-81/tcp, 90/tcp"
        );
        assert_eq!(
            ports(&[port("0.0.0.0", 80, 8080), port("::", 80, 8080)]),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(
            ports(&[port("0.0.0.0", 80, 80), port("0.0.0.0", 81, 81)]),
            "0.0.0.0:80-81->80-81/tcp"
        );
    }
}
