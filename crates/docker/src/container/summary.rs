//! One row of `GET /containers/json`.

use std::collections::BTreeMap;

use super::MountPoint;
use crate::image::Descriptor;
use crate::json::{wire, zero};
use crate::network::EndpointSettings;

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Summary {
        pub id: String,
        /// With their leading slashes.
        pub names: Vec<String>,
        pub image: String,
        #[serde(rename = "ImageID")]
        pub image_id: String,
        #[serde(skip_serializing_if = "zero")]
        pub image_manifest_descriptor: Option<Descriptor>,
        pub command: String,
        /// Seconds since the epoch.
        pub created: i64,
        pub ports: Vec<SummaryPort>,
        #[serde(skip_serializing_if = "zero")]
        pub size_rw: Option<i64>,
        #[serde(skip_serializing_if = "zero")]
        pub size_root_fs: Option<i64>,
        pub labels: BTreeMap<String, String>,
        pub state: String,
        /// For people: `Up 2 minutes`.
        pub status: String,
        pub host_config: SummaryHostConfig,
        pub network_settings: SummaryNetworkSettings,
        pub mounts: Vec<MountPoint>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct SummaryHostConfig {
        #[serde(skip_serializing_if = "zero")]
        pub network_mode: String,
        #[serde(skip_serializing_if = "zero")]
        pub annotations: BTreeMap<String, String>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct SummaryNetworkSettings {
        pub networks: BTreeMap<String, EndpointSettings>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct SummaryPort {
        #[serde(rename = "IP", skip_serializing_if = "zero")]
        pub ip: String,
        pub private_port: u16,
        #[serde(skip_serializing_if = "zero")]
        pub public_port: u16,
        /// `tcp`, `udp` or `sctp`.
        #[serde(rename = "Type")]
        pub protocol: String,
    }
}
