//! The overlay for kernels before 6.7, by `mount` in a child with mounts of its own.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use berth_sys::fdpass;
use berth_sys::fork::{self, Fork};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags, open_tree};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::{Failed, Name, OPTIONS, Overlay, at};

/// Mounts as [`super::mount`] does. The calling process must have one thread.
pub fn mount(overlay: &Overlay<'_>) -> Result<OwnedFd, Failed> {
    let pair = UnixStream::pair().map_err(|error| io_failed("socket pair", &error))?;
    let (ours, theirs) = pair;
    match fork::fork().map_err(|error| io_failed("fork", &error))? {
        Fork::Child => {
            drop(ours);
            // The status carries the errno; 255 holds all of them.
            let mounted = fork::unshare_mounts()
                .map_err(|error| io_failed("unshare", &error))
                .and_then(|()| mount_here(overlay));
            let status = match mounted {
                Ok(mount) => {
                    let sent =
                        fdpass::send_some(&theirs, b"m", &[mount.as_fd()], SendFlags::empty());
                    i32::from(sent.is_err())
                }
                Err(failed) => failed.source.raw_os_error(),
            };
            fork::exit_now(status)
        }
        Fork::Parent { child } => {
            drop(theirs);
            let mut fds = VecDeque::new();
            let received = fdpass::recv_some(&ours, &mut [0], &mut fds, RecvFlags::empty());
            let child = Pid::from_raw(child);
            let status = rustix::io::retry_on_intr(|| waitpid(child, WaitOptions::empty()));
            received.map_err(|error| io_failed("receive the mount", &error))?;
            fds.pop_front().ok_or_else(|| {
                let code = status
                    .ok()
                    .flatten()
                    .and_then(|(_, status)| status.exit_status());
                Failed {
                    step: "mount",
                    source: Errno::from_raw_os_error(code.unwrap_or(1).max(1)),
                }
            })
        }
    }
}

/// Mounts over the topmost directory in the caller's own mounts, and clones that.
pub fn mount_here(overlay: &Overlay<'_>) -> Result<OwnedFd, Failed> {
    let lower = overlay.lower.iter().map(|path| Name::short(path));
    let lower = lower.collect::<Result<Vec<_>, _>>()?;
    let layers: Vec<_> = lower
        .iter()
        .map(|name| name.path().display().to_string())
        .collect();
    let mut data = format!("lowerdir={}", layers.join(":"));
    let upper = overlay.upper.map(|upper| {
        let names = (Name::short(upper.directory)?, Name::short(upper.work)?);
        Ok(names)
    });
    let upper = upper.transpose()?;
    if let Some((directory, work)) = &upper {
        let (directory, work) = (directory.path().display(), work.path().display());
        data += &format!(",upperdir={directory},workdir={work}");
    }
    for (key, value) in OPTIONS {
        // A feature that the kernel lacks has no parameter of the module, and no option either.
        if std::path::Path::new("/sys/module/overlay/parameters")
            .join(key)
            .exists()
        {
            data += &format!(",{key}={value}");
        }
    }
    if overlay.upper.is_some_and(|upper| upper.volatile) {
        data += ",volatile";
    }
    let data = CString::new(data).map_err(|_nul| at("options")(Errno::INVAL))?;
    rustix::mount::mount(
        "overlay",
        overlay.top(),
        "overlay",
        MountFlags::empty(),
        &*data,
    )
    .map_err(at("mount"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, overlay.top(), flags).map_err(at("open_tree"))
}

fn io_failed(step: &'static str, error: &std::io::Error) -> Failed {
    Failed {
        step,
        source: Errno::from_io_error(error).unwrap_or(Errno::IO),
    }
}
