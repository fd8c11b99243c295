//! Making a container's first process: what the caller opens, forks and hands over, and what is
//! undone when a step fails.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::clone::{Fork, Namespaces};
use oci_spec::runtime::Hooks;
use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Pid};

use super::channel::{self, Channel, Report};
use super::{Container, CreateRequest, Created, Lifetime, Rootfs, Stdio, birth, init, process};
use crate::cgroup::{Cgroup, Layout};
use crate::error::{Error, errno_words, io_words};
use crate::hooks::{self, Point, Subject};
use crate::plan::{self, MountKind, Plan};
use crate::rootfs::mounts;
use crate::seccomp::Agent;
use crate::userns;

/// Where a failure happened; runc words it differently.
pub(super) enum Failure {
    Here(Error),
    Child(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Here(error)
    }
}

pub(super) fn spawn(
    request: CreateRequest<'_>,
    plan: &Plan,
    cgroup: Cgroup,
) -> Result<Created, Failure> {
    let layout = Layout::host()?;
    let root = root(&request.rootfs)?;
    let (sources, join) = {
        // What is forked for their mappings must not be looked into either.
        undumpable()?;
        namespaces(plan, request.netns)
            .and_then(|join| Ok((mounts::open_sources(plan, &join)?, join)))?
    };
    let (ours, theirs) = channel::pair().map_err(|e| failed("socketpair", &e))?;
    let is_v2 = matches!(layout, Layout::V2 { .. });
    let mut container = Unfinished {
        cgroup: Some(cgroup),
        pidfd: None,
    };
    if is_v2 {
        container.cgroup()?.make()?;
    }
    let entry = container
        .cgroup()?
        .below(&[])?
        .entry()
        .map_err(|e| failed("open cgroup", &e))?;
    // A cgroup namespace is made later, when the process is in its cgroup, and one that is joined
    // is not new.
    let new = join.iter().fold(
        (plan.kinds.new)
            .without(Namespaces::CGROUP)
            .without(Namespaces::TIME),
        |new, (kind, _)| new.without(*kind),
    );
    let outlives = request.lifetime == Lifetime::Own;
    let subject = subject(&request);
    let agent = (request.filter).and_then(|filter| filter.agent(&subject, "creating"));
    let subject = request.demands.bundle.map(|_| subject);
    let hooked = Hooked::of(plan, subject, &request.rootfs);
    let fork = birth::fork(new, &join, entry.as_ref().map(AsFd::as_fd));
    let (child, pidfd) = match fork.map_err(|e| failed("clone", &e))? {
        Fork::Parent { child, pidfd } => (child, pidfd),
        Fork::Child => {
            // The other end stays open in the child, where a later starter finds it.
            let hold = outlives.then_some(ours);
            init::run(
                init::Inputs {
                    plan,
                    hold,
                    root,
                    sources,
                    join: if birth::needs_go_between(new, &join) {
                        Vec::new()
                    } else {
                        join
                    },
                    layout,
                    filter: request.filter,
                    stdio: request.stdio,
                    die_with_parent: !outlives,
                    init: request.init,
                    preserved: request.demands.preserved,
                    keyring: (!request.demands.keep_keyring).then_some(request.id),
                    no_pivot: request.demands.no_pivot,
                    hooked,
                },
                &theirs,
            )
        }
    };
    drop((theirs, entry, root, sources, join));
    container.pidfd = Some(pidfd);
    let mut left_out = Vec::new();
    if plan.kinds.has_user() {
        settle(plan, child, &request.stdio, &ours)?;
    }
    // The child makes its mounts meanwhile.
    if !is_v2 {
        container.cgroup()?.make()?;
    }
    if let Some(resources) = request
        .spec
        .linux()
        .as_ref()
        .and_then(|l| l.resources().as_ref())
    {
        let cgroup = container.cgroup()?;
        cgroup.confine_devices(resources)?;
        cgroup.set(resources)?;
        left_out = cgroup.lacking(resources);
    }
    if plan.owns_cgroups() {
        let maps = userns::maps_of(child).map_err(|e| failed("read the mappings", &e))?;
        if let Some(uid) = plan::host_id(&maps.uids, plan.process.uid) {
            container.cgroup()?.delegate(uid)?;
        }
    }
    order_join(&ours, container.cgroup()?, plan, layout)?;
    let (console, mut warnings) = listen(&ours, || match hooked {
        None => Ok(()),
        Some(hooked) => hooked.before_pivot(child),
    })?;
    if plan.kinds.has_user() {
        process::limits(&plan.process, Some(child))?;
    }
    warnings
        .extend((left_out.iter()).map(|what| format!("{what}: not in cgroup version 2, left out")));
    let (cgroup, pidfd) = container.finish()?;
    Ok(Created {
        warnings,
        console,
        channel: ours,
        agent,
        container: Some(Container {
            pid: child,
            pidfd,
            cgroup,
            die_with_caller: !outlives,
        }),
    })
}

