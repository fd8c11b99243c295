//! `berth runtime`: the runtime as a command line, in runc's words: one container for each call,
//! whose state is a file below `--root`.
//!
//! ```text
//!  create ──► created ──start──► running ──(its process ends)──► stopped ──delete──► gone
//! ```

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process as ProcessSpec, Spec};

use crate::container::{
    self, Container, CreateRequest, ExecRequest, Lifetime, Rootfs, Stdio, TerminalSize,
};
use crate::error::{Error, ErrorKind, io_words};

mod args;
mod state;

use args::Args;
use state::{State, Status};

/// The exit code of a failed command, as runc's.
const FAILED: i32 = 1;
/// As runc's when an exec could not be started.
const EXEC_FAILED: i32 = 255;

/// What the binary passes on: it alone reads the environment.
pub struct Invocation<'a> {
    /// Without the program's name and without `runtime`.
    pub args: &'a [OsString],
    /// Where states are kept when `--root` is not given.
    pub default_root: &'a Path,
}

/// Performs one command; returns the exit code. The process must be single-threaded.
pub fn main(invocation: &Invocation<'_>) -> i32 {
    let outcome = Args::parse(invocation.args).and_then(|args| {
        let root = args
            .value("root")
            .map_or(invocation.default_root.to_owned(), PathBuf::from);
        let result = perform(&args, &root);
        if let (Err(error), Some(log)) = (&result, args.value("log")) {
            log_error(
                Path::new(log),
                args.value("log-format") == Some("json"),
                &error.message,
            );
        }
        result
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            FAILED
        }
    }
}

fn perform(args: &Args, root: &Path) -> Result<i32, Error> {
    match args.command() {
        "create" => create(args, root).map(|()| 0),
        "start" => start(root, args.id()?).map(|()| 0),
        "run" => run(args, root),
        "state" => print_state(root, args.id()?).map(|()| 0),
        "kill" => kill(args, root).map(|()| 0),
        "delete" => delete(args, root).map(|()| 0),
        "exec" => exec(args, root),
        "pause" => frozen(root, args.id()?, true).map(|()| 0),
        "resume" => frozen(root, args.id()?, false).map(|()| 0),
        "list" => list(root).map(|()| 0),
        "spec" => spec(args).map(|()| 0),
        "version" => {
            println!(
                "berth runtime version {}\nspec: 1.2.0",
                env!("CARGO_PKG_VERSION")
            );
            Ok(0)
        }
        other => Err(Error::invalid(format!("unknown command {other:?}"))),
    }
}

/// A line as containerd reads it from `--log`.
fn log_error(path: &Path, json: bool, message: &str) {
    let line = if json {
        serde_json::json!({"level": "error", "msg": message}).to_string()
    } else {
        format!("level=error msg={message:?}")
    };
    // A log that cannot be written must not hide the error itself.
    if let Ok(mut file) = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
    {
        let _ = writeln!(file, "{line}");
    }
}

fn io(what: &str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::internal(format!("{what}: {}", io_words(&error)))
}

fn load_spec(bundle: &Path) -> Result<Spec, Error> {
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).map_err(|_| {
        Error::invalid(format!(
            "JSON specification file {} not found",
            path.display()
        ))
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::invalid(format!("{}: {error}", path.display())))
}

/// Makes a container that waits for its start, and writes its state down.
fn make(
    args: &Args,
    root: &Path,
    lifetime: Lifetime,
) -> Result<(container::Created, State), Error> {
    let id = args.id()?;
    let bundle =
        std::fs::canonicalize(args.value("bundle").unwrap_or(".")).map_err(io("bundle"))?;
    let spec = load_spec(&bundle)?;
    let cgroup = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().clone())
        .map_or_else(
            || format!("/berth/{id}"),
            |path| path.to_string_lossy().into_owned(),
        );
    let rootfs = spec
        .root()
        .as_ref()
        .map(|root| bundle.join(root.path()))
        .ok_or_else(|| Error::invalid("the specification has no root"))?;
    let mut state = State::reserve(root, id, &bundle, &cgroup)?;
    let terminal = spec
        .process()
        .as_ref()
        .and_then(|p| p.terminal())
        .unwrap_or(false);
    let created = container::create(CreateRequest {
        id,
        spec: &spec,
        rootfs: Rootfs::Directory(&rootfs),
        stdio: stdio(terminal, spec.process().as_ref()),
        netns: None,
        cgroup: &cgroup,
        init: false,
        lifetime,
    })
    .inspect_err(|_| state.release())?;
    for warning in &created.warnings {
        eprintln!("warning: {warning}");
    }
    state.seccomp = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().clone());
    state.process = spec.process().clone();
    state.annotations = spec.annotations().clone().unwrap_or_default();
    Ok((created, state))
}

