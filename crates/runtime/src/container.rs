//! One container: its creation, its start, and the processes that join it later.
//!
//! ```text
//!  create()  ──►  Created  ──start()──►  Container  ──exec()──►  Process
//!     │              │ (drop kills)          │
//!     └── Err: nothing is left               └── wait by polling pidfd()
//! ```
//!
//! Everything here is synchronous, and the caller must be single-threaded: the container's first
//! process is a fork (`clone3`) of the caller that never returns and allocates memory before it
//! executes the command. The keeper is such a caller.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::clone::{self, Fork, Namespaces};

use oci_spec::runtime::{LinuxResources, Process as ProcessSpec, Spec};
use rustix::process::Pid;

pub use crate::error::{Error, ErrorKind};

use crate::cgroup::{Cgroup, Layout};
use crate::plan::{self, Plan};
use crate::seccomp::{Agent, Filter};

mod birth;
mod channel;
mod command;
mod console;
mod init;
mod join;
mod process;
mod reaper;
mod spawn;

use channel::Channel;
use console::Console;
pub use console::resize;
use spawn::{Failure, Unfinished, discard, failed, launch, listen, undumpable};

/// What runc puts before the reason why a specification is refused.
const REFUSED: &str = "runc create failed: ";
/// The same of the process of an exec.
const EXEC_REFUSED: &str = "exec failed: ";
/// What runc puts before the reason why a container was not created.
const CREATE_FAILED: &str = "runc create failed: unable to start container process: ";
const INIT_FAILED: &str =
    "runc create failed: unable to start container process: error during container init: ";
/// The same for exec.
const EXEC_FAILED: &str = "exec failed: unable to start container process: ";

/// What [`create`] needs. The specification is taken as it is: defaults have been applied by the
/// caller (see [`crate::defaults`]).
pub struct CreateRequest<'a> {
    pub id: &'a str,
    pub spec: &'a Spec,
    pub rootfs: Rootfs<'a>,
    pub stdio: Stdio,
    /// The compiled seccomp profile (see [`filter`]); the specification's is not looked at.
    pub filter: Option<&'a Filter>,
    /// Used in place of the path of the specification's network namespace.
    pub netns: Option<BorrowedFd<'a>>,
    /// The container's cgroup below each hierarchy's root, for example `/berth/<id>`.
    pub cgroup: &'a str,
    /// Process 1 is our reaper, and the command is its child (`--init`).
    pub init: bool,
    pub lifetime: Lifetime,
    pub demands: Demands<'a>,
}

/// What callers of the command line ask for beyond the specification.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demands<'a> {
    /// The bundle's directory, which hooks are told.
    pub bundle: Option<&'a Path>,
    /// How many of the caller's descriptors from 3 on the process gets.
    pub preserved: u32,
    /// Stay in the caller's session keyring.
    pub keep_keyring: bool,
    /// Move the root file system over the host's in place of pivot_root(2), which cannot leave a
    /// ramdisk.
    pub no_pivot: bool,
}

/// How long a container may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It dies with the thread that created it.
    Caller,
    /// It outlives its creator; also between [`create`] and the start, for which the one who
    /// starts it uses [`Handle`].
    Own,
}

/// What another process needs to start a container of [`Lifetime::Own`] later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Handle {
    pub pid: i32,
    /// The number of the orders' descriptor in the waiting process.
    pub descriptor: i32,
}

