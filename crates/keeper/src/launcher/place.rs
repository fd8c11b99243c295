//! Where the launcher and its children live: session, descriptors, cgroup.

use std::ffi::CStr;
use std::fs;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use berth_runtime::cgroup::Cgroup;
use berth_sys::{exec, fork};
use rustix::io::Errno;

/// Each time, another launcher has to have ended at that moment.
const ENTER_TRIES: u32 = 50;
const ENTER_PAUSE: Duration = Duration::from_millis(1);
/// A keeper that has told its container's end, and the relay that was told to end, are gone soon.
const REMOVE_TRIES: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// Turns the freshly forked child of the daemon into the launcher: nothing that the daemon had
/// open stays open (a pipe that it logs to, a socket that systemd passed), and a signal for its
/// process group does not arrive.
pub fn settle(socket: BorrowedFd<'_>, cgroup: Option<&str>) -> io::Result<()> {
    detach(c"berth-launcher")?;
    exec::close_all_but(3, &[socket])?;
    let null = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    std::env::set_current_dir("/")?;
    fork::reap_children_automatically(true)?;
    cgroup.map_or(Ok(()), enter)
}

/// Enters the cgroup, which is made. A launcher that ends meanwhile removes it as long as nobody
/// is in it, also between the two; then both are done again.
fn enter(cgroup: &str) -> io::Result<()> {
    let cgroup = Cgroup::new(cgroup).map_err(io::Error::other)?;
    let try_once = || {
        cgroup.make().map_err(io::Error::other)?;
        // A hierarchy that does not take us (a cpuset without processors, as one is for a moment
        // when two launchers make it) is none to fail for.
        let joined = cgroup.directories().into_iter().map(|it| join(&it));
        joined
            .filter_map(Result::err)
            .find(has_vanished)
            .map_or(Ok(()), Err)
    };
    for _ in 1..ENTER_TRIES {
        if try_once().is_ok() {
            return Ok(());
        }
        std::thread::sleep(ENTER_PAUSE);
    }
    try_once()
}

/// Before its file was opened, or after.
fn has_vanished(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::NODEV)
    )
}

/// A session of its own, a name for `ps`, and children that can be waited for.
pub fn detach(name: &CStr) -> io::Result<()> {
    rustix::process::setsid()?;
    fork::reap_children_automatically(false)?;
    rustix::thread::set_name(name)?;
    Ok(())
}

/// Leaves the cgroup and removes it if no keeper lives there, and its parent with it if no
/// container does: both are the instance's own. What is on its way out is waited for.
pub fn leave(cgroup: &str) {
    let directories = Cgroup::new(cgroup).map(|cgroup| cgroup.directories());
    let mut directories = directories.unwrap_or_default();
    for directory in &directories {
        // Beyond the parent, which is to go, too. On version 2, an ancestor with controllers
        // enabled takes no processes; the root does.
        let _ = directory
            .ancestors()
            .skip(2)
            .chain(directory.parent())
            .find(|ancestor| join(ancestor).is_ok());
    }
    for _ in 0..REMOVE_TRIES {
        directories.retain(|directory| !remove(directory));
        if directories.is_empty() {
            break;
        }
        std::thread::sleep(REMOVE_PAUSE);
    }
    forget_in_version_2(cgroup);
}

/// Beside version 1, runc also makes a directory in a version 2 hierarchy, and leaves its parent
/// behind, which is the instance's.
fn forget_in_version_2(cgroup: &str) {
    let Some(instance) = Path::new(cgroup).parent() else {
        return;
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        file_system
            .starts_with("cgroup2 ")
            .then(|| Path::new(point))
    });
    for point in points {
        // Absent, or in use: both are fine.
        let _ = fs::remove_dir(point.join(instance.strip_prefix("/").unwrap_or(instance)));
    }
}

/// Removes a directory and its parent; `true` if the first is gone.
fn remove(directory: &Path) -> bool {
    let is_gone = match fs::remove_dir(directory) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if is_gone && let Some(instance) = directory.parent() {
        // Containers that run have theirs in it.
        let _ = fs::remove_dir(instance);
    }
    is_gone
}

/// Enters a cgroup. In version 1 through `tasks`: this process has one thread, and a thread that
/// moves only itself need not take the lock of all threads of all processes (kernel
/// `cgroup_procs_write_start`), for which the kernel waits about ten milliseconds. Makes no file
/// where none is: above a hierarchy's root there is a plain directory.
fn join(directory: &Path) -> io::Result<()> {
    let door = |name| fs::File::options().write(true).open(directory.join(name));
    let mut door = match door("tasks") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => door("cgroup.procs"),
        other => other,
    }?;
    door.write_all(b"0")
}
