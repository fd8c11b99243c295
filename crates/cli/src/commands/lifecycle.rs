//! What is said to one or more containers and answered by their names: `stop`, `kill`,
//! `restart`, `pause`, `unpause`, `rm`, `wait`, `rename`.

use berth_docker::container::{PruneResponse, WaitResponse};
use berth_docker_client::{Query, Request};

use crate::cli::{Cli, print};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Parsed};
use crate::format::decimal_size;

use super::run::container_path;
use super::{Failures, confirm, filters, filters_query};

const CONTAINERS: &str = "CONTAINER [CONTAINER...]";
const SIGNAL: Flag = Flag::text("signal", "The signal to send").short('s');
const TIMEOUT: Flag =
    Flag::int("timeout", "Seconds to wait before killing the container").short('t');

pub const STOP: Command = Command::leaf(
    "stop",
    CONTAINERS,
    "Stop one or more running containers",
    |cli, flags| timed(cli, flags, "stop"),
)
.flags(&[SIGNAL, TIMEOUT])
.arity(Arity::AtLeast(1))
.also(&["container stop", "stop"]);

pub const RESTART: Command = Command::leaf(
    "restart",
    CONTAINERS,
    "Restart one or more containers",
    |cli, flags| timed(cli, flags, "restart"),
)
.flags(&[SIGNAL, TIMEOUT])
.arity(Arity::AtLeast(1))
.also(&["container restart", "restart"]);

pub const KILL: Command = Command::leaf(
    "kill",
    CONTAINERS,
    "Kill one or more running containers",
    |cli, flags| {
        let query = Query::new().with_some("signal", flags.given("signal"));
        each(cli, &flags.args, |name| post(name, "kill", &query))
    },
)
.flags(&[SIGNAL])
.arity(Arity::AtLeast(1))
.also(&["container kill", "kill"]);

pub const PAUSE: Command = Command::leaf(
    "pause",
    CONTAINERS,
    "Pause all processes within one or more containers",
    |cli, flags| each(cli, &flags.args, |name| post(name, "pause", &Query::new())),
)
.arity(Arity::AtLeast(1))
.also(&["container pause", "pause"]);

pub const UNPAUSE: Command = Command::leaf(
    "unpause",
    CONTAINERS,
    "Unpause all processes within one or more containers",
    |cli, flags| {
        each(cli, &flags.args, |name| {
            post(name, "unpause", &Query::new())
        })
    },
)
.arity(Arity::AtLeast(1))
.also(&["container unpause", "unpause"]);

pub const RM: Command = Command::leaf(
    "rm",
    CONTAINERS,
    "Remove one or more containers",
    |cli, flags| {
        let query = Query::new()
            .with_if("v", flags.on("volumes"))
            .with_if("link", flags.on("link"))
            .with_if("force", flags.on("force"));
        let force = flags.on("force");
        remove(cli, &flags.args, &query, force)
    },
)
.flags(&[
    Flag::switch("force", "Kill a running container first (with SIGKILL)").short('f'),
    Flag::switch("link", "Remove the link of this name").short('l'),
    Flag::switch("volumes", "Remove the anonymous volumes of the container").short('v'),
])
.arity(Arity::AtLeast(1))
.also(&["container rm", "container remove", "rm"]);

pub const WAIT: Command = Command::leaf(
    "wait",
    CONTAINERS,
    "Block until one or more containers stop, then print their exit codes",
    wait,
)
.arity(Arity::AtLeast(1))
.also(&["container wait", "wait"]);

pub const RENAME: Command =
    Command::leaf("rename", "CONTAINER NEW_NAME", "Rename a container", rename)
        .arity(Arity::Exactly(2))
        .also(&["container rename", "rename"]);

pub const PRUNE: Command = Command::leaf("prune", "", "Remove all stopped containers", prune)
    .flags(&[
        Flag::of(
            "filter",
            Kind::Many("filter"),
            "Remove only what meets this (\"until=<timestamp>\")",
        ),
        Flag::switch("force", "Do not ask").short('f'),
    ]);

