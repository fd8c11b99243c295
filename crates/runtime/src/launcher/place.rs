//! Where the launcher and its children live: session, descriptors, cgroup.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use berth_sys::fork;

/// Turns the freshly forked child of the daemon into the launcher: nothing that the daemon had
/// open stays open (a pipe that it logs to, a socket that systemd passed), and a signal for its
/// process group does not arrive.
pub fn settle(socket: BorrowedFd<'_>, cgroup: Option<&str>) -> io::Result<()> {
    detach(c"berth-launcher")?;
    fork::close_others(socket)?;
    let null = fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    std::env::set_current_dir("/")?;
    fork::reap_children_automatically(true)?;
    if let Some(cgroup) = cgroup {
        for directory in directories(cgroup) {
            // A hierarchy that does not take us (cpuset without processors) is none that limits
            // the daemon in another way than the machine does.
            let _ = fs::create_dir_all(&directory).and_then(|()| join(&directory));
        }
    }
    Ok(())
}

/// A session of its own, a name for `ps`, and children that can be waited for.
pub fn detach(name: &CStr) -> io::Result<()> {
    rustix::process::setsid()?;
    fork::reap_children_automatically(false)?;
    rustix::thread::set_name(name)?;
    Ok(())
}

/// Leaves the cgroup and removes it if no keeper lives there.
pub fn leave(cgroup: &str) {
    for directory in directories(cgroup) {
        // On version 2, an ancestor with controllers enabled takes no processes; the root does.
        let _ = directory
            .ancestors()
            .skip(1)
            .find(|ancestor| join(ancestor).is_ok());
        let _ = fs::remove_dir(&directory);
    }
}

fn join(directory: &Path) -> io::Result<()> {
    fs::write(directory.join("cgroup.procs"), "0")
}

/// The cgroup's directory in each mounted hierarchy, of either version.
fn directories(cgroup: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    hierarchies(&mounts)
        .map(|root| root.join(cgroup.trim_start_matches('/')))
        .collect()
}

fn hierarchies(mounts: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let target = fields.next()?;
        matches!(fields.next()?, "cgroup" | "cgroup2").then(|| PathBuf::from(target))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_hierarchies_are_found() {
        let mounts = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found: Vec<_> = hierarchies(mounts).collect();
        assert_eq!(
            found,
            ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from)
        );
    }
}
