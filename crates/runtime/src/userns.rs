//! User namespaces: giving one its mappings, becoming its root, and making one that only stands
//! for mappings.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_sys::clone::{self, Fork, Namespaces};
use berth_sys::fork::exit_now;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Pid, Uid};

use crate::error::{Error, errno_words, io_words};
use crate::plan::IdMaps;

/// Writes the mappings of the user namespace that `pid` was born into. The caller is privileged,
/// so `setgroups` stays allowed in it.
pub(crate) fn write_maps(pid: Pid, maps: &IdMaps) -> Result<(), Error> {
    for (file, list) in [("uid_map", &maps.uids), ("gid_map", &maps.gids)] {
        let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
        fs::write(path, IdMaps::text(list)).map_err(|e| {
            Error::invalid(format!("write {file} of the container: {}", io_words(&e)))
        })?;
    }
    Ok(())
}

/// The mappings that `pid` is seen through from here.
pub(crate) fn maps_of(pid: Pid) -> io::Result<IdMaps> {
    let read = |file: &str| {
        let text = fs::read_to_string(format!("/proc/{}/{file}", pid.as_raw_nonzero()))?;
        Ok::<_, io::Error>(IdMaps::parse(&text))
    };
    Ok(IdMaps {
        uids: read("uid_map")?,
        gids: read("gid_map")?,
    })
}

/// A user namespace without a process, for [`berth_sys::mount::set_idmap`]. The caller must have
/// one thread.
pub(crate) fn with_maps(maps: &IdMaps) -> Result<OwnedFd, Error> {
    let fail = |what: &str, e: &io::Error| {
        Error::internal(format!(
            "user namespace of a mount: {what}: {}",
            io_words(e)
        ))
    };
    let (wait, hold) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| fail("pipe", &e.into()))?;
    let born = clone::fork(Namespaces::USER, None).map_err(|e| fail("clone", &e))?;
    let Fork::Parent { child, pidfd } = born else {
        drop(hold);
        // Until the parent has what it wants, or is gone.
        let _ = rustix::io::read(&wait, &mut [0]);
        exit_now(0)
    };
    drop(wait);
    let namespace = write_maps(child, maps).and_then(|()| {
        let path = format!("/proc/{}/ns/user", child.as_raw_nonzero());
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| fail("open", &e.into()))
    });
    drop(hold);
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    while let Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
    namespace
}

/// Takes on the namespace's root, which owns what is made in it. Until then the process is the
/// host's root without a capability on the host.
pub(crate) fn become_root() -> Result<(), Error> {
    let fail = |what: &str, errno| {
        Error::invalid(format!(
            "become root of the user namespace: {what}: {}",
            errno_words(errno)
        ))
    };
    match rustix::thread::set_thread_groups(&[]) {
        // A namespace that an unprivileged process made forbids it, and then has none to shed.
        Ok(()) | Err(Errno::PERM) => {}
        Err(errno) => return Err(fail("setgroups", errno)),
    }
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|e| fail("setgid", e))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|e| fail("setuid", e))
}

/// Leaves for a new time namespace, whose clocks have these offsets.
pub(crate) fn enter_new_time(offsets: &str) -> io::Result<()> {
    clone::unshare(Namespaces::TIME)?;
    if !offsets.is_empty() {
        fs::write("/proc/self/timens_offsets", offsets)?;
    }
    // Only children are born into it, and (since Linux 6.3) what is executed.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = "/proc/self/ns/time_for_children";
    let namespace = rustix::fs::open(path, flags, Mode::empty())?;
    clone::setns(namespace.as_fd(), Namespaces::TIME)
}
