//! `ps`: published views, filtered and summed up.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_base::{Timestamp, duration};
use berth_docker::container::{
    MountPoint, Summary, SummaryHostConfig, SummaryNetworkSettings, SummaryPort,
};
use berth_docker::filters::{Error as FilterError, Filters};
use berth_docker::port::Port;

use crate::error::{Error, Result};
use crate::inspect;
use crate::links;
use crate::options::ListOptions;
use crate::record::{Phase, State, View};
use crate::shared::Shared;
use crate::spec::process::path_and_args;

const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "expose",
    "exited",
    "health",
    "id",
    "isolation",
    "is-task",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];
const STATUSES: &[&str] = &[
    "created",
    "restarting",
    "running",
    "removing",
    "paused",
    "exited",
    "dead",
];

/// The filters, parsed and with their references looked up.
struct Choice<'a> {
    filters: &'a Filters,
    names: Vec<regex::Regex>,
    exited: Vec<i32>,
    ancestors: Vec<String>,
    /// Made after this.
    since: Option<Timestamp>,
    before: Option<Timestamp>,
    networks: Vec<String>,
    all: bool,
}

/// The containers that the options choose, newest first. Blocks if sizes are wanted.
pub fn list(shared: &Shared, options: &ListOptions) -> Result<Vec<Summary>> {
    let choice = Choice::new(shared, options)?;
    let mut views: Vec<Arc<View>> = shared
        .table
        .all()
        .into_iter()
        .map(|handle| handle.view())
        .collect();
    views.sort_by_key(|view| std::cmp::Reverse((view.record.created, view.record.id.clone())));
    let now = Timestamp::now();
    Ok(views
        .into_iter()
        .filter(|view| choice.takes(view))
        .take(options.limit.unwrap_or(usize::MAX))
        .map(|view| {
            let mut summary = summary(shared, &view, now);
            if options.size {
                let (own, all) = inspect::sizes(shared, &view.record);
                (summary.size_rw, summary.size_root_fs) = (Some(own), Some(all));
            }
            summary
        })
        .collect())
}

impl<'a> Choice<'a> {
    fn new(shared: &Shared, options: &'a ListOptions) -> Result<Self> {
        let filters = &options.filters;
        let invalid = |error: FilterError| Error::invalid(error.to_string());
        filters.accept(FILTERS).map_err(invalid)?;
        let value = |key: &str, value: &str| {
            invalid(FilterError::Value {
                key: key.to_owned(),
                value: value.to_owned(),
            })
        };
        for status in filters.get("status") {
            if !STATUSES.contains(&status) {
                return Err(value("status", status));
            }
        }
        for health in filters.get("health") {
            if !["starting", "healthy", "unhealthy", "none"].contains(&health) {
                return Err(value("health", health));
            }
        }
        filters.flag("is-task").map_err(invalid)?;
        let exited = filters
            .get("exited")
            .map(|text| text.parse().map_err(|_| value("exited", text)))
            .collect::<Result<_>>()?;
        let created = |key: &str| -> Result<Option<Timestamp>> {
            let times: Vec<Timestamp> = filters
                .get(key)
                .map(|reference| Ok(shared.table.find(reference)?.view().record.created))
                .collect::<Result<_>>()?;
            Ok(times.into_iter().max())
        };
        let names = patterns(filters, "name");
        let ancestors = filters
            .get("ancestor")
            .flat_map(|text| {
                let id = shared
                    .images
                    .resolve(text, None)
                    .map(|image| image.id.to_string());
                [Some(text.to_owned()), id.ok()]
            })
            .flatten()
            .collect();
        let networks = filters
            .get("network")
            .map(|text| {
                let network = shared.networks.of(text);
                network.map_or_else(|| text.to_owned(), |network| network.name.clone())
            })
            .collect();
        Ok(Self {
            names,
            exited,
            ancestors,
            since: created("since")?,
            before: created("before")?,
            networks,
            all: options.all || options.limit.is_some() || filters.contains("status"),
            filters,
        })
    }

    fn takes(&self, view: &View) -> bool {
        let (record, state) = (&view.record, &view.state);
        let filters = self.filters;
        let labels = record.config.labels.as_ref();
        let running = matches!(state.phase, Phase::Running { .. } | Phase::Restarting);
        !view.removed
            && (self.all || running)
            && filters.matches("status", state.phase.name())
            && filters.matches_any("id", |wanted| record.id.as_str().starts_with(wanted))
            && (!filters.contains("name")
                || self.names.iter().any(|name| {
                    name.is_match(&record.name) || name.is_match(&format!("/{}", record.name))
                }))
            && filters.matches_labels("label", labels.unwrap_or(&BTreeMap::new()))
            && (!filters.contains("exited")
                || (!running && state.was_started() && self.exited.contains(&state.exit_code)))
            && (!filters.contains("ancestor") || self.descends(view))
            && self.since.is_none_or(|since| record.created > since)
            && self.before.is_none_or(|before| record.created < before)
            && (!filters.contains("network") || {
                let mut networks = self.networks.iter();
                networks.any(|name| record.endpoints.contains_key(name))
            })
            && filters.matches_any("volume", |wanted| {
                record
                    .mounts
                    .iter()
                    .map(|mount| mount.point())
                    .any(|point| {
                        [&point.name, &point.destination, &point.source]
                            .iter()
                            .any(|it| *it == wanted)
                    })
            })
            && filters.matches("health", "none")
            && filters.matches("isolation", &record.host.isolation)
            && filters.flag("is-task").ok().flatten() != Some(true)
            && filters.matches_any("publish", |wanted| {
                ports(view).iter().any(|port| {
                    port.public_port != 0 && in_range(wanted, port.public_port, &port.protocol)
                })
            })
            && filters.matches_any("expose", |wanted| {
                ports(view)
                    .iter()
                    .any(|port| in_range(wanted, port.private_port, &port.protocol))
            })
    }

