//! The first process of a container, from its birth to the command.
//!
//! Runs in the child of clone3, in the new namespaces, and never returns. What the host's root
//! can do is given up in steps: the host's files at the pivot, every descriptor just before the
//! command is looked for, capabilities and calls at the very end. Until then the process is not
//! dumpable, so that nothing in a shared pid namespace can look into it.

use berth_sys::fork::exit_now;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::clone::{self, Namespaces};
use berth_sys::mount::Change;
use rustix::fs::Mode;

use super::channel::{Channel, Order};
use super::spawn::Hooked;
use super::{Console, process};
use crate::cgroup::Layout;
use crate::error::{Error, errno_words, io_words};
use crate::hooks::{self, Point};
use crate::plan::{MountKind, Plan};
use crate::rootfs::{cgroups, devices, file_systems, masks, mounts, path};
use crate::seccomp::Filter;
use crate::userns;

/// What the parent opened for the child before it forked.
pub(super) struct Inputs<'a> {
    pub plan: &'a Plan,
    /// The caller's end of the channel, kept for whoever starts the container later.
    pub hold: Option<Channel>,
    /// The root file system as a detached mount.
    pub root: OwnedFd,
    /// Bind sources, in the order of the plan's mounts.
    pub sources: Vec<Option<OwnedFd>>,
    /// Namespaces to join.
    pub join: Vec<(Namespaces, OwnedFd)>,
    pub layout: &'static Layout,
    pub filter: Option<&'a Filter>,
    pub stdio: super::Stdio,
    pub die_with_parent: bool,
    pub init: bool,
    /// How many descriptors from 3 on the command gets.
    pub preserved: u32,
    /// The container's id, unless it stays in the caller's session keyring.
    pub keyring: Option<&'a str>,
    pub no_pivot: bool,
    pub hooked: Option<Hooked<'a>>,
}

/// Never returns: executes the command, or reports why it could not.
pub(super) fn run(inputs: Inputs<'_>, channel: &Channel) -> ! {
    let Err(error) = go(inputs, channel);
    process::give_up(&error, channel)
}

fn go(mut inputs: Inputs<'_>, channel: &Channel) -> Result<std::convert::Infallible, Error> {
    let plan = inputs.plan;
    berth_sys::signal::reset();
    rustix::process::umask(Mode::empty());
    rustix::process::setsid().map_err(|e| internal("setsid", e))?;
    join(&inputs.join)?;
    settle(plan, channel)?;
    names(plan)?;
    let mut cgroup = CgroupEntry {
        plan,
        entered: None,
    };
    let (console, writable) = build_root(&mut inputs, &mut cgroup, channel)?;
    if let Some(hooked) = inputs.hooked.filter(Hooked::has_any_before_pivot) {
        cgroup.enter(channel)?;
        create_hooks(&hooked, &inputs, channel)?;
    }
    // While the host's proc is there: a user namespace may only mount one if it sees one.
    let proc = own_proc(plan)?;
    if inputs.no_pivot {
        mounts::move_root(inputs.root.as_fd())?;
    } else {
        mounts::pivot(inputs.root.as_fd())?;
    }
    let root = inputs.root.as_fd();
    let proc = proc.as_ref().map(AsFd::as_fd);
    for (file, value) in &plan.sysctls {
        let file = file.to_string_lossy();
        process::write_proc(proc, &file, value)
            .map_err(|e| Error::invalid(format!("open sysctl {file} file: {}", io_words(&e))))?;
    }
    masks::mask(root, &plan.masked)?;
    masks::read_only(root, &plan.read_only)?;
    seal(root, plan, &writable)?;
    cgroup.enter(channel)?;
    attach_stdio(inputs.stdio, console)?;
    process::finish(
        &process::Final {
            process: &plan.process,
            filter: inputs.filter,
            die_with_parent: inputs.die_with_parent,
            proc,
            init: inputs.init,
            hold: inputs.hold.as_ref().map(AsFd::as_fd),
            preserved: inputs.preserved,
            keyring: inputs.keyring,
            hooked: inputs.hooked,
            has_user: plan.kinds.has_user(),
        },
        channel,
    )
}

