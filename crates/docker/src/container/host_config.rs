//! The part of a container's configuration that depends on the host.

use std::collections::BTreeMap;

use super::Mount;
use crate::json::{StrSlice, wire, zero};
use crate::port::PortMap;

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct HostConfig {
        pub binds: Option<Vec<String>>,
        #[serde(rename = "ContainerIDFile")]
        pub container_id_file: String,
        pub log_config: LogConfig,
        pub network_mode: String,
        pub port_bindings: Option<PortMap>,
        pub restart_policy: RestartPolicy,
        pub auto_remove: bool,
        pub volume_driver: String,
        pub volumes_from: Option<Vec<String>>,
        /// Rows, then columns.
        pub console_size: [u32; 2],
        #[serde(skip_serializing_if = "zero")]
        pub annotations: BTreeMap<String, String>,
        pub cap_add: Option<StrSlice>,
        pub cap_drop: Option<StrSlice>,
        pub cgroupns_mode: String,
        pub dns: Option<Vec<String>>,
        pub dns_options: Option<Vec<String>>,
        pub dns_search: Option<Vec<String>>,
        pub extra_hosts: Option<Vec<String>>,
        pub group_add: Option<Vec<String>>,
        pub ipc_mode: String,
        pub cgroup: String,
        pub links: Option<Vec<String>>,
        pub oom_score_adj: i64,
        pub pid_mode: String,
        pub privileged: bool,
        pub publish_all_ports: bool,
        pub readonly_rootfs: bool,
        pub security_opt: Option<Vec<String>>,
        #[serde(skip_serializing_if = "zero")]
        pub storage_opt: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "zero")]
        pub tmpfs: BTreeMap<String, String>,
        #[serde(rename = "UTSMode")]
        pub uts_mode: String,
        pub userns_mode: String,
        /// Bytes.
        pub shm_size: i64,
        #[serde(skip_serializing_if = "zero")]
        pub sysctls: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "zero")]
        pub runtime: String,
        pub isolation: String,

        pub cpu_shares: i64,
        /// Bytes; 0 is no limit.
        pub memory: i64,
        pub nano_cpus: i64,
        pub cgroup_parent: String,
        pub blkio_weight: u16,
        pub blkio_weight_device: Option<Vec<WeightDevice>>,
        pub blkio_device_read_bps: Option<Vec<ThrottleDevice>>,
        pub blkio_device_write_bps: Option<Vec<ThrottleDevice>>,
        #[serde(rename = "BlkioDeviceReadIOps")]
        pub blkio_device_read_iops: Option<Vec<ThrottleDevice>>,
        #[serde(rename = "BlkioDeviceWriteIOps")]
        pub blkio_device_write_iops: Option<Vec<ThrottleDevice>>,
        /// Microseconds.
        pub cpu_period: i64,
        /// Microseconds.
        pub cpu_quota: i64,
        pub cpu_realtime_period: i64,
        pub cpu_realtime_runtime: i64,
        pub cpuset_cpus: String,
        pub cpuset_mems: String,
        pub devices: Option<Vec<DeviceMapping>>,
        pub device_cgroup_rules: Option<Vec<String>>,
        pub device_requests: Option<Vec<DeviceRequest>>,
        #[serde(skip_serializing_if = "zero")]
        pub kernel_memory: i64,
        #[serde(rename = "KernelMemoryTCP", skip_serializing_if = "zero")]
        pub kernel_memory_tcp: i64,
        pub memory_reservation: i64,
        /// Memory and swap together, in bytes; -1 is no limit.
        pub memory_swap: i64,
        pub memory_swappiness: Option<i64>,
        pub oom_kill_disable: Option<bool>,
        pub pids_limit: Option<i64>,
        pub ulimits: Option<Vec<Ulimit>>,
        pub cpu_count: i64,
        pub cpu_percent: i64,
        #[serde(rename = "IOMaximumIOps")]
        pub io_maximum_iops: u64,
        #[serde(rename = "IOMaximumBandwidth")]
        pub io_maximum_bandwidth: u64,

        #[serde(skip_serializing_if = "zero")]
        pub mounts: Vec<Mount>,
        /// `None` is the default list, an empty list masks nothing.
        pub masked_paths: Option<Vec<String>>,
        pub readonly_paths: Option<Vec<String>>,
        #[serde(skip_serializing_if = "zero")]
        pub init: Option<bool>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct LogConfig {
        #[serde(rename = "Type")]
        pub driver: String,
        pub config: Option<BTreeMap<String, String>>,
    }
}

wire! {
    /// Name is empty, `no`, `always`, `unless-stopped` or `on-failure`.
    #[serde(rename_all = "PascalCase")]
    pub struct RestartPolicy {
        pub name: String,
        pub maximum_retry_count: i64,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct DeviceMapping {
        pub path_on_host: String,
        pub path_in_container: String,
        pub cgroup_permissions: String,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct DeviceRequest {
        pub driver: String,
        pub count: i64,
        #[serde(rename = "DeviceIDs")]
        pub device_ids: Option<Vec<String>>,
        pub capabilities: Option<Vec<Vec<String>>>,
        pub options: Option<BTreeMap<String, String>>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct WeightDevice {
        pub path: String,
        pub weight: u16,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct ThrottleDevice {
        pub path: String,
        pub rate: u64,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Ulimit {
        pub name: String,
        pub hard: i64,
        pub soft: i64,
    }
}
