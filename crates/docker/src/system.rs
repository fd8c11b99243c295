//! The daemon itself.

use std::collections::BTreeMap;

use crate::json::{wire, zero};
use crate::{container, image, volume};

wire! {
    /// The answer of `GET /version`.
    #[serde(rename_all = "PascalCase")]
    pub struct Version {
        pub platform: VersionPlatform,
        #[serde(skip_serializing_if = "zero")]
        pub components: Vec<Component>,
        pub version: String,
        pub api_version: String,
        #[serde(rename = "MinAPIVersion", skip_serializing_if = "zero")]
        pub min_api_version: String,
        pub git_commit: String,
        pub go_version: String,
        pub os: String,
        pub arch: String,
        #[serde(skip_serializing_if = "zero")]
        pub kernel_version: String,
        #[serde(skip_serializing_if = "zero")]
        pub experimental: bool,
        #[serde(skip_serializing_if = "zero")]
        pub build_time: String,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct VersionPlatform {
        pub name: String,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Component {
        pub name: String,
        pub version: String,
        #[serde(skip_serializing_if = "zero")]
        pub details: BTreeMap<String, String>,
    }
}

wire! {
    /// The answer of `GET /info`.
    #[serde(rename_all = "PascalCase")]
    pub struct Info {
        #[serde(rename = "ID")]
        pub id: String,
        pub containers: i64,
        pub containers_running: i64,
        pub containers_paused: i64,
        pub containers_stopped: i64,
        pub images: i64,
        pub driver: String,
        pub driver_status: Vec<Vec<String>>,
        pub plugins: Plugins,
        pub memory_limit: bool,
        pub swap_limit: bool,
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "zero")]
        pub kernel_memory_tcp: bool,
        pub cpu_cfs_period: bool,
        pub cpu_cfs_quota: bool,
        #[serde(rename = "CPUShares")]
        pub cpu_shares: bool,
        #[serde(rename = "CPUSet")]
        pub cpu_set: bool,
        pub pids_limit: bool,
        #[serde(rename = "IPv4Forwarding")]
        pub ipv4_forwarding: bool,
        pub debug: bool,
        #[serde(rename = "NFd")]
        pub n_fd: i64,
        pub oom_kill_disable: bool,
        #[serde(rename = "NGoroutines")]
        pub n_goroutines: i64,
        pub system_time: String,
        pub logging_driver: String,
        pub cgroup_driver: String,
        #[serde(skip_serializing_if = "zero")]
        pub cgroup_version: String,
        pub n_events_listener: i64,
        pub kernel_version: String,
        pub operating_system: String,
        #[serde(rename = "OSVersion")]
        pub os_version: String,
        #[serde(rename = "OSType")]
        pub os_type: String,
        pub architecture: String,
        pub index_server_address: String,
        pub registry_config: Option<RegistryConfig>,
        #[serde(rename = "NCPU")]
        pub ncpu: i64,
        /// Bytes.
        pub mem_total: i64,
        pub generic_resources: Option<Vec<serde_json::Value>>,
        pub docker_root_dir: String,
        pub http_proxy: String,
        pub https_proxy: String,
        pub no_proxy: String,
        pub name: String,
        pub labels: Vec<String>,
        pub experimental_build: bool,
        pub server_version: String,
        pub runtimes: BTreeMap<String, Runtime>,
        pub default_runtime: String,
        pub swarm: Swarm,
        pub live_restore_enabled: bool,
        pub isolation: String,
        pub init_binary: String,
        pub containerd_commit: Commit,
        pub runc_commit: Commit,
        pub init_commit: Commit,
        pub security_options: Vec<String>,
        #[serde(skip_serializing_if = "zero")]
        pub product_license: String,
        #[serde(skip_serializing_if = "zero")]
        pub default_address_pools: Vec<AddressPool>,
        #[serde(skip_serializing_if = "zero")]
        pub firewall_backend: Option<Firewall>,
        #[serde(rename = "CDISpecDirs")]
        pub cdi_spec_dirs: Vec<String>,
        #[serde(skip_serializing_if = "zero")]
        pub containerd: Option<Containerd>,
        pub warnings: Option<Vec<String>>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Plugins {
        pub volume: Option<Vec<String>>,
        pub network: Option<Vec<String>>,
        pub authorization: Option<Vec<String>>,
        pub log: Option<Vec<String>>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct RegistryConfig {
        #[serde(rename = "InsecureRegistryCIDRs")]
        pub insecure_registry_cidrs: Vec<String>,
        pub index_configs: BTreeMap<String, IndexInfo>,
        pub mirrors: Option<Vec<String>>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct IndexInfo {
        pub name: String,
        pub mirrors: Vec<String>,
        pub secure: bool,
        pub official: bool,
    }
}

wire! {
    pub struct Runtime {
        #[serde(skip_serializing_if = "zero")]
        pub path: String,
        #[serde(rename = "runtimeArgs", skip_serializing_if = "zero")]
        pub runtime_args: Vec<String>,
        #[serde(skip_serializing_if = "zero")]
        pub status: BTreeMap<String, String>,
    }
}

wire! {
    pub struct Commit {
        #[serde(rename = "ID")]
        pub id: String,
    }
}

wire! {
    /// A node that is in no swarm has the state `inactive`.
    #[serde(rename_all = "PascalCase")]
    pub struct Swarm {
        #[serde(rename = "NodeID")]
        pub node_id: String,
        pub node_addr: String,
        pub local_node_state: String,
        pub control_available: bool,
        pub error: String,
        pub remote_managers: Option<Vec<serde_json::Value>>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct AddressPool {
        pub base: String,
        pub size: i64,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Firewall {
        pub driver: String,
        #[serde(skip_serializing_if = "zero")]
        pub info: Vec<Vec<String>>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Containerd {
        #[serde(skip_serializing_if = "zero")]
        pub address: String,
        pub namespaces: ContainerdNamespaces,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct ContainerdNamespaces {
        pub containers: String,
        pub plugins: String,
    }
}

wire! {
    /// The answer of `GET /system/df`.
    #[serde(rename_all = "PascalCase")]
    pub struct DiskUsage {
        pub layers_size: i64,
        pub images: Option<Vec<image::Summary>>,
        pub containers: Option<Vec<container::Summary>>,
        pub volumes: Option<Vec<volume::Volume>>,
        pub build_cache: Option<Vec<serde_json::Value>>,
    }
}
