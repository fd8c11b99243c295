//! What a container has changed: `diff`, `commit`, `export`.

use std::io::IsTerminal;

use berth_docker::container::FilesystemChange;
use berth_docker::image::CommitResponse;
use berth_docker_client::{Query, Request, query};

use super::load::{check_target, write_out};
use super::pull;
use crate::cli::{Cli, print};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};

pub const DIFF: Command = Command::leaf(
    "diff",
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    diff,
)
.arity(Arity::Exactly(1))
.also(&["container diff", "diff"]);

pub const COMMIT: Command = Command::leaf(
    "commit",
    "CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    commit,
)
.flags(&[
    Flag::text("author", "Who made it (\"Jane Doe <jane@example.com>\")").short('a'),
    Flag::list("change", "Apply a Dockerfile instruction to the image").short('c'),
    Flag::text("message", "Set the message of the commit").short('m'),
    Flag::switch("pause", "Pause the container meanwhile")
        .short('p')
        .default("true"),
])
.arity(Arity::Between(1, 2))
.also(&["container commit", "commit"]);

pub const EXPORT: Command = Command::leaf(
    "export",
    "CONTAINER",
    "Export a container's filesystem as a tar archive",
    export,
)
.flags(&[Flag::text("output", "Write to this file in place of STDOUT").short('o')])
.arity(Arity::Exactly(1))
.also(&["container export", "export"]);

fn diff(cli: &Cli, flags: &Parsed) -> Outcome {
    let container = flags.arg(0);
    if container.is_empty() {
        return Err(Failure::new("Container name cannot be empty"));
    }
    cli.block_on(async {
        let path = format!("/containers/{}/changes", query::segment(container));
        let changes: Option<Vec<FilesystemChange>> = cli.client()?.call(Request::get(path)).await?;
        let mut text = String::new();
        for change in changes.unwrap_or_default() {
            let letter = match change.kind {
                0 => 'C',
                1 => 'A',
                2 => 'D',
                _ => '?',
            };
            text.push_str(&format!("{letter} {}\n", change.path));
        }
        print(text)?;
        Ok(0)
    })
}

fn commit(cli: &Cli, flags: &Parsed) -> Outcome {
    let mut query = Query::new().with("container", flags.arg(0));
    if let Some(name) = flags.args.get(1) {
        let name = pull::parse(name)?;
        if name.digest().is_some() {
            return Err(Failure::new(
                "refusing to create a tag with a digest reference",
            ));
        }
        query.push("repo", &name.repository().to_string());
        query.push("tag", name.tag().unwrap_or("latest"));
    }
    query = query
        .with_some("comment", flags.given("message"))
        .with_some("author", flags.given("author"));
    for change in flags.list("change") {
        query.push("changes", change);
    }
    if !flags.on("pause") {
        query.push("pause", "0");
    }
    cli.block_on(async {
        let request = Request::post("/commit").query(query);
        let made: CommitResponse = cli.client()?.call(request).await?;
        print(format!("{}\n", made.id))?;
        Ok(0)
    })
}

fn export(cli: &Cli, flags: &Parsed) -> Outcome {
    let output = flags.given("output");
    if output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::new(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    check_target(output, "export container")?;
    cli.block_on(async {
        let path = format!("/containers/{}/export", query::segment(flags.arg(0)));
        let response = cli.client()?.send(Request::get(path)).await?;
        write_out(response, output, "export container").await?;
        Ok(0)
    })
}