/// What a child in a user namespace cannot do for itself: its mappings, standard descriptors that
/// its user may open again, and a place in the kernel's list of victims.
fn settle(plan: &Plan, child: Pid, stdio: &Stdio, channel: &Channel) -> Result<(), Error> {
    if let Some(maps) = &plan.kinds.maps {
        userns::write_maps(child, maps)?;
    }
    if let Some(score) = plan.process.oom_score_adj {
        process::oom_score_of(child, score)?;
    }
    if plan.kinds.maps.is_some() {
        let told = channel.order_mapped();
        // Should the child be gone, its report says why.
        told.or_else(|e| match e.raw_os_error() {
            Some(libc::EPIPE) => Ok(()),
            _ => Err(failed("order to go on", &e)),
        })?;
    }
    if let Stdio::Descriptors {
        stdin,
        stdout,
        stderr,
    } = stdio
    {
        let maps = userns::maps_of(child).map_err(|e| failed("read the mappings", &e))?;
        if let Some(uid) = plan::host_id(&maps.uids, plan.process.uid) {
            process::own_stdio([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()], uid);
        }
    }
    Ok(())
}

/// A container without a bundle has no hooks; an agent is told an empty path.
fn subject<'a>(request: &CreateRequest<'a>) -> Subject<'a> {
    Subject {
        version: request.spec.version(),
        id: request.id,
        bundle: request.demands.bundle.unwrap_or(Path::new("")),
        annotations: request.spec.annotations().as_ref(),
    }
}

/// The hooks of a creation, and whom they are told about.
#[derive(Clone, Copy)]
pub(super) struct Hooked<'a> {
    pub hooks: &'a Hooks,
    pub subject: Subject<'a>,
    /// Where hooks expect the container's root file system.
    pub rootfs: Option<&'a Path>,
}

impl<'a> Hooked<'a> {
    fn of(plan: &'a Plan, subject: Option<Subject<'a>>, rootfs: &Rootfs<'a>) -> Option<Self> {
        Some(Self {
            hooks: plan.hooks.as_ref()?,
            subject: subject?,
            rootfs: match rootfs {
                Rootfs::Directory(path) => Some(path),
                Rootfs::Mount(_) => None,
            },
        })
    }

    /// Whether the child is to wait for the hooks of its creation.
    pub fn has_any_before_pivot(&self) -> bool {
        use Point::{CreateContainer, CreateRuntime, Prestart};
        hooks::any(self.hooks, &[Prestart, CreateRuntime, CreateContainer])
    }

    /// The runtime's own hooks of the creation.
    fn before_pivot(&self, pid: Pid) -> Result<(), Error> {
        let pid = pid.as_raw_nonzero().get();
        for point in [Point::Prestart, Point::CreateRuntime] {
            hooks::run(self.hooks, point, &self.subject, pid, None)?;
        }
        Ok(())
    }
}

/// What must not be left behind after a failure.
pub(super) struct Unfinished {
    pub cgroup: Option<Cgroup>,
    pub pidfd: Option<OwnedFd>,
}

impl Unfinished {
    fn cgroup(&self) -> Result<&Cgroup, Error> {
        self.cgroup
            .as_ref()
            .ok_or_else(|| Error::internal("the container is finished"))
    }

    fn finish(mut self) -> Result<(Cgroup, OwnedFd), Error> {
        self.cgroup
            .take()
            .zip(self.pidfd.take())
            .ok_or_else(|| Error::internal("the container is finished"))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            discard(pidfd.as_fd());
        }
        if let Some(cgroup) = &self.cgroup {
            // The error that led here is the one to report.
            let _ = cgroup.remove();
        }
    }
}

/// Kills and reaps a child that nobody knows of yet.
pub(super) fn discard(pidfd: BorrowedFd<'_>) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let _ = berth_sys::pidfd::send_signal(pidfd, libc::SIGKILL);
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {}
}

/// The root file system as a mount that belongs to nobody yet.
fn root(source: &Rootfs<'_>) -> Result<OwnedFd, Error> {
    match source {
        Rootfs::Mount(mount) => mount
            .try_clone_to_owned()
            .map_err(|e| Error::internal(format!("duplicate the rootfs: {}", io_words(&e)))),
        Rootfs::Directory(path) => mounts::clone_tree(path, true).map_err(|e| {
            Error::invalid(format!(
                "invalid rootfs {}: {}",
                path.display(),
                errno_words(e)
            ))
        }),
    }
}

/// Opens the namespaces to join. The descriptor that the caller gave stands for a network
/// namespace whatever the specification says.
fn namespaces(
    plan: &Plan,
    netns: Option<BorrowedFd<'_>>,
) -> Result<Vec<(Namespaces, OwnedFd)>, Error> {
    let mut join = Vec::new();
    for (kind, path) in &plan.kinds.join {
        if *kind == Namespaces::NETWORK && netns.is_some() {
            continue;
        }
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(
            |e| {
                Error::invalid(format!(
                    "namespace path {}: {}",
                    path.display(),
                    errno_words(e)
                ))
            },
        )?;
        if *kind == Namespaces::MOUNT && is_own(&fd, "mnt") {
            // The container's root would become the host's.
            return Err(Error::invalid(format!(
                "namespace path {}: a container cannot be in the host's mount namespace",
                path.display()
            )));
        }
        join.push((*kind, fd));
    }
    if let Some(netns) = netns {
        let fd = netns.try_clone_to_owned().map_err(|e| {
            Error::internal(format!("duplicate the network namespace: {}", io_words(&e)))
        })?;
        join.push((Namespaces::NETWORK, fd));
    }
    Ok(join)
}

