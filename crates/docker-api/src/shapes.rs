//! What differs between the versions of the API, all in one place.
//!
//! Requests of an older version lose what that version did not know; answers lose what it did
//! not have, and get back what has been taken out since. Sources: the API's version history
//! (`docs/api/version-history.md`, moby) and the answers of dockerd.

use berth_docker::container::{CreateRequest, Inspect, Mount, Summary};
use berth_docker::exec;
use berth_docker::image;
use berth_docker::network::{ConnectRequest, CreateRequest as NetworkCreateRequest, Network};
use berth_docker::system::{DiskUsage, Info};

use crate::error::Error;
use crate::ordered::Object;
use crate::query::Query;
use crate::respond::{MULTIPLEXED_STREAM, RAW_STREAM};
use crate::version::Version;

/// How an attached stream or a log is announced.
pub fn stream_type(version: Version, tty: bool) -> &'static str {
    if tty || version < Version(42) {
        RAW_STREAM
    } else {
        MULTIPLEXED_STREAM
    }
}

/// A stop's signal came with 1.42.
pub fn stop_signal(version: Version, query: &Query) -> Option<String> {
    query
        .some("signal")
        .filter(|_| version >= Version(42))
        .map(str::to_owned)
}

/// Console sizes at the start came with 1.42, and need a terminal.
pub fn console_size(version: Version, request: &exec::StartRequest) -> Option<(u16, u16)> {
    let [rows, columns] = request
        .console_size
        .filter(|_| request.tty && version >= Version(42))?;
    Some((u16::try_from(rows).ok()?, u16::try_from(columns).ok()?))
}

/// A request as it was understood in a version.
///
/// # Errors
/// What is asked for by a field that a later version has.
pub fn create_request(version: Version, request: &mut CreateRequest) -> Result<(), Error> {
    if let Some(host) = &mut request.host_config {
        if version < Version(40) {
            // Until then containers shared their IPC namespace unless told otherwise.
            if host.ipc_mode.is_empty() {
                host.ipc_mode = "shareable".into();
            }
            host.kernel_memory_tcp = 0;
        }
        if version < Version(41) && host.cgroupns_mode.is_empty() {
            host.cgroupns_mode = "host".into();
        }
        if version < Version(42) {
            host.console_size = [0, 0];
        } else {
            // Kernel memory limits went with 1.42.
            host.kernel_memory = 0;
        }
        if version < Version(46) {
            host.annotations.clear();
        }
        if host.pids_limit.is_some_and(|limit| limit <= 0) {
            host.pids_limit = None;
        }
        for mount in &mut host.mounts {
            mount_request(version, mount)?;
        }
    }
    if version < Version(44)
        && let Some(check) = &mut request.config.healthcheck
    {
        check.start_interval = 0;
    }
    if version < Version(44)
        && let Some(endpoints) = request
            .networking_config
            .as_mut()
            .and_then(|config| config.endpoints_config.as_mut())
    {
        // Until then the only address was that of the configuration.
        for endpoint in endpoints.values_mut().flatten() {
            endpoint.mac_address.clear();
        }
    }
    let networking = request.networking_config.as_mut();
    let endpoints = networking.and_then(|config| config.endpoints_config.as_mut());
    for endpoint in endpoints
        .into_iter()
        .flatten()
        .filter_map(|(_, it)| it.as_mut())
    {
        if version < Version(48) {
            endpoint.gw_priority = 0;
        }
    }
    Ok(())
}

/// Since 1.44 a hardware address is an endpoint's.
pub fn create_warning(version: Version, request: &CreateRequest) -> Option<&'static str> {
    let outdated = version >= Version(44) && !request.config.mac_address.is_empty();
    outdated.then_some(
        "The container-wide MacAddress field is now deprecated. It should be specified in \
         EndpointsConfig instead.",
    )
}

/// Several networks at once came with 1.44: those that are asked for before.
pub fn too_many_networks(version: Version, request: &CreateRequest) -> Option<String> {
    let config = request.networking_config.as_ref()?;
    let endpoints = config.endpoints_config.as_ref()?;
    let names: Vec<&str> = endpoints.keys().map(String::as_str).collect();
    (version < Version(44) && names.len() > 1).then(|| names.join(", "))
}

