//! From the launch request to a running container.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};

use super::client::Client;
use super::control::Connection;
use super::process::{self, INIT, Process, Wanted};
use super::{Keeper, files, internal, now_ns, sources};
use crate::foreign::Foreign;
use crate::log::Log;
use crate::protocol::{Event, Failure, FailureKind, Launch, Rootfs};
use berth_runtime::container::{self, Container, CreateRequest, Created, Stdio};
use berth_runtime::rootfs::overlay::{self, Overlay, Upper};
use berth_runtime::seccomp::Filter;
use berth_runtime::user;

/// Starts the container, and tells `Started` or `StartFailed`.
pub fn start(
    mut launch: Box<Launch>,
    mut fds: VecDeque<OwnedFd>,
    birth: Option<File>,
) -> Option<Keeper> {
    let mut control = Connection::new(fds.pop_front()?, true);
    match try_start(&mut launch, fds, &control, birth) {
        Ok(mut keeper) => {
            let pid = keeper.container.pid().as_raw_nonzero().get();
            control.event(&Event::Started {
                pid,
                started_at_ns: keeper.started_at_ns,
            });
            keeper.connections.push(control);
            drop(launch);
            keeper.settle();
            berth_sys::memory::trim();
            Some(keeper)
        }
        Err(failure) => {
            control.event(&Event::StartFailed(failure));
            None
        }
    }
}

fn try_start(
    launch: &mut Launch,
    mut fds: VecDeque<OwnedFd>,
    control: &Connection,
    birth: Option<File>,
) -> Result<Keeper, Failure> {
    let netns = match launch.has_netns {
        true => Some(fds.pop_front().ok_or_else(missing_fd)?),
        false => None,
    };
    if fds.len() != launch.attach.len() {
        return Err(missing_fd());
    }
    let listener = files::listen(&launch.dir).map_err(|error| internal(&error))?;
    drop(birth);
    let log = Log::open(&launch.log).map_err(|error| internal(&error))?;
    let mount = mount(&launch.rootfs)?;
    if let Some(process) = launch.spec.process_mut() {
        let root = match (&launch.rootfs, &mount) {
            (Rootfs::Directory(path), _) => &open_root(path)?,
            (Rootfs::Overlay { .. }, Some(mount)) => mount,
            (Rootfs::Overlay { .. }, None) => return Err(missing_fd()),
        };
        user::apply(process, root.as_fd(), &launch.user)?;
    }
    let _sources = sources::guard(launch)?;

    let spec_process = launch.spec.process().as_ref();
    let wanted = Wanted {
        terminal: spec_process
            .and_then(|process| process.terminal())
            .unwrap_or(false),
        size: launch.console_size,
        stdin: launch.open_stdin,
        stdout: true,
        stderr: true,
    };
    let (stdio, ends) = process::stdio(wanted).map_err(|error| internal(&error))?;
    let filter = filter(launch)?;
    let mut made = make(
        launch,
        mount.as_ref(),
        netns.as_ref(),
        stdio,
        filter.as_deref(),
    )?;
    let (console, warnings) = made.take();
    // The terminal's keeper's side exists before the command can write to it.
    let pid = made.container().pid().as_raw_nonzero().get();
    let init = Process::new(INIT, None, pid, None, console, ends, launch.stdin_once)
        .map_err(|error| internal(&error))?;
    if launch.gated && !control.await_go() {
        return Err(Failure {
            kind: FailureKind::Internal,
            message: "the start was called off".to_owned(),
        });
    }
    let (container, foreign) = made.start()?;
    let has_terminal = init.has_terminal();
    let clients = launch
        .attach
        .iter()
        .zip(fds)
        .map(|(options, socket)| Client::new(INIT, options.clone(), socket, has_terminal))
        .collect();
    let mut keeper = Keeper {
        id: launch.id.clone(),
        dir: launch.dir.clone(),
        foreign,
        mount,
        filter,
        log,
        log_has_failed: false,
        listener,
        connections: Vec::new(),
        processes: vec![init],
        clients,
        finished_execs: VecDeque::new(),
        next_key: INIT + 1,
        started_at_ns: now_ns(),
        init_start_ticks: start_ticks(&container),
        paused: false,
        oom_kills: 0,
        released: false,
        exit: None,
        buffer: Vec::new(),
        is_deaf: false,
        is_warm: false,
        container,
    };
    for message in warnings {
        keeper.publish(&Event::Warning { message });
    }
    Ok(keeper)
}

