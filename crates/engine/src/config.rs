//! How an engine is set up: plain data, which the binary makes from flags and `daemon.json`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use berth_docker::container::Ulimit;

#[derive(Debug, Clone)]
pub struct Config {
    pub data_root: PathBuf,
    pub exec_root: PathBuf,
    /// `berth`, or `berth-` and six digits; names kernel objects.
    pub instance: String,
    /// Below each hierarchy's root, for example `/berth`.
    pub cgroup_parent: String,
    /// Run a reaper as process 1 where the container does not say.
    pub init: bool,
    /// `json-file` or `none`.
    pub log_driver: String,
    pub log_opts: BTreeMap<String, String>,
    pub default_ulimits: BTreeMap<String, Ulimit>,
    pub dns: Vec<IpAddr>,
    pub dns_options: Vec<String>,
    pub dns_search: Vec<String>,
    /// What `host-gateway` stands for; empty is the bridge's gateway.
    pub host_gateway_ips: Vec<IpAddr>,
    pub default_shm_size_bytes: u64,
    /// `private` or `shareable`.
    pub default_ipc_mode: String,
    /// `private` or `host`; `None` is private on cgroup v2 and host on v1, as Docker's.
    pub default_cgroupns_mode: Option<String>,
    pub no_new_privileges: bool,
    /// Containers without network are all there are (`--bridge none`).
    pub bridge_disabled: bool,
    pub debug: bool,
    pub http_proxy: String,
    pub https_proxy: String,
    pub no_proxy: String,
    pub version: Version,
    pub live: Live,
}

/// What a running daemon can change (SIGHUP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Containers go on while no daemon runs.
    pub live_restore: bool,
    /// How long a stop of all containers waits for each, at shutdown without live restore.
    pub shutdown_timeout: Duration,
    pub labels: Vec<String>,
    pub insecure_registries: Vec<String>,
    pub registry_mirrors: Vec<String>,
    pub default_runtime: String,
    pub runtimes: BTreeMap<String, Runtime>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            live_restore: true,
            shutdown_timeout: Duration::from_secs(15),
            labels: Vec::new(),
            insecure_registries: Vec::new(),
            registry_mirrors: Vec::new(),
            default_runtime: OWN_RUNTIME.to_owned(),
            runtimes: BTreeMap::new(),
        }
    }
}

/// Another OCI runtime (`--add-runtime`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    pub path: PathBuf,
    pub args: Vec<String>,
}

/// What the binary was built from.
#[derive(Debug, Clone, Default)]
pub struct Version {
    pub version: String,
    pub git_commit: String,
    /// RFC 3339.
    pub build_time: String,
}

/// The name of our own runtime, as Docker calls its own.
pub const OWN_RUNTIME: &str = "runc";

impl Config {
    /// Docker's defaults for an instance with these directories.
    pub fn new(
        instance: &str,
        data_root: impl Into<PathBuf>,
        exec_root: impl Into<PathBuf>,
    ) -> Self {
        Self {
            data_root: data_root.into(),
            exec_root: exec_root.into(),
            instance: instance.to_owned(),
            cgroup_parent: format!("/{instance}"),
            init: false,
            log_driver: "json-file".to_owned(),
            log_opts: BTreeMap::new(),
            default_ulimits: BTreeMap::new(),
            dns: Vec::new(),
            dns_options: Vec::new(),
            dns_search: Vec::new(),
            host_gateway_ips: Vec::new(),
            default_shm_size_bytes: 64 << 20,
            default_ipc_mode: "private".to_owned(),
            default_cgroupns_mode: None,
            no_new_privileges: false,
            bridge_disabled: false,
            debug: false,
            http_proxy: String::new(),
            https_proxy: String::new(),
            no_proxy: String::new(),
            version: Version::default(),
            live: Live::default(),
        }
    }

    /// The container's persistent directory: its log and its files below `/etc`.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.data_root.join("containers").join(id)
    }

    /// The container's runtime directory: its keeper's socket and records.
    pub fn runtime_dir(&self, id: &str) -> PathBuf {
        self.exec_root.join("containers").join(id)
    }

    pub fn cgroup(&self, id: &str) -> String {
        format!("{}/{id}", self.cgroup_parent.trim_end_matches('/'))
    }

    pub fn log_path(&self, id: &str) -> PathBuf {
        self.container_dir(id).join(format!("{id}-json.log"))
    }
}
