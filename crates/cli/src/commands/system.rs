//! `system df`, `prune` and `dial-stdio`.

use std::fmt::Write;

use berth_base::Timestamp;
use berth_docker::container;
use berth_docker::image;
use berth_docker::network;
use berth_docker::system::DiskUsage;
use berth_docker_client::{Client, Query, Request};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};

use crate::cli::{Cli, print};
use crate::command::Command;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Parsed};
use crate::format::{self, Listing, Row};

use super::images::four_digits;
use super::{FORMAT, confirm, filters, filters_query, images, ps, volume};

pub const DF: Command = Command::leaf("df", "", "Show docker disk usage", df).flags(&[
    FORMAT,
    Flag::switch("verbose", "Show each thing on its own").short('v'),
]);

pub const PRUNE: Command = Command::leaf("prune", "", "Remove unused data", prune).flags(&[
    Flag::switch(
        "all",
        "Remove all images that no container uses, not only those without a name",
    )
    .short('a'),
    Flag::of(
        "filter",
        Kind::Many("filter"),
        "Remove only what meets this (\"label=<key>=<value>\")",
    ),
    Flag::switch("force", "Do not ask").short('f'),
    Flag::switch("volumes", "Remove anonymous volumes too"),
]);

pub const DIAL_STDIO: Command = Command::leaf(
    "dial-stdio",
    "",
    "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
    dial_stdio,
)
.hidden();

/// The far end of `ssh://`: stdin and stdout become a connection to the daemon.
fn dial_stdio(cli: &Cli, _: &Parsed) -> Outcome {
    cli.block_on(async {
        let (mut reader, mut writer) = cli.client()?.dial().await?;
        let upward = async {
            let mut stdin = tokio::io::stdin();
            copy(&mut stdin, &mut writer).await.ok();
            writer.shutdown().await.ok();
            std::future::pending::<()>().await;
        };
        let downward = async {
            let mut buffer = vec![0; 32 * 1024];
            loop {
                match reader.read(&mut buffer).await? {
                    0 => return Ok::<_, Failure>(0),
                    read => print(&buffer[..read])?,
                }
            }
        };
        tokio::select! {
            outcome = downward => outcome,
            () = upward => Ok(0),
        }
    })
}

const LISTING: Listing = Listing {
    type_name: "*formatter.diskUsageImagesContext",
    headers: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    quiet: "{{.Type}}",
};

fn df(cli: &Cli, flags: &Parsed) -> Outcome {
    let usage: DiskUsage = cli.block_on(async {
        cli.client()?
            .call(Request::get("/system/df"))
            .await
            .map_err(Failure::from)
    })?;
    if flags.on("verbose") {
        return verbose(&usage);
    }
    LISTING.print(flags.text("format"), false, summary(&usage))?;
    Ok(0)
}

fn summary(usage: &DiskUsage) -> Vec<Row> {
    let row = |kind: &str, total: usize, active: usize, size: i64, free: i64, percent: bool| {
        let mut reclaimable = four_digits(free);
        if percent && size > 0 {
            let _ = write!(reclaimable, " ({}%)", free.saturating_mul(100) / size);
        }
        Row::new()
            .text("Type", kind)
            .text("TotalCount", total.to_string())
            .text("Active", active.to_string())
            .text("Size", four_digits(size))
            .text("Reclaimable", reclaimable)
    };
    let images = usage.images.as_deref().unwrap_or_default();
    let in_use = images.iter().filter(|image| image.containers > 0);
    let used: i64 = in_use
        .clone()
        .filter(|image| image.size != -1)
        .map(|image| image.size - image.shared_size.max(0))
        .sum();
    let containers = usage.containers.as_deref().unwrap_or_default();
    let is_active = |container: &&container::Summary| {
        matches!(
            container.state.as_str(),
            "running" | "paused" | "restarting"
        )
    };
    let size = |container: &container::Summary| container.size_rw.unwrap_or(0);
    let all: i64 = containers.iter().map(size).sum();
    let idle: i64 = containers.iter().filter(|c| !is_active(c)).map(size).sum();
    let volumes = usage.volumes.as_deref().unwrap_or_default();
    let volume_size = |volume: &berth_docker::volume::Volume| {
        volume
            .usage_data
            .as_ref()
            .map_or(0, |usage| usage.size.max(0))
    };
    let is_used = |volume: &&berth_docker::volume::Volume| {
        volume
            .usage_data
            .as_ref()
            .is_some_and(|usage| usage.ref_count > 0)
    };
    let volumes_all: i64 = volumes.iter().map(volume_size).sum();
    let volumes_idle: i64 = volumes
        .iter()
        .filter(|v| !is_used(v))
        .map(volume_size)
        .sum();
    vec![
        row(
            "Images",
            images.len(),
            in_use.count(),
            usage.layers_size,
            (usage.layers_size - used).max(0),
            true,
        ),
        row(
            "Containers",
            containers.len(),
            containers.iter().filter(is_active).count(),
            all,
            idle,
            true,
        ),
        row(
            "Local Volumes",
            volumes.len(),
            volumes.iter().filter(is_used).count(),
            volumes_all,
            volumes_idle,
            true,
        ),
        row(
            "Build Cache",
            usage.build_cache.as_ref().map_or(0, Vec::len),
            0,
            0,
            0,
            false,
        ),
    ]
}