    /// From the image itself, by name or id, or from one with that name and any tag.
    fn descends(&self, view: &View) -> bool {
        let record = &view.record;
        self.ancestors.iter().any(|wanted| {
            *wanted == record.image
                || *wanted == record.config.image
                || record
                    .config
                    .image
                    .strip_prefix(wanted.as_str())
                    .is_some_and(|rest| rest.starts_with(':'))
        })
    }
}

/// The values of a filter that are patterns; one that is no valid pattern is taken literally.
pub fn patterns(filters: &Filters, key: &str) -> Vec<regex::Regex> {
    filters
        .get(key)
        .filter_map(|text| {
            regex::Regex::new(text)
                .or_else(|_| regex::Regex::new(&regex::escape(text)))
                .ok()
        })
        .collect()
}

/// `80`, `80/udp`, `80-90/tcp`.
fn in_range(wanted: &str, port: u16, protocol: &str) -> bool {
    let (range, proto) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => proto == protocol && (first..=last).contains(&port),
        _ => false,
    }
}

fn summary(shared: &Shared, view: &View, now: Timestamp) -> Summary {
    let record = &view.record;
    let mounts: Vec<MountPoint> = record.mounts.iter().map(|mount| mount.point()).collect();
    Summary {
        id: record.id.to_string(),
        names: [
            vec![format!("/{}", record.name)],
            links::names(shared, record),
        ]
        .concat(),
        image: record.config.image.clone(),
        image_id: record.image.clone(),
        command: command(view),
        created: record.created.unix_seconds(),
        ports: ports(view),
        labels: record.config.labels.clone().unwrap_or_default(),
        state: view.state.phase.name().to_owned(),
        status: status(&view.state, now),
        host_config: SummaryHostConfig {
            network_mode: record.host.network_mode.clone(),
            annotations: record.host.annotations.clone(),
        },
        network_settings: SummaryNetworkSettings {
            networks: inspect::networks(shared, view),
        },
        mounts,
        ..Summary::default()
    }
}

/// The command in one line; words with a space are quoted, as dockerd does.
fn command(view: &View) -> String {
    let (path, args) = path_and_args(&view.record.config);
    let mut text = path;
    for arg in args {
        if arg.contains(' ') {
            text += &format!(" '{arg}'");
        } else {
            text += &format!(" {arg}");
        }
    }
    text
}

/// What is published, and what is exposed without being published.
pub fn ports(view: &View) -> Vec<SummaryPort> {
    let mut ports: Vec<SummaryPort> = view
        .state
        .endpoints
        .values()
        .flat_map(|connected| &connected.endpoint.ports)
        .map(|binding| SummaryPort {
            ip: binding.host_ip.to_string(),
            private_port: binding.container_port,
            public_port: binding.host_port,
            protocol: binding.protocol.to_string(),
        })
        .collect();
    if matches!(view.state.phase, Phase::Running { .. }) && view.state.has_bridge() {
        for text in view.record.config.exposed_ports.keys() {
            let Ok(port) = text.parse::<Port>() else {
                continue;
            };
            let protocol = port.protocol.as_str();
            if !ports
                .iter()
                .any(|it| it.private_port == port.number && it.protocol == protocol)
            {
                ports.push(SummaryPort {
                    private_port: port.number,
                    protocol: protocol.to_owned(),
                    ..SummaryPort::default()
                });
            }
        }
    }
    ports
}

/// The words of the column STATUS (`container.State.String`, moby).
pub fn status(state: &State, now: Timestamp) -> String {
    let since = |time: Timestamp| duration::human(time.elapsed_at(now));
    match state.phase {
        Phase::Running { paused: false, .. } => format!("Up {}", since(state.started_at)),
        Phase::Running { paused: true, .. } => format!("Up {} (Paused)", since(state.started_at)),
        Phase::Restarting => {
            format!(
                "Restarting ({}) {} ago",
                state.exit_code,
                since(state.finished_at)
            )
        }
        Phase::Removing => "Removal In Progress".to_owned(),
        Phase::Dead => "Dead".to_owned(),
        Phase::Created | Phase::Starting => "Created".to_owned(),
        Phase::Exited if state.finished_at.is_zero() => String::new(),
        Phase::Exited => format!(
            "Exited ({}) {} ago",
            state.exit_code,
            since(state.finished_at)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_read_as_dockers() {
        let second = 1_000_000_000;
        let now = Timestamp(1_000 * second);
        let check = |phase, words: &str| {
            let state = State {
                phase,
                started_at: Timestamp(880 * second),
                finished_at: Timestamp(995 * second),
                exit_code: 3,
                ..State::default()
            };
            assert_eq!(status(&state, now), words);
        };
        check(
            Phase::Running {
                pid: 1,
                paused: false,
            },
            "Up 2 minutes",
        );
        check(
            Phase::Running {
                pid: 1,
                paused: true,
            },
            "Up 2 minutes (Paused)",
        );
        check(Phase::Restarting, "Restarting (3) 5 seconds ago");
        check(Phase::Exited, "Exited (3) 5 seconds ago");
        check(Phase::Created, "Created");
    }

    #[test]
    fn port_filters_take_ranges_and_protocols() {
        for (wanted, expect) in [
            ("80", true),
            ("80/tcp", true),
            ("80/udp", false),
            ("70-90", true),
            ("81", false),
            ("x", false),
        ] {
            assert_eq!(in_range(wanted, 80, "tcp"), expect, "{wanted}");
        }
    }
}
