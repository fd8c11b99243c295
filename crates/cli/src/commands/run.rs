//! `run`: create, attach, start, and wait for the end.
//!
//! The order matters: attached and waiting before the start, so that neither the first byte nor
//! the exit of a short command is missed.

use berth_docker_client::{Client, Hijacked, Query, Request, query};

use crate::cli::{Cli, print, stdin_is_terminal, stdout_is_terminal, warn};
use crate::command::{Arity, Command};
use crate::create as request;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::streams::{self, End, Keys, Streams};

use super::{create, waiting};

pub const RUN: Command = Command::leaf(
    "run",
    "IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    run,
)
.flags(request::flags::RUN)
.arity(Arity::AtLeast(1))
.flags_first()
.also(&["container run", "run"]);

fn run(cli: &Cli, flags: &Parsed) -> Outcome {
    let detached = flags.on("detach");
    if detached && !flags.list("attach").is_empty() {
        return Err(Failure::new(
            "conflicting options: cannot specify both --attach and --detach",
        ));
    }
    cli.block_on(async {
        if detached {
            start_in_background(cli, flags).await
        } else {
            Box::pin(foreground(cli, flags)).await
        }
    })
}

async fn start_in_background(cli: &Cli, flags: &Parsed) -> Outcome {
    let explain = |failure| create::explain(cli, "run", failure);
    let client = cli.client().map_err(explain)?;
    let mut request = create::request(cli, client, flags).map_err(explain)?;
    request.config.attach_stdin = false;
    request.config.attach_stdout = false;
    request.config.attach_stderr = false;
    request.config.stdin_once = false;
    let id = create::submit(cli, client, flags, request)
        .await
        .map_err(explain)?;
    let started = start(client, &id, None).await;
    // The id goes out in any case: the container is there, even when it does not run.
    if started.is_ok() || !flags.on("rm") {
        print(format!("{id}\n"))?;
    }
    started
        .map(|()| 0)
        .map_err(|failure| explain(not_started(failure)))
}

async fn foreground(cli: &Cli, flags: &Parsed) -> Outcome {
    let explain = |failure| create::explain(cli, "run", failure);
    let client = cli.client().map_err(explain)?;
    let mut request = create::request(cli, client, flags).map_err(explain)?;
    let tty = request.config.tty;
    if tty && request.config.attach_stdin && !stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let keys = detach_keys(cli, flags)?;
    if let Some(host) = &mut request.host_config
        && let Some((columns, rows)) = console_size(tty)
    {
        host.console_size = [rows, columns];
    }
    let wanted = Wanted {
        stdin: request.config.attach_stdin,
        stdout: request.config.attach_stdout,
        stderr: request.config.attach_stderr,
    };
    let remove = flags.on("rm");
    let id = create::submit(cli, client, flags, request)
        .await
        .map_err(explain)?;
    // From here on a signal is the container's, if it is to have them.
    let insistence = streams::insistence()?;
    let signals = match flags.on("sig-proxy") {
        true => Some(streams::forward(client, &id)?),
        false => None,
    };
    let hijacked = attach(client, &id, wanted, flags.given("detach-keys"))
        .await
        .map_err(explain)?;
    let wait = waiting::begin(client, &id, remove).await.map_err(explain)?;
    if let Err(failure) = start(client, &id, None).await {
        drop(hijacked);
        if remove {
            // Its removal is what the wait is for.
            waiting::end(wait).await;
        }
        return Err(explain(not_started(failure)));
    }
    let streams = Streams {
        stdin: wanted.stdin,
        tty,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        keys,
    };
    let resize = match tty && stdout_is_terminal() {
        true => Some(streams::watch_size(client, container_path(&id))?),
        false => None,
    };
    tokio::select! {
        code = follow(streams, hijacked, wait) => code,
        () = forever(signals) => Ok(0),
        code = insistence => Ok(code),
        () = forever(resize) => Ok(0),
    }
}

/// Copies the streams to their end, then waits for the exit code.
pub async fn follow(
    streams: Streams,
    hijacked: Hijacked,
    wait: berth_docker_client::Response,
) -> Outcome {
    let copy = streams.run(hijacked);
    let end = waiting::end(wait);
    tokio::pin!(copy, end);
    match copy.await {
        Ok(End::Detached) => return Ok(0),
        Ok(End::Output) => {}
        Err(failure) if failure.message.is_empty() => return Err(failure),
        Err(failure) => warn(format!("Error hijack: {}", failure.message)),
    }
    Ok(end.await)
}

/// Waits for a future that never ends, or for ever.
pub async fn forever(future: Option<impl Future<Output = ()>>) {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Which streams are attached.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

pub async fn attach(
    client: &Client,
    id: &str,
    wanted: Wanted,
    detach_keys: Option<&str>,
) -> Result<Hijacked, Failure> {
    let query = Query::new()
        .with("stream", "1")
        .with_if("stdin", wanted.stdin)
        .with_if("stdout", wanted.stdout)
        .with_if("stderr", wanted.stderr)
        .with_some("detachKeys", detach_keys);
    let path = format!("{}/attach", container_path(id));
    Ok(client.hijack(Request::post(path).query(query)).await?)
}

pub async fn start(client: &Client, id: &str, detach_keys: Option<&str>) -> Result<(), Failure> {
    let query = Query::new().with_some("detachKeys", detach_keys);
    let path = format!("{}/start", container_path(id));
    Ok(client.tell(Request::post(path).query(query)).await?)
}

pub fn container_path(id: &str) -> String {
    format!("/containers/{}", query::segment(id))
}

/// The keys of the flag, else of the configuration, else docker's own.
pub fn detach_keys(cli: &Cli, flags: &Parsed) -> Result<Keys, Failure> {
    match flags.given("detach-keys") {
        Some(keys) => Keys::parse(keys),
        None => Keys::parse(cli.config().text("detachKeys").unwrap_or_default()),
    }
}

/// Columns and rows of our terminal, for a container that gets one.
pub fn console_size(tty: bool) -> Option<(u32, u32)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (tty && size.ws_row > 0).then(|| (u32::from(size.ws_col), u32::from(size.ws_row)))
}

/// The exit codes that shells know: 127 for a command that is not there, 126 for one that
/// cannot be run.
fn not_started(failure: Failure) -> Failure {
    let has = |words: &[&str]| words.iter().any(|words| failure.message.contains(words));
    let code = if has(&[
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ]) {
        127
    } else if has(&["permission denied", "is a directory"]) {
        126
    } else {
        create::DAEMON_FAILED
    };
    failure.code(code)
}
