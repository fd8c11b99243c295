//! The answer of `GET /containers/{id}/json`.

use std::collections::BTreeMap;

use super::{Config, HostConfig, MountPoint};
use crate::image::{Descriptor, DriverData};
use crate::json::{wire, zero};
use crate::network::{Address, EndpointSettings};
use crate::port::PortMap;

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Inspect {
        pub id: String,
        /// RFC 3339 with nanoseconds.
        pub created: String,
        pub path: String,
        pub args: Vec<String>,
        pub state: State,
        /// The image's id, `sha256:...`.
        pub image: String,
        pub resolv_conf_path: String,
        pub hostname_path: String,
        pub hosts_path: String,
        pub log_path: String,
        /// With its leading slash.
        pub name: String,
        pub restart_count: i64,
        pub driver: String,
        pub platform: String,
        pub mount_label: String,
        pub process_label: String,
        pub app_armor_profile: String,
        #[serde(rename = "ExecIDs")]
        pub exec_ids: Option<Vec<String>>,
        pub host_config: HostConfig,
        #[serde(skip_serializing_if = "zero")]
        pub graph_driver: Option<DriverData>,
        #[serde(skip_serializing_if = "zero")]
        pub size_rw: Option<i64>,
        #[serde(skip_serializing_if = "zero")]
        pub size_root_fs: Option<i64>,
        pub mounts: Vec<MountPoint>,
        pub config: Config,
        pub network_settings: NetworkSettings,
        #[serde(skip_serializing_if = "zero")]
        pub image_manifest_descriptor: Option<Descriptor>,
    }
}

wire! {
    /// Status is `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    #[serde(rename_all = "PascalCase")]
    pub struct State {
        pub status: String,
        pub running: bool,
        pub paused: bool,
        pub restarting: bool,
        #[serde(rename = "OOMKilled")]
        pub oom_killed: bool,
        pub dead: bool,
        pub pid: i64,
        pub exit_code: i64,
        pub error: String,
        /// RFC 3339 with nanoseconds; `0001-01-01T00:00:00Z` if it never was.
        pub started_at: String,
        pub finished_at: String,
        #[serde(skip_serializing_if = "zero")]
        pub health: Option<Health>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Health {
        pub status: String,
        pub failing_streak: i64,
        pub log: Vec<HealthcheckResult>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct HealthcheckResult {
        pub start: String,
        pub end: String,
        pub exit_code: i64,
        pub output: String,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct NetworkSettings {
        pub bridge: String,
        #[serde(rename = "SandboxID")]
        pub sandbox_id: String,
        pub sandbox_key: String,
        pub ports: PortMap,
        pub hairpin_mode: bool,
        #[serde(rename = "LinkLocalIPv6Address")]
        pub link_local_ipv6_address: String,
        #[serde(rename = "LinkLocalIPv6PrefixLen")]
        pub link_local_ipv6_prefix_len: i64,
        #[serde(rename = "SecondaryIPAddresses")]
        pub secondary_ip_addresses: Option<Vec<Address>>,
        #[serde(rename = "SecondaryIPv6Addresses")]
        pub secondary_ipv6_addresses: Option<Vec<Address>>,
        #[serde(rename = "EndpointID")]
        pub endpoint_id: String,
        pub gateway: String,
        #[serde(rename = "GlobalIPv6Address")]
        pub global_ipv6_address: String,
        #[serde(rename = "GlobalIPv6PrefixLen")]
        pub global_ipv6_prefix_len: i64,
        #[serde(rename = "IPAddress")]
        pub ip_address: String,
        #[serde(rename = "IPPrefixLen")]
        pub ip_prefix_len: i64,
        #[serde(rename = "IPv6Gateway")]
        pub ipv6_gateway: String,
        pub mac_address: String,
        pub networks: BTreeMap<String, EndpointSettings>,
    }
}
