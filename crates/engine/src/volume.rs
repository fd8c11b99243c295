//! Volumes of the local driver: directories below `<data-root>/volumes`, with a record each.

mod copies;
mod driver;
mod mounted;
mod place;
mod remove;
mod turns;
pub mod writers;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_base::{Id, Timestamp, name};
use berth_docker::container::HostConfig;
use berth_docker::filters::Filters;
use berth_docker::volume::{CreateRequest, List, UsageData, Volume as Wire};
use berth_store::{Item, Store, Txn};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::populate;
use crate::record::Record;
use crate::shared::Shared;
use crate::spec::mounts::{Kind, Mount, volume_request};
use driver::FileSystem;
use place::Places;
use remove::discard;
use turns::{Claims, Turns};

pub use copies::{Backup, Kind as CopyKind};
pub use mounted::Mounted;
pub use turns::Claim;
pub use writers::resume_all;

const PREFIX: &str = "volumes/";
/// Docker marks volumes that it named itself.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// All volumes. The lock is held for look-ups only.
#[derive(Debug)]
pub struct Volumes {
    places: Places,
    all: Mutex<BTreeMap<String, Volume>>,
    /// The names of records that cannot be read: what they have is left alone.
    unreadable: BTreeSet<String>,
    turns: Turns,
    claims: Claims,
    pruning: AtomicBool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub created: Timestamp,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// The name that it had before, whose record may be there still.
    #[serde(default)]
    pub renamed_from: Option<String>,
}

