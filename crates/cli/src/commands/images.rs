//! `images`: the list of images.

use berth_base::Timestamp;
use berth_docker::image::Summary;
use berth_docker_client::{Query, Request};

use crate::cli::Cli;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};
use crate::format::{self, Listing, Row};

use super::{FILTER, FORMAT, NO_TRUNC, filters, filters_query};

pub const IMAGES: Command = Command::leaf("images", "[REPOSITORY[:TAG]]", "List images", run)
    .flags(&[
        Flag::switch("all", "Show intermediate images too").short('a'),
        Flag::switch("digests", "Show digests"),
        FILTER,
        FORMAT,
        NO_TRUNC,
        Flag::switch("quiet", "Show IDs only").short('q'),
    ])
    .arity(Arity::AtMost(1))
    .also(&["image ls", "image list", "images"]);

const LISTING: Listing = Listing {
    type_name: "*formatter.imageContext",
    headers: &[
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("Containers", "CONTAINERS"),
        ("VirtualSize", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
    ],
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    quiet: "{{.ID}}",
};

const WITH_DIGESTS: Listing = Listing {
    table: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    ..LISTING
};

/// The table of `system df -v`.
pub const USAGE: Listing = Listing {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    ..LISTING
};

const NONE: &str = "<none>";
const UNKNOWN: &str = "N/A";

fn run(cli: &Cli, flags: &Parsed) -> Outcome {
    let mut filters = filters(flags.list("filter"));
    if let Some(reference) = flags.args.first() {
        filters.add("reference", reference.as_str());
    }
    let query = Query::new()
        .with_if("all", flags.on("all"))
        .with_some("filters", filters_query(&filters));
    let images: Vec<Summary> = cli.block_on(async {
        let request = Request::get("/images/json").query(query);
        cli.client()?.call(request).await.map_err(Failure::from)
    })?;
    let configured = match flags.changed("format") || flags.on("quiet") {
        true => None,
        false => cli.config().text("imagesFormat").map(str::to_owned),
    };
    let text = configured.unwrap_or_else(|| flags.text("format").to_owned());
    let digests = flags.on("digests") || text.contains(".Digest");
    let full = flags.on("no-trunc");
    let now = Timestamp::now();
    let quiet = flags.on("quiet");
    let rows: Vec<Row> = images
        .iter()
        .flat_map(|image| rows(image, digests, full, now))
        .collect();
    let listing = if flags.on("digests") {
        WITH_DIGESTS
    } else {
        LISTING
    };
    listing.print(&text, quiet, rows)?;
    Ok(0)
}

/// A line for each name of an image.
pub fn rows(image: &Summary, digests: bool, full: bool, now: Timestamp) -> Vec<Row> {
    let split = |name: &str, sign| {
        let (repository, rest): (&str, &str) = name.rsplit_once(sign)?;
        (repository != NONE).then(|| (repository.to_owned(), rest.to_owned()))
    };
    let tags: Vec<(String, String)> = image
        .repo_tags
        .iter()
        .filter_map(|name| split(name, ':'))
        .collect();
    let known: Vec<(String, String)> = image
        .repo_digests
        .iter()
        .filter_map(|name| split(name, '@'))
        .collect();
    let line =
        |repository: &str, tag: &str, digest: &str| row(image, repository, tag, digest, full, now);
    let mut rows = Vec::new();
    for (repository, tag) in &tags {
        let of_repository: Vec<&str> = known
            .iter()
            .filter(|(name, _)| name == repository)
            .map(|(_, digest)| digest.as_str())
            .collect();
        match (digests, of_repository.as_slice()) {
            (false, _) | (true, []) => rows.push(line(repository, tag, NONE)),
            (true, some) => rows.extend(some.iter().map(|digest| line(repository, tag, digest))),
        }
    }
    if tags.is_empty() {
        // Names by digest only have no tag to show.
        let mut last = "";
        for (repository, digest) in &known {
            if digests || repository != last {
                rows.push(line(repository, NONE, digest));
            }
            last = repository;
        }
    }
    if rows.is_empty() {
        rows.push(line(NONE, NONE, NONE));
    }
    rows
}

fn row(
    image: &Summary,
    repository: &str,
    tag: &str,
    digest: &str,
    full: bool,
    now: Timestamp,
) -> Row {
    let id = match full {
        true => image.id.as_str(),
        false => format::short_id(&image.id),
    };
    let size = |bytes: i64| match bytes {
        -1 => UNKNOWN.to_owned(),
        bytes => format::decimal_size(bytes),
    };
    let unique = match image.shared_size {
        -1 => UNKNOWN.to_owned(),
        shared => four_digits(image.size - shared),
    };
    let containers = match image.containers {
        -1 => UNKNOWN.to_owned(),
        count => count.to_string(),
    };
    // `N/A` stands for an image that does not say when it was made.
    let (since, at) = match image.created {
        created if created <= 0 => (UNKNOWN.to_owned(), UNKNOWN.to_owned()),
        created => (format::ago(created, now), format::go_time(created)),
    };
    Row::new()
        .text("ID", id)
        .text("Repository", repository)
        .text("Tag", tag)
        .text("Digest", digest)
        .text("CreatedSince", since)
        .text("CreatedAt", at)
        .text("Size", format::decimal_size(image.size))
        .text("Containers", containers)
        .text("VirtualSize", four_digits(image.size))
        .text("SharedSize", size(image.shared_size))
        .text("UniqueSize", unique)
}

#[expect(clippy::cast_precision_loss, reason = "only four digits are shown")]
pub fn four_digits(bytes: i64) -> String {
    berth_base::size::human_decimal(bytes as f64, 4)
}
