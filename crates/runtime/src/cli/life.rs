//! A container's life: `create`, `start`, `run`, `delete`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{Process as ProcessSpec, Spec};

use super::console::{Relay, Signals, hand_over};
use super::document::load_spec;
use super::state::{State, Status};
use super::{Args, Call, io, notify};
use crate::container::{
    self, Container, CreateRequest, Created, Demands, Lifetime, Rootfs, Stdio, TerminalSize,
};
use crate::error::{Error, ErrorKind};
use crate::hooks::{self, Point};
use crate::plan;
use crate::seccomp::Agent;
use crate::systemd::{self, Unit};

/// How long a killed process may take to end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// The terminal that was asked for has a place to go: our own, or the caller's socket.
pub(super) fn check_terminal(args: &Args, terminal: bool, detach: bool) -> Result<(), Error> {
    let has_socket = args.value("console-socket").is_some();
    match (detach && terminal, has_socket) {
        (true, false) => Err(Error::invalid(
            "cannot allocate tty if runc will detach without setting console socket",
        )),
        (false, true) => Err(Error::invalid(
            "cannot use console socket if runc will not detach or allocate tty",
        )),
        _ => Ok(()),
    }
}

/// How many descriptors from 3 on the process gets.
pub(super) fn preserved(args: &Args, listen_fds: u32) -> Result<u32, Error> {
    let asked = args.number("preserve-fds").unwrap_or(0);
    let asked = u32::try_from(asked)
        .map_err(|_| Error::invalid(format!("invalid number of preserved fds: {asked}")))?;
    for index in 0..asked {
        let fd = 3 + listen_fds + index;
        if std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_err() {
            return Err(Error::invalid(format!(
                "unable to stat preserved-fd {index} (of {asked}): no such file or directory"
            )));
        }
    }
    Ok(listen_fds + asked)
}

pub(super) fn stdio(terminal: bool, process: &ProcessSpec) -> Stdio {
    if !terminal {
        return Stdio::Inherit;
    }
    let size = process.console_size().and_then(|size| {
        let rows = u16::try_from(size.height()).ok()?;
        let columns = u16::try_from(size.width()).ok()?;
        Some(TerminalSize { rows, columns })
    });
    Stdio::Terminal { size }
}

/// Written whole or not at all.
pub(super) fn write_pid(args: &Args, pid: i32) -> Result<(), Error> {
    let Some(path) = args.value("pid-file").map(Path::new) else {
        return Ok(());
    };
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    let new = path.with_file_name(name);
    std::fs::write(&new, pid.to_string())
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(io("write pid file"))
}

/// A container that was made, and its state's place; undone unless it is kept.
struct Making {
    created: Created,
    state: State,
}

/// Makes a container that waits for its start.
fn make(call: &Call<'_>, lifetime: Lifetime, detach: bool) -> Result<Making, Error> {
    let id = call.args.id()?;
    let bundle = Path::new(call.args.value("bundle").unwrap_or("."));
    let bundle = std::fs::canonicalize(bundle).map_err(io("bundle"))?;
    let mut spec = load_spec(&bundle, call.log)?;
    let terminal = spec.process().as_ref().and_then(ProcessSpec::terminal);
    let terminal = terminal.unwrap_or(false);
    check_terminal(call.args, terminal, detach)?;
    let preserved = preserved(call.args, call.listen_fds)?;
    pass_sockets(&mut spec, call.listen_fds);
    if call.notify_socket.is_some() {
        notify::provide(&mut spec, &call.root, id)?;
    }
    confine_devices(&mut spec);
    spec.hooks().as_ref().map_or(Ok(()), hooks::check)?;
    let unit = scope(call.args, &spec, id)?;
    let cgroup = match &unit {
        Some(unit) => unit.cgroup(),
        None => cgroup_path(&spec, id),
    };
    let rootfs = rootfs(&spec, &bundle)?;
    let filter = container::filter(&spec)?;
    let mut state = State::reserve(&call.root, id, &bundle, &spec, &cgroup)?;
    state.unit = unit;
    if call.notify_socket.is_some() {
        notify::reserve(&call.root, id).inspect_err(|_| state.release())?;
    }
    // Until the container's process is in the scope.
    let _holder = match &state.unit {
        Some(unit) => {
            let started = systemd::start_scope(unit, id, &spec);
            Some(started.inspect_err(|_| state.release())?)
        }
        None => None,
    };
    let keep_keyring = call.args.is_set("no-new-keyring");
    state.has_keyring = !keep_keyring;
    let process = spec.process().as_ref();
    let created = container::create(CreateRequest {
        id,
        spec: &spec,
        rootfs: Rootfs::Directory(&rootfs),
        stdio: process.map_or(Stdio::Inherit, |process| stdio(terminal, process)),
        filter: filter.as_ref(),
        netns: None,
        cgroup: &cgroup,
        init: false,
        lifetime,
        demands: Demands {
            bundle: Some(&bundle),
            preserved,
            keep_keyring,
            no_pivot: call.args.is_set("no-pivot"),
        },
    })
    .inspect_err(|_| forget(call, &state))?;
    for warning in &created.warnings {
        call.log.warning(warning);
    }
    let making = Making { created, state };
    match send_pidfd(call.args, making.created.container().pidfd()) {
        Ok(()) => Ok(making),
        Err(error) => Err(making.undo(call, error)),
    }
}

