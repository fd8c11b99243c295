//! `version`, `info` and `df`: what the daemon says of itself and of its host.

use std::collections::BTreeMap;
use std::path::Path;

use berth_base::Timestamp;
use berth_docker::system::{
    Component, Info, Plugins, RegistryConfig, Runtime, Swarm, Version, VersionPlatform,
};
use berth_docker::{API_VERSION, MIN_API_VERSION, system::DiskUsage};

use crate::Result;
use crate::config::OWN_RUNTIME;
use crate::inspect::DRIVER;
use crate::list;
use crate::options::ListOptions;
use crate::record::Phase;
use crate::shared::Shared;
use crate::spec::HostFacts;

/// What the daemon's host offers, read once.
pub fn facts() -> HostFacts {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let cgroup_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let swap_limit =
        cgroup_v2 || Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists();
    HostFacts {
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        cpuset_cpus: online.trim().to_owned(),
        cgroup_v2,
        swap_limit,
        block_io_weight: has_block_io_weight(cgroup_v2),
    }
}

/// Weights have no files in a hierarchy's root; what is there beside them tells, or what a cgroup
/// below it has. By CFQ (before Linux 5.0), BFQ or the cost model.
fn has_block_io_weight(cgroup_v2: bool) -> bool {
    if !cgroup_v2 {
        let root = Path::new("/sys/fs/cgroup/blkio");
        return ["blkio.weight", "blkio.bfq.io_service_bytes"]
            .iter()
            .any(|file| root.join(file).exists());
    }
    let root = Path::new("/sys/fs/cgroup");
    let below = std::fs::read_dir(root).into_iter().flatten().flatten();
    root.join("io.cost.model").exists()
        || below
            .flat_map(|entry| ["io.weight", "io.bfq.weight"].map(|file| entry.path().join(file)))
            .any(|file| file.exists())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn version(shared: &Shared) -> Version {
    let built = &shared.config.version;
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let details = [
        ("ApiVersion", API_VERSION),
        ("Arch", architecture()),
        ("BuildTime", &built.build_time),
        ("Experimental", "false"),
        ("GitCommit", &built.git_commit),
        ("KernelVersion", &kernel),
        ("MinAPIVersion", MIN_API_VERSION),
        ("Os", "linux"),
    ];
    let details: BTreeMap<String, String> = details
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into_iter()
        .collect();
    Version {
        platform: VersionPlatform {
            name: "Berth".to_owned(),
        },
        components: vec![Component {
            name: "Engine".to_owned(),
            version: built.version.clone(),
            details,
        }],
        version: built.version.clone(),
        api_version: API_VERSION.to_owned(),
        min_api_version: MIN_API_VERSION.to_owned(),
        git_commit: built.git_commit.clone(),
        os: "linux".to_owned(),
        arch: architecture().to_owned(),
        kernel_version: kernel,
        build_time: built.build_time.clone(),
        ..Version::default()
    }
}

/// Blocks: reads a few files of /proc, and the images.
pub fn info(shared: &Shared) -> Info {
    let mut counts = [0i64; 3];
    for handle in shared.table.all() {
        let index = match handle.view().state.phase {
            Phase::Running { paused: false, .. } | Phase::Restarting => 0,
            Phase::Running { paused: true, .. } => 1,
            Phase::Created | Phase::Starting | Phase::Exited | Phase::Removing | Phase::Dead => 2,
        };
        counts[index] += 1;
    }
    let [running, paused, stopped] = counts;
    let config = &shared.config;
    let live = shared.live.load();
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let (system, system_version) = operating_system();
    let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
    let own = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
    let mut runtimes: BTreeMap<String, Runtime> = live
        .runtimes
        .iter()
        .map(|(name, runtime)| {
            let path = runtime.path.to_string_lossy().into_owned();
            (
                name.clone(),
                Runtime {
                    path,
                    runtime_args: runtime.args.clone(),
                    ..Runtime::default()
                },
            )
        })
        .collect();
    runtimes.insert(
        OWN_RUNTIME.to_owned(),
        Runtime {
            path: "berth".to_owned(),
            ..Runtime::default()
        },
    );
    let mut security = vec!["name=seccomp,profile=builtin".to_owned()];
    if shared.facts.cgroup_v2 {
        security.push("name=cgroupns".to_owned());
    }
    Info {
        id: shared.id.clone(),
        containers: running + paused + stopped,
        containers_running: running,
        containers_paused: paused,
        containers_stopped: stopped,
        images: image_count(shared),
        driver: DRIVER.to_owned(),
        driver_status: vec![vec![
            "driver-type".to_owned(),
            "io.containerd.snapshotter.v1".to_owned(),
        ]],
        plugins: Plugins {
            volume: own(&["local"]),
            network: own(&["bridge", "host", "null"]),
            authorization: None,
            log: own(&["json-file", "none"]),
        },
        memory_limit: true,
        swap_limit: shared.facts.swap_limit,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: forwarding.is_ok_and(|text| text.trim() == "1"),
        debug: config.debug,
        n_fd: std::fs::read_dir("/proc/self/fd").map_or(-1, |entries| wire(entries.count())),
        oom_kill_disable: !shared.facts.cgroup_v2,
        n_goroutines: wire(shared.scope.len()),
        system_time: Timestamp::now().to_string(),
        logging_driver: config.log_driver.clone(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: if shared.facts.cgroup_v2 { "2" } else { "1" }.to_owned(),
        n_events_listener: wire(shared.events.listeners()),
        kernel_version: text(uname.release()),
        operating_system: system,
        os_version: system_version,
        os_type: "linux".to_owned(),
        architecture: text(uname.machine()),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: Some(RegistryConfig {
            insecure_registry_cidrs: vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()],
            mirrors: Some(live.registry_mirrors.clone()),
            ..RegistryConfig::default()
        }),
        ncpu: i64::from(shared.facts.cpus),
        mem_total: memory_bytes(),
        docker_root_dir: config.data_root.to_string_lossy().into_owned(),
        http_proxy: config.http_proxy.clone(),
        https_proxy: config.https_proxy.clone(),
        no_proxy: config.no_proxy.clone(),
        name: text(uname.nodename()),
        labels: live.labels.clone(),
        server_version: config.version.version.clone(),
        runtimes,
        default_runtime: live.default_runtime.clone(),
        swarm: Swarm {
            local_node_state: "inactive".to_owned(),
            ..Swarm::default()
        },
        live_restore_enabled: live.live_restore,
        init_binary: "berth".to_owned(),
        security_options: security,
        warnings: warnings(shared),
        ..Info::default()
    }
}

fn wire(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn image_count(shared: &Shared) -> i64 {
    match shared
        .images
        .list(&berth_image::list::Options::default(), &[])
    {
        Ok(images) => wire(images.len()),
        Err(_) => 0,
    }
}

fn warnings(shared: &Shared) -> Option<Vec<String>> {
    let warnings: Vec<String> = shared
        .net
        .as_ref()
        .map(|net| net.warnings())
        .unwrap_or_default();
    (!warnings.is_empty()).then_some(warnings)
}

/// PRETTY_NAME and VERSION_ID of os-release(5).
fn operating_system() -> (String, String) {
    let text = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    (
        value("PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
        value("VERSION_ID").unwrap_or_default(),
    )
}

fn memory_bytes() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// What takes space. Blocks: measures containers and volumes.
pub fn disk_usage(shared: &Shared) -> Result<DiskUsage> {
    let options = ListOptions {
        all: true,
        size: true,
        ..ListOptions::default()
    };
    let containers = list::list(shared, &options)?;
    let volumes = shared.volumes.usage(shared);
    // Images count what they keep packed too: clients subtract their sizes from this one.
    let directory = |name| directory_bytes(&shared.config.data_root.join(name));
    let layers = directory("layers") + directory("blobs");
    Ok(DiskUsage {
        layers_size: i64::try_from(layers).unwrap_or(i64::MAX),
        images: None,
        containers: Some(containers),
        volumes: Some(volumes),
        build_cache: Some(Vec::new()),
    })
}

/// Bytes of all files below a directory; what cannot be read counts as nothing.
pub fn directory_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
