//! The process's environment: the one place that looks at it.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::daemon::Settings;

/// What systemd tells a service, and how it wants to be told (sd_listen_fds(3), sd_notify(3)).
#[derive(Debug, Default)]
pub struct Surroundings {
    listen_fds: usize,
    notify_socket: Option<String>,
    cert_path: Option<String>,
    home: Option<String>,
    http_proxy: Option<String>,
    https_proxy: Option<String>,
    no_proxy: Option<String>,
    system_bus: Option<String>,
}

impl Surroundings {
    pub fn of_process() -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        // As Go reads them: in capitals first.
        let proxy = |name: &str| given(name).or_else(|| given(&name.to_lowercase()));
        let ours = number("LISTEN_PID") == Some(std::process::id());
        let listen_fds = number("LISTEN_FDS").filter(|_| ours).unwrap_or(0);
        Self {
            listen_fds: usize::try_from(listen_fds).unwrap_or(0),
            notify_socket: variable("NOTIFY_SOCKET"),
            cert_path: given("DOCKER_CERT_PATH"),
            home: given("HOME"),
            http_proxy: proxy("HTTP_PROXY"),
            https_proxy: proxy("HTTPS_PROXY"),
            no_proxy: proxy("NO_PROXY"),
            system_bus: given("DBUS_SYSTEM_BUS_ADDRESS"),
        }
    }

    /// Where dockerd looks for certificates that no flag names.
    pub fn certificates(&self) -> PathBuf {
        match (&self.cert_path, &self.home) {
            (Some(directory), _) => directory.into(),
            (None, Some(home)) => Path::new(home).join(".docker"),
            (None, None) => "/root/.docker".into(),
        }
    }

    /// The environment's proxies, where the configuration says nothing.
    pub fn complete_proxies(&self, settings: &mut Settings) {
        let complete = |setting: &mut Option<String>, found: &Option<String>| {
            if setting.is_none() {
                setting.clone_from(found);
            }
        };
        complete(&mut settings.http_proxy, &self.http_proxy);
        complete(&mut settings.https_proxy, &self.https_proxy);
        complete(&mut settings.no_proxy, &self.no_proxy);
    }

    /// Where the system's message bus listens, if it is not the usual place (D-Bus
    /// Specification, "System message bus"). Only sockets in the file system are of use.
    pub fn system_bus(&self) -> Option<&Path> {
        let addresses = self.system_bus.as_deref().unwrap_or_default();
        let mut paths = addresses
            .split(';')
            .filter_map(|one| one.strip_prefix("unix:path="));
        let path = paths.next()?.split(',').next()?;
        Some(Path::new(path))
    }

    pub fn listen_fds(&self) -> usize {
        self.listen_fds
    }

    pub fn notify_socket(&self) -> Option<&str> {
        self.notify_socket.as_deref()
    }

    /// Tells systemd about a state; without systemd, nothing.
    pub fn notify(&self, state: &str) {
        let Some(path) = &self.notify_socket else {
            return;
        };
        if let Err(error) = berth_sys::notify::notify(path, state) {
            tracing::warn!(%error, socket = %path, "notify the service manager");
        }
    }
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

/// A variable of the environment.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
