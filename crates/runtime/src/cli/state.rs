//! What the command line remembers of a container between two calls: `<root>/<id>/state.json`.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxSeccomp, Process as ProcessSpec, Spec};
use serde::{Deserialize, Serialize};

use super::{Args, io};
use crate::cgroup::Cgroup;
use crate::container::{Container, Handle};
use crate::defaults;
use crate::error::{Error, ErrorKind};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub id: String,
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`, so that a reused pid is noticed.
    start_ticks: u64,
    pub bundle: PathBuf,
    cgroup: String,
    /// Set between create and start.
    pub waiting: Option<Handle>,
    pub seccomp: Option<LinuxSeccomp>,
    pub process: Option<ProcessSpec>,
    pub annotations: HashMap<String, String>,
    #[serde(skip)]
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

impl State {
    /// Takes an id: its directory is made, or was there.
    pub fn reserve(root: &Path, id: &str, bundle: &Path, cgroup: &str) -> Result<Self, Error> {
        let directory = root.join(id);
        std::fs::create_dir_all(root).map_err(io("make the state directory"))?;
        std::fs::create_dir(&directory).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::invalid("container with given ID already exists")
            }
            _ => io("make the state directory")(error),
        })?;
        Ok(Self {
            id: id.to_owned(),
            pid: 0,
            start_ticks: 0,
            bundle: bundle.to_owned(),
            cgroup: cgroup.to_owned(),
            waiting: None,
            seccomp: None,
            process: None,
            annotations: HashMap::new(),
            directory,
        })
    }

    pub fn load(root: &Path, id: &str) -> Result<Self, Error> {
        let directory = root.join(id);
        let text = std::fs::read(directory.join("state.json"))
            .map_err(|_| Error::new(ErrorKind::NotFound, "container does not exist"))?;
        let state: Self = serde_json::from_slice(&text)
            .map_err(|error| Error::internal(format!("state of {id}: {error}")))?;
        Ok(Self { directory, ..state })
    }

    pub fn ids(root: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        let mut ids: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        ids
    }

    pub fn created(&mut self, container: &Container, handle: Handle) -> Result<(), Error> {
        self.waiting = Some(handle);
        self.started(container)
    }

    pub fn started(&mut self, container: &Container) -> Result<(), Error> {
        self.pid = container.pid().as_raw_nonzero().get();
        self.start_ticks = start_ticks(self.pid).unwrap_or(0);
        self.save()
    }

    pub fn save(&self) -> Result<(), Error> {
        let text = serde_json::to_vec(self).map_err(|e| Error::internal(format!("state: {e}")))?;
        let new = self.directory.join("state.json.new");
        std::fs::write(&new, text).map_err(io("write the state"))?;
        std::fs::rename(new, self.directory.join("state.json")).map_err(io("write the state"))
    }

    /// Gives the id free. What cannot be removed is in nobody's way but the next user's of the id.
    pub fn release(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }

    pub fn cgroup(&self) -> Result<Cgroup, Error> {
        Cgroup::new(&self.cgroup)
    }

    pub fn status(&self) -> Status {
        if self.pid == 0 || start_ticks(self.pid) != Some(self.start_ticks) {
            return Status::Stopped;
        }
        if self.waiting.is_some() {
            return Status::Created;
        }
        match self.cgroup().is_ok_and(|cgroup| cgroup.is_frozen()) {
            true => Status::Paused,
            false => Status::Running,
        }
    }

    /// The living container.
    pub fn container(&self) -> Result<Container, Error> {
        let gone = || Error::new(ErrorKind::NotRunning, "container not running");
        let pid = rustix::process::Pid::from_raw(self.pid).ok_or_else(gone)?;
        let container = Container::attach(pid, &self.cgroup)?;
        // Checked after the pidfd was opened: from here on it is that process or none.
        if start_ticks(self.pid) != Some(self.start_ticks) {
            return Err(gone());
        }
        Ok(container)
    }

    /// The state as the OCI runtime specification has it.
    pub fn oci(&self) -> String {
        let status = self.status();
        let pid = if status == Status::Stopped {
            0
        } else {
            self.pid
        };
        let value = serde_json::json!({
            "ociVersion": "1.2.0",
            "id": self.id,
            "pid": pid,
            "status": status.to_string(),
            "bundle": self.bundle,
            "annotations": self.annotations,
        });
        format!("{value:#}")
    }

    /// The container's process with the command line's changes.
    pub fn exec_process(&self, args: &Args) -> Result<ProcessSpec, Error> {
        let mut process = self.process.clone().unwrap_or_default();
        let command = args.operands().get(1..).unwrap_or_default();
        if command.is_empty() {
            return Err(Error::invalid("process args cannot be empty"));
        }
        process.set_args(Some(command.to_vec()));
        process.set_terminal(Some(args.is_set("tty")));
        if let Some(cwd) = args.value("cwd") {
            process.set_cwd(cwd.into());
        }
        let env = process.env_mut().get_or_insert_default();
        env.extend(args.values("env").map(str::to_owned));
        if let Some(user) = args.value("user") {
            let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
            let number = |text: &str| {
                text.parse()
                    .map_err(|_| Error::invalid(format!("user {user:?} is not a number")))
            };
            let (uid, gid) = (number(uid)?, number(gid)?);
            process.user_mut().set_uid(uid).set_gid(gid);
        }
        Ok(process)
    }
}

/// When a process started; `None` when it is gone or a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, may hold anything; fields are counted from its closing parenthesis.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// What `spec` writes: a shell with the defaults.
pub(super) fn example_spec() -> Result<Spec, Error> {
    let names: Vec<String> = defaults::CAPABILITIES
        .iter()
        .map(|c| format!("CAP_{c}"))
        .collect();
    let capabilities = defaults::CAPABILITIES.iter().copied().collect();
    let namespaces: Vec<_> = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
        .iter()
        .map(|kind| serde_json::json!({"type": kind}))
        .collect();
    serde_json::from_value(serde_json::json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": names, "effective": names, "permitted": names},
        },
        "root": {"path": "rootfs"},
        "hostname": "berth",
        "mounts": defaults::mounts(),
        "linux": {
            "resources": {"devices": defaults::device_rules()},
            "namespaces": namespaces,
            "maskedPaths": defaults::masked_paths(),
            "readonlyPaths": defaults::readonly_paths(),
            "seccomp": crate::seccomp::default_profile(&capabilities),
        },
    }))
    .map_err(|e| Error::internal(format!("make the specification: {e}")))
}