fn stdio(terminal: bool, process: Option<&ProcessSpec>) -> Stdio {
    if !terminal {
        return Stdio::Inherit;
    }
    let size = process
        .and_then(|process| process.console_size())
        .and_then(|size| {
            let rows = u16::try_from(size.height()).ok()?;
            let columns = u16::try_from(size.width()).ok()?;
            Some(TerminalSize { rows, columns })
        });
    Stdio::Terminal { size }
}

/// Sends the terminal's master to the socket that the caller listens on.
fn hand_over_console(args: &Args, console: Option<OwnedFd>) -> Result<(), Error> {
    let Some(console) = console else {
        return Ok(());
    };
    let path = args.value("console-socket").ok_or_else(|| {
        Error::invalid("cannot allocate tty if runc will detach without setting console socket")
    })?;
    let socket = std::os::unix::net::UnixStream::connect(path).map_err(io("console socket"))?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let descriptors = [console.as_fd()];
    control.push(rustix::net::SendAncillaryMessage::ScmRights(&descriptors));
    let name = std::io::IoSlice::new(b"/dev/ptmx");
    rustix::net::sendmsg(
        &socket,
        &[name],
        &mut control,
        rustix::net::SendFlags::NOSIGNAL,
    )
    .map_err(|e| io("console socket")(e.into()))?;
    Ok(())
}

fn write_pid(args: &Args, pid: i32) -> Result<(), Error> {
    match args.value("pid-file") {
        Some(path) => std::fs::write(path, pid.to_string()).map_err(io("pid file")),
        None => Ok(()),
    }
}

fn create(args: &Args, root: &Path) -> Result<(), Error> {
    let (mut created, mut state) = make(args, root, Lifetime::Own)?;
    hand_over_console(args, created.console.take()).inspect_err(|_| state.release())?;
    let (container, handle) = created.leave()?;
    state.created(&container, handle)?;
    write_pid(args, handle.pid)
}

fn start(root: &Path, id: &str) -> Result<(), Error> {
    let mut state = State::load(root, id)?;
    let (Status::Created, Some(handle)) = (state.status(), state.waiting) else {
        let status = state.status();
        return Err(Error::invalid(format!(
            "cannot start a container in the {status} state"
        )));
    };
    state.container()?.start_left(handle)?;
    state.waiting = None;
    state.save()
}

/// Create, start, and (without `--detach`) wait and delete.
fn run(args: &Args, root: &Path) -> Result<i32, Error> {
    let detach = args.is_set("detach");
    let lifetime = if detach {
        Lifetime::Own
    } else {
        Lifetime::Caller
    };
    let (mut created, mut state) = make(args, root, lifetime)?;
    if detach || args.value("console-socket").is_some() {
        hand_over_console(args, created.console.take()).inspect_err(|_| state.release())?;
    }
    let copier = created.console.take().map(copy_terminal);
    let container = created.start().inspect_err(|_| state.release())?;
    let pid = container.pid().as_raw_nonzero().get();
    state.started(&container)?;
    write_pid(args, pid)?;
    if detach {
        return Ok(0);
    }
    let exit = container::wait(container.pidfd()).map_err(|e| io("wait")(e.into()))?;
    if let Some(copier) = copier {
        let _ = copier.join();
    }
    container.remove_cgroup().map_err(io("remove cgroup"))?;
    state.release();
    Ok(exit.code())
}

/// Copies what a terminal says to our stdout, and our stdin to it, until it closes. (The fork is
/// behind us; nothing forks from this process any more.)
fn copy_terminal(master: OwnedFd) -> std::thread::JoinHandle<()> {
    let input = master.try_clone();
    std::thread::spawn(move || {
        if let Ok(input) = input {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::fs::File::from(input));
            });
        }
        // A terminal whose last user is gone reads as an error: the end.
        let _ = std::io::copy(&mut std::fs::File::from(master), &mut std::io::stdout());
    })
}

fn print_state(root: &Path, id: &str) -> Result<(), Error> {
    println!("{}", State::load(root, id)?.oci());
    Ok(())
}

fn kill(args: &Args, root: &Path) -> Result<(), Error> {
    let state = State::load(root, args.id()?)?;
    let signal = signal_number(args.operand(1).unwrap_or("SIGTERM"))?;
    if state.status() == Status::Stopped {
        return Err(Error::new(ErrorKind::NotRunning, "container not running"));
    }
    let container = state.container()?;
    let sent = if args.is_set("all") {
        container.kill_all(signal)
    } else {
        container.kill(signal)
    };
    sent.map_err(io("kill"))
}

