//! `inspect`: one published view in full.

use std::collections::BTreeMap;

use berth_base::{Id, Timestamp};
use berth_docker::container::{HostConfig, Inspect, NetworkSettings, State as WireState};
use berth_docker::image::{Descriptor, DriverData};
use berth_docker::network::EndpointSettings;
use berth_docker::port::{PortBinding, PortMap};

use crate::etc;
use crate::links;
use crate::network::dns_names;
use crate::record::{Connected, Phase, Record, State, View};
use crate::shared::Shared;
use crate::spec::process::path_and_args;

/// As containerd calls it, which dockerd shows for its containerd image store.
pub const DRIVER: &str = "overlayfs";

pub fn inspect(shared: &Shared, view: &View) -> Inspect {
    let record = &view.record;
    let (path, args) = path_and_args(&record.config);
    let files = etc::paths(shared, record);
    let text = |path: Option<std::path::PathBuf>| {
        path.map(|path| path.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let log_path = match record.host.log_config.driver.as_str() {
        "json-file" => text(Some(shared.config.log_path(record.id.as_str()))),
        _ => String::new(),
    };
    let execs = shared.execs.of(&record.id);
    Inspect {
        id: record.id.to_string(),
        created: record.created.to_string(),
        path,
        args,
        state: state(&view.state),
        image: record.image.clone(),
        resolv_conf_path: text(files.resolv_conf),
        hostname_path: text(files.hostname),
        hosts_path: text(files.hosts),
        log_path,
        name: format!("/{}", record.name),
        restart_count: i64::from(view.state.restarts),
        driver: DRIVER.to_owned(),
        platform: record.platform.clone(),
        exec_ids: (!execs.is_empty()).then_some(execs),
        host_config: HostConfig {
            links: links::shown(shared, record),
            ..record.host.clone()
        },
        graph_driver: Some(DriverData {
            data: None,
            name: DRIVER.to_owned(),
        }),
        mounts: record.mounts.iter().map(|mount| mount.point()).collect(),
        config: record.config.clone(),
        network_settings: network_settings(shared, view),
        image_manifest_descriptor: manifest(shared, record),
        ..Inspect::default()
    }
}

fn state(state: &State) -> WireState {
    let phase = state.phase;
    WireState {
        status: phase.name().to_owned(),
        running: matches!(phase, Phase::Running { .. } | Phase::Restarting),
        paused: matches!(phase, Phase::Running { paused: true, .. }),
        restarting: phase == Phase::Restarting,
        oom_killed: state.oom_killed,
        dead: phase == Phase::Dead,
        pid: i64::from(phase.pid().unwrap_or(0)),
        exit_code: i64::from(state.exit_code),
        error: state.error.clone(),
        started_at: state.started_at.to_string(),
        finished_at: state.finished_at.to_string(),
        health: None,
    }
}

fn network_settings(shared: &Shared, view: &View) -> NetworkSettings {
    let mut settings = NetworkSettings {
        networks: networks(shared, view),
        ports: port_map(view),
        ..NetworkSettings::default()
    };
    if let Some(pid) = view.state.phase.pid() {
        settings.sandbox_id = sandbox_id(&view.record.id, view.state.started_at);
        settings.sandbox_key = format!("/proc/{pid}/ns/net");
    }
    // Beside the networks, Docker shows what is had on the default bridge.
    if let Some(default) = settings.networks.get("bridge")
        && view.state.endpoints.contains_key("bridge")
    {
        let default = default.clone();
        settings.endpoint_id = default.endpoint_id;
        settings.gateway = default.gateway;
        settings.ip_address = default.ip_address;
        settings.ip_prefix_len = default.ip_prefix_len;
        settings.ipv6_gateway = default.ipv6_gateway;
        settings.global_ipv6_address = default.global_ipv6_address;
        settings.global_ipv6_prefix_len = default.global_ipv6_prefix_len;
        settings.mac_address = default.mac_address;
    }
    settings
}

/// An id for the container's network namespace: that of the container with the start's time
/// folded in, so that it changes with each start and needs no record.
fn sandbox_id(id: &Id, started_at: Timestamp) -> String {
    let (head, tail) = id.as_str().split_at(48);
    let tail = u64::from_str_radix(tail, 16).unwrap_or(0);
    format!(
        "{}{:016x}",
        head.chars().rev().collect::<String>(),
        tail ^ started_at.unix_nanos().unsigned_abs()
    )
}

/// The container's networks, with what it got there while it runs.
pub fn networks(shared: &Shared, view: &View) -> BTreeMap<String, EndpointSettings> {
    let all = view.record.endpoints.iter();
    all.map(|(name, asked)| (name.clone(), endpoint(shared, view, name, asked)))
        .collect()
}

fn endpoint(
    shared: &Shared,
    view: &View,
    name: &str,
    asked: &EndpointSettings,
) -> EndpointSettings {
    let mut settings = asked.clone();
    // Until the first start Docker has not looked at the networks.
    if view.state.was_started()
        && let Ok(network) = shared.networks.find(name)
    {
        settings.network_id = network.id.to_string();
        if network.is_own() {
            settings.dns_names = Some(dns_names(&view.record, asked));
        }
    }
    let Some(Connected { id, endpoint }) = view.state.endpoints.get(name) else {
        return settings;
    };
    settings.endpoint_id = id.to_string();
    settings.mac_address = endpoint.mac_string();
    if let Some(ipv4) = endpoint.ipv4 {
        settings.ip_address = ipv4.to_string();
        settings.ip_prefix_len = i64::from(endpoint.prefix);
        settings.gateway = text(endpoint.gateway);
    }
    if let Some(ipv6) = endpoint.ipv6 {
        settings.global_ipv6_address = ipv6.to_string();
        settings.global_ipv6_prefix_len = i64::from(endpoint.prefix6);
        settings.ipv6_gateway = text(endpoint.gateway6);
    }
    settings
}

fn text(address: Option<impl ToString>) -> String {
    address.map(|it| it.to_string()).unwrap_or_default()
}

/// Published ports with their bindings, and exposed ones with none. Empty unless it runs.
fn port_map(view: &View) -> PortMap {
    let mut map = PortMap::new();
    if !matches!(view.state.phase, Phase::Running { .. }) {
        return map;
    }
    if view.state.has_bridge() {
        let exposed = view.record.config.exposed_ports.keys();
        map.extend(exposed.map(|port| (port.clone(), None)));
    }
    for binding in view
        .state
        .endpoints
        .values()
        .flat_map(|connected| &connected.endpoint.ports)
    {
        let key = format!("{}/{}", binding.container_port, binding.protocol);
        map.entry(key)
            .or_default()
            .get_or_insert_default()
            .push(PortBinding {
                host_ip: binding.host_ip.to_string(),
                host_port: binding.host_port.to_string(),
            });
    }
    map
}

fn manifest(shared: &Shared, record: &Record) -> Option<Descriptor> {
    let image = shared.images.snapshot_image(record.id.as_str()).ok()?;
    Some(Descriptor {
        media_type: image.manifest.media_type.to_string(),
        digest: image.manifest.digest.to_string(),
        size: i64::try_from(image.manifest.size).unwrap_or(i64::MAX),
        ..Descriptor::default()
    })
}

/// Bytes of the container's own files, and of those with its image's. Blocks.
pub fn sizes(shared: &Shared, record: &Record) -> (i64, i64) {
    let own = shared.images.snapshot_size(record.id.as_str()).unwrap_or(0);
    let layers: u64 = record
        .rootfs
        .lower
        .iter()
        .map(|layer| crate::system::directory_bytes(layer))
        .sum();
    let wire = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    (wire(own), wire(own + layers))
}