impl Volumes {
    pub fn open(root: PathBuf, store: &Store) -> Result<Self> {
        let mut all = BTreeMap::new();
        let mut unreadable = BTreeSet::new();
        let read = |item: Item| match serde_json::from_slice::<Volume>(&item.value) {
            Ok(volume) => drop(all.insert(volume.name.clone(), volume)),
            Err(error) => {
                tracing::error!(key = item.key, %error, "a volume's record cannot be read");
                unreadable.extend(item.key.strip_prefix(PREFIX).map(str::to_owned));
            }
        };
        store
            .each(PREFIX, read)
            .context("read the volumes' records")?;
        Ok(Self {
            places: Places::new(root),
            all: Mutex::new(all),
            unreadable,
            turns: Turns::default(),
            claims: Claims::default(),
            pruning: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Volume>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what an earlier daemon did not finish. Blocks.
    pub fn settle(&self, shared: &Shared) -> Result<()> {
        let is_known =
            |name: &str| self.lock().contains_key(name) || self.unreadable.contains(name);
        let rest = self
            .places
            .settle(is_known)
            .context("look after interrupted changes of volumes")?;
        self.finish_renames(shared)?;
        for name in rest {
            tracing::info!(volume = name, "cleaning up after an interrupted operation");
            let places = self.places.clone();
            shared.scope.spawn_blocking(move || discard(&places, &name));
        }
        Ok(())
    }

    /// Where file systems are mounted, of all volumes that are some.
    pub fn all_places(&self) -> BTreeSet<PathBuf> {
        let all = self.lock();
        all.values()
            .filter(|volume| FileSystem::of(&volume.options).is_some())
            .map(|volume| self.places.data(&volume.name))
            .collect()
    }

    /// Makes a volume, or finds it: making one that exists already is no error.
    pub async fn create(&self, shared: &Shared, mut request: CreateRequest) -> Result<Wire> {
        if request.name.is_empty() {
            request.name = anonymous(&mut request.labels);
        }
        self.make(shared, request).await
    }

    async fn make(&self, shared: &Shared, request: CreateRequest) -> Result<Wire> {
        let name = request.name;
        let create = |error: Error| error.while_doing(format!("create {name}"));
        check_driver(&request.driver).map_err(create)?;
        let _turn = self.turns.take(&[&name]).await;
        if let Some(existing) = self.lock().get(&name) {
            return Ok(self.describe(existing));
        }
        check_name(&name).map_err(create)?;
        let options = request.driver_opts.unwrap_or_default();
        driver::check(&options).map_err(create)?;
        let volume = Volume {
            name: name.clone(),
            created: Timestamp::now(),
            labels: request.labels.unwrap_or_default(),
            options,
            renamed_from: None,
        };
        let data = self.places.data(&name);
        let making = format!("make the directory of volume {name}");
        let work = move || std::fs::create_dir_all(data);
        shared.block(work).await?.context(making)?;
        self.record(shared, &volume).await?;
        let wire = self.describe(&volume);
        self.lock().insert(name, volume);
        event(shared, "create", &wire.name);
        Ok(wire)
    }

    async fn record(&self, shared: &Shared, volume: &Volume) -> Result<()> {
        let value = serde_json::to_vec(volume).context("encode a volume's record")?;
        shared
            .store
            .txn(Txn::put(format!("{PREFIX}{}", volume.name), value))
            .await
            .context(format!("record volume {}", volume.name))?;
        Ok(())
    }

    /// Makes the volumes that a container mounts, and fills in names and sources. They are not
    /// removed before the claim ends.
    pub async fn make_for(
        &self,
        shared: &Arc<Shared>,
        container: &Id,
        mounts: &mut [Mount],
        host: &HostConfig,
    ) -> Result<Claim> {
        let claim = Claim {
            shared: shared.clone(),
            container: container.to_string(),
        };
        for mount in mounts {
            let Kind::Volume { name, .. } = &mut mount.kind else {
                continue;
            };
            let mut request = volume_request(&mount.destination, host);
            request.name.clone_from(name);
            if name.is_empty() {
                request.name = anonymous(&mut request.labels);
            }
            self.claims.add(&claim.container, &request.name);
            self.unmark(&request.name)?;
            let volume = self.make(shared, request).await?;
            *name = volume.name;
            mount.source = PathBuf::from(volume.mountpoint);
        }
        Ok(claim)
    }

    /// The file systems that a container's volumes are, by where they are mounted.
    fn file_systems(&self, record: &Record) -> Vec<(PathBuf, FileSystem)> {
        let all = self.lock();
        record
            .mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                Kind::Volume { name, .. } => all.get(name),
                _ => None,
            })
            .filter_map(|volume| {
                let file_system = FileSystem::of(&volume.options)?;
                Some((self.places.data(&volume.name), file_system))
            })
            .collect()
    }

    /// Where a container's volumes are that have to be mounted.
    pub fn places_of(&self, record: &Record) -> Vec<PathBuf> {
        let mounted = self.file_systems(record);
        mounted.into_iter().map(|(place, _)| place).collect()
    }

    /// Mounts what a container's volumes are by their options. Blocks.
    pub fn mount_for(&self, mounted: &Mounted, record: &Record, holder: &str) -> Result<()> {
        for (place, file_system) in self.file_systems(record) {
            self.hold(mounted, &place, holder, &file_system)?;
        }
        Ok(())
    }

    fn hold(
        &self,
        mounted: &Mounted,
        place: &Path,
        holder: &str,
        file_system: &FileSystem,
    ) -> Result<()> {
        mounted.hold(place, holder, |place| {
            file_system.mount(place).map_err(|error| {
                error.while_doing(format!("error while mounting volume '{}'", place.display()))
            })
        })
    }

    /// Runs work on a volume's files, which are mounted for that long. Blocks.
    pub fn with_files<T>(
        &self,
        mounted: &Mounted,
        name: &str,
        work: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let volume = self.get(name)?;
        let place = self.places.data(name);
        let Some(file_system) = FileSystem::of(&volume.options) else {
            return work(&place);
        };
        // Not a container's id, and not that of another such work.
        let holder = format!("work {}", Id::random());
        self.hold(mounted, &place, &holder, &file_system)?;
        let done = work(&place);
        mounted.release(&place, &holder);
        done
    }

    /// Fills an empty volume with merged directories of an image. Blocks.
    ///
    /// The daemon may be killed meanwhile: then the next one makes the volume empty again, unless
    /// other containers can have written to it. So the mark is set before it is looked who they
    /// are, and whoever comes later takes it away.
    pub fn fill(&self, shared: &Shared, name: &str, directories: &[OwnedFd]) -> Result<()> {
        let is_ours = FileSystem::of(&self.get(name)?.options).is_none();
        let begin = || {
            if is_ours {
                self.places.mark(name)?;
                if users(shared, name).len() > 1 {
                    self.places.unmark(name)?;
                }
            }
            Ok(())
        };
        let filled = self.with_files(&shared.mounted, name, |target| {
            populate::fill(directories, target, begin).context(format!("fill volume {name}"))
        });
        // Also after a failure: what others put there later is not to be lost.
        self.unmark(name)?;
        filled
    }

    fn unmark(&self, name: &str) -> Result<()> {
        let unmarked = self.places.unmark(name);
        unmarked.context(format!("remove the mark of volume {name}"))
    }

    fn get(&self, name: &str) -> Result<Volume> {
        let all = self.lock();
        all.get(name).cloned().ok_or_else(|| no_such(name))
    }

    pub fn inspect(&self, name: &str) -> Result<Wire> {
        Ok(self.describe(&self.get(name)?))
    }

    pub fn list(&self, shared: &Shared, filters: &Filters) -> Result<List> {
        filters
            .accept(&["dangling", "name", "driver", "label"])
            .map_err(|error| Error::invalid(error.to_string()))?;
        let dangling = filters
            .flag("dangling")
            .map_err(|error| Error::invalid(error.to_string()))?;
        let names = crate::list::patterns(filters, "name");
        let volumes = self
            .lock()
            .values()
            .filter(|volume| {
                (names.is_empty() || names.iter().any(|name| name.is_match(&volume.name)))
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

    /// The volumes with the space that they take. Those that are file systems of their own are
    /// left out, as by Docker: they are not on the daemon's disk. Blocks.
    pub fn usage(&self, shared: &Shared) -> Vec<Wire> {
        let plain: Vec<Wire> = self
            .lock()
            .values()
            .filter(|volume| volume.options.is_empty())
            .map(|volume| self.describe(volume))
            .collect();
        let measured = |mut volume: Wire| {
            let bytes = berth_sys::tree::length(Path::new(&volume.mountpoint)).unwrap_or(0);
            volume.usage_data = Some(UsageData {
                size: i64::try_from(bytes).unwrap_or(i64::MAX),
                ref_count: i64::try_from(users(shared, &volume.name).len()).unwrap_or(i64::MAX),
            });
            volume
        };
        plain.into_iter().map(measured).collect()
    }

    fn describe(&self, volume: &Volume) -> Wire {
        let some = |map: &BTreeMap<String, String>| (!map.is_empty()).then(|| map.clone());
        Wire {
            created_at: Timestamp(volume.created.unix_seconds() * 1_000_000_000).to_string(),
            driver: "local".to_owned(),
            labels: some(&volume.labels),
            mountpoint: self
                .places
                .data(&volume.name)
                .to_string_lossy()
                .into_owned(),
            name: volume.name.clone(),
            options: some(&volume.options),
            scope: "local".to_owned(),
            ..Wire::default()
        }
    }
}

/// The ids of the containers that mount a volume.
pub fn users(shared: &Shared, volume: &str) -> Vec<String> {
    let mut users = shared.volumes.claims.of(volume);
    let uses = |mount: &Mount| matches!(&mount.kind, Kind::Volume { name, .. } if name == volume);
    for handle in shared.table.all() {
        let id = handle.id.to_string();
        if handle.view().record.mounts.iter().any(uses) && !users.contains(&id) {
            users.push(id);
        }
    }
    users
}

/// A name for a volume that was given none, and the label that says so.
fn anonymous(labels: &mut Option<BTreeMap<String, String>>) -> String {
    let labels = labels.get_or_insert_default();
    labels.insert(ANONYMOUS.to_owned(), String::new());
    Id::random().to_string()
}

fn check_driver(driver: &str) -> Result<()> {
    if matches!(driver, "" | "local") {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
    )))
}

/// Docker's rule for names of volumes.
pub fn check_name(plain: &str) -> Result<()> {
    if name::is_valid(plain) {
        return Ok(());
    }
    if plain.chars().count() == 1 {
        return Err(Error::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    Err(Error::invalid(format!(
        "\"{plain}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
         absolute path"
    )))
}

fn event(shared: &Shared, action: &str, name: &str) {
    let attributes = BTreeMap::from([("driver".to_owned(), "local".to_owned())]);
    shared.events.publish("volume", action, name, attributes);
}

fn no_such(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}
