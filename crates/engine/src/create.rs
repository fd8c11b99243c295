//! Creating a container: from a request to a record.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_base::{Id, Timestamp, name};
use berth_docker::container::{CreateRequest, CreateResponse};
use berth_image::Image;
use berth_oci::Platform;

use crate::container::{self, Beginning};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::image_mount;
use crate::images::from_image;
use crate::links;
use crate::log_target;
use crate::network;
use crate::populate;
use crate::record::{Record, Snapshot};
use crate::shared::Shared;
use crate::spec::mounts::Kind;
use crate::spec::{adapt, merge, mounts, validate};
use crate::workdir;

/// How often another made-up name is tried.
const NAME_ATTEMPTS: u32 = 20;

/// Creates a container; it exists, and its record is on the disk, when this returns.
pub async fn create(
    shared: &Arc<Shared>,
    name: Option<&str>,
    request: CreateRequest,
    platform: Option<&str>,
) -> Result<CreateResponse> {
    let platform = platform
        .filter(|text| !text.is_empty())
        .map(parse_platform)
        .transpose()?;
    let image = resolve(shared, &request.config.image, platform).await?;
    let id = Id::random();
    let (mut record, warnings) = plan(shared, id.clone(), request, &image)?;
    record.name = reserve(shared, name, &id)?;
    let reservation = Reservation {
        shared: shared.clone(),
        name: Some(record.name.clone()),
    };
    let images = mounted_images(shared, &mut record).await?;
    let claim = shared
        .volumes
        .make_for(shared, &record.id, &mut record.mounts, &record.host)
        .await?;
    let record = make(shared, record, image, images).await?;
    reservation.keep();
    shared.container_event(&record, "create", &[]);
    container::spawn(shared, record, Beginning::default());
    drop(claim);
    Ok(CreateResponse {
        id: id.to_string(),
        warnings,
    })
}

async fn resolve(
    shared: &Arc<Shared>,
    reference: &str,
    platform: Option<Platform>,
) -> Result<Image> {
    if reference.is_empty() {
        return Err(Error::invalid("no image specified"));
    }
    // Mostly it is in memory, and then no thread that may block is needed.
    if platform.is_none()
        && let Some(image) = shared.images.recall(reference)
    {
        return Ok(image);
    }
    let (images, text) = (shared.images.clone(), reference.to_owned());
    let work = shared
        .scope
        .spawn_blocking(move || images.resolve(&text, platform.as_ref()).map_err(from_image));
    work.await
        .unwrap_or_else(|_| Err(Error::internal("looking up the image panicked")))
}

fn parse_platform(text: &str) -> Result<Platform> {
    text.parse()
        .map_err(|error| Error::invalid(format!("invalid platform {text:?}: {error}")))
}

/// Everything that is decided from the request, without a name and without directories.
fn plan(
    shared: &Shared,
    id: Id,
    request: CreateRequest,
    image: &Image,
) -> Result<(Record, Vec<String>)> {
    let mut config = request.config;
    let mut host = request.host_config.unwrap_or_default();
    merge::merge(&mut config, &image.config.config);
    let defaults = adapt::Defaults {
        log_driver: shared.config.log_driver.clone(),
        log_options: shared.config.log_opts.clone(),
        runtime: shared.live.load().default_runtime.clone(),
        init: shared.config.init,
    };
    adapt::adapt(&mut config, &mut host, id.short(), &defaults, &shared.facts);
    let discarded = validate::discard(&mut host, &shared.facts);
    let mut warnings = validate::check(&config, &host, &shared.facts)?;
    warnings.extend(discarded);
    // As Docker 28 has it.
    let images = host.mounts.iter().filter(|mount| mount.kind == "image");
    warnings.extend(images.map(|_| "Image mount is an experimental feature".to_owned()));
    log_target::check(&host.log_config)?;
    let mut record = Record {
        id,
        name: String::new(),
        created: Timestamp::now(),
        image: image.id.to_string(),
        platform: image.platform.os.clone(),
        config,
        host,
        endpoints: BTreeMap::new(),
        rootfs: Snapshot::default(),
        mounts: Vec::new(),
        links: Vec::new(),
    };
    let given = request.networking_config.and_then(|it| it.endpoints_config);
    let mode = record.host.network_mode.as_str();
    let mac = record.config.mac_address.as_str();
    let given = network::with_mac(mode, mac, given.unwrap_or_default())?;
    record.endpoints = network::requested(&shared.networks, mode, given)?;
    let data_root = &shared.config.data_root;
    record.mounts = mounts::requested(&record.config, &record.host, data_root, &|reference| {
        let other = shared.table.find(reference).map_err(as_invalid)?;
        Ok(other.view().record.mounts.clone())
    })?;
    mounts::check_sources(&record.mounts, &record.host.mounts)?;
    // What a start would refuse is refused here, where the user still looks.
    network::ports(&record)?;
    record.links = links::requested(shared, &record)?;
    shared.oci_runtime(&record)?;
    Ok((record, warnings))
}