fn verbose(usage: &DiskUsage) -> Outcome {
    const CONTAINERS: Listing = Listing {
        type_name: "*formatter.ContainerContext",
        headers: &[
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Command", "COMMAND"),
            ("LocalVolumes", "LOCAL VOLUMES"),
            ("Size", "SIZE"),
            ("RunningFor", "CREATED"),
            ("Status", "STATUS"),
            ("Names", "NAMES"),
        ],
        table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
        quiet: "",
    };
    let now = Timestamp::now();
    print("Images space usage:\n\n")?;
    let images = usage.images.iter().flatten();
    images::USAGE.print(
        "",
        false,
        images
            .flat_map(|image| images::rows(image, false, false, now))
            .collect(),
    )?;
    print("\nContainers space usage:\n\n")?;
    let containers = usage.containers.iter().flatten();
    let sized = containers.map(|container| {
        let mut container = container.clone();
        container.size_root_fs = None;
        ps::row(&container, false, now)
    });
    CONTAINERS.print("", false, sized.collect())?;
    print("\nLocal Volumes space usage:\n\n")?;
    volume::USAGE.print(
        "",
        false,
        usage.volumes.iter().flatten().map(volume::row).collect(),
    )?;
    print(
        "\nBuild cache usage: 0B\n\nCACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n",
    )?;
    Ok(0)
}

fn prune(cli: &Cli, flags: &Parsed) -> Outcome {
    let mut what = vec![
        "  - all stopped containers",
        "  - all networks not used by at least one container",
    ];
    if flags.on("volumes") {
        what.push("  - all anonymous volumes not used by at least one container");
    }
    what.push(match flags.on("all") {
        true => "  - all images without at least one container associated to them",
        false => "  - all dangling images",
    });
    let warning = format!("WARNING! This will remove:\n{}\n", what.join("\n"));
    if !flags.on("force") && !confirm(&warning)? {
        return Err(Failure::silent(1));
    }
    cli.block_on(async {
        let client = cli.client()?;
        let mut space = 0u64;
        let containers: container::PruneResponse = ask(client, flags, "containers", None).await?;
        space += containers.space_reclaimed;
        section("Deleted Containers", containers.containers_deleted)?;
        let networks: network::PruneResponse = ask(client, flags, "networks", None).await?;
        section("Deleted Networks", networks.networks_deleted)?;
        if flags.on("volumes") {
            let volumes: berth_docker::volume::PruneResponse =
                ask(client, flags, "volumes", None).await?;
            space += volumes.space_reclaimed;
            section("Deleted Volumes", volumes.volumes_deleted)?;
        }
        let dangling = if flags.on("all") { "false" } else { "true" };
        let images: image::PruneResponse = ask(client, flags, "images", Some(dangling)).await?;
        space += images.space_reclaimed;
        let lines = images.images_deleted.map(|items| {
            let line = |item: image::DeleteItem| match item.untagged.as_str() {
                "" => format!("deleted: {}", item.deleted),
                name => format!("untagged: {name}"),
            };
            items.into_iter().map(line).collect()
        });
        section("Deleted Images", lines)?;
        let space = format::decimal_size(i64::try_from(space).unwrap_or(i64::MAX));
        print(format!("Total reclaimed space: {space}\n"))?;
        Ok(0)
    })
}

async fn ask<T: DeserializeOwned>(
    client: &Client,
    flags: &Parsed,
    what: &str,
    dangling: Option<&str>,
) -> Result<T, Failure> {
    let mut filters = filters(flags.list("filter"));
    if let Some(dangling) = dangling {
        filters.add("dangling", dangling);
    }
    let query = Query::new().with_some("filters", filters_query(&filters));
    Ok(client
        .call(Request::post(format!("/{what}/prune")).query(query))
        .await?)
}

fn section(title: &str, lines: Option<Vec<String>>) -> Result<(), Failure> {
    match lines.filter(|lines| !lines.is_empty()) {
        Some(lines) => print(format!("{title}:\n{}\n\n", lines.join("\n"))),
        None => Ok(()),
    }
}
