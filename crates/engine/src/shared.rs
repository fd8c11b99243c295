//! What all parts of the engine share, and the small operations on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use berth_base::{Chain, Id, Timestamp};
use berth_docker::container::{HostConfig, Ulimit};
use berth_image::Images;
use berth_keeper::launcher::Launcher;
use berth_keeper::protocol::ExitRecord;
use berth_net::Net;
use berth_runtime::cgroup::Cgroup;
use berth_runtime::error::io_words;
use berth_store::Store;
use berth_sys::mount::table as mount_table;
use berth_tasks::Scope;
use oci_spec::runtime::LinuxResources;

use crate::config::{Config, Live, OWN_RUNTIME, Runtime};
use crate::error::{Context, Error, Result};
use crate::events::Events;
use crate::exec::Execs;
use crate::image_mount;
use crate::links::Links;
use crate::names::Names;
use crate::network::{Network, Networks};
use crate::record::{Connected, Record};
use crate::spec::HostFacts;
use crate::spec::mounts::{self, Kind};
use crate::table::Table;
use crate::volume::{Mounted, Volumes};

pub struct Shared {
    /// What was settled at the start; its `live` part is only the beginning of [`Self::live`].
    pub config: Config,
    pub live: ArcSwap<Live>,
    pub scope: Scope,
    pub store: Store,
    pub images: Images,
    /// `None` where the bridge is disabled.
    pub net: Option<Arc<Net>>,
    pub launcher: Arc<Launcher>,
    pub events: Events,
    pub table: Table,
    pub execs: Execs,
    pub volumes: Volumes,
    pub mounted: Mounted,
    pub networks: Networks,
    pub names: Names,
    pub links: Links,
    pub facts: HostFacts,
    pub default_ulimits: Vec<Ulimit>,
    /// The daemon's own id, as `info` shows it.
    pub id: String,
    pub closing: AtomicBool,
}

impl Shared {
    /// Whether all containers are being stopped: then no policy starts one again.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub fn cgroup(&self, record: &Record) -> String {
        match record.host.cgroup_parent.as_str() {
            "" => self.config.cgroup(record.id.as_str()),
            parent => format!("/{}/{}", parent.trim_matches('/'), record.id),
        }
    }

    /// The container's event with Docker's attributes: its labels, image and name, and `more`.
    pub fn container_event(&self, record: &Record, action: &str, more: &[(&str, &str)]) {
        let mut attributes = record.config.labels.clone().unwrap_or_default();
        attributes.insert("image".to_owned(), record.config.image.clone());
        attributes.insert("name".to_owned(), record.name.clone());
        for (key, value) in more {
            attributes.insert((*key).to_owned(), (*value).to_owned());
        }
        self.events
            .publish("container", action, record.id.as_str(), attributes);
    }

    /// A network's event: what was done with it, or with a container on it.
    pub fn network_event(&self, network: &Network, action: &str, container: Option<&Id>) {
        let mut attributes: BTreeMap<String, String> = BTreeMap::from([
            ("name".to_owned(), network.name.clone()),
            ("type".to_owned(), network.driver().to_owned()),
        ]);
        attributes.extend(container.map(|id| ("container".to_owned(), id.to_string())));
        self.events
            .publish("network", action, network.id.as_str(), attributes);
    }

    /// `connect` or `disconnect` of a container and each of these networks.
    pub fn network_events<'a>(
        &self,
        id: &Id,
        networks: impl IntoIterator<Item = &'a String>,
        action: &str,
    ) {
        for name in networks {
            if let Ok(network) = self.networks.find(name) {
                self.network_event(&network, action, Some(id));
            }
        }
    }

    /// `mount` or `unmount` of each volume that the container has.
    pub fn volume_events(&self, record: &Record, action: &str) {
        for mount in &record.mounts {
            let Kind::Volume { name, .. } = &mount.kind else {
                continue;
            };
            let mut attributes = vec![("container", record.id.as_str()), ("driver", "local")];
            let writable = (!mount.read_only).to_string();
            if action == "mount" {
                attributes.push(("destination", &mount.destination));
                attributes.push(("propagation", &mount.propagation));
                attributes.push(("read/write", &writable));
            }
            let attributes = attributes
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            self.events.publish("volume", action, name, attributes);
        }
    }

    /// Frees a container's addresses, ports and rules on these networks. Blocks.
    pub fn disconnect<'a>(&self, id: &Id, connected: impl IntoIterator<Item = &'a Connected>) {
        let Some(net) = &self.net else { return };
        for Connected { endpoint, .. } in connected {
            if let Err(error) = net.disconnect(id.as_str(), &endpoint.network) {
                tracing::error!(container = %id, error = %Chain(&error), "release its network");
            }
        }
    }

    /// The limits of a host configuration, for a running container.
    pub fn resources(&self, host: &HostConfig) -> Result<LinuxResources> {
        let devices = crate::spec::devices::gather(host)?;
        Ok(crate::spec::resources::plan(host, &devices, &self.facts))
    }

    /// The other runtime that the container asks for; `None` is our own.
    pub fn oci_runtime(&self, record: &Record) -> Result<Option<Runtime>> {
        let name = record.host.runtime.as_str();
        if name.is_empty() || name == OWN_RUNTIME {
            return Ok(None);
        }
        match self.live.load().runtimes.get(name) {
            Some(runtime) => Ok(Some(runtime.clone())),
            None => Err(Error::invalid(format!(
                "unknown or invalid runtime name: {name}"
            ))),
        }
    }

    /// Mounts the volumes and images that a container mounts in turn, makes what `-v` binds and
    /// does not exist, and looks whether binds can have their propagation. Blocks.
    /// `holder`: whoever wants [`Self::held_places`] mounted.
    pub fn prepare_mounts(&self, record: &Record, holder: &str) -> Result<()> {
        self.volumes.mount_for(&self.mounted, record, holder)?;
        image_mount::mount_for(self, record, holder)?;
        let mut table = None;
        for mount in &record.mounts {
            let Kind::Bind { create } = mount.kind else {
                continue;
            };
            make_source(&mount.source, create)?;
            if mounts::has_propagation(mount) {
                let table = match &table {
                    Some(table) => table,
                    None => table.insert(mount_table().context("read what is mounted")?),
                };
                mounts::check_propagation(mount, table, &self.config.data_root)?;
            }
        }
        Ok(())
    }

    /// Where something is mounted for a container while it runs.
    pub fn held_places(&self, record: &Record) -> Vec<PathBuf> {
        let mut places = self.volumes.places_of(record);
        places.extend(image_mount::places(record).map(Path::to_owned));
        places
    }

    /// Finds out which of the mounts that an earlier daemon has left are still in use, by the
    /// containers that outlived it; and finishes what it did with volumes. Blocks.
    pub fn restore_mounts(&self, running: &[&Record]) -> Result<()> {
        let mut held: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
        for record in running {
            for place in self.held_places(record) {
                held.entry(place).or_default().insert(record.id.to_string());
            }
        }
        let volumes = self.volumes.all_places();
        let is_ours =
            |place: &Path| volumes.contains(place) || image_mount::is_place(&self.config, place);
        self.mounted.sweep(is_ours, &held);
        self.volumes.settle(self)
    }

    /// Runs work that blocks on a thread for such.
    pub async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let task = self.scope.spawn_blocking(work);
        task.await.map_err(|_| Error::internal("a task panicked"))
    }

    /// Deletes the directories of a container that no longer exists, in the background.
    pub fn discard(self: &Arc<Self>, record: &Record) {
        let (shared, id) = (self.clone(), record.id.clone());
        self.scope.spawn_blocking(move || shared.discard_now(&id));
    }

    /// Deletes the directories of a container that no longer exists. Blocks.
    pub fn discard_now(&self, id: &Id) {
        image_mount::forget(self, id.as_str());
        if let Err(error) = self.images.remove_snapshot(id.as_str()) {
            tracing::warn!(container = %id, error = %Chain(&error), "remove its snapshot");
        }
        for directory in [
            self.config.container_dir(id.as_str()),
            self.config.runtime_dir(id.as_str()),
        ] {
            match berth_sys::tree::remove(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(directory = %directory.display(), %error, "remove a directory");
                }
            }
        }
    }
}

