//! `start`: containers that exist begin to run, one of them perhaps attached.

use berth_docker::container::Inspect;
use berth_docker_client::{Client, Request};

use crate::cli::{Cli, print, stdin_is_terminal, stdout_is_terminal, warn};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};
use crate::streams::{self, Streams};

use super::run::{self, Wanted, container_path};
use super::waiting;

pub const START: Command = Command::leaf(
    "start",
    "CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    run,
)
.flags(&[
    Flag::switch("attach", "Attach the output and pass signals on").short('a'),
    Flag::text("detach-keys", "The keys that detach from the container"),
    Flag::switch("interactive", "Attach the container's STDIN").short('i'),
])
.arity(Arity::AtLeast(1))
.also(&["container start", "start"]);

fn run(cli: &Cli, flags: &Parsed) -> Outcome {
    cli.block_on(async {
        let client = cli.client()?;
        if flags.on("attach") || flags.on("interactive") {
            if flags.args.len() > 1 {
                return Err(Failure::new(
                    "you cannot start and attach multiple containers at once",
                ));
            }
            return Box::pin(attached(cli, client, flags)).await;
        }
        let mut failed = Vec::new();
        for name in &flags.args {
            match run::start(client, name, None).await {
                Ok(()) => print(format!("{name}\n"))?,
                Err(failure) if failure.unreachable => return Err(failure),
                Err(failure) => {
                    warn(failure.message);
                    failed.push(name.as_str());
                }
            }
        }
        if failed.is_empty() {
            return Ok(0);
        }
        Err(Failure::new(format!(
            "Error: failed to start containers: {}",
            failed.join(", ")
        )))
    })
}

async fn attached(cli: &Cli, client: &Client, flags: &Parsed) -> Outcome {
    let container: Inspect = client
        .call(Request::get(format!(
            "{}/json",
            container_path(flags.arg(0))
        )))
        .await?;
    let config = container.config;
    let id = container.id;
    let tty = config.tty;
    let wanted = Wanted {
        stdin: flags.on("interactive") && config.open_stdin,
        stdout: true,
        stderr: true,
    };
    if tty && wanted.stdin && !stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let keys = run::detach_keys(cli, flags)?;
    let remove = container.host_config.auto_remove;
    let insistence = streams::insistence()?;
    let signals = match tty {
        false => Some(streams::forward(client, &id)?),
        true => None,
    };
    let hijacked = run::attach(client, &id, wanted, flags.given("detach-keys")).await?;
    let wait = waiting::begin(client, &id, remove).await?;
    if let Err(failure) = run::start(client, &id, None).await {
        drop(hijacked);
        if remove {
            waiting::end(wait).await;
        }
        return Err(failure);
    }
    let streams = Streams {
        stdin: wanted.stdin,
        tty,
        stdout: true,
        stderr: true,
        keys,
    };
    let resize = match tty && stdout_is_terminal() {
        true => Some(streams::watch_size(client, container_path(&id))?),
        false => None,
    };
    tokio::select! {
        code = run::follow(streams, hijacked, wait) => code,
        () = run::forever(signals) => Ok(0),
        code = insistence => Ok(code),
        () = run::forever(resize) => Ok(0),
    }
}
