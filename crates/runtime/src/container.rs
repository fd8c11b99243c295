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

use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Process as ProcessSpec, Spec};
use rustix::process::Pid;

pub use crate::error::{Error, ErrorKind};

/// What [`create`] needs. The specification is taken as it is: defaults have been applied by the
/// caller (see [`crate::defaults`]).
pub struct CreateRequest<'a> {
    pub id: &'a str,
    pub spec: &'a Spec,
    pub rootfs: Rootfs<'a>,
    pub stdio: Stdio,
    /// Used in place of the path of the specification's network namespace.
    pub netns: Option<BorrowedFd<'a>>,
    /// The container's cgroup below each hierarchy's root, for example `/berth/<id>`.
    pub cgroup: &'a str,
    /// Process 1 is our reaper, and the command is its child (`--init`).
    pub init: bool,
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
    pub seccomp: Option<&'a LinuxSeccomp>,
}

/// A container that is set up; its first process waits just before it executes the command.
/// Dropping it kills the process and removes the cgroup.
pub struct Created {
    pub console: Option<OwnedFd>,
    /// What was clamped or left out, in sentences for the user.
    pub warnings: Vec<String>,
    container: Container,
}

/// A started container.
pub struct Container {
    pid: Pid,
    pidfd: OwnedFd,
}

/// A process that joined a container.
pub struct Process {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
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

/// Makes the container's namespaces, cgroups, mounts and first process, up to the point where the
/// command would be executed. After an error nothing is left of it.
pub fn create(_request: CreateRequest<'_>) -> Result<Created, Error> {
    Err(Error::internal("create: under construction"))
}

/// Reaps a child without waiting: `None` while it runs. The pidfd polls readable when it ended.
pub fn try_reap(pidfd: BorrowedFd<'_>) -> rustix::io::Result<Option<Exit>> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let status = waitid(
        WaitId::PidFd(pidfd),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    )?;
    Ok(status.map(|status| match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.exit_status().unwrap_or(255)),
    }))
}

impl Created {
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Lets the first process execute the command. Returns when it has done so, or with the
    /// reason why it could not; then nothing is left of the container.
    pub fn start(self) -> Result<Container, Error> {
        Ok(self.container)
    }
}

impl Container {
    pub fn pid(&self) -> Pid {
        self.pid
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Runs another process in the container. Returns when it executes its command.
    pub fn exec(&self, _request: ExecRequest<'_>) -> Result<Process, Error> {
        Err(Error::internal("exec: under construction"))
    }

    /// Signals the first process.
    pub fn kill(&self, signal: i32) -> std::io::Result<()> {
        berth_sys::pidfd::send_signal(self.pidfd(), signal)
    }

    /// Signals every process of the container's cgroup.
    pub fn kill_all(&self, _signal: i32) -> std::io::Result<()> {
        Ok(())
    }

    /// Freezes every process.
    pub fn pause(&self) -> std::io::Result<()> {
        Ok(())
    }

    pub fn resume(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Changes the limits of the running container.
    pub fn update(&self, _resources: &LinuxResources) -> Result<(), Error> {
        Ok(())
    }

    /// How many processes of the container the kernel killed for lack of memory.
    pub fn oom_kills(&self) -> u64 {
        0
    }

    /// Kills what is left in the cgroup and removes it. Idempotent; returns the first failure
    /// after having tried everything.
    pub fn remove_cgroup(&self) -> std::io::Result<()> {
        Ok(())
    }
}