impl Keeper {
    /// What is left to do once the daemon knows that the container runs.
    fn settle(&mut self) {
        if let Err(error) = files::write_state(&self.dir, &self.state()) {
            self.warn(&error);
        }
        for client in &mut self.clients {
            client.flush(Instant::now());
        }
    }
}

/// A container before its start.
enum Made {
    Own(Created),
    Other(Box<Other>),
}

/// One that another runtime has made. Dropping it before the start removes it.
struct Other {
    foreign: Option<Foreign>,
    container: Option<Container>,
    console: Option<OwnedFd>,
}

/// The filter of the container and its execs. Another runtime compiles its own.
fn filter(launch: &Launch) -> Result<Option<Arc<Filter>>, Failure> {
    if launch.oci_runtime.is_some() {
        return Ok(None);
    }
    if launch.default_seccomp {
        return Ok(Some(Filter::built_in()?));
    }
    Ok(container::filter(&launch.spec)?.map(Arc::new))
}

fn make(
    launch: &Launch,
    mount: Option<&OwnedFd>,
    netns: Option<&OwnedFd>,
    stdio: Stdio,
    filter: Option<&Filter>,
) -> Result<Made, Failure> {
    let Some(program) = &launch.oci_runtime else {
        let created = container::create(CreateRequest {
            id: &launch.id,
            spec: &launch.spec,
            rootfs: match (&launch.rootfs, mount) {
                (Rootfs::Overlay { .. }, Some(mount)) => container::Rootfs::Mount(mount.as_fd()),
                (Rootfs::Directory(path), _) => container::Rootfs::Directory(path),
                (Rootfs::Overlay { .. }, None) => return Err(missing_fd()),
            },
            stdio,
            filter,
            netns: netns.map(AsFd::as_fd),
            cgroup: &launch.cgroup,
            init: launch.init,
            lifetime: container::Lifetime::Caller,
            demands: container::Demands::default(),
        })?;
        return Ok(Made::Own(created));
    };
    let foreign = Foreign::prepare(program, launch, mount, netns)?;
    let begun = match foreign.create(stdio) {
        Ok(begun) => begun,
        Err(error) => {
            // The first failure is the one to tell.
            let _ = foreign.delete();
            return Err(error.into());
        }
    };
    let mut other = Box::new(Other {
        foreign: Some(foreign),
        container: None,
        console: begun.console,
    });
    other.container = Some(Container::attach(begun.pid, &launch.cgroup)?);
    Ok(Made::Other(other))
}

impl Made {
    fn take(&mut self) -> (Option<OwnedFd>, Vec<String>) {
        match self {
            Self::Own(created) => (
                created.console.take(),
                std::mem::take(&mut created.warnings),
            ),
            Self::Other(other) => (other.console.take(), Vec::new()),
        }
    }

    fn container(&self) -> &Container {
        match self {
            Self::Own(created) => created.container(),
            Self::Other(other) => other
                .container
                .as_ref()
                .expect("only start and drop take it, and both end this value"),
        }
    }

    fn start(self) -> Result<(Container, Option<Foreign>), Failure> {
        match self {
            Self::Own(created) => Ok((created.start()?, None)),
            Self::Other(mut other) => {
                if let Some(foreign) = &other.foreign {
                    foreign.start()?;
                }
                let container = other.container.take().ok_or_else(missing_fd)?;
                Ok((container, other.foreign.take()))
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        if let Some(foreign) = &self.foreign {
            let _ = foreign.delete();
        }
    }
}

fn mount(rootfs: &Rootfs) -> Result<Option<OwnedFd>, Failure> {
    match rootfs {
        Rootfs::Directory(_) => Ok(None),
        Rootfs::Overlay {
            lower,
            upper,
            work,
            volatile,
        } => {
            let overlay = Overlay {
                lower,
                upper: Some(Upper {
                    directory: upper,
                    work,
                    volatile: *volatile,
                }),
            };
            overlay::mount(&overlay)
                .map(Some)
                .map_err(|error| internal(&error))
        }
    }
}

fn open_root(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| internal(&error))
}

fn missing_fd() -> Failure {
    let message = "the launch request came without its descriptors".to_owned();
    Failure {
        kind: FailureKind::Internal,
        message,
    }
}

/// Field 22 of `/proc/PID/stat`; the second may hold spaces and parentheses.
fn start_ticks(container: &Container) -> u64 {
    let path = format!("/proc/{}/stat", container.pid().as_raw_nonzero());
    let stat = fs::read_to_string(path).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name
        .split_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}
