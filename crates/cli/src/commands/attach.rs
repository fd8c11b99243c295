//! `attach`: our standard streams on a container that runs.

use berth_docker::container::Inspect;
use berth_docker_client::{Query, Request};

use crate::cli::{Cli, stdin_is_terminal, stdout_is_terminal};
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};
use crate::streams::{self, DETACHED, End, Streams};

use super::run::{self, Wanted, container_path};
use super::waiting;

pub const ATTACH: Command = Command::leaf(
    "attach",
    "CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    run,
)
.flags(&[
    Flag::text("detach-keys", "The keys that detach from the container"),
    Flag::switch("no-stdin", "Leave STDIN alone"),
    Flag::switch(
        "sig-proxy",
        "Pass the signals that arrive on to the process",
    )
    .default("true"),
])
.arity(Arity::Exactly(1))
.also(&["container attach", "attach"]);

fn run(cli: &Cli, flags: &Parsed) -> Outcome {
    cli.block_on(async {
        let client = cli.client()?;
        let container: Inspect = client
            .call(Request::get(format!(
                "{}/json",
                container_path(flags.arg(0))
            )))
            .await?;
        let state = container.state;
        if !state.running {
            return Err(Failure::new(
                "You cannot attach to a stopped container, start it first",
            ));
        }
        if state.paused {
            return Err(Failure::new(
                "You cannot attach to a paused container, unpause it first",
            ));
        }
        if state.restarting {
            return Err(Failure::new(
                "You cannot attach to a restarting container, wait until it is running",
            ));
        }
        let config = container.config;
        let id = container.id;
        let tty = config.tty;
        let wanted = Wanted {
            stdin: !flags.on("no-stdin") && config.open_stdin,
            stdout: true,
            stderr: true,
        };
        if tty && wanted.stdin && !stdin_is_terminal() {
            return Err(Failure::new("the input device is not a TTY"));
        }
        let keys = run::detach_keys(cli, flags)?;
        let insistence = streams::insistence()?;
        let signals = match flags.on("sig-proxy") && !tty {
            true => Some(streams::forward(client, &id)?),
            false => None,
        };
        let hijacked = run::attach(client, &id, wanted, flags.given("detach-keys")).await?;
        // Not `next-exit`: the container may have ended between the look and the attach.
        let path = format!("{}/wait", container_path(&id));
        let query = Query::new().with("condition", "not-running");
        let wait = client.send(Request::post(path).query(query)).await?;
        let streams = Streams {
            stdin: wanted.stdin,
            tty,
            stdout: true,
            stderr: true,
            keys,
        };
        let resize = match tty && stdout_is_terminal() {
            true => {
                streams::unsettle(client, &container_path(&id)).await;
                Some(streams::watch_size(client, container_path(&id))?)
            }
            false => None,
        };
        let copy = async {
            match streams.run(hijacked).await? {
                End::Detached => Err(Failure::new(DETACHED)),
                End::Output => Ok(waiting::end(wait).await),
            }
        };
        tokio::select! {
            code = copy => code,
            () = run::forever(signals) => Ok(0),
            code = insistence => Ok(code),
            () = run::forever(resize) => Ok(0),
        }
    })
}
