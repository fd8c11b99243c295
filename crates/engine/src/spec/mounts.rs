//! Mounts: from `-v`, `--mount`, `--tmpfs` and the image's volumes to what the runtime mounts.
//!
//! [`requested`] parses and refuses (moby, `volume/mounts/linux_parser.go`); volumes are made by
//! the engine, which fills in [`Mount::source`]; [`user_mounts`] renders the records for the
//! specification.

use std::path::{Path, PathBuf};

use berth_docker::container::{Config, HostConfig, Mount as MountRequest, MountPoint};
use berth_docker::volume::CreateRequest;
use berth_sys::mount::{Mounted, Propagation};
use oci_spec::runtime::Mount as OciMount;
use serde::{Deserialize, Serialize};

use super::{EtcFiles, invalid};
use crate::error::Result;

mod parse;

/// One mount that the user or the image asked for, as the container's record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub kind: Kind,
    /// In the container: absolute and clean.
    pub destination: String,
    /// On the host; for a volume, filled in when the volume is made.
    pub source: PathBuf,
    pub read_only: bool,
    /// The words after the second colon of `-v`.
    pub mode: String,
    pub propagation: String,
    /// Whether mounts below the source come along.
    pub recursive: bool,
    /// What a read-only mount is to those.
    #[serde(default)]
    pub read_only_below: ReadOnlyBelow,
}

/// Whether a read-only bind makes the mounts below it read-only too.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadOnlyBelow {
    #[default]
    Yes,
    No,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Bind {
        /// Make the source if it does not exist, as `-v` does.
        create: bool,
    },
    Volume {
        /// Empty for an anonymous one until it is made.
        name: String,
        anonymous: bool,
        /// Fill an empty volume with what the image has at the destination.
        populate: bool,
        subpath: String,
    },
    Tmpfs {
        options: Vec<String>,
    },
    /// The files of an image, read-only. [`Mount::source`] is where they are mounted.
    Image {
        /// As it was asked for.
        reference: String,
        /// `sha256:…`; empty until it is found.
        id: String,
        subpath: String,
    },
}

/// What the container asks for, in the order in which later ones win. `data_root` is the daemon's,
/// and `of` gives the mounts of the containers that `--volumes-from` names.
pub fn requested(
    config: &Config,
    host: &HostConfig,
    data_root: &Path,
    of: &dyn Fn(&str) -> Result<Vec<Mount>>,
) -> Result<Vec<Mount>> {
    let mut mounts: Vec<Mount> = Vec::new();
    for spec in host.volumes_from.iter().flatten() {
        for mount in parse::volumes_from(spec, of)? {
            mounts.retain(|other| other.destination != mount.destination);
            mounts.push(mount);
        }
    }
    let mut explicit: Vec<String> = Vec::new();
    let binds = host.binds.iter().flatten().map(|text| parse::bind(text));
    let structured = host.mounts.iter().map(parse::structured);
    for mount in binds.chain(structured) {
        let mount = parse::beside(mount?, data_root)?;
        if explicit.contains(&mount.destination) {
            return Err(invalid(format!(
                "Duplicate mount point: {}",
                mount.destination
            )));
        }
        explicit.push(mount.destination.clone());
        mounts.retain(|other| other.destination != mount.destination);
        mounts.push(mount);
    }
    for destination in host.tmpfs.keys() {
        if explicit.contains(destination) {
            return Err(invalid(format!("Duplicate mount point: {destination}")));
        }
    }
    for path in config.volumes.iter().flat_map(|volumes| volumes.keys()) {
        let destination = parse::destination(path).map_err(|error| {
            invalid(format!(
                "invalid volume specification: '{path}': {}",
                error.message
            ))
        })?;
        let taken = mounts.iter().any(|mount| mount.destination == destination)
            || host.tmpfs.contains_key(&destination);
        if !taken {
            mounts.push(parse::anonymous(destination));
        }
    }
    Ok(mounts)
}

/// What is to be created for the volume that a container mounts at a destination, but for its name.
pub fn volume_request(destination: &str, host: &HostConfig) -> CreateRequest {
    let asked = host
        .mounts
        .iter()
        .filter(|request| request.kind == "volume")
        .find(|request| parse::clean(&request.target) == Path::new(destination));
    let Some(request) = asked else {
        return CreateRequest {
            driver: host.volume_driver.clone(),
            ..CreateRequest::default()
        };
    };
    let options = request.volume_options.clone().unwrap_or_default();
    let driver = options.driver_config.unwrap_or_default();
    CreateRequest {
        name: String::new(),
        driver: driver.name,
        driver_opts: Some(driver.options),
        labels: Some(options.labels),
    }
}