fn mount_request(version: Version, mount: &mut Mount) -> Result<(), Error> {
    let needs = |what: &str, since: &str| {
        Err(Error::invalid(format!(
            "{what} needs API v{since} or newer"
        )))
    };
    if version < Version(44) && mount.kind == "bind" {
        // Until then a read-only bind left what is mounted below it writable.
        let options = mount.bind_options.get_or_insert_default();
        options.read_only_non_recursive = true;
        if options.read_only_force_recursive {
            return needs("BindOptions.ReadOnlyForceRecursive", "1.44");
        }
    }
    if version < Version(45)
        && let Some(options) = &mount.volume_options
        && !options.subpath.is_empty()
    {
        return needs("VolumeOptions.Subpath", "1.45");
    }
    if version < Version(48) && mount.kind == "image" {
        return needs("Mount type \"Image\"", "1.48");
    }
    Ok(())
}

pub fn exec_create_request(version: Version, request: &mut exec::CreateRequest) {
    if version < Version(25) {
        request.env = None;
    }
    if version < Version(35) {
        request.working_dir.clear();
    }
    if version < Version(42) || !request.tty {
        request.console_size = None;
    }
}

pub fn container_summaries(version: Version, rows: Vec<Summary>) -> Vec<Object> {
    rows.into_iter()
        .map(|row| container_summary(version, row))
        .collect()
}

fn container_summary(version: Version, mut row: Summary) -> Object {
    if version < Version(46) {
        row.host_config.annotations.clear();
    }
    if version < Version(48) {
        row.image_manifest_descriptor = None;
    }
    let mut object = Object::of(&row);
    endpoints(version, &mut object);
    object
}

pub fn container_inspect(version: Version, mut inspect: Inspect) -> Object {
    if version < Version(48) {
        inspect.image_manifest_descriptor = None;
    }
    let mut object = Object::of(&inspect);
    endpoints(version, &mut object);
    object
}

/// What a container's endpoints did not have yet.
fn endpoints(version: Version, container: &mut Object) {
    if version >= Version(48) {
        return;
    }
    container.edit("NetworkSettings", |settings| {
        settings.edit("Networks", |networks| {
            networks.edit_all(|endpoint| {
                if version < Version(44) {
                    endpoint.remove("DNSNames");
                }
                endpoint.remove("GwPriority");
            });
        });
    });
}

/// Networks without IPv4 came with 1.48.
pub fn network_create_request(version: Version, request: &mut NetworkCreateRequest) {
    if version < Version(48) {
        request.enable_ipv4 = None;
    }
}

/// The addresses of interfaces came with 1.44, priorities of gateways with 1.48.
pub fn network_connect_request(version: Version, request: &mut ConnectRequest) {
    if let Some(endpoint) = &mut request.endpoint_config {
        if version < Version(44) {
            endpoint.mac_address.clear();
        }
        if version < Version(48) {
            endpoint.gw_priority = 0;
        }
    }
}

/// Until 1.28 the list of networks told who is on them.
pub fn lists_containers_of_networks(version: Version) -> bool {
    version < Version(28)
}

pub fn network(version: Version, network: &Network) -> Object {
    let mut object = Object::of(network);
    if version < Version(47) {
        object.remove("EnableIPv4");
    }
    object
}

pub fn image_summaries(version: Version, rows: Vec<image::Summary>) -> Vec<Object> {
    rows.into_iter()
        .map(|row| image_summary(version, row))
        .collect()
}

fn image_summary(version: Version, mut row: image::Summary) -> Object {
    if version < Version(43) && row.repo_tags.is_empty() && row.repo_digests.is_empty() {
        row.repo_tags.push("<none>:<none>".into());
        row.repo_digests.push("<none>@<none>".into());
    }
    if version < Version(47) {
        row.manifests.clear();
    }
    if version < Version(48) {
        row.descriptor = None;
    }
    let mut object = Object::of(&row);
    if version < Version(44) {
        object.set("VirtualSize", &row.size);
    }
    object
}

/// What an image's configuration always has, although it is empty. Until 1.49 that were all the
/// fields of a container's configuration.
const IMAGE_CONFIG: &[&str] = &[
    "Cmd",
    "Entrypoint",
    "Env",
    "Labels",
    "OnBuild",
    "User",
    "Volumes",
    "WorkingDir",
];

