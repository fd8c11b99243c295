//! Mounts: as they are asked for, and as an inspection lists them.

use std::collections::BTreeMap;

use crate::json::{wire, zero};

wire! {
    /// One of `HostConfig.Mounts`. The type is `bind`, `volume`, `tmpfs`, `image`, `npipe` or
    /// `cluster`.
    #[serde(rename_all = "PascalCase")]
    pub struct Mount {
        #[serde(rename = "Type", skip_serializing_if = "zero")]
        pub kind: String,
        #[serde(skip_serializing_if = "zero")]
        pub source: String,
        #[serde(skip_serializing_if = "zero")]
        pub target: String,
        #[serde(skip_serializing_if = "zero")]
        pub read_only: bool,
        #[serde(skip_serializing_if = "zero")]
        pub consistency: String,
        #[serde(skip_serializing_if = "zero")]
        pub bind_options: Option<BindOptions>,
        #[serde(skip_serializing_if = "zero")]
        pub volume_options: Option<VolumeOptions>,
        #[serde(skip_serializing_if = "zero")]
        pub image_options: Option<ImageOptions>,
        #[serde(skip_serializing_if = "zero")]
        pub tmpfs_options: Option<TmpfsOptions>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct BindOptions {
        #[serde(skip_serializing_if = "zero")]
        pub propagation: String,
        #[serde(skip_serializing_if = "zero")]
        pub non_recursive: bool,
        #[serde(skip_serializing_if = "zero")]
        pub create_mountpoint: bool,
        #[serde(skip_serializing_if = "zero")]
        pub read_only_non_recursive: bool,
        #[serde(skip_serializing_if = "zero")]
        pub read_only_force_recursive: bool,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct VolumeOptions {
        #[serde(skip_serializing_if = "zero")]
        pub no_copy: bool,
        #[serde(skip_serializing_if = "zero")]
        pub labels: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "zero")]
        pub subpath: String,
        #[serde(skip_serializing_if = "zero")]
        pub driver_config: Option<DriverConfig>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct DriverConfig {
        #[serde(skip_serializing_if = "zero")]
        pub name: String,
        #[serde(skip_serializing_if = "zero")]
        pub options: BTreeMap<String, String>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct ImageOptions {
        #[serde(skip_serializing_if = "zero")]
        pub subpath: String,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct TmpfsOptions {
        #[serde(skip_serializing_if = "zero")]
        pub size_bytes: i64,
        #[serde(skip_serializing_if = "zero")]
        pub mode: u32,
        #[serde(skip_serializing_if = "zero")]
        pub options: Vec<Vec<String>>,
    }
}

wire! {
    /// One mount of a container, as it is.
    #[serde(rename_all = "PascalCase")]
    pub struct MountPoint {
        #[serde(rename = "Type", skip_serializing_if = "zero")]
        pub kind: String,
        #[serde(skip_serializing_if = "zero")]
        pub name: String,
        pub source: String,
        pub destination: String,
        #[serde(skip_serializing_if = "zero")]
        pub driver: String,
        pub mode: String,
        #[serde(rename = "RW")]
        pub rw: bool,
        pub propagation: String,
    }
}
