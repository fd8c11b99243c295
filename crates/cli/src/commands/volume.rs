//! `volume create`, `ls`, `rm`, `prune` and `update`.

use std::fmt::Write;

use berth_docker::volume::{CreateRequest, List, PruneResponse, Volume};
use berth_docker_client::{Query, Request, query};

use crate::cli::{Cli, print, warn};
use crate::command::{Arity, Command};
use crate::create::{env::check_label, pairs};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Parsed};
use crate::format::{self, Listing, Row};

use super::{FILTER, FORMAT, Failures, confirm, filters, filters_query};

pub const CREATE: Command = Command::leaf("create", "[VOLUME]", "Create a volume", create)
    .flags(&[
        Flag::text("driver", "The driver of the volume")
            .short('d')
            .default("local"),
        Flag::list("label", "Set a label").check(check_label),
        Flag::of("opt", Kind::Many("map"), "Set an option of the driver").short('o'),
    ])
    .arity(Arity::AtMost(1));

pub const LS: Command = Command::leaf("ls", "", "List volumes", list)
    .flags(&[
        FILTER,
        FORMAT,
        Flag::switch("quiet", "Show names only").short('q'),
    ])
    .named("ls", &["list"])
    .also(&["volume ls", "volume list"]);

pub const RM: Command = Command::leaf(
    "rm",
    "VOLUME [VOLUME...]",
    "Remove one or more volumes",
    remove,
)
.long("Remove one or more volumes. You cannot remove a volume that is in use by a container.")
.flags(&[Flag::switch("force", "Do not mind volumes that are not there").short('f')])
.arity(Arity::AtLeast(1))
.named("rm", &["remove"])
.also(&["volume rm", "volume remove"]);

pub const PRUNE: Command =
    Command::leaf("prune", "", "Remove unused local volumes", prune).flags(&[
        Flag::switch(
            "all",
            "Remove all that no container uses, not only anonymous ones",
        )
        .short('a'),
        Flag::of(
            "filter",
            Kind::Many("filter"),
            "Remove only what meets this (\"label=<label>\")",
        ),
        Flag::switch("force", "Do not ask").short('f'),
    ]);

pub const UPDATE: Command = Command::leaf(
    "update",
    "[VOLUME]",
    "Update a volume (cluster volumes only)",
    update,
)
.flags(&[Flag::text(
    "availability",
    "Availability of the cluster volume (\"active\", \"pause\", \"drain\")",
)
.default("active")])
.arity(Arity::Exactly(1));

const LISTING: Listing = Listing {
    type_name: "*formatter.volumeContext",
    headers: &[
        ("Name", "VOLUME NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Group", "GROUP"),
        ("Availability", "AVAILABILITY"),
        ("Status", "STATUS"),
    ],
    table: "{{.Driver}}\t{{.Name}}",
    quiet: "{{.Name}}",
};

/// The table of `system df -v`.
pub const USAGE: Listing = Listing {
    table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    ..LISTING
};

fn create(cli: &Cli, flags: &Parsed) -> Outcome {
    let request = CreateRequest {
        name: flags.arg(0).to_owned(),
        driver: flags.text("driver").to_owned(),
        driver_opts: Some(pairs(flags.list("opt"))),
        labels: Some(pairs(flags.list("label"))),
    };
    cli.block_on(async {
        let request = Request::post("/volumes/create").json(&request)?;
        let volume: Volume = cli.client()?.call(request).await?;
        print(format!("{}\n", volume.name))?;
        Ok(0)
    })
}

fn list(cli: &Cli, flags: &Parsed) -> Outcome {
    let query = Query::new().with_some("filters", filters_query(&filters(flags.list("filter"))));
    let mut list: List = cli.block_on(async {
        let request = Request::get("/volumes").query(query);
        cli.client()?.call(request).await.map_err(Failure::from)
    })?;
    list.volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let rows = list.volumes.iter().map(row).collect();
    LISTING.print(flags.text("format"), flags.on("quiet"), rows)?;
    for warning in list.warnings.iter().flatten() {
        warn(warning);
    }
    Ok(0)
}

pub fn row(volume: &Volume) -> Row {
    const UNKNOWN: &str = "N/A";
    let labels = volume.labels.clone().unwrap_or_default();
    let all: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let usage = volume.usage_data.as_ref();
    let size = usage.filter(|usage| usage.size >= 0);
    Row::new()
        .text("Name", &volume.name)
        .text("Driver", &volume.driver)
        .text("Scope", &volume.scope)
        .text("Mountpoint", &volume.mountpoint)
        .text("Labels", all.join(","))
        .text(
            "Links",
            usage.map_or(UNKNOWN.to_owned(), |usage| usage.ref_count.to_string()),
        )
        .text(
            "Size",
            size.map_or(UNKNOWN.to_owned(), |usage| format::decimal_size(usage.size)),
        )
        .text("Group", UNKNOWN)
        .text("Availability", UNKNOWN)
        .text("Status", UNKNOWN)
        .method("Label", move |name| {
            labels.get(name).cloned().unwrap_or_default()
        })
}

fn remove(cli: &Cli, flags: &Parsed) -> Outcome {
    cli.block_on(async {
        let client = cli.client()?;
        let query = Query::new().with_if("force", flags.on("force"));
        let mut failures = Failures::default();
        for name in &flags.args {
            let path = format!("/volumes/{}", query::segment(name));
            match client
                .tell(Request::delete(path).query(query.clone()))
                .await
            {
                Ok(()) => print(format!("{name}\n"))?,
                Err(error) => failures.push(error),
            }
        }
        failures.outcome()
    })
}

/// Clusters have volumes that can change; ours cannot.
fn update(cli: &Cli, flags: &Parsed) -> Outcome {
    cli.block_on(async {
        let path = format!("/volumes/{}", query::segment(flags.arg(0)));
        let _: Volume = cli.client()?.call(Request::get(path)).await?;
        Err(Failure::new("can only update cluster volumes"))
    })
}

fn prune(cli: &Cli, flags: &Parsed) -> Outcome {
    let warning = match flags.on("all") {
        true => "WARNING! This will remove all local volumes not used by at least one container.",
        false => {
            "WARNING! This will remove anonymous local volumes not used by at least one container."
        }
    };
    if !flags.on("force") && !confirm(warning)? {
        return Err(Failure::silent(1));
    }
    let mut filters = filters(flags.list("filter"));
    if flags.on("all") {
        filters.add("all", "true");
    }
    cli.block_on(async {
        let query = Query::new().with_some("filters", filters_query(&filters));
        let request = Request::post("/volumes/prune").query(query);
        let report: PruneResponse = cli.client()?.call(request).await?;
        let mut out = String::new();
        if let Some(deleted) = report.volumes_deleted.filter(|deleted| !deleted.is_empty()) {
            out.push_str("Deleted Volumes:\n");
            for name in deleted {
                let _ = writeln!(out, "{name}");
            }
            out.push('\n');
        }
        let space = i64::try_from(report.space_reclaimed).unwrap_or(i64::MAX);
        let _ = writeln!(
            out,
            "Total reclaimed space: {}",
            format::decimal_size(space)
        );
        print(out)?;
        Ok(0)
    })
}