pub fn image_inspect(version: Version, mut inspect: image::Inspect) -> Object {
    if version < Version(48) {
        inspect.descriptor = None;
        inspect.manifests.clear();
    }
    let mut object = Object::of(&inspect);
    object.edit("Config", |config| {
        for name in IMAGE_CONFIG {
            match *name {
                "User" | "WorkingDir" => config.set_default(name, &""),
                _ => config.set_default(name, &()),
            }
        }
        if version < Version(50) {
            for name in ["Hostname", "Domainname", "Image"] {
                config.set_default(name, &"");
            }
            for name in [
                "AttachStdin",
                "AttachStdout",
                "AttachStderr",
                "Tty",
                "OpenStdin",
                "StdinOnce",
            ] {
                config.set_default(name, &false);
            }
        }
    });
    if version < Version(44) {
        object.set("VirtualSize", &inspect.size);
        // Go's zero time, where the image does not say.
        object.set_default("Created", &"0001-01-01T00:00:00Z");
    }
    if version < Version(45) {
        object.set("Container", &"");
        object.set("ContainerConfig", &());
    }
    object
}

pub fn info(version: Version, mut info: Info) -> Object {
    if version < Version(49) {
        info.firewall_backend = None;
    }
    if version < Version(46) {
        info.containerd = None;
    }
    let mut object = Object::of(&info);
    if version < Version(50) {
        // What 1.50 took out: bridged frames do not pass the host's iptables here.
        object.set("BridgeNfIptables", &false);
        object.set("BridgeNfIp6tables", &false);
    }
    if version < Version(49) {
        for commit in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
            object.edit(commit, |commit| commit.set("Expected", &commit.text("ID")));
        }
        object.edit("RegistryConfig", |config| {
            config.set("AllowNondistributableArtifactsCIDRs", &[(); 0]);
            config.set("AllowNondistributableArtifactsHostnames", &[(); 0]);
        });
    }
    if version < Version(42) {
        object.set("KernelMemory", &false);
    }
    if version < Version(39) {
        object.remove("OSVersion");
    }
    if version < Version(25) {
        object.set("ExecutionDriver", &"<not supported>");
    }
    object
}

pub fn disk_usage(version: Version, mut usage: DiskUsage) -> Object {
    let (images, containers) = (usage.images.take(), usage.containers.take());
    let mut object = Object::of(&usage);
    object.set("Images", &images.map(|rows| image_summaries(version, rows)));
    object.set(
        "Containers",
        &containers.map(|rows| container_summaries(version, rows)),
    );
    if version < Version(42) {
        object.set("BuilderSize", &0);
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn value<T: serde::Serialize>(shaped: T) -> Value {
        serde_json::to_value(shaped).unwrap()
    }

    #[test]
    fn old_clients_find_what_they_know() {
        let summary = image::Summary {
            size: 7,
            ..Default::default()
        };
        let old = value(image_summaries(Version(41), vec![summary.clone()]));
        assert_eq!(old[0]["VirtualSize"], 7);
        assert_eq!(old[0]["RepoTags"][0], "<none>:<none>");
        let new = value(image_summaries(Version(51), vec![summary]));
        assert_eq!(new[0].get("VirtualSize"), None);
        assert_eq!(new[0]["RepoTags"], json!([]));
    }

    #[test]
    fn an_images_configuration_always_has_its_main_fields() {
        let inspect = image::Inspect {
            config: Some(Default::default()),
            ..Default::default()
        };
        let new = value(image_inspect(Version(51), inspect.clone()));
        assert_eq!(new["Config"]["Cmd"], Value::Null);
        assert_eq!(new["Config"].get("Tty"), None);
        let old = value(image_inspect(Version(44), inspect));
        assert_eq!(old["Config"]["Tty"], false);
        assert_eq!(old["Container"], "");
    }

    #[test]
    fn streams_are_raw_before_1_42_and_on_terminals() {
        assert_eq!(stream_type(Version(41), false), RAW_STREAM);
        assert_eq!(stream_type(Version(42), false), MULTIPLEXED_STREAM);
        assert_eq!(stream_type(Version(51), true), RAW_STREAM);
    }
}