impl Making {
    /// Removes what was made, for a reason that is given back.
    fn undo(self, call: &Call<'_>, reason: Error) -> Error {
        drop(self.created);
        forget(call, &self.state);
        reason
    }
}

/// Sockets of the service manager are for the container (sd_listen_fds(3)).
fn pass_sockets(spec: &mut Spec, listen_fds: u32) {
    if let Some(process) = spec.process_mut()
        && listen_fds > 0
    {
        let env = process.env_mut().get_or_insert_default();
        env.push(format!("LISTEN_FDS={listen_fds}"));
        env.push("LISTEN_PID=1".to_owned());
    }
}

/// Callers name the devices that they add or deny; everything else is denied, and those that the
/// specification gives every container are allowed (config-linux.md, "Default Devices").
fn confine_devices(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut() else {
        return;
    };
    let resources = linux.resources_mut().get_or_insert_default();
    let given = resources.devices_mut().get_or_insert_default();
    let mut rules = crate::defaults::device_rules();
    let allowed = rules.split_off(1);
    rules.append(given);
    rules.extend(allowed);
    *given = rules;
}

/// The scope that systemd is to make, with `--systemd-cgroup`.
fn scope(args: &Args, spec: &Spec, id: &str) -> Result<Option<Unit>, Error> {
    if !args.is_set("systemd-cgroup") {
        return Ok(None);
    }
    if !systemd::is_running() {
        return Err(Error::invalid(
            "systemd cgroup flag passed, but systemd support for managing cgroups is not available",
        ));
    }
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().as_ref());
    let path = path.map_or_else(Default::default, |path| path.to_string_lossy());
    Unit::of_cgroups_path(&path, id).map(Some)
}

/// The cgroup below each hierarchy's root.
fn cgroup_path(spec: &Spec, id: &str) -> String {
    spec.linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().as_ref())
        .map(|path| path.to_string_lossy().into_owned())
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| format!("/berth/{id}"))
}

fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf, Error> {
    let root = spec
        .root()
        .as_ref()
        .ok_or_else(|| Error::invalid("root must be specified"))?;
    let rootfs = bundle.join(root.path());
    match std::fs::canonicalize(&rootfs) {
        Ok(whole) if whole.is_dir() => Ok(whole),
        Ok(_) => Err(Error::invalid(format!(
            "invalid rootfs: {} is not a directory",
            rootfs.display()
        ))),
        Err(error) => Err(io(&format!("invalid rootfs: stat {}", rootfs.display()))(
            error,
        )),
    }
}

pub(super) fn send_pidfd(args: &Args, pidfd: std::os::fd::BorrowedFd<'_>) -> Result<(), Error> {
    match args.value("pidfd-socket") {
        Some(path) => hand_over(path, pidfd, b"pidfd"),
        None => Ok(()),
    }
}

pub(super) fn create(call: &Call<'_>) -> Result<(), Error> {
    let mut making = make(call, Lifetime::Own, true)?;
    if let Err(error) = hand_over_console(call.args, &mut making.created) {
        return Err(making.undo(call, error));
    }
    let Making { created, mut state } = making;
    let (container, handle) = created.leave().inspect_err(|_| forget(call, &state))?;
    state
        .created(&container, handle)
        .and_then(|()| write_pid(call.args, handle.pid))
        .inspect_err(|_| drop(finish(call, &state)))
}

fn hand_over_console(args: &Args, created: &mut Created) -> Result<(), Error> {
    match (created.console.take(), args.value("console-socket")) {
        (Some(console), Some(path)) => hand_over(path, console.as_fd(), b"/dev/ptmx"),
        _ => Ok(()),
    }
}

pub(super) fn start(call: &Call<'_>) -> Result<(), Error> {
    let id = call.args.id()?;
    let mut state = State::load(&call.root, id)?;
    let handle = match (state.status(), state.waiting) {
        (Status::Created, Some(handle)) => handle,
        (Status::Stopped, _) => {
            return Err(Error::invalid("cannot start a container that has stopped"));
        }
        (Status::Running, _) => {
            return Err(Error::invalid("cannot start an already running container"));
        }
        (status, _) => {
            return Err(Error::invalid(format!(
                "cannot start a container in the {status} state"
            )));
        }
    };
    let spec = state.spec()?;
    let agent = Agent::of(plan::seccomp(&spec), &state.subject(), "creating")?;
    let socket = notify::Socket::bind(&call.root, id, call.notify_socket)?;
    let container = state.container()?;
    container.start_left(handle, agent.as_ref())?;
    state.waiting = None;
    state.save()?;
    poststart(&state)?;
    pass_on(socket.as_ref(), &container)
}

