//! The process's environment: the one place that looks at it.

use std::ffi::CString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What systemd tells a service, and how it wants to be told (sd_listen_fds(3), sd_notify(3)).
#[derive(Debug, Default)]
pub struct Surroundings {
    listen_fds: usize,
    notify_socket: Option<String>,
}

impl Surroundings {
    pub fn of_process() -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let ours = number("LISTEN_PID") == Some(std::process::id());
        let listen_fds = number("LISTEN_FDS").filter(|_| ours).unwrap_or(0);
        Self {
            listen_fds: usize::try_from(listen_fds).unwrap_or(0),
            notify_socket: std::env::var("NOTIFY_SOCKET").ok(),
        }
    }

    pub fn listen_fds(&self) -> usize {
        self.listen_fds
    }

    /// Tells systemd about a state; without systemd, nothing.
    pub fn notify(&self, state: &str) {
        let Some(path) = &self.notify_socket else {
            return;
        };
        if let Err(error) = send(path, state) {
            tracing::warn!(%error, socket = %path, "notify the service manager");
        }
    }
}

fn send(path: &str, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// Arguments and environment as the kernel handed them over.
pub fn raw() -> (Vec<CString>, Vec<CString>) {
    // Neither holds a zero byte, since both were zero-terminated.
    let text = |bytes: &[u8]| CString::new(bytes).ok();
    let args = std::env::args_os()
        .filter_map(|word| text(word.as_bytes()))
        .collect();
    let env = std::env::vars_os()
        .filter_map(|(name, value)| text(&[name.as_bytes(), b"=", value.as_bytes()].concat()));
    (args, env.collect())
}

/// A variable of the environment, for the command line.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