/// Whether a bind sees, or is to show, what is mounted below it later.
pub fn has_propagation(mount: &Mount) -> bool {
    matches!(
        mount.propagation.as_str(),
        "shared" | "rshared" | "slave" | "rslave"
    )
}

/// Whether the host's mounts (`table`) let through what a bind's propagation asks for. `data_root`
/// is excepted, since what is around it gets its propagation from us.
pub fn check_propagation(mount: &Mount, table: &[Mounted], data_root: &Path) -> Result<()> {
    let Some(on) = Mounted::of(table, &mount.source) else {
        return Ok(());
    };
    let wanted = match mount.propagation.as_str() {
        "shared" | "rshared" if on.propagation != Propagation::Shared => "shared",
        "slave" | "rslave"
            if !matches!(on.propagation, Propagation::Shared | Propagation::Slave)
                && !parse::is_around(&mount.source, data_root) =>
        {
            "shared or slave"
        }
        _ => return Ok(()),
    };
    Err(crate::error::Error::internal(format!(
        "path {} is mounted on {} but it is not a {wanted} mount",
        mount.source.display(),
        on.point.display()
    )))
}

/// What `--mount` demands of the host is there; `-v` makes what is missing when it starts.
pub fn check_sources(mounts: &[Mount], requests: &[MountRequest]) -> Result<()> {
    for mount in mounts {
        let Kind::Bind { create: false } = mount.kind else {
            continue;
        };
        if !mount.source.exists()
            && requests
                .iter()
                .any(|r| Path::new(&r.source) == mount.source)
        {
            return Err(invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                mount.source.display()
            )));
        }
    }
    Ok(())
}

impl Mount {
    /// As an inspection shows it.
    pub fn point(&self) -> MountPoint {
        let source = self.source.to_string_lossy().into_owned();
        let mut point = MountPoint {
            destination: self.destination.clone(),
            mode: self.mode.clone(),
            rw: !self.read_only,
            propagation: self.propagation.clone(),
            source,
            ..MountPoint::default()
        };
        match &self.kind {
            Kind::Bind { .. } => point.kind = "bind".to_owned(),
            Kind::Volume { name, .. } => {
                point.kind = "volume".to_owned();
                point.name = name.clone();
                point.driver = "local".to_owned();
                point.propagation = String::new();
            }
            Kind::Tmpfs { .. } => {
                point.kind = "tmpfs".to_owned();
                point.source = String::new();
                point.propagation = String::new();
            }
            Kind::Image { reference, .. } => {
                point.kind = "image".to_owned();
                point.name = reference.clone();
            }
        }
        point
    }

    /// The part of a volume or image that is mounted; empty for all of it.
    pub fn subpath(&self) -> &str {
        match &self.kind {
            Kind::Volume { subpath, .. } | Kind::Image { subpath, .. } => subpath,
            Kind::Bind { .. } | Kind::Tmpfs { .. } => "",
        }
    }

    fn oci(&self) -> OciMount {
        let access = if self.read_only { "ro" } else { "rw" };
        match &self.kind {
            Kind::Tmpfs { options } => {
                let mut all: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
                all.extend(options.iter().cloned());
                all.push(access.to_owned());
                oci_mount(&self.destination, "tmpfs", "tmpfs", all)
            }
            Kind::Bind { .. } | Kind::Volume { .. } | Kind::Image { .. } => {
                let source = match self.subpath() {
                    "" => self.source.clone(),
                    subpath => self.source.join(subpath),
                };
                let bind = if self.recursive { "rbind" } else { "bind" };
                let propagation = match self.propagation.as_str() {
                    "" => "rprivate",
                    word => word,
                };
                // A bind that is not to be read-only is as its source is: that may be.
                let access = match (self.read_only, self.read_only_below) {
                    (true, ReadOnlyBelow::Yes) => Some("rro"),
                    (true, ReadOnlyBelow::No) => Some("ro"),
                    (false, _) => None,
                };
                let words = [Some(bind), access, Some(propagation)];
                let options = words.into_iter().flatten().map(str::to_owned).collect();
                oci_mount(
                    &self.destination,
                    "bind",
                    &source.to_string_lossy(),
                    options,
                )
            }
        }
    }
}