/// Finds its place in the user namespace, and makes a time namespace in it. The offsets of the
/// clocks are written while the file is still ours: it belongs to the root of whoever executed
/// this program, and that of the user namespace is another.
fn settle(plan: &Plan, channel: &Channel) -> Result<(), Error> {
    if plan.kinds.maps.is_some() && !matches!(channel.order(), Ok(Order::Mapped)) {
        // Nobody wants this container any more.
        exit_now(1);
    }
    if plan.kinds.new.contains(Namespaces::TIME) {
        userns::enter_new_time(&plan.kinds.time_offsets)
            .map_err(|e| Error::invalid(format!("make the time namespace: {}", io_words(&e))))?;
    }
    if plan.kinds.has_user() {
        userns::become_root()?;
    }
    Ok(())
}

/// The runtime runs its hooks, and then we run ours, in our namespaces and in the root file
/// system's directory, but with the host's files about us.
fn create_hooks(hooked: &Hooked<'_>, inputs: &Inputs<'_>, channel: &Channel) -> Result<(), Error> {
    channel
        .report_mounted()
        .map_err(|e| Error::internal(format!("report the mounts: {}", io_words(&e))))?;
    match channel.order() {
        Ok(Order::GoOn) => {}
        // Nobody wants this container any more.
        _ => exit_now(1),
    }
    rustix::process::fchdir(&inputs.root).map_err(|e| internal("enter the rootfs", e))?;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let env = Some(inputs.plan.process.env.as_slice());
    hooks::run(
        hooked.hooks,
        Point::CreateContainer,
        &hooked.subject,
        pid,
        env,
    )
}

fn join(namespaces: &[(Namespaces, OwnedFd)]) -> Result<(), Error> {
    for (kind, namespace) in namespaces {
        // A pid namespace was joined by the parent, since it takes effect for children.
        if *kind != Namespaces::PID {
            clone::setns(namespace.as_fd(), *kind).map_err(|e| {
                Error::internal(format!(
                    "error joining namespace {:#x}: {}",
                    kind.bits(),
                    io_words(&e)
                ))
            })?;
        }
    }
    Ok(())
}

fn names(plan: &Plan) -> Result<(), Error> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes())
            .map_err(|e| Error::invalid(format!("sethostname: {}", errno_words(e))))?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes())
            .map_err(|e| Error::invalid(format!("setdomainname: {}", errno_words(e))))?;
    }
    Ok(())
}

/// The parent makes the cgroups while the child makes the mounts; the child waits for them as
/// late as it can.
struct CgroupEntry<'a> {
    plan: &'a Plan,
    entered: Option<Vec<OwnedFd>>,
}

impl CgroupEntry<'_> {
    /// Enters the container's cgroups, and then the cgroup namespace, whose root they become.
    /// Returns the mounts that came along.
    fn enter(&mut self, channel: &Channel) -> Result<&[OwnedFd], Error> {
        if self.entered.is_none() {
            let descriptors = match channel.order() {
                Ok(Order::Join(descriptors)) => descriptors,
                // Nobody wants this container any more.
                _ => exit_now(1),
            };
            let mut descriptors = descriptors.into_iter();
            let mut trees = Vec::new();
            // Doors first: they are files, trees are O_PATH directories.
            for descriptor in &mut descriptors {
                if is_directory(descriptor.as_fd()) {
                    trees.push(descriptor);
                } else {
                    enter_door(descriptor.as_fd())?;
                }
            }
            if self.plan.kinds.new.contains(Namespaces::CGROUP) {
                clone::unshare(Namespaces::CGROUP).map_err(|e| {
                    Error::internal(format!("unshare cgroup namespace: {}", io_words(&e)))
                })?;
            }
            self.entered = Some(trees);
        }
        Ok(self.entered.as_deref().unwrap_or_default())
    }
}

fn is_directory(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| {
        rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory
    })
}

/// Enters one version 1 cgroup.
pub(super) fn enter_door(door: BorrowedFd<'_>) -> Result<(), Error> {
    rustix::io::write(door, b"0")
        .map(drop)
        .map_err(|e| internal("enter cgroup", e))
}