/// Finds the images that are to be mounted, in the order of the mounts.
async fn mounted_images(shared: &Arc<Shared>, record: &mut Record) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for (index, mount) in record.mounts.iter_mut().enumerate() {
        let Kind::Image { reference, id, .. } = &mut mount.kind else {
            continue;
        };
        let image = resolve(shared, reference, None).await?;
        *id = image.id.to_string();
        mount.source = image_mount::place(&shared.config, record.id.as_str(), index);
        images.push(image);
    }
    Ok(images)
}

/// What a request names, other than its image, and is not there: Docker's status is 400.
fn as_invalid(error: Error) -> Error {
    match error.kind {
        ErrorKind::NotFound => Error::invalid(error.message),
        _ => error,
    }
}

/// Takes the given name, or makes one up.
fn reserve(shared: &Shared, wanted: Option<&str>, id: &Id) -> Result<String> {
    if let Some(wanted) = wanted.filter(|name| !name.is_empty()) {
        let plain = wanted.strip_prefix('/').unwrap_or(wanted);
        check_name(plain)?;
        shared.table.reserve(plain, id)?;
        return Ok(plain.to_owned());
    }
    for attempt in 0..NAME_ATTEMPTS {
        let made_up = name::random(attempt);
        match shared.table.reserve(&made_up, id) {
            Ok(()) => return Ok(made_up),
            Err(error) if error.kind == ErrorKind::Conflict => {}
            Err(error) => return Err(error),
        }
    }
    let made_up = id.short().to_owned();
    shared.table.reserve(&made_up, id)?;
    Ok(made_up)
}

/// Docker's rule for names of containers.
pub fn check_name(plain: &str) -> Result<()> {
    if name::is_valid(plain) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Invalid container name ({plain}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// Frees the name again unless the container came to be; the client may even have gone away in
/// the middle.
struct Reservation {
    shared: Arc<Shared>,
    name: Option<String>,
}

impl Reservation {
    fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.shared.table.release(&name);
        }
    }
}

/// Makes the directories, then the record; undoes the former if the latter fails.
async fn make(
    shared: &Arc<Shared>,
    mut record: Record,
    image: Image,
    mounted_images: Vec<Image>,
) -> Result<Record> {
    let (other, copy) = (shared.clone(), record.clone());
    let work = move || directories(&other, &copy, &image, &mounted_images);
    let made = shared.block(work).await.and_then(|made| made);
    let saved = match made {
        Ok(snapshot) => {
            record.rootfs = snapshot;
            record.save(&shared.store).await
        }
        Err(error) => Err(error),
    };
    if saved.is_err() {
        shared.discard(&record);
    }
    saved.map(|()| record)
}

fn directories(
    shared: &Shared,
    record: &Record,
    image: &Image,
    mounted_images: &[Image],
) -> Result<Snapshot> {
    let id = record.id.as_str();
    let directory = shared.config.container_dir(id);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o710)
        .create(&directory)
        .context(format!("make {}", directory.display()))?;
    let rootfs = shared.images.prepare_root(image, id).map_err(from_image)?;
    image_mount::keep(shared, id, &record.mounts, mounted_images)?;
    let working_dir = &record.config.working_dir;
    if workdir::is_taken(&rootfs.lower, Path::new(working_dir))
        .context("look for the working directory")?
    {
        return Err(Error::internal(format!(
            "Cannot mkdir: {working_dir} is not a directory"
        )));
    }
    for mount in &record.mounts {
        if let Kind::Volume {
            name,
            populate: true,
            ..
        } = &mount.kind
        {
            fill(shared, name, &mount.destination, &rootfs.lower)?;
        }
    }
    Ok(Snapshot {
        lower: rootfs.lower,
        upper: rootfs.upper,
        work: rootfs.work,
    })
}

/// Fills a new volume with what the image has at its destination.
fn fill(shared: &Shared, volume: &str, destination: &str, layers: &[PathBuf]) -> Result<()> {
    let filling = || format!("fill the volume for {destination} from the image");
    let found = populate::find(layers, Path::new(destination)).context(filling())?;
    if found.is_empty() {
        return Ok(());
    }
    shared
        .volumes
        .fill(shared, volume, &found)
        .map_err(|error| error.while_doing("failed to populate volume"))
}