/// Where the root file system comes from.
pub enum Rootfs<'a> {
    /// A detached mount, as [`crate::rootfs::overlay::mount`] returns. The caller should keep its
    /// descriptor until the container's end was reported: the last reference unmounts.
    Mount(BorrowedFd<'a>),
    /// A directory that is bound as it is.
    Directory(&'a Path),
}

/// The descriptors 0, 1 and 2 of a process.
pub enum Stdio {
    /// Those of the caller.
    Inherit,
    Descriptors {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A pseudo-terminal of the container's own devpts; the master is handed to the caller.
    Terminal { size: Option<TerminalSize> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}

/// What [`Container::exec`] needs.
pub struct ExecRequest<'a> {
    pub process: &'a ProcessSpec,
    pub stdio: Stdio,
    /// The container's filter; an exec'd process gets the same.
    pub filter: Option<&'a Filter>,
    /// That of the filter, if it has one.
    pub agent: Option<&'a Agent>,
    /// The specification of the container, whose personality and memory policy hold for all.
    pub spec: Option<&'a Spec>,
    /// How many of the caller's descriptors from 3 on the process gets.
    pub preserved: u32,
    /// The container's id, unless it has no session keyring of its own.
    pub keyring: Option<&'a str>,
    /// Cgroups to enter below the container's: controller (or nothing, for all) and path.
    pub cgroups: &'a [(String, String)],
}

impl<'a> ExecRequest<'a> {
    /// A process without a filter, in the caller's session keyring.
    pub fn new(process: &'a ProcessSpec, stdio: Stdio) -> Self {
        Self {
            process,
            stdio,
            filter: None,
            agent: None,
            spec: None,
            preserved: 0,
            keyring: None,
            cgroups: &[],
        }
    }
}

/// A container that is set up; its first process waits just before it executes the command.
/// Dropping it kills the process and removes the cgroup.
pub struct Created {
    /// What was clamped or left out, in sentences for the user.
    pub warnings: Vec<String>,
    /// The terminal's master, if a terminal was asked for.
    pub console: Option<OwnedFd>,
    channel: Channel,
    agent: Option<Agent>,
    /// Taken when it was started.
    container: Option<Container>,
}

/// A started container.
pub struct Container {
    pid: Pid,
    pidfd: OwnedFd,
    cgroup: Cgroup,
    die_with_caller: bool,
}

/// A process that joined a container.
pub struct Process {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// The terminal's master, if a terminal was asked for.
    pub console: Option<OwnedFd>,
    pub warnings: Vec<String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl From<rustix::process::WaitStatus> for Exit {
    /// Of a process that has ended.
    fn from(status: rustix::process::WaitStatus) -> Self {
        match status.terminating_signal() {
            Some(signal) => Self::Signal(signal),
            None => Self::Code(status.exit_status().unwrap_or(255)),
        }
    }
}

impl Exit {
    /// As a shell has it: 128 + signal for a process that a signal ended.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }

    pub fn signal(self) -> Option<i32> {
        match self {
            Exit::Code(_) => None,
            Exit::Signal(signal) => Some(signal),
        }
    }
}

/// Does what is the same for every container, so that processes forked from the caller have it:
/// finds the cgroup mounts and compiles the default seccomp profile. Optional.
pub fn warm() {
    // Whoever needs one of them gets the error then.
    let _ = Layout::host();
    let _ = Filter::built_in();
}

/// Compiles the specification's seccomp profile, if it has one.
pub fn filter(spec: &Spec) -> Result<Option<Filter>, Error> {
    let filter = plan::seccomp(spec).map(Filter::compile).transpose();
    filter.map_err(|e| e.prefixed(CREATE_FAILED))
}

/// Makes the container's namespaces, cgroups, mounts and first process, up to the point where the
/// command would be executed. After an error nothing is left of it.
///
/// The caller becomes undumpable: what is forked from it must not be looked into by processes of
/// a container (see [`crate::selfexe`]).
pub fn create(request: CreateRequest<'_>) -> Result<Created, Error> {
    let plan = Plan::new(request.spec).map_err(|e| e.prefixed(REFUSED))?;
    process::check_label(&plan.process).map_err(|e| e.prefixed(REFUSED))?;
    if plan.hooks.is_some() && request.demands.bundle.is_none() {
        return Err(Error::invalid(
            "hooks: only containers of a bundle can have them",
        ));
    }
    let cgroup = Cgroup::new(request.cgroup).map_err(|e| e.prefixed(CREATE_FAILED))?;
    spawn::spawn(request, &plan, cgroup).map_err(|error| match error {
        Failure::Here(error) => error.prefixed(CREATE_FAILED),
        Failure::Child(error) => error.prefixed(INIT_FAILED),
    })
}

/// Reaps a child without waiting: `None` while it runs. The pidfd polls readable when it ended.
pub fn try_reap(pidfd: BorrowedFd<'_>) -> rustix::io::Result<Option<Exit>> {
    reap(pidfd, rustix::process::WaitIdOptions::NOHANG)
}

/// Waits for a child's end and reaps it.
pub fn wait(pidfd: BorrowedFd<'_>) -> rustix::io::Result<Exit> {
    loop {
        match reap(pidfd, rustix::process::WaitIdOptions::empty()) {
            Ok(Some(exit)) => return Ok(exit),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn reap(
    pidfd: BorrowedFd<'_>,
    options: rustix::process::WaitIdOptions,
) -> rustix::io::Result<Option<Exit>> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let status = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | options)?;
    Ok(status.map(|status| match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.exit_status().unwrap_or(255)),
    }))
}

impl Created {
    pub fn container(&self) -> &Container {
        self.container
            .as_ref()
            .expect("only start and drop take it, and both end this value")
    }

    /// Leaves a container of [`Lifetime::Own`] waiting, for another process to start.
    pub fn leave(mut self) -> Result<(Container, Handle), Error> {
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&self.channel.as_fd());
        let container = self
            .container
            .take()
            .ok_or_else(|| Error::internal("the container was started before"))?;
        let pid = container.pid.as_raw_nonzero().get();
        Ok((container, Handle { pid, descriptor }))
    }

    /// Lets the first process execute the command. Returns when it has done so, or with the
    /// reason why it could not; then nothing is left of the container.
    pub fn start(mut self) -> Result<Container, Error> {
        let child = (self.container().pid, self.container().pidfd());
        launch(&self.channel, child, self.agent.as_ref()).map_err(|failure| match failure {
            Failure::Here(error) => error.prefixed(CREATE_FAILED),
            Failure::Child(error) => error.prefixed(INIT_FAILED),
        })?;
        self.container
            .take()
            .ok_or_else(|| Error::internal("the container was started before"))
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if let Some(container) = self.container.take() {
            discard(container.pidfd());
            let _ = container.remove_cgroup();
        }
    }
}

impl Container {
    /// A container that another process created. Its processes are not children of the caller.
    pub fn attach(pid: Pid, cgroup: &str) -> Result<Self, Error> {
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .map_err(|_| Error::new(ErrorKind::NotRunning, "container not running"))?;
        Ok(Self {
            pid,
            pidfd,
            cgroup: Cgroup::new(cgroup)?,
            die_with_caller: false,
        })
    }

    /// Starts a container that [`Created::leave`] left waiting. `agent` is that of its filter.
    pub fn start_left(&self, handle: Handle, agent: Option<&Agent>) -> Result<(), Error> {
        let gone = |_| Error::new(ErrorKind::NotRunning, "the container process is gone");
        let socket = rustix::process::pidfd_getfd(
            &self.pidfd,
            handle.descriptor,
            rustix::process::PidfdGetfdFlags::empty(),
        )
        .map_err(gone)?;
        let child = (self.pid, self.pidfd());
        launch(&Channel::from(socket), child, agent).map_err(|failure| match failure {
            Failure::Here(error) | Failure::Child(error) => error.prefixed(INIT_FAILED),
        })
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Runs another process in the container. Returns when it executes its command.
    pub fn exec(&self, request: ExecRequest<'_>) -> Result<Process, Error> {
        let process = plan::Process::new(request.process, request.spec)
            .and_then(|process| process::check_label(&process).map(|()| process))
            .map_err(|e| e.prefixed(EXEC_REFUSED))?;
        self.join(&process, request)
            .map_err(|failure| match failure {
                Failure::Here(error) | Failure::Child(error) => error.prefixed(EXEC_FAILED),
            })
    }

    fn join(&self, process: &plan::Process, request: ExecRequest<'_>) -> Result<Process, Failure> {
        let foreign = join::foreign_namespaces(self.pid)?;
        undumpable()?;
        let (ours, theirs) = channel::pair().map_err(|e| failed("socketpair", &e))?;
        let below = self.cgroup.below(request.cgroups)?;
        let entry = below.entry().map_err(|e| failed("open cgroup", &e))?;
        let doors = below.doors().map_err(|e| failed("open cgroup", &e))?;
        let into_pid = foreign.contains(Namespaces::PID).then(|| self.pidfd());
        let fork = birth::in_pid_namespace(into_pid, || {
            clone::fork(Namespaces::empty(), entry.as_ref().map(AsFd::as_fd))
        });
        let (pid, pidfd) = match fork.map_err(|e| failed("clone", &e))? {
            Fork::Parent { child, pidfd } => (child, pidfd),
            Fork::Child => {
                drop(ours);
                join::run(
                    join::Inputs {
                        process,
                        target: self.pidfd(),
                        namespaces: foreign.without(Namespaces::PID),
                        doors,
                        filter: request.filter,
                        stdio: request.stdio,
                        die_with_parent: self.die_with_caller,
                        preserved: request.preserved,
                        keyring: request.keyring,
                    },
                    &theirs,
                )
            }
        };
        drop((theirs, entry, doors));
        let unfinished = Unfinished {
            cgroup: None,
            pidfd: Some(pidfd),
        };
        let has_user = foreign.contains(Namespaces::USER);
        if let (true, Some(score)) = (has_user, process.oom_score_adj) {
            process::oom_score_of(pid, score)?;
        }
        let (console, warnings) = listen(&ours, || Ok(()))?;
        if has_user {
            process::limits(process, Some(pid))?;
        }
        if let Some(pidfd) = &unfinished.pidfd {
            let child = (pid, pidfd.as_fd());
            launch(&ours, child, request.agent)?;
        }
        let mut unfinished = unfinished;
        let pidfd = unfinished
            .pidfd
            .take()
            .ok_or_else(|| Error::internal("the process is finished"))?;
        Ok(Process {
            pid,
            pidfd,
            console,
            warnings,
        })
    }

    /// Signals the first process.
    pub fn kill(&self, signal: i32) -> std::io::Result<()> {
        berth_sys::pidfd::send_signal(self.pidfd(), signal)
    }

    /// Signals every process of the container's cgroup.
    pub fn kill_all(&self, signal: i32) -> std::io::Result<()> {
        self.cgroup.kill(signal)
    }

    /// Freezes every process.
    pub fn pause(&self) -> std::io::Result<()> {
        self.cgroup.freeze(true)
    }

    pub fn resume(&self) -> std::io::Result<()> {
        self.cgroup.freeze(false)
    }

    /// Changes the limits of the running container.
    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        self.cgroup.set(resources)
    }

    /// How many processes of the container the kernel killed for lack of memory.
    pub fn oom_kills(&self) -> u64 {
        self.cgroup.oom_kills()
    }

    /// Kills what is left in the cgroup and removes it. Idempotent; returns the first failure
    /// after having tried everything.
    pub fn remove_cgroup(&self) -> std::io::Result<()> {
        // Mostly nothing is left, and then the first attempt is all.
        if self.cgroup.try_remove().is_ok() {
            return Ok(());
        }
        let killed = self.cgroup.kill(libc::SIGKILL);
        self.cgroup.remove().and(killed)
    }
}
