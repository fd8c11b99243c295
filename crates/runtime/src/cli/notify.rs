//! That a container is ready, told to the caller's service manager (sd_notify(3)), as runc does it.
//!
//! ```text
//!  container ─▶ /run/notify/notify.sock = ROOT/ID/notify/notify.sock ─▶ this process ─▶ the manager
//! ```
//!
//! Without `run`'s waiting, this process stays until the container is ready or has ended, and names
//! the container's process as the service's (`MAINPID`); a `run` that waits names itself.

use std::fs::{File, Permissions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder, Spec};
use rustix::event::{PollFd, PollFlags, poll};

use super::io;
use crate::error::Error;

/// Where a container finds the socket's directory. It is mounted, and not the socket, since that
/// is made by `start`.
const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";
/// The longest message that is read, in bytes; what is longer is cut off.
const MESSAGE_BYTES: usize = 4096;

/// The directory of a container's socket, below its state's.
fn directory(root: &Path, id: &str) -> PathBuf {
    root.join(id).join("notify")
}

/// Gives the container the directory and tells it the socket.
pub(super) fn provide(spec: &mut Spec, root: &Path, id: &str) -> Result<(), Error> {
    spec.mounts_mut()
        .get_or_insert_default()
        .push(mount(directory(root, id))?);
    if let Some(process) = spec.process_mut() {
        let env = process.env_mut().get_or_insert_default();
        env.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
    }
    Ok(())
}

fn mount(source: PathBuf) -> Result<Mount, Error> {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"];
    MountBuilder::default()
        .destination(INSIDE)
        .typ("bind")
        .source(source)
        .options(options.map(str::to_owned))
        .build()
        .map_err(|error| Error::internal(format!("mount of the notify socket: {error}")))
}

/// Makes the directory, in that of the container's state.
pub(super) fn reserve(root: &Path, id: &str) -> Result<(), Error> {
    std::fs::create_dir(directory(root, id)).map_err(io("make the notify socket's directory"))
}

/// A socket that the container sends to.
pub(super) struct Socket<'a> {
    socket: UnixDatagram,
    /// The service manager's.
    manager: &'a str,
}

impl<'a> Socket<'a> {
    /// `None` for a container that was created without one.
    pub fn bind(root: &Path, id: &str, manager: Option<&'a str>) -> Result<Option<Self>, Error> {
        let directory = directory(root, id);
        let Some(manager) = manager.filter(|_| directory.exists()) else {
            return Ok(None);
        };
        let directory = File::open(directory).map_err(io("open the notify socket's directory"))?;
        // A socket's address holds 108 bytes.
        let path = format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd());
        let socket = UnixDatagram::bind(&path)
            // Whoever the container's process is.
            .and_then(|socket| {
                std::fs::set_permissions(&path, Permissions::from_mode(0o777))?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .map_err(io("bind the notify socket"))?;
        Ok(Some(Self { socket, manager }))
    }

    /// Waits until the container is ready, and tells the manager, or until it has ended.
    pub fn pass_on(&self, container: BorrowedFd<'_>, main_pid: u32) -> Result<(), Error> {
        loop {
            let socket = self.socket.as_fd();
            let mut polled = [
                PollFd::new(&socket, PollFlags::IN),
                PollFd::new(&container, PollFlags::IN),
            ];
            match poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(|e| io("wait for the container")(e.into()))?,
            };
            let has_ended = !polled[1].revents().is_empty();
            // Also what it said before its end.
            let mut message = [0; MESSAGE_BYTES];
            while let Ok(length) = self.socket.recv(&mut message) {
                if let Some(ready) = ready(&message[..length]) {
                    let told = format!("MAINPID={main_pid}\n{ready}\n");
                    return berth_sys::notify::notify(self.manager, &told)
                        .map_err(io("tell the service manager"));
                }
            }
            if has_ended {
                return Ok(());
            }
        }
    }
}

/// The line that says whether the service is ready.
fn ready(message: &[u8]) -> Option<&str> {
    let mut lines = message.split(|&byte| byte == b'\n');
    let line = lines.find(|line| line.starts_with(b"READY="))?;
    std::str::from_utf8(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_readiness_is_passed_on() {
        for (message, expected) in [
            (&b"READY=1"[..], Some("READY=1")),
            (b"STATUS=up\nREADY=1\nMAINPID=7", Some("READY=1")),
            (b"STATUS=READY=1", None),
            (b"READY=\xff", None),
            (b"", None),
        ] {
            assert_eq!(ready(message), expected);
        }
    }
}