/// Whether a namespace is the one that we are in.
fn is_own(namespace: &OwnedFd, kind: &str) -> bool {
    let own = rustix::fs::stat(Path::new("/proc/self/ns").join(kind));
    match (own, rustix::fs::fstat(namespace)) {
        (Ok(own), Ok(theirs)) => (own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino),
        _ => false,
    }
}

pub(super) fn undumpable() -> Result<(), Error> {
    let fail = |e| Error::internal(format!("set undumpable: {}", errno_words(e)));
    if rustix::process::dumpable_behavior().map_err(fail)? != DumpableBehavior::NotDumpable {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(fail)?;
    }
    Ok(())
}

/// Hands the child its cgroups: the doors of version 1, and what to mount of them.
fn order_join(
    channel: &Channel,
    cgroup: &Cgroup,
    plan: &Plan,
    layout: &Layout,
) -> Result<(), Error> {
    let doors = cgroup.below(&[])?.doors();
    let mut descriptors = doors.map_err(|e| failed("open cgroup", &e))?;
    let mounted = plan
        .mounts
        .iter()
        .any(|mount| mount.kind == MountKind::Cgroup);
    // Without a cgroup namespace; of version 2 only a user namespace is refused a mount.
    let bound = matches!(layout, Layout::V1(_)) || plan.kinds.has_user();
    if mounted && bound && !plan.kinds.new.contains(Namespaces::CGROUP) {
        for directory in cgroup.directories() {
            let tree = mounts::clone_tree(&directory, false)
                .map_err(|e| failed("clone cgroup", &e.into()))?;
            descriptors.push(tree);
        }
    }
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    match channel.order_join(&borrowed) {
        // The child has failed already, and its report says why.
        Err(error) if error.raw_os_error() == Some(libc::EPIPE) => Ok(()),
        result => result.map_err(|e| failed("hand over cgroups", &e)),
    }
}

/// Takes reports until the child is ready. `mounted` is what is to be done once the container's
/// mounts are made.
pub(super) fn listen(
    channel: &Channel,
    mounted: impl Fn() -> Result<(), Error>,
) -> Result<(Option<OwnedFd>, Vec<String>), Failure> {
    let (mut console, mut warnings) = (None, Vec::new());
    loop {
        match channel
            .report()
            .map_err(|e| failed("receive a report", &e))?
        {
            Report::Console(master) => console = Some(master),
            Report::Warning(text) => warnings.push(text),
            Report::Mounted => {
                mounted()?;
                channel
                    .order_go_on()
                    .map_err(|e| failed("order to go on", &e))?;
            }
            Report::Ready => return Ok((console, warnings)),
            Report::Failed(error) => return Err(Failure::Child(error)),
            Report::Closed | Report::Listener(_) => {
                return Err(Failure::Child(Error::internal(
                    "the process ended without a word",
                )));
            }
        }
    }
}

/// Lets the child execute its command, and waits for its doing so. Its filter's agent gets what
/// it needs to answer.
pub(super) fn launch(
    channel: &Channel,
    child: (Pid, BorrowedFd<'_>),
    agent: Option<&Agent>,
) -> Result<(), Failure> {
    channel
        .order_start()
        .map_err(|e| failed("order the start", &e))?;
    let mut report = channel.report();
    if let (Ok(Report::Listener(number)), Some(agent)) = (&report, agent) {
        let (pid, pidfd) = child;
        let flags = rustix::process::PidfdGetfdFlags::empty();
        let listener = rustix::process::pidfd_getfd(pidfd, *number, flags)
            .map_err(|e| failed("take the seccomp listener", &e.into()))?;
        agent.hand_over(listener.as_fd(), pid.as_raw_nonzero().get())?;
        channel
            .order_to_the_filtered()
            .map_err(|e| failed("order to go on", &e))?;
        report = channel.report();
    } else if let (Ok(Report::Closed), Some(_)) = (&report, agent) {
        return Err(Failure::Child(Error::internal(
            "the filter lets no seccomp agent be told of it",
        )));
    }
    match report.map_err(|e| failed("receive a report", &e))? {
        Report::Closed => Ok(()),
        Report::Failed(error) => Err(Failure::Child(error)),
        other => Err(Failure::Here(Error::internal(format!(
            "unexpected report {other:?}"
        )))),
    }
}

pub(super) fn failed(what: &str, error: &std::io::Error) -> Error {
    Error::internal(format!("{what}: {}", io_words(error)))
}
