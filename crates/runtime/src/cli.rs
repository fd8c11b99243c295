//! `berth runtime`: the runtime as a command line, with runc's commands, options and sentences:
//! one container for each call, whose state is a file below `--root`.
//!
//! ```text
//!  create ──► created ──start──► running ──(its process ends)──► stopped ──delete──► gone
//!                                 │   ▲
//!                             pause   resume
//!                                 ▼   │
//!                                paused
//! ```

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, io_words};

mod args;
mod console;
mod control;
mod document;
mod events;
mod exec;
mod features;
mod life;
mod listing;
mod log;
mod notify;
mod spec;
mod state;
mod update;
mod verbs;

use args::{Args, Asked};
use log::Log;

/// The exit code of a failed command, as runc's.
const FAILED: i32 = 1;
/// As runc's when an exec could not be started.
const EXEC_FAILED: i32 = 255;

/// What the binary passes on: it alone reads the environment.
pub struct Invocation<'a> {
    /// How the runtime was called, for messages.
    pub program: &'a str,
    /// Without the program's name and without `runtime`.
    pub args: &'a [OsString],
    /// Where states are kept when `--root` is not given.
    pub default_root: &'a Path,
    /// How many descriptors from 3 on a service manager handed over (sd_listen_fds(3)).
    pub listen_fds: u32,
    /// Where a service manager listens for its service's readiness (sd_notify(3)).
    pub notify_socket: Option<&'a str>,
}

/// One command being performed.
struct Call<'a> {
    args: &'a Args,
    root: PathBuf,
    has_default_root: bool,
    log: &'a Log,
    listen_fds: u32,
    notify_socket: Option<&'a str>,
}

/// Performs one command; returns the exit code. The process must be single-threaded.
pub fn main(invocation: &Invocation<'_>) -> i32 {
    let program = invocation.program;
    // What the caller left open is for nobody but a process that is to have it.
    if let Err(error) = berth_sys::exec::hide_from(3) {
        Log::stderr().error(&format!("mark descriptors: {}", io_words(&error)));
        return FAILED;
    }
    let args = match args::parse(program, invocation.args) {
        Ok(Asked::Command(args)) => args,
        Ok(Asked::Help(verb)) => {
            print!("{}", args::help(program, verb));
            return 0;
        }
        Ok(Asked::Version) => {
            print!("{}", version(program));
            return 0;
        }
        Err(mistake) => {
            println!("Incorrect Usage.\n\n{}", args::help(program, mistake.verb));
            let log = Log::open(&mistake.options).unwrap_or_else(|_| Log::stderr());
            log.error(&mistake.message);
            return FAILED;
        }
    };
    let log = match Log::open(args.options()) {
        Ok(log) => log,
        Err(error) => {
            Log::stderr().error(&error.message);
            return FAILED;
        }
    };
    let result = root(&args, invocation.default_root).and_then(|(root, has_default_root)| {
        perform(&Call {
            args: &args,
            root,
            has_default_root,
            log: &log,
            listen_fds: invocation.listen_fds,
            notify_socket: invocation.notify_socket,
        })
    });
    match result {
        Ok(code) => code,
        Err(error) => {
            log.error(&error.message);
            if args.command() == "exec" {
                EXEC_FAILED
            } else {
                FAILED
            }
        }
    }
}

fn version(program: &str) -> String {
    format!(
        "{program} version {}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        features::SPEC_VERSION
    )
}

/// Where the states are, as an absolute path, and whether that is the default.
fn root(args: &Args, default: &Path) -> Result<(PathBuf, bool), Error> {
    if !args.is_given("root") {
        return Ok((default.to_owned(), true));
    }
    let root = Path::new(args.value("root").unwrap_or("."));
    let root = std::path::absolute(root).map_err(io("root"))?;
    let mut clean = PathBuf::new();
    for part in root.components() {
        match part {
            std::path::Component::ParentDir => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    if clean == Path::new("/") {
        let message = "Option --root argument should not be set to /";
        return Err(Error::invalid(message));
    }
    Ok((clean, false))
}

fn perform(call: &Call<'_>) -> Result<i32, Error> {
    let done = |()| 0;
    match call.args.command() {
        "create" => life::create(call).map(done).map_err(failed("create")),
        "run" => life::run(call).map_err(failed("run")),
        "start" => life::start(call).map(done),
        "delete" => life::delete(call).map(done),
        "exec" => exec::exec(call).map_err(|error| wrapped(error, "exec failed: ")),
        "state" => listing::state(call).map(done),
        "list" => listing::list(call).map(done),
        "ps" => listing::ps(call).map(done),
        "kill" => control::kill(call).map(done),
        "pause" => control::pause(call).map(done),
        "resume" => control::resume(call).map(done),
        "update" => update::update(call).map(done),
        "events" => events::events(call).map(done),
        "features" => features::features().map(done),
        "spec" => spec::spec(call).map(done),
        other => Err(Error::internal(format!("{other} is not performed"))),
    }
}

/// `runc create failed: `, which the container's own errors have already.
fn failed(command: &'static str) -> impl Fn(Error) -> Error {
    move |error| {
        let bare = error.message.strip_prefix("runc create failed: ");
        let message = bare.unwrap_or(&error.message).to_owned();
        wrapped(
            Error { message, ..error },
            &format!("runc {command} failed: "),
        )
    }
}

fn wrapped(error: Error, prefix: &str) -> Error {
    if error.message.starts_with(prefix) {
        error
    } else {
        error.prefixed(prefix)
    }
}

fn io(what: &str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::internal(format!("{what}: {}", io_words(&error)))
}

/// Prints to standard output; whoever closed it does not want to know.
fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
