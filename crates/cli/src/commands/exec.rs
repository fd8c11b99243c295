//! `exec`: another command in a container that runs.

use berth_docker::exec::{CreateRequest, CreateResponse, Inspect, StartRequest};
use berth_docker::json::StrSlice;
use berth_docker_client::{Client, Request};

use crate::cli::{Cli, stdin_is_terminal, stdout_is_terminal};
use crate::command::{Arity, Command};
use crate::create::env;
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};
use crate::streams::{self, DETACHED, End, Streams};

use super::run::{self, container_path};
use super::waiting::exit_code;

pub const EXEC: Command = Command::leaf(
    "exec",
    "CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    run,
)
.flags(&[
    Flag::switch("detach", "Leave the command running in the background").short('d'),
    Flag::text("detach-keys", "The keys that detach from the container"),
    Flag::list("env", "Set an environment variable")
        .short('e')
        .check(env::check_variable),
    Flag::list("env-file", "Set the environment variables of a file"),
    Flag::switch(
        "interactive",
        "Keep STDIN open, also when it is not attached",
    )
    .short('i'),
    Flag::switch("privileged", "Give the command all that root has"),
    Flag::switch("tty", "Give the process a pseudo-TTY").short('t'),
    Flag::text("user", "User and group (<name|uid>[:<group|gid>])").short('u'),
    Flag::text("workdir", "The working directory").short('w'),
])
.arity(Arity::AtLeast(2))
.flags_first()
.also(&["container exec", "exec"]);

fn run(cli: &Cli, flags: &Parsed) -> Outcome {
    let detach = flags.on("detach");
    let tty = flags.on("tty");
    let stdin = flags.on("interactive") && !detach;
    let env = env::variables(flags.list("env-file"), flags.list("env"), &*cli.environment)
        .map_err(Failure::new)?;
    let console_size = run::console_size(tty).map(|(columns, rows)| [rows, columns]);
    let request = CreateRequest {
        user: flags.text("user").to_owned(),
        privileged: flags.on("privileged"),
        tty,
        console_size,
        attach_stdin: stdin,
        attach_stdout: !detach,
        attach_stderr: !detach,
        detach,
        detach_keys: flags.text("detach-keys").to_owned(),
        env: (!env.is_empty()).then_some(env),
        working_dir: flags.text("workdir").to_owned(),
        cmd: Some(StrSlice(flags.args[1..].to_vec())),
    };
    cli.block_on(async {
        let client = cli.client()?;
        if !detach && tty && stdin && !stdin_is_terminal() {
            // Docker looks for the container before each exec, and so tells of a missing one
            // first. Only here does that make a difference.
            let inspect = format!("{}/json", container_path(flags.arg(0)));
            client.tell(Request::get(inspect)).await?;
            return Err(Failure::new("the input device is not a TTY"));
        }
        let path = format!("{}/exec", container_path(flags.arg(0)));
        let created: CreateResponse = client.call(Request::post(path).json(&request)?).await?;
        if created.id.is_empty() {
            return Err(Failure::new("exec ID empty"));
        }
        let start = StartRequest {
            detach,
            tty,
            console_size,
        };
        let path = format!("/exec/{}", created.id);
        let begin = Request::post(format!("{path}/start")).json(&start)?;
        if detach {
            client.tell(begin).await?;
            return Ok(0);
        }
        let keys = run::detach_keys(cli, flags)?;
        let hijacked = client.hijack(begin).await?;
        let streams = Streams {
            stdin,
            tty,
            stdout: true,
            stderr: true,
            keys,
        };
        let resize = match tty && stdout_is_terminal() {
            true => Some(streams::watch_size(client, path.clone())?),
            false => None,
        };
        let end = tokio::select! {
            end = streams.run(hijacked) => end?,
            () = run::forever(resize) => End::Output,
        };
        match end {
            End::Detached => Err(Failure::new(DETACHED)),
            End::Output => exit_status(client, &path).await,
        }
    })
}

async fn exit_status(client: &Client, path: &str) -> Outcome {
    let exec: Inspect = client.call(Request::get(format!("{path}/json"))).await?;
    Ok(exit_code(exec.exit_code.unwrap_or(0)))
}
