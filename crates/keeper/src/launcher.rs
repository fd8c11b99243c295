//! The launcher: a small process, one for each daemon, that forks the keepers.
//!
//! It is forked from the daemon before any thread exists and before anything large has been
//! allocated, leads a session and a cgroup of its own, and answers one request after another on
//! one socket. Since a keeper is a fork of it without an `exec`, a keeper shares nearly all of
//! its memory. The launcher ends when the daemon does (its socket closes); what it forked goes on.
//!
//! A launcher that was killed is replaced ([`Launcher::revived_by`]). By then the daemon has
//! threads and cannot fork, so the new one is an execution of the binary that calls [`run`].

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_sys::fork::{self, Fork};
use berth_sys::title;
use rustix::process::{Pid, WaitOptions, waitpid};
use serde::Deserialize;

use crate::framing;
use crate::protocol::{Launch, LauncherReply, LauncherRequest};

mod births;
mod place;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("fork the launcher")]
    Fork(#[source] std::io::Error),
    #[error("talk to the launcher")]
    Protocol(#[from] framing::Error),
    #[error("the launcher has ended")]
    Ended,
    #[error("start another launcher")]
    Revive(#[source] io::Error),
    #[error("{0}")]
    Refused(String),
}

/// What a registered service gets: the request's arguments, and the descriptors that came along.
#[derive(Debug)]
pub struct ServiceArgs {
    pub args: serde_json::Value,
    pub fds: Vec<OwnedFd>,
}

/// A function of the binary that runs as a process of its own and outlives the daemon. It returns
/// the exit code.
pub type Service = fn(ServiceArgs) -> i32;

#[derive(Debug, Clone, Copy, Default)]
pub struct Config<'a> {
    /// Where the launcher and the keepers live, below each cgroup hierarchy's root (for example
    /// `/berth/keepers`), so that limits on the daemon do not reach them. `None` stays put.
    pub cgroup: Option<&'a str>,
    /// Whether `cgroup` is in a scope of systemd's, which removes it.
    pub is_scope: bool,
    /// The file whose lock tells the next launcher that a keeper is on its way. `None`: there is no
    /// next one.
    pub births: Option<&'a Path>,
    /// By name: what [`LauncherRequest::Service`] can start.
    pub services: &'a [(&'static str, Service)],
}

/// Forks the launcher. Call it first thing in the daemon, while the process has one thread.
pub fn fork(config: Config<'_>) -> Result<Launcher, Error> {
    let (ours, theirs) = UnixStream::pair().map_err(Error::Fork)?;
    match fork::fork().map_err(Error::Fork)? {
        Fork::Parent { child } => Ok(Launcher {
            process: Mutex::new(Process {
                socket: ours,
                pid: Pid::from_raw(child),
            }),
            revive: None,
        }),
        Fork::Child => {
            drop(ours);
            fork::exit_now(run(theirs, config))
        }
    }
}

/// The launcher's whole life, in the forked child. Returns the exit code.
pub fn run(socket: UnixStream, config: Config<'_>) -> i32 {
    if place::settle(socket.as_fd(), config.cgroup).is_err() {
        return 1;
    }
    let Ok(births) = config.births.map_or(Ok(None), births::take_over) else {
        return 1;
    };
    // Without it `ps` shows the daemon's words for all of us.
    if title::claim().is_ok() {
        title::set(&[b"berth-launcher"]);
    }
    berth_runtime::container::warm();
    berth_sys::memory::trim();
    berth_sys::memory::unmap_program();
    loop {
        let (body, fds) = match framing::recv(&socket) {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(_broken) => return 1,
        };
        let reply = match plan(&body, config.services) {
            Err(message) => LauncherReply::Failed { message },
            Ok(None) => LauncherReply::Settled,
            Ok(Some(job)) => match fork::fork() {
                Ok(Fork::Parent { child }) => LauncherReply::Forked { pid: child },
                Ok(Fork::Child) => {
                    drop(socket);
                    return job.perform(body, fds, births);
                }
                Err(error) => LauncherReply::Failed {
                    message: format!("fork: {error}"),
                },
            },
        };
        // The daemon may be gone by now; the next receive notices.
        let _ = framing::encode(&reply).and_then(|frame| framing::send(&socket, &frame, &[]));
    }
    drop(births);
    if let Some(cgroup) = config.cgroup.filter(|_| !config.is_scope) {
        place::leave(cgroup);
    }
    0
}