/// For a container that goes on without us.
fn pass_on(socket: Option<&notify::Socket<'_>>, container: &Container) -> Result<(), Error> {
    let pid = container.pid().as_raw_nonzero().get().unsigned_abs();
    socket.map_or(Ok(()), |socket| socket.pass_on(container.pidfd(), pid))
}

/// A container whose poststart hooks fail does not go on (runtime.md, "Lifecycle").
fn poststart(state: &State) -> Result<(), Error> {
    let Some(list) = &state.hooks else {
        return Ok(());
    };
    hooks::run(list, Point::Poststart, &state.subject(), state.pid, None).inspect_err(|_| {
        if let Ok(container) = state.container() {
            let _ = container.kill(libc::SIGKILL);
            wait_for_end(&container);
        }
    })
}

/// Create, start, and (without `--detach`) wait and delete.
pub(super) fn run(call: &Call<'_>) -> Result<i32, Error> {
    let args = call.args;
    let detach = args.is_set("detach");
    let signals = (!detach).then(Signals::hold);
    if !detach && !args.is_set("no-subreaper") {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|e| io("become a subreaper")(e.into()))?;
    }
    let lifetime = if detach {
        Lifetime::Own
    } else {
        Lifetime::Caller
    };
    let mut making = make(call, lifetime, detach)?;
    if detach && let Err(error) = hand_over_console(args, &mut making.created) {
        return Err(making.undo(call, error));
    }
    let relay = match making.created.console.take().map(Relay::start).transpose() {
        Ok(relay) => relay,
        Err(error) => return Err(making.undo(call, error)),
    };
    let socket = match notify::Socket::bind(&call.root, args.id()?, call.notify_socket) {
        Ok(socket) => socket,
        Err(error) => return Err(making.undo(call, error)),
    };
    let Making { created, mut state } = making;
    let container = created.start().inspect_err(|_| forget(call, &state))?;
    let pid = container.pid();
    let begun = state
        .started(&container)
        .and_then(|()| write_pid(args, pid.as_raw_nonzero().get()))
        .and_then(|()| poststart(&state));
    if let Err(error) = begun {
        drop(relay);
        // Our child, detached or not, as long as we are here.
        let _ = container.kill(libc::SIGKILL);
        let _ = container::wait(container.pidfd());
        finish(call, &state)?;
        return Err(error);
    }
    let Some(signals) = signals else {
        return pass_on(socket.as_ref(), &container).map(|()| 0);
    };
    let pidfd = container.pidfd();
    let exit = std::thread::scope(|scope| {
        let own = std::process::id();
        let passing = socket
            .as_ref()
            .map(|it| scope.spawn(move || it.pass_on(pidfd, own)));
        let exit = signals.forward(pid, relay.as_ref());
        // Ends with the container.
        if let Some(Ok(Err(error))) = passing.map(std::thread::ScopedJoinHandle::join) {
            call.log.warning(&error.message);
        }
        exit
    });
    drop(relay);
    if !args.is_set("keep") {
        finish(call, &state)?;
    }
    Ok(exit.code())
}

pub(super) fn delete(call: &Call<'_>) -> Result<(), Error> {
    let (id, force) = (call.args.id()?, call.args.is_set("force"));
    let state = match State::load(&call.root, id) {
        Err(error) if error.kind == ErrorKind::NotFound => {
            // A create that was interrupted leaves a directory without a state.
            let _ = std::fs::remove_dir_all(call.root.join(id));
            return if force { Ok(()) } else { Err(error) };
        }
        other => other?,
    };
    match state.status() {
        // Created ones run nothing of the user's yet.
        Status::Stopped | Status::Created => {}
        _ if force => {}
        status => {
            return Err(Error::invalid(format!(
                "cannot delete container {id} that is not stopped: {status}"
            )));
        }
    }
    finish(call, &state)
}

/// Ends the container, forgets it, and runs the hooks of its end.
fn finish(call: &Call<'_>, state: &State) -> Result<(), Error> {
    end(state)?;
    forget(call, state);
    Ok(())
}

/// Gives the id of a container that is no more free, and runs the hooks of its end, whose failures
/// are only told.
fn forget(call: &Call<'_>, state: &State) {
    state.release();
    if let Some(list) = &state.hooks {
        for failure in hooks::run_all(list, Point::Poststop, &state.subject()) {
            call.log.warning(&failure.message);
        }
    }
}

/// Kills what is left of a container and removes its cgroup.
fn end(state: &State) -> Result<(), Error> {
    if let Ok(container) = state.container() {
        let _ = container.kill(libc::SIGKILL);
        let _ = container.resume();
        wait_for_end(&container);
    }
    let cgroup = state.cgroup()?;
    let killed = cgroup.kill(libc::SIGKILL);
    cgroup
        .remove()
        .and(killed)
        .map_err(io("unable to remove container's cgroup"))?;
    state.unit.as_ref().map_or(Ok(()), systemd::stop_scope)
}

/// It is no child of ours, so its pidfd only tells that it ended.
fn wait_for_end(container: &Container) {
    let _ = berth_sys::wait::readable(container.pidfd(), END_WITHIN);
}