fn post(name: &str, action: &str, query: &Query) -> Request {
    Request::post(format!("{}/{action}", container_path(name))).query(query.clone())
}

fn timed(cli: &Cli, flags: &Parsed, action: &str) -> Outcome {
    let query = Query::new()
        .with_some("signal", flags.given("signal"))
        .with_some("t", flags.given("timeout"));
    each(cli, &flags.args, |name| post(name, action, &query))
}

/// Sends a request for each name at once and prints those names for which it was granted, in the
/// order in which they were given.
fn each(cli: &Cli, names: &[String], request: impl Fn(&str) -> Request) -> Outcome {
    cli.block_on(async {
        let client = cli.client()?;
        client.version().await?;
        let requests = names.iter().map(|name| client.tell(request(name)));
        let mut failures = Failures::default();
        for (name, result) in names
            .iter()
            .zip(futures_util::future::join_all(requests).await)
        {
            match result {
                Ok(()) => print(format!("{name}\n"))?,
                Err(error) => failures.push(error),
            }
        }
        failures.outcome()
    })
}

fn remove(cli: &Cli, names: &[String], query: &Query, force: bool) -> Outcome {
    cli.block_on(async {
        let client = cli.client()?;
        client.version().await?;
        let requests = names.iter().map(|name| {
            let path = container_path(name.trim_matches('/'));
            client.tell(Request::delete(path).query(query.clone()))
        });
        let mut failures = Failures::default();
        for (name, result) in names
            .iter()
            .zip(futures_util::future::join_all(requests).await)
        {
            match result {
                Ok(()) => print(format!("{name}\n"))?,
                // With force, what is not there is gone as it should be.
                Err(error) if force && error.is_not_found() => {
                    crate::cli::warn(error.to_string());
                }
                Err(error) => failures.push(error),
            }
        }
        failures.outcome()
    })
}

fn wait(cli: &Cli, flags: &Parsed) -> Outcome {
    cli.block_on_until_signal(async {
        let client = cli.client()?;
        let mut failures = Failures::default();
        for name in &flags.args {
            let path = format!("{}/wait", container_path(name));
            match client.call::<WaitResponse>(Request::post(path)).await {
                Ok(response) => match response.error {
                    Some(error) if !error.message.is_empty() => {
                        failures.push(Failure::new(error.message));
                    }
                    _ => print(format!("{}\n", response.status_code))?,
                },
                Err(error) => failures.push(error),
            }
        }
        failures.outcome()
    })
}

fn rename(cli: &Cli, flags: &Parsed) -> Outcome {
    let (old, new) = (flags.arg(0).trim(), flags.arg(1).trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::new(
            "Error: Neither old nor new names may be empty",
        ));
    }
    cli.block_on(async {
        let query = Query::new().with("name", new);
        let failure = match cli.client()?.tell(post(old, "rename", &query)).await {
            Ok(()) => return Ok(0),
            Err(error) => Failure::from(error),
        };
        if !failure.unreachable {
            crate::cli::warn(&failure.message);
            return Err(Failure::new(format!(
                "Error: failed to rename container named {old}"
            )));
        }
        Err(failure)
    })
}

fn prune(cli: &Cli, flags: &Parsed) -> Outcome {
    if !flags.on("force") && !confirm("WARNING! This will remove all stopped containers.")? {
        return Err(Failure::silent(1));
    }
    cli.block_on(async {
        let filters = filters(flags.list("filter"));
        let query = Query::new().with_some("filters", filters_query(&filters));
        let request = Request::post("/containers/prune").query(query);
        let report: PruneResponse = cli.client()?.call(request).await?;
        let mut out = String::new();
        if let Some(deleted) = report
            .containers_deleted
            .filter(|deleted| !deleted.is_empty())
        {
            out.push_str("Deleted Containers:\n");
            for id in deleted {
                out.push_str(&format!("{id}\n"));
            }
            out.push('\n');
        }
        let space = decimal_size(i64::try_from(report.space_reclaimed).unwrap_or(i64::MAX));
        out.push_str(&format!("Total reclaimed space: {space}\n"));
        print(out)?;
        Ok(0)
    })
}