/// Everything before the pivot. Returns the terminal's slave, and the mounts that get read-only
/// when all is in them.
fn build_root(
    inputs: &mut Inputs<'_>,
    cgroup: &mut CgroupEntry<'_>,
    channel: &Channel,
) -> Result<(Option<OwnedFd>, Vec<OwnedFd>), Error> {
    let plan = inputs.plan;
    let root = inputs.root.as_fd();
    let place = inputs.hooked.and_then(|hooked| hooked.rootfs);
    mounts::attach_root(root, place)?;
    let sources = std::mem::take(&mut inputs.sources);
    let mut writable = Vec::new();
    for (mount, source) in plan.mounts.iter().zip(&sources) {
        match mount.kind {
            MountKind::Cgroup => {
                cgroups::apply(root, mount, inputs.layout, cgroup.enter(channel)?)?
            }
            MountKind::Bind { .. } | MountKind::Again | MountKind::FileSystem { .. } => {
                writable.extend(mounts::apply(root, mount, source.as_ref())?);
            }
        }
    }
    if plan.fills_dev() {
        devices::make(root, &plan.devices)?;
    }
    let super::Stdio::Terminal { size } = inputs.stdio else {
        return Ok((None, writable));
    };
    let console = Console::open(root, size)?;
    if plan.fills_dev() {
        devices::console(root, console.slave.as_fd())
            .map_err(|e| internal("error setting up /dev/console", e))?;
    }
    channel
        .report_console(console.master.as_fd())
        .map_err(|e| Error::internal(format!("send console: {}", io_words(&e))))?;
    Ok((Some(console.slave), writable))
}

/// A proc file system of our own, never attached: nothing that the container mounts below /proc
/// can redirect what we write there. Only made when something is to be written.
fn own_proc(plan: &Plan) -> Result<Option<OwnedFd>, Error> {
    let needed = !plan.sysctls.is_empty() || plan.process.writes_proc(plan.kinds.has_user());
    needed
        .then(|| {
            file_systems::detached("proc", "proc", &[], 0).map_err(|e| internal("mount proc", e))
        })
        .transpose()
}

/// Read-only mounts and root, and the root's propagation.
fn seal(root: BorrowedFd<'_>, plan: &Plan, writable: &[OwnedFd]) -> Result<(), Error> {
    for mount in writable {
        masks::seal(mount.as_fd())
            .map_err(|e| Error::internal(format!("set a mount read-only: {}", io_words(&e))))?;
    }
    if plan.read_only_root {
        let place = path::locate(root, Path::new("/")).map_err(|e| internal("open /", e))?;
        masks::seal(place.as_fd()).map_err(|e| {
            Error::internal(format!(
                "error setting rootfs as readonly: {}",
                io_words(&e)
            ))
        })?;
    }
    if let Some((propagation, recursive)) = plan.root_propagation {
        let change = Change {
            propagation: Some(propagation),
            ..Change::default()
        };
        let place = path::locate(root, Path::new("/")).map_err(|e| internal("open /", e))?;
        berth_sys::mount::setattr(place.as_fd(), change, recursive)
            .map_err(|e| Error::internal(format!("set rootfs propagation: {}", io_words(&e))))?;
    }
    Ok(())
}

/// Installs 0, 1 and 2. A terminal becomes the session's controlling one.
pub(super) fn attach_stdio(stdio: super::Stdio, console: Option<OwnedFd>) -> Result<(), Error> {
    let fail = |e: &std::io::Error| Error::internal(format!("set up stdio: {}", io_words(e)));
    match (stdio, console) {
        (_, Some(slave)) => {
            process::install_stdio([&slave, &slave, &slave]).map_err(|e| fail(&e))?;
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
                .map_err(|e| internal("setctty", e))
        }
        (
            super::Stdio::Descriptors {
                stdin,
                stdout,
                stderr,
            },
            None,
        ) => process::install_stdio([&stdin, &stdout, &stderr]).map_err(|e| fail(&e)),
        (super::Stdio::Inherit | super::Stdio::Terminal { .. }, None) => Ok(()),
    }
}

fn internal(what: &str, errno: rustix::io::Errno) -> Error {
    Error::internal(format!("{what}: {}", errno_words(errno)))
}
