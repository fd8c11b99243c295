//! Volumes of the local driver: directories below `<data-root>/volumes`, with a record each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use berth_base::{Id, Timestamp, name};
use berth_docker::filters::Filters;
use berth_docker::volume::{CreateRequest, List, PruneResponse, Volume as Wire};
use berth_store::{Item, Store, Txn};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::record::Record;
use crate::shared::Shared;
use crate::spec::mounts::{Kind, Mount};

const PREFIX: &str = "volumes/";
/// Docker marks volumes that it named itself.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// All volumes. The lock is held for look-ups only.
#[derive(Debug)]
pub struct Volumes {
    root: PathBuf,
    all: Mutex<BTreeMap<String, Volume>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub created: Timestamp,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
}

impl Volumes {
    pub fn open(root: PathBuf, store: &Store) -> Result<Self> {
        let mut all = BTreeMap::new();
        let read = |item: Item| match serde_json::from_slice::<Volume>(&item.value) {
            Ok(volume) => drop(all.insert(volume.name.clone(), volume)),
            Err(error) => {
                tracing::error!(key = item.key, %error, "a volume's record cannot be read");
            }
        };
        store
            .each(PREFIX, read)
            .context("read the volumes' records")?;
        Ok(Self {
            root,
            all: Mutex::new(all),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Volume>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the volume's files are.
    pub fn mountpoint(&self, name: &str) -> PathBuf {
        self.root.join(name).join("_data")
    }

    /// Makes a volume, or finds it: making one that exists already is no error.
    pub async fn create(&self, shared: &Shared, request: CreateRequest) -> Result<Wire> {
        if !matches!(request.driver.as_str(), "" | "local") {
            return Err(Error::not_found(format!(
                "error looking up volume plugin {}: plugin \"{}\" not found",
                request.driver, request.driver
            )));
        }
        let options = request.driver_opts.unwrap_or_default();
        if let Some(option) = options.keys().next() {
            return Err(Error::invalid(format!(
                "create {}: option {option:?} of the local driver is not supported: bind the \
                 directory instead, or use --tmpfs",
                request.name
            )));
        }
        let mut labels = request.labels.unwrap_or_default();
        let volume_name = if request.name.is_empty() {
            labels.insert(ANONYMOUS.to_owned(), String::new());
            Id::random().to_string()
        } else {
            request.name
        };
        if !name::is_valid(&volume_name) {
            return Err(Error::invalid(format!(
                "create {volume_name}: \"{volume_name}\" includes invalid characters for a local \
                 volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to \
                 pass a host directory, use absolute path"
            )));
        }
        if let Some(existing) = self.lock().get(&volume_name) {
            return Ok(self.describe(existing));
        }
        let volume = Volume {
            name: volume_name,
            created: Timestamp::now(),
            labels,
            options,
        };
        let directory = self.mountpoint(&volume.name);
        let work = shared
            .scope
            .spawn_blocking(move || std::fs::create_dir_all(directory));
        match work.await {
            Ok(made) => made.context(format!("make the directory of volume {}", volume.name))?,
            Err(_) => return Err(Error::internal("making a volume panicked")),
        }
        let value = serde_json::to_vec(&volume).context("encode a volume's record")?;
        shared
            .store
            .txn(Txn::put(format!("{PREFIX}{}", volume.name), value))
            .await
            .context(format!("record volume {}", volume.name))?;
        let wire = self.describe(&volume);
        self.lock().insert(volume.name.clone(), volume);
        event(shared, "create", &wire.name);
        Ok(wire)
    }

    /// Makes the volumes that a container mounts, and fills in names and sources.
    pub async fn make_for(&self, shared: &Shared, mounts: &mut [Mount]) -> Result<()> {
        for mount in mounts {
            let Kind::Volume { name, .. } = &mut mount.kind else {
                continue;
            };
            let request = CreateRequest {
                name: name.clone(),
                ..CreateRequest::default()
            };
            let volume = self.create(shared, request).await?;
            *name = volume.name;
            mount.source = PathBuf::from(volume.mountpoint);
        }
        Ok(())
    }

    pub fn inspect(&self, name: &str) -> Result<Wire> {
        let all = self.lock();
        let volume = all.get(name).ok_or_else(|| no_such(name))?;
        Ok(self.describe(volume))
    }

    pub fn list(&self, shared: &Shared, filters: &Filters) -> Result<List> {
        filters
            .accept(&["dangling", "name", "driver", "label"])
            .map_err(|error| Error::invalid(error.to_string()))?;
        let dangling = filters
            .flag("dangling")
            .map_err(|error| Error::invalid(error.to_string()))?;
        let volumes = self
            .lock()
            .values()
            .filter(|volume| {
                filters.matches_any("name", |wanted| volume.name.contains(wanted))
                    && filters.matches("driver", "local")
                    && filters.matches_labels("label", &volume.labels)
                    && dangling
                        .is_none_or(|dangling| dangling == users(shared, &volume.name).is_empty())
            })
            .map(|volume| self.describe(volume))
            .collect();
        Ok(List {
            volumes,
            warnings: None,
        })
    }

    /// Removes a volume that no container uses. With `force`, one that does not exist is no error.
    pub async fn remove(&self, shared: &Shared, name: &str, force: bool) -> Result<()> {
        if !self.lock().contains_key(name) {
            return if force { Ok(()) } else { Err(no_such(name)) };
        }
        let users = users(shared, name);
        if !users.is_empty() {
            return Err(Error::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        shared
            .store
            .txn(Txn::delete(format!("{PREFIX}{name}")))
            .await
            .context(format!("remove the record of volume {name}"))?;
        self.lock().remove(name);
        let directory = self.root.join(name);
        let work = shared
            .scope
            .spawn_blocking(move || berth_sys::tree::remove(&directory));
        if let Ok(Err(error)) = work.await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(volume = name, %error, "remove a volume's directory");
        }
        event(shared, "destroy", name);
        Ok(())
    }

    /// The anonymous volumes of a container that was removed go with it.
    pub async fn remove_anonymous(&self, shared: &Shared, record: &Record) {
        for mount in &record.mounts {
            if let Kind::Volume {
                name,
                anonymous: true,
                ..
            } = &mount.kind
                && users(shared, name).is_empty()
                && let Err(error) = self.remove(shared, name, true).await
            {
                tracing::warn!(volume = name, %error, "remove an anonymous volume");
            }
        }
    }

    /// Removes unused volumes: the anonymous ones, or with the filter `all` every one.
    pub async fn prune(&self, shared: &Shared, filters: &Filters) -> Result<PruneResponse> {
        filters
            .accept(&["label", "label!", "all"])
            .map_err(|error| Error::invalid(error.to_string()))?;
        let all = filters
            .flag("all")
            .map_err(|error| Error::invalid(error.to_string()))?;
        let chosen: Vec<String> = self
            .lock()
            .values()
            .filter(|volume| {
                (all == Some(true) || volume.labels.contains_key(ANONYMOUS))
                    && filters.matches_labels("label", &volume.labels)
                    && (!filters.contains("label!")
                        || !filters.matches_labels("label!", &volume.labels))
            })
            .map(|volume| volume.name.clone())
            .collect();
        let mut response = PruneResponse::default();
        for name in chosen {
            let size = crate::system::directory_bytes(&self.mountpoint(&name));
            // In use, or gone meanwhile: then it is not pruned.
            if self.remove(shared, &name, false).await.is_ok() {
                response.space_reclaimed += size;
                response.volumes_deleted.get_or_insert_default().push(name);
            }
        }
        Ok(response)
    }

    fn describe(&self, volume: &Volume) -> Wire {
        let some = |map: &BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
        Wire {
            created_at: Timestamp(volume.created.unix_seconds() * 1_000_000_000).to_string(),
            driver: "local".to_owned(),
            labels: some(&volume.labels),
            mountpoint: self.mountpoint(&volume.name).to_string_lossy().into_owned(),
            name: volume.name.clone(),
            options: some(&volume.options),
            scope: "local".to_owned(),
            ..Wire::default()
        }
    }
}

/// The ids of the containers that mount a volume.
pub fn users(shared: &Shared, volume: &str) -> Vec<String> {
    shared
        .table
        .all()
        .into_iter()
        .filter(|handle| {
            handle
                .view()
                .record
                .mounts
                .iter()
                .any(|mount| matches!(&mount.kind, Kind::Volume { name, .. } if name == volume))
        })
        .map(|handle| handle.id.to_string())
        .collect()
}

fn event(shared: &Shared, action: &str, name: &str) {
    let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
    shared.events.publish("volume", action, name, attributes);
}

fn no_such(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}