/// Makes the source of a bind if it may be made.
fn make_source(path: &Path, create: bool) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let source = path.display();
    if !create {
        return Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {source}"
        )));
    }
    std::fs::create_dir_all(path).map_err(|error| {
        // A file that stands where a directory is to be.
        let file = path.ancestors().find(|above| above.is_file());
        let at = file.unwrap_or(path).display();
        let reason = io_words(&error);
        Error::internal(format!(
            "error while creating mount source path '{source}': mkdir {at}: {reason}"
        ))
    })
}

/// How a container ended whose keeper is gone: as its exit record says; otherwise the keeper was
/// killed, what is left of the container is killed too, and it counts as killed. Blocks.
pub fn lost_keeper(shared: &Shared, record: &Record) -> ExitRecord {
    if let Some(exit) = exit_record(shared, record) {
        return exit;
    }
    kill_leftovers(&record.id, &shared.cgroup(record));
    ExitRecord {
        code: 128 + crate::signal::KILL,
        signal: Some(crate::signal::KILL),
        oom_killed: false,
        finished_at_ns: Timestamp::now().unix_nanos(),
    }
}

/// Kills every process in a container's cgroup, and removes that. Blocks.
pub fn kill_leftovers(id: &Id, cgroup: &str) {
    let kill = || -> std::result::Result<(), Box<dyn std::error::Error>> {
        let cgroup = Cgroup::new(cgroup)?;
        cgroup.kill(crate::signal::KILL)?;
        // A frozen process dies only when it is thawed; without the controller none is frozen.
        cgroup.freeze(false).ok();
        cgroup.remove()?;
        Ok(())
    };
    if let Err(error) = kill() {
        tracing::error!(container = %id, error = %Chain(&*error), "kill its processes");
    }
}

/// The exit record that the keeper left. It is of the last run: each keeper begins by removing
/// that of the one before. (Times say nothing: the clock may have been set back.)
fn exit_record(shared: &Shared, record: &Record) -> Option<ExitRecord> {
    let directory = shared.config.runtime_dir(record.id.as_str());
    match berth_keeper::keeper::read_exit(&directory) {
        Ok(exit) => exit,
        Err(error) => {
            tracing::error!(container = %record.id, %error, "its exit record cannot be read");
            None
        }
    }
}
