//! What the store keeps of a container, and what is published of it.
//!
//! Two keys: `containers/<id>` is written at create, rename and update, and synced, since it is
//! the promise that the container exists; `container-states/<id>` is written at every start and
//! end, and not synced: after a power failure no process is left whose state it could misreport.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use berth_base::{Id, Timestamp};
use berth_docker::container::{Config, HostConfig};
use berth_docker::network::EndpointSettings;
use berth_keeper::protocol::Rootfs;
use berth_net::Endpoint;
use berth_store::{Durability, Item, Store, Txn};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::restart::{Ended, Policy};
use crate::spec::mounts::Mount;

const RECORDS: &str = "containers/";
const STATES: &str = "container-states/";

/// A container as it was created.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub id: Id,
    /// Without Docker's leading slash.
    pub name: String,
    pub created: Timestamp,
    /// The image's id, `sha256:…`.
    pub image: String,
    pub platform: String,
    /// Merged with the image's.
    pub config: Config,
    /// Completed with the daemon's defaults.
    pub host: HostConfig,
    /// What was asked for on the network.
    pub endpoint: EndpointSettings,
    pub rootfs: Snapshot,
    pub mounts: Vec<Mount>,
}

/// Directories of the container's own snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The topmost layer first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
}

/// Where a container is in its life. The diagram is in `container.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Never started, or never successfully.
    Created,
    /// The keeper was forked; it has not said yet whether the command runs.
    Starting,
    Running {
        pid: i32,
        paused: bool,
    },
    /// Waits for its restart. Docker counts this as running.
    Restarting,
    Exited,
    Removing,
    /// Could not be removed.
    Dead,
}

/// A container's changing part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub phase: Phase,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub exit_code: i32,
    pub oom_killed: bool,
    /// Why the last start failed.
    pub error: String,
    pub restarts: u32,
    pub stopped_by_user: bool,
    /// While it runs on the bridge.
    pub endpoint: Option<Connected>,
}

/// A container on the bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    pub id: Id,
    pub endpoint: Endpoint,
}

/// What is published: readers never see a container in between two of these.
#[derive(Debug, Clone)]
pub struct View {
    pub record: Arc<Record>,
    pub state: State,
    /// How often the container has ended since the daemon started.
    pub exits: u64,
    pub removed: bool,
}

impl Phase {
    /// Docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created | Self::Starting => "created",
            Self::Running { paused: false, .. } => "running",
            Self::Running { paused: true, .. } => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Removing => "removing",
            Self::Dead => "dead",
        }
    }

    /// Whether an end is still to come.
    pub fn is_active(self) -> bool {
        match self {
            Self::Starting | Self::Running { .. } | Self::Restarting => true,
            Self::Created | Self::Exited | Self::Removing | Self::Dead => false,
        }
    }

    /// Whether a keeper is expected to say how it goes on.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running { .. })
    }

    pub fn pid(self) -> Option<i32> {
        match self {
            Self::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            phase: Phase::Created,
            started_at: Timestamp::ZERO,
            finished_at: Timestamp::ZERO,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            restarts: 0,
            stopped_by_user: false,
            endpoint: None,
        }
    }
}

impl State {
    pub fn ended(&self) -> Ended {
        Ended {
            exit_code: self.exit_code,
            restarts: self.restarts,
            stopped_by_user: self.stopped_by_user,
        }
    }

    pub fn was_started(&self) -> bool {
        !self.started_at.is_zero()
    }
}

impl Record {
    pub fn policy(&self) -> Policy {
        let policy = &self.host.restart_policy;
        match policy.name.as_str() {
            "always" => Policy::Always,
            "unless-stopped" => Policy::UnlessStopped,
            "on-failure" => Policy::OnFailure {
                limit: u32::try_from(policy.maximum_retry_count).unwrap_or(0),
            },
            _ => Policy::No,
        }
    }

    pub fn rootfs(&self) -> Rootfs {
        Rootfs::Overlay {
            lower: self.rootfs.lower.clone(),
            upper: self.rootfs.upper.clone(),
            work: self.rootfs.work.clone(),
            // What `--rm` throws away needs no syncing.
            volatile: self.host.auto_remove,
        }
    }

    /// Records the container; it exists once this returns.
    pub async fn save(&self, store: &Store) -> Result<()> {
        let value = serde_json::to_vec(self).context("encode a container's record")?;
        store
            .txn(Txn::put(format!("{RECORDS}{}", self.id), value))
            .await
            .context(format!("record container {}", self.id))?;
        Ok(())
    }

    /// Takes the record away; the container no longer exists once this returns.
    pub async fn delete(id: &Id, store: &Store) -> Result<()> {
        let state = Txn::delete(format!("{STATES}{id}")).durability(Durability::Written);
        let record = Txn::delete(format!("{RECORDS}{id}"));
        let (record, state) = tokio::join!(store.txn(record), store.txn(state));
        record.context(format!("remove the record of container {id}"))?;
        if let Err(error) = state {
            tracing::warn!(%id, error = %berth_base::Chain(&error), "a container's state stays behind");
        }
        Ok(())
    }
}

impl State {
    pub async fn save(&self, id: &Id, store: &Store) -> Result<()> {
        let value = serde_json::to_vec(self).context("encode a container's state")?;
        store
            .txn(Txn::put(format!("{STATES}{id}"), value).durability(Durability::Written))
            .await
            .context(format!("record the state of container {id}"))?;
        Ok(())
    }
}

/// What [`load`] finds.
#[derive(Debug, Default)]
pub struct Loaded {
    pub containers: Vec<(Record, State)>,
    /// The ids of all records, also of those that cannot be read.
    pub known: HashSet<Id>,
}

/// All containers of the store. A record that cannot be read is reported and left alone, with all
/// that its container has.
pub fn load(store: &Store) -> Result<Loaded> {
    let mut states = HashMap::new();
    let read = |item: Item| {
        if let Some(id) = item.key.strip_prefix(STATES) {
            states.insert(id.to_owned(), item.value);
        }
    };
    store
        .each(STATES, read)
        .context("read the containers' states")?;
    let mut loaded = Loaded::default();
    let read = |item: Item| {
        let id = item.key.strip_prefix(RECORDS);
        loaded.known.extend(id.and_then(|id| id.parse().ok()));
        match serde_json::from_slice::<Record>(&item.value) {
            Ok(record) => {
                let state = states.get(record.id.as_str());
                let state = state.and_then(|value| serde_json::from_slice(value).ok());
                loaded.containers.push((record, state.unwrap_or_default()));
            }
            Err(error) => {
                tracing::error!(key = item.key, %error, "a container's record cannot be read");
            }
        }
    };
    store
        .each(RECORDS, read)
        .context("read the containers' records")?;
    Ok(loaded)
}
