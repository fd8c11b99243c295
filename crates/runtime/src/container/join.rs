//! A process that joins a running container (`exec`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::clone::{self, Namespaces};
use rustix::fs::{Mode, OFlags};

use super::channel::Channel;
use super::{Console, Stdio, init, process};
use crate::error::{Error, io_words};
use crate::plan;
use crate::scheduling::bind;
use crate::seccomp::Filter;
use crate::userns;

pub(super) struct Inputs<'a> {
    pub process: &'a plan::Process,
    pub target: BorrowedFd<'a>,
    /// Which namespaces to join; the pid namespace is the caller's work.
    pub namespaces: Namespaces,
    /// Version 1 cgroups to enter.
    pub doors: Vec<OwnedFd>,
    pub filter: Option<&'a Filter>,
    pub stdio: Stdio,
    pub die_with_parent: bool,
    pub preserved: u32,
    pub keyring: Option<&'a str>,
}

/// Never returns: executes the command, or reports why it could not.
pub(super) fn run(inputs: Inputs<'_>, channel: &Channel) -> ! {
    let Err(error) = go(inputs, channel);
    process::give_up(&error, channel)
}

fn go(inputs: Inputs<'_>, channel: &Channel) -> Result<std::convert::Infallible, Error> {
    berth_sys::signal::reset();
    let internal =
        |what: &str, e: &std::io::Error| Error::internal(format!("{what}: {}", io_words(e)));
    rustix::process::setsid().map_err(|e| internal("setsid", &e.into()))?;
    let scheduling = &inputs.process.scheduling;
    scheduling.first_cpus.as_deref().map_or(Ok(()), bind)?;
    for door in &inputs.doors {
        init::enter_door(door.as_fd())?;
    }
    // A cpuset that is entered sets the processors anew.
    scheduling.last_cpus.as_deref().map_or(Ok(()), bind)?;
    let has_user = inputs.namespaces.contains(Namespaces::USER);
    // The host's, which nothing of the container covers; its links lead to whoever follows them.
    let writes = inputs.process.writes_proc(has_user);
    let proc = writes
        .then(|| rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))
        .transpose()
        .map_err(|e| internal("open /proc", &e.into()))?;
    // All at once, so that the order of the namespaces is the kernel's matter.
    clone::setns(inputs.target, inputs.namespaces).map_err(|e| internal("join namespaces", &e))?;
    if has_user {
        userns::become_root()?;
    }
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| internal("open /", &e.into()))?;
    let console = match inputs.stdio {
        Stdio::Terminal { size } => {
            let console = Console::open(root.as_fd(), size)?;
            channel
                .report_console(console.master.as_fd())
                .map_err(|e| internal("send console", &e))?;
            Some(console.slave)
        }
        Stdio::Inherit | Stdio::Descriptors { .. } => None,
    };
    init::attach_stdio(inputs.stdio, console)?;
    let proc = proc.as_ref().map(AsFd::as_fd);
    process::finish(
        &process::Final {
            process: inputs.process,
            filter: inputs.filter,
            die_with_parent: inputs.die_with_parent,
            proc,
            init: false,
            hold: None,
            preserved: inputs.preserved,
            keyring: inputs.keyring,
            hooked: None,
            has_user,
        },
        channel,
    )
}

/// The namespaces in which the container differs from us: one that it shares need not be joined,
/// and a user namespace of our own cannot be. A kernel may lack a kind.
pub(super) fn foreign_namespaces(pid: rustix::process::Pid) -> Result<Namespaces, Error> {
    const KINDS: [(&str, Namespaces); 8] = [
        ("mnt", Namespaces::MOUNT),
        ("pid", Namespaces::PID),
        ("net", Namespaces::NETWORK),
        ("ipc", Namespaces::IPC),
        ("uts", Namespaces::UTS),
        ("cgroup", Namespaces::CGROUP),
        ("user", Namespaces::USER),
        ("time", Namespaces::TIME),
    ];
    let number = |who: &str, kind: &str| {
        rustix::fs::stat(Path::new("/proc").join(who).join("ns").join(kind)).map(|stat| stat.st_ino)
    };
    let pid = pid.as_raw_nonzero().to_string();
    let mut foreign = Namespaces::empty();
    for (kind, flag) in KINDS {
        let Ok(ours) = number("self", kind) else {
            continue;
        };
        let theirs = number(&pid, kind).map_err(|_| {
            Error::new(
                crate::error::ErrorKind::NotRunning,
                "cannot exec in a stopped container",
            )
        })?;
        if ours != theirs {
            foreign |= flag;
        }
    }
    Ok(foreign)
}