/// The mounts that the user, the image and the daemon add, shallow destinations first.
pub fn user_mounts(mounts: &[Mount], host: &HostConfig, etc: &EtcFiles) -> Vec<OciMount> {
    let mut all: Vec<OciMount> = mounts.iter().map(Mount::oci).collect();
    for (destination, options) in &host.tmpfs {
        let mut list: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
        list.extend(
            options
                .split(',')
                .filter(|word| !word.is_empty())
                .map(str::to_owned),
        );
        all.push(oci_mount(destination, "tmpfs", "tmpfs", list));
    }
    let files = [
        ("/etc/resolv.conf", &etc.resolv_conf),
        ("/etc/hostname", &etc.hostname),
        ("/etc/hosts", &etc.hosts),
    ];
    for (destination, file) in files {
        let taken = all
            .iter()
            .any(|mount| mount.destination() == Path::new(destination));
        if let (Some(file), false) = (file, taken) {
            let options = ["rbind", "rprivate"].map(str::to_owned).to_vec();
            all.push(oci_mount(
                destination,
                "bind",
                &file.to_string_lossy(),
                options,
            ));
        }
    }
    all.sort_by_key(|mount| mount.destination().components().count());
    all
}

/// The file systems that every container has, as the host configuration bends them.
pub fn system_mounts(host: &HostConfig, ipc_of: Option<i32>) -> Vec<OciMount> {
    let mut mounts = berth_runtime::defaults::mounts();
    if host.privileged {
        for mount in &mut mounts {
            if mount.destination().starts_with("/sys") {
                let writable = |option: &String| option != "ro";
                let options = mount
                    .options()
                    .iter()
                    .flatten()
                    .filter(|o| writable(o))
                    .cloned()
                    .collect();
                mount.set_options(Some(options));
            }
        }
    }
    let shm = mounts
        .iter()
        .position(|mount| mount.destination() == Path::new("/dev/shm"));
    if let Some(at) = shm {
        let bind = |source: &Path| {
            oci_mount(
                "/dev/shm",
                "bind",
                &source.to_string_lossy(),
                ["rbind", "rprivate"].map(str::to_owned).to_vec(),
            )
        };
        match (host.ipc_mode.as_str(), ipc_of) {
            (_, Some(pid)) => mounts[at] = bind(&root_of(pid).join("dev/shm")),
            ("host", None) => mounts[at] = bind(Path::new("/dev/shm")),
            ("none", None) => {
                mounts.remove(at);
            }
            _ => {
                let size = format!("size={}", host.shm_size);
                let options = mounts[at]
                    .options()
                    .iter()
                    .flatten()
                    .cloned()
                    .chain([size])
                    .collect();
                mounts[at].set_options(Some(options));
            }
        }
    }
    mounts
}

/// The directories in which the sources of [`user_mounts`] and [`system_mounts`] are parts that
/// other containers can put links in the way of.
pub fn beneath(mounts: &[Mount], ipc_of: Option<i32>) -> Vec<PathBuf> {
    let parts = mounts.iter().filter(|mount| !mount.subpath().is_empty());
    parts
        .map(|mount| mount.source.clone())
        .chain(ipc_of.map(root_of))
        .collect()
}

/// The root file system of a process.
fn root_of(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root"))
}

/// Whether a mount at `outer` hides one at `inner`.
pub fn covers(outer: &str, inner: &str) -> bool {
    Path::new(inner).starts_with(outer) && outer != "/"
}

/// A shared or slave mount needs a root that lets its events through.
pub fn rootfs_propagation(mounts: &[Mount]) -> Option<String> {
    let any = |words: [&str; 2]| {
        mounts
            .iter()
            .any(|mount| words.contains(&mount.propagation.as_str()))
    };
    match () {
        () if any(["shared", "rshared"]) => Some("shared".to_owned()),
        () if any(["slave", "rslave"]) => Some("rslave".to_owned()),
        () => None,
    }
}

fn oci_mount(destination: &str, kind: &str, source: &str, options: Vec<String>) -> OciMount {
    let mut mount = OciMount::default();
    mount.set_destination(PathBuf::from(destination));
    mount.set_typ(Some(kind.to_owned()));
    mount.set_source(Some(PathBuf::from(source)));
    mount.set_options(Some(options));
    mount
}
