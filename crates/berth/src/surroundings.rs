//! The process's environment: the one place that looks at it.

use std::io;
use std::os::linux::net::SocketAddrExt;
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

/// A variable of the environment, for the command line.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
