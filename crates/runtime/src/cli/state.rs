//! What the command line remembers of a container between two calls.
//!
//! ```text
//! <root>/<id>/state.json    this module's State, replaced at each change
//!             config.json   the specification as it was when the container was created
//! ```

use std::collections::HashMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use berth_base::time::Timestamp;
use oci_spec::runtime::{Hooks, LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};

use super::io;
use crate::cgroup::Cgroup;
use crate::container::{Container, Handle};
use crate::error::{Error, ErrorKind};
use crate::hooks::Subject;
use crate::systemd::Unit;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub id: String,
    /// `ociVersion` of its specification.
    version: String,
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`, so that a reused pid is noticed.
    start_ticks: u64,
    created: Timestamp,
    pub bundle: PathBuf,
    rootfs: PathBuf,
    pub cgroup: String,
    /// The scope that systemd made for it.
    #[serde(default)]
    pub unit: Option<Unit>,
    /// Its processes end with the first one.
    pub owns_pids: bool,
    /// It has a session keyring of its own.
    pub has_keyring: bool,
    /// Set between create and start.
    pub waiting: Option<Handle>,
    pub hooks: Option<Hooks>,
    annotations: HashMap<String, String>,
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
    pub fn reserve(
        root: &Path,
        id: &str,
        bundle: &Path,
        spec: &Spec,
        cgroup: &str,
    ) -> Result<Self, Error> {
        let directory = root.join(id);
        std::fs::create_dir_all(root).map_err(io("make the state directory"))?;
        std::fs::create_dir(&directory).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Error::invalid("container with given ID already exists")
            }
            _ => io("make the state directory")(error),
        })?;
        let owns_pids = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.namespaces().as_ref())
            .into_iter()
            .flatten()
            .any(|n| n.typ() == LinuxNamespaceType::Pid && n.path().is_none());
        let root = spec.root().as_ref().map(|root| bundle.join(root.path()));
        let state = Self {
            id: id.to_owned(),
            version: spec.version().clone(),
            pid: 0,
            start_ticks: 0,
            created: Timestamp::now(),
            bundle: bundle.to_owned(),
            rootfs: root.unwrap_or_default(),
            cgroup: cgroup.to_owned(),
            unit: None,
            owns_pids,
            has_keyring: true,
            waiting: None,
            hooks: spec.hooks().clone(),
            annotations: spec.annotations().clone().unwrap_or_default(),
            directory,
        };
        let kept = serde_json::to_vec(spec).map_err(std::io::Error::from);
        kept.and_then(|text| std::fs::write(state.directory.join("config.json"), text))
            .map_err(io("keep the specification"))
            .inspect_err(|_| state.release())?;
        Ok(state)
    }

    pub fn load(root: &Path, id: &str) -> Result<Self, Error> {
        let directory = root.join(id);
        let text =
            std::fs::read(directory.join("state.json")).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => {
                    Error::new(ErrorKind::NotFound, "container does not exist")
                }
                // It is there: `delete` must not take it for the rest of an interrupted create.
                _ => io(&format!("state of {id}"))(error),
            })?;
        let state: Self = serde_json::from_slice(&text)
            .map_err(|error| Error::internal(format!("state of {id}: {error}")))?;
        Ok(Self { directory, ..state })
    }

    /// The specification that the container was made from.
    pub fn spec(&self) -> Result<Spec, Error> {
        let text = std::fs::read(self.directory.join("config.json"))
            .map_err(io("read the kept specification"))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::internal(format!("specification of {}: {error}", self.id)))
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
    pub fn release(&self) {
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

    /// What its hooks are told of it.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            version: &self.version,
            id: &self.id,
            bundle: &self.bundle,
            annotations: Some(&self.annotations),
        }
    }

    /// As `state` and `list` print it: the specification's state, and what runc adds.
    pub fn shown(&self) -> Shown<'_> {
        let status = self.status();
        Shown {
            version: &self.version,
            id: &self.id,
            pid: if status == Status::Stopped {
                0
            } else {
                self.pid
            },
            status: status.to_string(),
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            created: self.created,
            annotations: &self.annotations,
            owner: String::new(),
        }
    }

    /// The user that the state belongs to.
    pub fn owner(&self) -> Result<u32, Error> {
        std::fs::metadata(&self.directory)
            .map(|meta| meta.uid())
            .map_err(io("stat the state"))
    }
}

/// A container as it is shown (runc's `containerState`).
#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
    #[serde(rename = "ociVersion")]
    version: &'a str,
    pub id: &'a str,
    pub pid: i32,
    pub status: String,
    pub bundle: &'a Path,
    rootfs: &'a Path,
    pub created: Timestamp,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    annotations: &'a HashMap<String, String>,
    pub owner: String,
}

/// The names below `--root`, sorted; not all need be containers.
pub(super) fn ids(root: &Path) -> std::io::Result<Vec<String>> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            ids.push(name);
        }
    }
    ids.sort();
    Ok(ids)
}

/// When a process started; `None` when it is gone or a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, may hold anything; fields are counted from its closing parenthesis.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
