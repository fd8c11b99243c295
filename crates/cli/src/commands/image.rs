//! What is done to images by name: `tag`, `rmi`, `history`, `image prune`.

use std::fmt::Write;

use berth_base::Timestamp;
use berth_docker::image::{DeleteItem, HistoryItem, PruneResponse};
use berth_docker_client::{Query, Request, query};

use crate::cli::{Cli, print, warn};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Parsed};
use crate::format::{self, Listing, Row};

use super::{FORMAT, Failures, NO_TRUNC, confirm, filters, filters_query, pull};

pub const TAG: Command = Command::leaf(
    "tag",
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    tag,
)
.arity(Arity::Exactly(2))
.also(&["image tag", "tag"]);

pub const RMI: Command = Command::leaf(
    "rmi",
    "IMAGE [IMAGE...]",
    "Remove one or more images",
    remove,
)
.flags(&[
    Flag::switch("force", "Remove the image also when it is in use").short('f'),
    Flag::switch("no-prune", "Keep parents that have no name"),
    Flag::of(
        "platform",
        Kind::Many("strings"),
        "Remove only this platform (\"linux/amd64\")",
    ),
])
.arity(Arity::AtLeast(1))
.also(&["image rm", "image remove", "rmi"]);

pub const HISTORY: Command =
    Command::leaf("history", "IMAGE", "Show the history of an image", history)
        .flags(&[
            FORMAT,
            Flag::switch("human", "Show sizes and times for people")
                .short('H')
                .default("true"),
            NO_TRUNC,
            Flag::text("platform", "The platform to show (\"linux/amd64\")"),
            Flag::switch("quiet", "Show IDs only").short('q'),
        ])
        .arity(Arity::Exactly(1))
        .also(&["image history", "history"]);

pub const PRUNE: Command = Command::leaf("prune", "", "Remove unused images", prune).flags(&[
    Flag::switch(
        "all",
        "Remove all that no container uses, not only those without a name",
    )
    .short('a'),
    Flag::of(
        "filter",
        Kind::Many("filter"),
        "Remove only what meets this (\"until=<timestamp>\")",
    ),
    Flag::switch("force", "Do not ask").short('f'),
]);

fn tag(cli: &Cli, flags: &Parsed) -> Outcome {
    let target = pull::parse(flags.arg(1)).map_err(|failure| {
        Failure::new(format!(
            "Error parsing reference: {:?} is not a valid repository/tag: {}",
            flags.arg(1),
            failure.message
        ))
    })?;
    let tag = target.tag().unwrap_or("latest").to_owned();
    cli.block_on(async {
        let path = format!("/images/{}/tag", query::path(flags.arg(0)));
        let query = Query::new()
            .with("repo", target.repository().to_string())
            .with("tag", tag);
        cli.client()?.tell(Request::post(path).query(query)).await?;
        Ok(0)
    })
}

fn remove(cli: &Cli, flags: &Parsed) -> Outcome {
    cli.block_on(async {
        let client = cli.client()?;
        let force = flags.on("force");
        let query = Query::new()
            .with_if("force", force)
            .with_if("noprune", flags.on("no-prune"));
        let mut failures = Failures::default();
        let mut fatal = false;
        for name in &flags.args {
            let request = Request::delete(format!("/images/{}", query::path(name)));
            match client
                .call::<Vec<DeleteItem>>(request.query(query.clone()))
                .await
            {
                Ok(items) => print(deleted(&items))?,
                Err(error) => {
                    fatal |= !error.is_not_found();
                    failures.push(error);
                }
            }
        }
        match failures.outcome() {
            Err(failure) if force && !fatal => {
                warn(failure.message);
                Ok(0)
            }
            outcome => outcome,
        }
    })
}

fn deleted(items: &[DeleteItem]) -> String {
    let mut out = String::new();
    for item in items {
        let _ = match item.deleted.as_str() {
            "" => writeln!(out, "Untagged: {}", item.untagged),
            id => writeln!(out, "Deleted: {id}"),
        };
    }
    out
}

const LISTING: Listing = Listing {
    type_name: "*formatter.historyContext",
    headers: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    quiet: "{{.ID}}",
};

const EXACT: Listing = Listing {
    table: "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    ..LISTING
};

fn history(cli: &Cli, flags: &Parsed) -> Outcome {
    let path = format!("/images/{}/history", query::path(flags.arg(0)));
    let steps: Vec<HistoryItem> = cli.block_on(async {
        cli.client()?
            .call(Request::get(path))
            .await
            .map_err(Failure::from)
    })?;
    let full = flags.on("no-trunc");
    let human = flags.on("human");
    let now = Timestamp::now();
    let rows = steps.iter().map(|step| {
        let id = match full {
            true => step.id.as_str(),
            false => format::short_id(&step.id),
        };
        let by = step.created_by.replace('\t', " ");
        let by = if full { by } else { format::ellipsis(&by, 45) };
        let since = match step.created {
            created if created <= -62_135_596_800 => "N/A".to_owned(),
            created => format::ago(created, now),
        };
        let size = match human {
            true => format::decimal_size(step.size),
            false => step.size.to_string(),
        };
        Row::new()
            .text("ID", id)
            .text("CreatedSince", since)
            .text("CreatedAt", rfc3339(step.created))
            .text("CreatedBy", by)
            .text("Size", size)
            .text("Comment", &step.comment)
    });
    let listing = if human { LISTING } else { EXACT };
    listing.print(flags.text("format"), flags.on("quiet"), rows.collect())?;
    Ok(0)
}

fn rfc3339(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => {
            let zoned = time.to_zoned(jiff::tz::TimeZone::system());
            let text = zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
            match text.strip_suffix("+00:00") {
                Some(text) => format!("{text}Z"),
                None => text,
            }
        }
        Err(_) => String::new(),
    }
}

fn prune(cli: &Cli, flags: &Parsed) -> Outcome {
    let warning = match flags.on("all") {
        true => {
            "WARNING! This will remove all images without at least one container associated to them."
        }
        false => "WARNING! This will remove all dangling images.",
    };
    if !flags.on("force") && !confirm(warning)? {
        return Err(Failure::silent(1));
    }
    let mut filters = filters(flags.list("filter"));
    filters.add("dangling", if flags.on("all") { "false" } else { "true" });
    cli.block_on(async {
        let query = Query::new().with_some("filters", filters_query(&filters));
        let request = Request::post("/images/prune").query(query);
        let report: PruneResponse = cli.client()?.call(request).await?;
        let mut out = String::new();
        if let Some(items) = report.images_deleted.filter(|items| !items.is_empty()) {
            out.push_str("Deleted Images:\n");
            for item in items {
                let _ = match item.untagged.as_str() {
                    "" => writeln!(out, "deleted: {}", item.deleted),
                    name => writeln!(out, "untagged: {name}"),
                };
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
