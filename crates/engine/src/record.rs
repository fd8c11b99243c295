//! What the store keeps of a container, and what is published of it.
//!
//! Two keys: `containers/<id>` is written at create, rename and update, and synced, since it is
//! the promise that the container exists; `container-states/<id>` is written at every start and
//! end, and not synced: after a power failure no process is left whose state it could misreport.

use std::collections::{BTreeMap, HashMap, HashSet};
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
use crate::links::Link;
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
    /// What was asked for on each network, by its name.
    #[serde(flatten, with = "asked")]
    pub endpoints: BTreeMap<String, EndpointSettings>,
    pub rootfs: Snapshot,
    pub mounts: Vec<Mount>,
    /// To others on the default bridge.
    #[serde(default)]
    pub links: Vec<Link>,
}

/// Directories of the container's own snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The topmost layer first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
}

impl Snapshot {
    /// As the image store names them.
    pub fn directories(&self) -> berth_image::Rootfs {
        berth_image::Rootfs {
            lower: self.lower.clone(),
            upper: self.upper.clone(),
            work: self.work.clone(),
        }
    }
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
    /// While it runs, what it got on each network, by its name.
    #[serde(flatten, with = "got")]
    pub endpoints: BTreeMap<String, Connected>,
}

/// A container on a network.
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
            endpoints: BTreeMap::new(),
        }
    }
}

/// The one network that older daemons know, whose part of the records has a field of its own.
const DEFAULT_NETWORK: &str = "bridge";

/// [`Record::endpoints`] in the store: older daemons know `endpoint`, what was asked for on the
/// network of the container's mode. It is read as that of the network `""` ([`load`]).
mod asked {
    use std::collections::BTreeMap;

    use berth_docker::network::EndpointSettings;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::DEFAULT_NETWORK;

    #[derive(Serialize, Deserialize)]
    struct Stored {
        #[serde(default)]
        endpoint: EndpointSettings,
        endpoints: Option<BTreeMap<String, EndpointSettings>>,
    }

    pub fn serialize<S: Serializer>(
        endpoints: &BTreeMap<String, EndpointSettings>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let stored = Stored {
            endpoint: endpoints.get(DEFAULT_NETWORK).cloned().unwrap_or_default(),
            endpoints: Some(endpoints.clone()),
        };
        stored.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, EndpointSettings>, D::Error> {
        let Stored {
            endpoint,
            endpoints,
        } = Stored::deserialize(deserializer)?;
        Ok(endpoints.unwrap_or_else(|| BTreeMap::from([(String::new(), endpoint)])))
    }
}

/// [`State::endpoints`] in the store: `endpoint` is that on the default bridge.
mod got {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Connected, DEFAULT_NETWORK};

    #[derive(Serialize, Deserialize)]
    struct Stored {
        endpoint: Option<Connected>,
        #[serde(default)]
        endpoints: BTreeMap<String, Connected>,
    }

    pub fn serialize<S: Serializer>(
        endpoints: &BTreeMap<String, Connected>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut endpoints = endpoints.clone();
        let stored = Stored {
            endpoint: endpoints.remove(DEFAULT_NETWORK),
            endpoints,
        };
        stored.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Connected>, D::Error> {
        let Stored {
            endpoint,
            mut endpoints,
        } = Stored::deserialize(deserializer)?;
        let default = endpoint.map(|connected| (DEFAULT_NETWORK.to_owned(), connected));
        endpoints.extend(default);
        Ok(endpoints)
    }
}

impl State {
    /// Whether it is on a bridge: nowhere else is a port exposed or published.
    pub fn has_bridge(&self) -> bool {
        let mut connected = self.endpoints.values();
        connected.any(|it| it.endpoint.veth.is_some())
    }

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

    /// A record of an older daemon says what was asked for, but not on which network.
    fn adopt_endpoint(&mut self) {
        let Some(endpoint) = self.endpoints.remove("") else {
            return;
        };
        let mode = self.host.network_mode.as_str();
        if crate::spec::container_of(mode).is_none() {
            self.endpoints.insert(mode.to_owned(), endpoint);
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
            Ok(mut record) => {
                record.adopt_endpoint();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(network: &str) -> serde_json::Value {
        serde_json::json!({"id": Id::random(), "endpoint": {
            "container_id": "c", "network": network, "ipv4": "172.17.0.2", "prefix": 16,
            "gateway": "172.17.0.1", "mac": [2, 66, 172, 17, 0, 2], "ports": [], "veth": "v"}})
    }

    #[test]
    fn records_of_older_daemons_are_of_the_default_bridge_and_they_read_ours() {
        let mut older = serde_json::to_value(State::default()).unwrap();
        older.as_object_mut().unwrap().remove("endpoints");
        older["endpoint"] = connected("bridge");
        let mut state: State = serde_json::from_value(older.clone()).unwrap();
        assert_eq!(state.endpoints["bridge"].endpoint.prefix, 16);
        let other = serde_json::from_value(connected("x")).unwrap();
        state.endpoints.insert("other".to_owned(), other);
        let written = serde_json::to_value(&state).unwrap();
        assert_eq!(written["endpoint"]["id"], older["endpoint"]["id"]);
        assert_eq!(serde_json::from_value::<State>(written).unwrap(), state);
    }

    #[test]
    fn what_an_older_daemon_was_asked_for_is_of_the_network_of_the_mode() {
        let text = serde_json::json!({
            "id": Id::random(), "name": "c", "created": Timestamp::ZERO, "image": "",
            "platform": "linux", "config": {}, "host": {"NetworkMode": "bridge"},
            "endpoint": {"MacAddress": "02:00:00:00:00:09"},
            "rootfs": {"lower": [], "upper": "", "work": ""}, "mounts": []});
        let mut record: Record = serde_json::from_value(text).unwrap();
        record.adopt_endpoint();
        assert_eq!(record.endpoints["bridge"].mac_address, "02:00:00:00:00:09");
        let written = serde_json::to_value(&record).unwrap();
        assert_eq!(written["endpoint"]["MacAddress"], "02:00:00:00:00:09");
        let again: Record = serde_json::from_value(written).unwrap();
        assert_eq!(again.endpoints, record.endpoints);
    }
}