/// What the forked child is for.
#[derive(Debug)]
enum Job {
    Keeper,
    Service(Service),
}

/// Looks only at the envelope: what a container's specification allocates when it is parsed shall
/// burden its keeper, not the launcher. `None`: there is nothing to do but to answer.
fn plan(body: &[u8], services: &[(&'static str, Service)]) -> Result<Option<Job>, String> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        op: &'a str,
        name: Option<&'a str>,
    }
    let envelope: Envelope<'_> =
        serde_json::from_slice(body).map_err(|error| format!("malformed request: {error}"))?;
    match (envelope.op, envelope.name) {
        ("settle", _) => Ok(None),
        ("launch", _) => Ok(Some(Job::Keeper)),
        ("service", Some(wanted)) => services
            .iter()
            .find(|(name, _)| *name == wanted)
            .map(|(_, service)| Some(Job::Service(*service)))
            .ok_or_else(|| format!("no service is named {wanted:?}")),
        (op, _) => Err(format!("unknown request {op:?}")),
    }
}

impl Job {
    /// Runs in the forked child; returns its exit code.
    fn perform(self, body: Vec<u8>, fds: VecDeque<OwnedFd>, births: Option<File>) -> i32 {
        let name = match self {
            Self::Keeper => c"berth-keeper",
            Self::Service(_) => c"berth-service",
        };
        if place::detach(name).is_err() {
            return 1;
        }
        match (self, framing::decode(&body)) {
            (Self::Keeper, Ok(LauncherRequest::Launch(launch))) => {
                drop(body);
                title::set(&[b"berth-keeper", launch.dir.as_os_str().as_bytes()]);
                // When systemd ends the scope, the container is told, too; its end is recorded.
                berth_sys::signal::survive(libc::SIGTERM);
                crate::keeper::run(launch, fds, births)
            }
            (Self::Service(service), Ok(LauncherRequest::Service { name, args })) => {
                title::set(&[b"berth-service", name.as_bytes()]);
                drop(births);
                service(ServiceArgs {
                    args,
                    fds: fds.into(),
                })
            }
            _ => 1,
        }
    }
}

/// Makes another launcher that serves this socket, as a child of the caller; returns its id.
type Revive = Box<dyn Fn(UnixStream) -> io::Result<Pid> + Send + Sync + UnwindSafe + RefUnwindSafe>;

/// The daemon's end. One request is under way at a time; each takes well under a millisecond, so
/// that also asynchronous callers may wait for it in place.
pub struct Launcher {
    process: Mutex<Process>,
    revive: Option<Revive>,
}

#[derive(Debug)]
struct Process {
    socket: UnixStream,
    /// Until it has been waited for.
    pid: Option<Pid>,
}

impl Launcher {
    /// Should the launcher end, `revive` makes another one.
    #[must_use]
    pub fn revived_by(
        self,
        revive: impl Fn(UnixStream) -> io::Result<Pid>
        + Send
        + Sync
        + UnwindSafe
        + RefUnwindSafe
        + 'static,
    ) -> Self {
        Self {
            revive: Some(Box::new(revive)),
            ..self
        }
    }

    /// `None` when it has ended.
    pub fn pid(&self) -> Option<Pid> {
        self.process
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pid
    }

    /// The daemon's end of the socket, for a client of its own.
    pub fn into_socket(self) -> OwnedFd {
        self.process
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .socket
            .into()
    }

    /// Makes sure that there is a launcher, which tidies up when the daemon ends.
    pub fn ensure(&self) -> Result<(), Error> {
        self.living().map(drop)
    }

    /// Waits until nothing is on its way any more that an earlier daemon had asked for: what runs
    /// can be found.
    pub fn settle(&self) -> Result<(), Error> {
        match self.ask(&LauncherRequest::Settle, &[]) {
            Err(Error::Ended) if self.revive.is_some() => self.ask(&LauncherRequest::Settle, &[]),
            asked => asked,
        }
        .map(drop)
    }

    /// Forks a keeper, and returns its process id. Whether the container starts is told on
    /// `control`'s other end. `attach` has one stream socket for each of `launch.attach`.
    /// `None`: the launcher ended before it said whether it had forked; if it had not, `control`
    /// is closed.
    pub fn launch(
        &self,
        launch: Launch,
        control: BorrowedFd<'_>,
        netns: Option<BorrowedFd<'_>>,
        attach: &[BorrowedFd<'_>],
    ) -> Result<Option<i32>, Error> {
        let launch = Launch {
            has_netns: netns.is_some(),
            ..launch
        };
        let fds: Vec<_> = std::iter::once(control)
            .chain(netns)
            .chain(attach.iter().copied())
            .collect();
        match self.fork(&LauncherRequest::Launch(Box::new(launch)), &fds) {
            Err(Error::Ended) => Ok(None),
            asked => asked.map(Some),
        }
    }

    /// Forks a registered service, and returns its process id.
    pub fn service(
        &self,
        name: &str,
        args: serde_json::Value,
        fds: &[BorrowedFd<'_>],
    ) -> Result<i32, Error> {
        self.fork(
            &LauncherRequest::Service {
                name: name.to_owned(),
                args,
            },
            fds,
        )
    }

    fn fork(&self, request: &LauncherRequest, fds: &[BorrowedFd<'_>]) -> Result<i32, Error> {
        match self.ask(request, fds)? {
            LauncherReply::Forked { pid } => Ok(pid),
            LauncherReply::Failed { message } => Err(Error::Refused(message)),
            LauncherReply::Settled => Err(Error::Refused("it has forked nothing".to_owned())),
        }
    }

    fn ask(
        &self,
        request: &LauncherRequest,
        fds: &[BorrowedFd<'_>],
    ) -> Result<LauncherReply, Error> {
        let frame = framing::encode(request)?;
        let mut process = self.living()?;
        if let Err(error) = framing::send(&process.socket, &frame, fds) {
            // It ended in this moment, and cannot have read the whole request.
            if self.revive.is_none() {
                return Err(error.into());
            }
            process.await_end();
            drop(process);
            process = self.living()?;
            framing::send(&process.socket, &frame, fds)?;
        }
        let body = match framing::recv(&process.socket) {
            Ok(Some((body, _))) => body,
            // With unread requests its end is a reset.
            Ok(None) | Err(framing::Error::Io(_) | framing::Error::Closed) => {
                return Err(Error::Ended);
            }
            Err(error) => return Err(error.into()),
        };
        Ok(framing::decode(&body)?)
    }

    /// The launcher; if it has ended, another one.
    fn living(&self) -> Result<MutexGuard<'_, Process>, Error> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(revive) = &self.revive else {
            return Ok(process);
        };
        if process.has_ended() {
            let (ours, theirs) = UnixStream::pair().map_err(Error::Revive)?;
            let pid = revive(theirs).map_err(Error::Revive)?;
            *process = Process {
                socket: ours,
                pid: Some(pid),
            };
        }
        Ok(process)
    }
}

impl std::fmt::Debug for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launcher")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

impl Process {
    /// Its socket is closed: it is about to end.
    fn await_end(&mut self) {
        if let Some(pid) = self.pid.take() {
            // An error: it is nobody's child any more.
            let _ = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
        }
    }

    fn has_ended(&mut self) -> bool {
        let Some(pid) = self.pid else { return true };
        let waited = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::NOHANG));
        // An error: it is nobody's child any more, so somebody has waited for it.
        let ended = !matches!(waited, Ok(None));
        if ended {
            self.pid = None;
        }
        ended
    }
}