fn delete(args: &Args, root: &Path) -> Result<(), Error> {
    let (id, force) = (args.id()?, args.is_set("force"));
    let mut state = match State::load(root, id) {
        Err(error) if force && error.kind == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    match state.status() {
        Status::Stopped => {}
        // Created ones run nothing of the user's yet.
        Status::Created => {}
        status if !force => {
            return Err(Error::invalid(format!(
                "cannot delete container {id} that is not stopped: {status}"
            )));
        }
        _ => {}
    }
    if let Ok(container) = state.container() {
        let _ = container.kill(libc::SIGKILL);
        wait_for_end(&container);
    }
    state
        .cgroup()?
        .kill(libc::SIGKILL)
        .and_then(|()| state.cgroup().map_or(Ok(()), |c| c.remove()))
        .map_err(io("remove cgroup"))?;
    state.release();
    Ok(())
}

/// It is no child of ours, so its pidfd only tells that it ended.
fn wait_for_end(container: &Container) {
    const END_WITHIN_S: i64 = 10;
    let pidfd = container.pidfd();
    let mut polled = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    let limit = rustix::event::Timespec {
        tv_sec: END_WITHIN_S,
        tv_nsec: 0,
    };
    let _ = rustix::event::poll(&mut polled, Some(&limit));
}

fn exec(args: &Args, root: &Path) -> Result<i32, Error> {
    let state = State::load(root, args.id()?)?;
    if state.status() != Status::Running {
        return Err(Error::new(
            ErrorKind::NotRunning,
            "cannot exec in a stopped container",
        ));
    }
    let process = match args.value("process") {
        Some(path) => {
            let text = std::fs::read(path).map_err(io("process"))?;
            serde_json::from_slice(&text).map_err(|e| Error::invalid(format!("{path}: {e}")))?
        }
        None => state.exec_process(args)?,
    };
    let terminal = args.is_set("tty") || process.terminal().unwrap_or(false);
    let request = ExecRequest {
        process: &process,
        stdio: stdio(terminal, Some(&process)),
        seccomp: state.seccomp.as_ref(),
    };
    let joined = match state.container()?.exec(request) {
        Ok(joined) => joined,
        Err(error) => {
            eprintln!("{error}");
            return Ok(EXEC_FAILED);
        }
    };
    write_pid(args, joined.pid.as_raw_nonzero().get())?;
    let detach = args.is_set("detach");
    let copier = match joined.console {
        Some(console) if detach || args.value("console-socket").is_some() => {
            hand_over_console(args, Some(console))?;
            None
        }
        console => console.map(copy_terminal),
    };
    if detach {
        return Ok(0);
    }
    let exit = container::wait(joined.pidfd.as_fd()).map_err(|e| io("wait")(e.into()))?;
    if let Some(copier) = copier {
        let _ = copier.join();
    }
    Ok(exit.code())
}

fn frozen(root: &Path, id: &str, frozen: bool) -> Result<(), Error> {
    let container = State::load(root, id)?.container()?;
    let done = if frozen {
        container.pause()
    } else {
        container.resume()
    };
    done.map_err(io(if frozen { "pause" } else { "resume" }))
}

fn list(root: &Path) -> Result<(), Error> {
    println!("{:<40} {:<8} {:<10} BUNDLE", "ID", "PID", "STATUS");
    for id in State::ids(root) {
        // One that is deleted meanwhile is not listed.
        if let Ok(state) = State::load(root, &id) {
            let (pid, status) = (state.pid, state.status());
            println!("{id:<40} {pid:<8} {status:<10} {}", state.bundle.display());
        }
    }
    Ok(())
}

fn spec(args: &Args) -> Result<(), Error> {
    let path = Path::new(args.value("bundle").unwrap_or(".")).join("config.json");
    if path.exists() {
        return Err(Error::invalid(format!(
            "File {} exists. Remove it first",
            path.display()
        )));
    }
    let text = serde_json::to_string_pretty(&state::example_spec()?)
        .map_err(|e| Error::internal(format!("write the specification: {e}")))?;
    std::fs::write(path, text).map_err(io("write the specification"))
}

/// `9`, `KILL` or `SIGKILL`.
fn signal_number(name: &str) -> Result<i32, Error> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let bare = name.to_ascii_uppercase();
    let bare = bare.strip_prefix("SIG").unwrap_or(&bare);
    let number = bare
        .parse()
        .ok()
        .or_else(|| (1..).zip(NAMES).find(|(_, n)| *n == bare).map(|(i, _)| i));
    number
        .filter(|number| (1..=berth_sys::signal::MAX).contains(number))
        .ok_or_else(|| Error::invalid(format!("unknown signal {name:?}")))
}

/// An argument as text; ours all are.
fn text(arg: &OsStr) -> Result<&str, Error> {
    arg.to_str()
        .ok_or_else(|| Error::invalid(format!("argument {arg:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_three_spellings() {
        for name in ["9", "KILL", "SIGKILL", "sigkill"] {
            assert_eq!(signal_number(name).unwrap(), 9);
        }
        assert!(signal_number("SIGNOTHING").is_err());
        assert!(signal_number("65").is_err());
    }
}
