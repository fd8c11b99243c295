//! `volume snapshot`, `clone`, `rename`, `backup` and `restore`: of Berth's daemon only.

use berth_docker::volume::{Copied, Volume};
use berth_docker_client::{Query, Request, query};

use crate::cli::{self, Cli, print, warn};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};

use super::load::{TAR, open, write_out};

const PAUSE: Flag =
    Flag::switch("pause", "Pause the containers that write to it meanwhile").default("true");

pub const SNAPSHOT: Command = Command::leaf(
    "snapshot",
    "VOLUME [NAME]",
    "Copy a volume as it is at this moment",
    |cli, flags| copy(cli, flags, "snapshot"),
)
.flags(&[PAUSE])
.arity(Arity::Between(1, 2));

pub const CLONE: Command = Command::leaf(
    "clone",
    "VOLUME NAME",
    "Make a new volume with the files of another",
    |cli, flags| copy(cli, flags, "clone"),
)
.flags(&[PAUSE])
.arity(Arity::Exactly(2));

pub const RENAME: Command = Command::leaf(
    "rename",
    "VOLUME NAME",
    "Give a volume that no container uses another name",
    rename,
)
.arity(Arity::Exactly(2));

pub const BACKUP: Command = Command::leaf(
    "backup",
    "VOLUME",
    "Write a volume as a tar archive (streamed to STDOUT by default)",
    backup,
)
.flags(&[
    Flag::text("output", "Write to this file in place of STDOUT").short('o'),
    PAUSE,
])
.arity(Arity::Exactly(1));

pub const RESTORE: Command = Command::leaf(
    "restore",
    "VOLUME",
    "Fill a volume from a tar archive or STDIN",
    restore,
)
.flags(&[
    Flag::text("input", "Read this file in place of STDIN").short('i'),
    Flag::switch("force", "Replace the files that are in the volume").short('f'),
])
.arity(Arity::Exactly(1));

/// An operation on a volume that Docker's API does not have.
fn path(volume: &str, operation: &str) -> String {
    format!("/berth/volumes/{}/{operation}", query::segment(volume))
}

fn pause(flags: &Parsed) -> &'static str {
    if flags.on("pause") { "1" } else { "0" }
}

fn copy(cli: &Cli, flags: &Parsed, operation: &str) -> Outcome {
    let query = Query::new()
        .with("pause", pause(flags))
        .with_some("name", flags.args.get(1));
    cli.block_on(async {
        let request = Request::post(path(flags.arg(0), operation)).query(query);
        let copied: Copied = cli.client()?.call(request).await?;
        for warning in &copied.warnings {
            warn(warning);
        }
        print(format!("{}\n", copied.volume.name))?;
        Ok(0)
    })
}

fn rename(cli: &Cli, flags: &Parsed) -> Outcome {
    let query = Query::new().with("name", flags.arg(1));
    cli.block_on(async {
        let request = Request::post(path(flags.arg(0), "rename")).query(query);
        let renamed: Volume = cli.client()?.call(request).await?;
        print(format!("{}\n", renamed.name))?;
        Ok(0)
    })
}

fn backup(cli: &Cli, flags: &Parsed) -> Outcome {
    let output = flags.given("output");
    if output.is_none() && cli::stdout_is_terminal() {
        return Err(Failure::new(
            "refusing to write an archive to a terminal: use the -o flag or redirect",
        ));
    }
    let query = Query::new().with("pause", pause(flags));
    cli.block_on(async {
        let request = Request::get(path(flags.arg(0), "archive")).query(query);
        let response = cli.client()?.send(request).await?;
        write_out(response, output, "back up volume").await?;
        Ok(0)
    })
}

fn restore(cli: &Cli, flags: &Parsed) -> Outcome {
    let input = flags.given("input");
    if input.is_none() && cli::stdin_is_terminal() {
        return Err(Failure::new(
            "there is no archive on STDIN: use the -i flag or redirect",
        ));
    }
    let query = Query::new().with_if("force", flags.on("force"));
    cli.block_on(async {
        let request = Request::put(path(flags.arg(0), "archive")).query(query);
        let request = match input {
            Some(path) => request.stream(TAR, open(path)?),
            None => request.stream(TAR, tokio::io::stdin()),
        };
        let restored: Volume = cli.client()?.call(request).await?;
        print(format!("{}\n", restored.name))?;
        Ok(0)
    })
}
