//! `cp`: between a container and this machine's files.

mod local;
mod paths;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_base::size::human_decimal;
use berth_docker::container::PathStat;
use berth_docker_client::{Client, Query, Request, Response, query};

use super::load::TAR;
use crate::cli::{self, Cli, print, warn};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};
use paths::Info;

/// Bits of Go's `fs.FileMode`.
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const IRREGULAR: u32 = 1 << 19;

pub const CP: Command = Command::leaf(
    "cp",
    "CONTAINER:SRC_PATH DEST_PATH|-\nSRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    cp,
)
.flags(&[
    Flag::switch(
        "archive",
        "Give the copy to the user that the container runs as",
    )
    .short('a'),
    Flag::switch("follow-link", "Copy what a symbolic link leads to").short('L'),
    Flag::switch("quiet", "Do not tell what was copied").short('q'),
])
.arity(Arity::Exactly(2))
.also(&["container cp", "cp"]);

fn cp(cli: &Cli, flags: &Parsed) -> Outcome {
    let quiet = match flags.changed("quiet") {
        true => flags.on("quiet"),
        false => !cli::stdout_is_terminal(),
    };
    let (source, from) = paths::split_argument(flags.arg(0));
    let (target, to) = paths::split_argument(flags.arg(1));
    match (source, target) {
        (Some(_), Some(_)) => Err(Failure::new("copying between containers is not supported")),
        (None, None) => Err(Failure::new("must specify at least one container source")),
        (Some(container), None) => cli.block_on(async {
            let follow = flags.on("follow-link");
            copy_out(cli.client()?, container, from, to, follow, quiet).await
        }),
        (None, Some(container)) => cli.block_on(async {
            let (follow, archive) = (flags.on("follow-link"), flags.on("archive"));
            copy_in(cli.client()?, from, container, to, follow, archive, quiet).await
        }),
    }
}

fn route(container: &str) -> String {
    format!("/containers/{}/archive", query::segment(container))
}

fn described(response: &Response) -> Result<PathStat, Failure> {
    let header = response.headers.get("x-docker-container-path-stat");
    let text = header.ok_or_else(|| Failure::new("the daemon does not say what it copies"))?;
    let unreadable = |error: &dyn Display| {
        Failure::new(format!(
            "unable to decode container path stat header: {error}"
        ))
    };
    let json = STANDARD
        .decode(text.as_bytes())
        .map_err(|error| unreadable(&error))?;
    serde_json::from_slice(&json).map_err(|error| unreadable(&error))
}

async fn stat(client: &Client, container: &str, path: &str) -> Result<PathStat, Failure> {
    let request = Request::head(route(container)).query(Query::new().with("path", path));
    described(&client.send(request).await?)
}

/// Where a link in the container leads.
fn link_target(path: &str, stat: &PathStat) -> Option<String> {
    (stat.mode & SYMLINK != 0).then(|| match stat.link_target.starts_with('/') {
        true => stat.link_target.clone(),
        false => paths::join(&paths::split_entry(path).0, &stat.link_target),
    })
}

async fn copy_out(
    client: &Client,
    container: &str,
    from: &str,
    to: &str,
    follow: bool,
    quiet: bool,
) -> Outcome {
    let local = match to {
        "-" => None,
        to => Some(local::absolute(to)?),
    };
    if let Some(to) = &local {
        local::check_output(to)?;
    }
    let (mut path, mut rename) = (from.to_owned(), None);
    if follow
        && let Ok(stat) = stat(client, container, from).await
        && let Some(target) = link_target(from, &stat)
    {
        (path, rename) = paths::followed(from, &target);
    }
    let request = Request::get(route(container)).query(Query::new().with("path", &path));
    let mut response = client.send(request).await?;
    let Some(to) = local else {
        while let Some(chunk) = response.chunk().await? {
            print(&chunk)?;
        }
        return Ok(0);
    };
    let stat = described(&response)?;
    let source = Info {
        path,
        exists: true,
        is_directory: stat.mode & DIRECTORY != 0,
        rename,
    };
    let size = local::extract(response, &source, &to).await?;
    tell(quiet, size, &to);
    Ok(0)
}

async fn copy_in(
    client: &Client,
    from: &str,
    container: &str,
    to: &str,
    follow: bool,
    archive: bool,
    quiet: bool,
) -> Outcome {
    let mut target = Info {
        path: to.to_owned(),
        ..Info::default()
    };
    let mut found = stat(client, container, to).await;
    if let Ok(stat) = &found
        && let Some(path) = link_target(to, stat)
    {
        found = self::stat(client, container, &path).await;
        target.path = path;
    }
    // Where there is nothing the directory may be there: the extraction tells.
    if let Ok(stat) = &found {
        let kind = match stat.mode {
            mode if mode & DEVICE != 0 => Some("got a device"),
            mode if mode & IRREGULAR != 0 => Some("got an irregular file"),
            _ => None,
        };
        if let Some(kind) = kind {
            return Err(Failure::new(format!(
                "destination \"{container}:{to}\" must be a directory or a regular file: {kind}"
            )));
        }
        target.exists = true;
        target.is_directory = stat.mode & DIRECTORY != 0;
    }
    let put = |directory: &str| {
        let query = Query::new()
            .with("path", directory)
            .with("noOverwriteDirNonDir", "true")
            .with_if("copyUIDGID", archive);
        Request::put(route(container)).query(query)
    };
    if from == "-" {
        if !target.is_directory {
            return Err(Failure::new(format!(
                "destination \"{container}:{to}\" must be a directory"
            )));
        }
        let request = put(&target.path).stream(TAR, tokio::io::stdin());
        client.tell(request).await?;
        return Ok(0);
    }
    let source = local::source(&local::absolute(from)?, follow)?;
    let (directory, name) = paths::plan(&source, &target).map_err(Failure::new)?;
    let size = Arc::new(AtomicU64::new(0));
    let reader = local::archive(&source, name.as_deref(), size.clone())?;
    client.tell(put(&directory).stream(TAR, reader)).await?;
    let size = size.load(Ordering::Relaxed);
    tell(quiet, size, &format!("{container}:{}", target.path));
    Ok(0)
}

fn tell(quiet: bool, size: u64, to: &str) {
    if !quiet {
        #[expect(clippy::cast_precision_loss, reason = "it is rounded anyway")]
        let size = human_decimal(size as f64, 3);
        warn(format!("Successfully copied {size} to {to}"));
    }
}
