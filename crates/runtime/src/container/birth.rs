//! The fork that a container's first process comes from: into which namespaces, and by whom.
//!
//! A new namespace belongs to the user namespace of the one who makes it, and only those who
//! have rights there may mount proc, sysfs and the like for it. So a user namespace comes before
//! all that are new. One that is joined, though, or a new one beside others that are joined, is
//! more than one clone3 can say: what is joined must be entered while still the host's root. Then
//! a go-between is forked, which enters all of these, gives birth to a sibling, and ends.
//!
//! ```text
//!  caller ──fork──► go-between: setns(others), setns(user)
//!     ▲                  │ clone3(CLONE_PARENT | new)
//!     └── child of ──────▼
//!                     first process
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::clone::{self, Fork, Namespaces};
use berth_sys::fork::exit_now;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

/// Whether a go-between is needed, which joins all that there is to join.
pub(super) fn needs_go_between(new: Namespaces, join: &[(Namespaces, OwnedFd)]) -> bool {
    let joins_user = join.iter().any(|(kind, _)| *kind == Namespaces::USER);
    joins_user || new.contains(Namespaces::USER) && !join.is_empty()
}

/// Forks the first process. Without a go-between it still has to join all but a pid namespace.
pub(super) fn fork(
    new: Namespaces,
    join: &[(Namespaces, OwnedFd)],
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Fork> {
    if needs_go_between(new, join) {
        return through_go_between(new, join, cgroup);
    }
    let mut joined = join.iter();
    let pid = joined.find(|(kind, _)| *kind == Namespaces::PID);
    in_pid_namespace(pid.map(|(_, fd)| fd.as_fd()), || clone::fork(new, cgroup))
}

fn through_go_between(
    new: Namespaces,
    join: &[(Namespaces, OwnedFd)],
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Fork> {
    let (news, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match clone::fork(Namespaces::empty(), cgroup)? {
        Fork::Child => {
            drop(news);
            match enter(join).and_then(|()| clone::fork_sibling(new)) {
                Ok(None) => Ok(Fork::Child),
                Ok(Some(pid)) => say(&tell, pid.as_raw_nonzero().get()),
                Err(error) => say(&tell, -error.raw_os_error().unwrap_or(libc::EIO)),
            }
        }
        Fork::Parent { pidfd, .. } => {
            drop(tell);
            let mut word = [0; 4];
            let read = rustix::io::retry_on_intr(|| rustix::io::read(&news, &mut word));
            let wait =
                || rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            rustix::io::retry_on_intr(wait)?;
            let number = match read? {
                4 => i32::from_ne_bytes(word),
                _ => -libc::EIO,
            };
            match Pid::from_raw(number.max(0)) {
                // Nobody else reaps our child, so its number cannot be another's.
                Some(child) => Ok(Fork::Parent {
                    child,
                    pidfd: rustix::process::pidfd_open(child, PidfdFlags::empty())?,
                }),
                None => Err(io::Error::from_raw_os_error(-number)),
            }
        }
    }
}

/// The host's root may enter all that the user namespace owns, too; afterwards it is nobody
/// outside of it.
fn enter(join: &[(Namespaces, OwnedFd)]) -> io::Result<()> {
    let is_user = |entry: &&(Namespaces, OwnedFd)| entry.0 == Namespaces::USER;
    let others = join.iter().filter(|entry| !is_user(entry));
    others
        .chain(join.iter().filter(is_user))
        .try_for_each(|(kind, fd)| clone::setns(fd.as_fd(), *kind))
}

fn say(tell: &OwnedFd, number: i32) -> ! {
    // A caller who is gone wants no news.
    let _ = rustix::io::write(tell, &number.to_ne_bytes());
    exit_now(0)
}

/// Forks a child into another pid namespace, by being its children's for a moment.
pub(super) fn in_pid_namespace(
    namespace: Option<BorrowedFd<'_>>,
    fork: impl FnOnce() -> std::io::Result<Fork>,
) -> std::io::Result<Fork> {
    let Some(namespace) = namespace else {
        return fork();
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open("/proc/self/ns/pid", flags, Mode::empty())?;
    clone::setns(namespace, Namespaces::PID)?;
    let result = fork();
    // The child cannot go back, and need not.
    if !matches!(result, Ok(Fork::Child)) {
        clone::setns(own.as_fd(), Namespaces::PID)?;
    }
    result
}
