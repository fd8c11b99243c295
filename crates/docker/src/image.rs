//! Images.

use std::collections::BTreeMap;

use crate::json::{Empty, StrSlice, wire, zero};

wire! {
    /// One row of `GET /images/json`.
    #[serde(rename_all = "PascalCase")]
    pub struct Summary {
        /// Number of containers; -1 is not counted.
        pub containers: i64,
        /// Seconds since the epoch.
        pub created: i64,
        pub id: String,
        pub labels: Option<BTreeMap<String, String>>,
        pub parent_id: String,
        #[serde(skip_serializing_if = "zero")]
        pub descriptor: Option<Descriptor>,
        #[serde(skip_serializing_if = "zero")]
        pub manifests: Vec<ManifestSummary>,
        pub repo_digests: Vec<String>,
        pub repo_tags: Vec<String>,
        /// Bytes; -1 is not computed.
        pub shared_size: i64,
        pub size: i64,
    }
}

wire! {
    /// The answer of `POST /commit`.
    #[serde(rename_all = "PascalCase")]
    pub struct CommitResponse {
        pub id: String,
    }
}

wire! {
    /// The answer of `GET /images/{name}/json`.
    #[serde(rename_all = "PascalCase")]
    pub struct Inspect {
        pub id: String,
        pub repo_tags: Vec<String>,
        pub repo_digests: Vec<String>,
        pub parent: String,
        pub comment: String,
        /// RFC 3339; absent if the image does not say.
        #[serde(skip_serializing_if = "zero")]
        pub created: Option<String>,
        pub docker_version: String,
        pub author: String,
        pub config: Option<Config>,
        pub architecture: String,
        #[serde(skip_serializing_if = "zero")]
        pub variant: String,
        pub os: String,
        #[serde(skip_serializing_if = "zero")]
        pub os_version: String,
        pub size: i64,
        #[serde(skip_serializing_if = "zero")]
        pub graph_driver: Option<DriverData>,
        #[serde(rename = "RootFS")]
        pub root_fs: RootFs,
        pub metadata: Metadata,
        #[serde(skip_serializing_if = "zero")]
        pub descriptor: Option<Descriptor>,
        #[serde(skip_serializing_if = "zero")]
        pub manifests: Vec<ManifestSummary>,
    }
}

wire! {
    /// An image's configuration for its containers, as the image specification has it, with
    /// Docker's additions.
    #[serde(rename_all = "PascalCase")]
    pub struct Config {
        #[serde(skip_serializing_if = "zero")]
        pub user: String,
        #[serde(skip_serializing_if = "zero")]
        pub exposed_ports: BTreeMap<String, Empty>,
        #[serde(skip_serializing_if = "zero")]
        pub env: Option<Vec<String>>,
        #[serde(skip_serializing_if = "zero")]
        pub entrypoint: Option<StrSlice>,
        #[serde(skip_serializing_if = "zero")]
        pub cmd: Option<StrSlice>,
        #[serde(skip_serializing_if = "zero")]
        pub volumes: Option<BTreeMap<String, Empty>>,
        #[serde(skip_serializing_if = "zero")]
        pub working_dir: String,
        #[serde(skip_serializing_if = "zero")]
        pub labels: Option<BTreeMap<String, String>>,
        #[serde(skip_serializing_if = "zero")]
        pub stop_signal: String,
        #[serde(skip_serializing_if = "zero")]
        pub args_escaped: bool,
        #[serde(skip_serializing_if = "zero")]
        pub healthcheck: Option<HealthConfig>,
        #[serde(skip_serializing_if = "zero")]
        pub on_build: Option<Vec<String>>,
        #[serde(skip_serializing_if = "zero")]
        pub shell: Option<StrSlice>,
    }
}

wire! {
    /// Times are nanoseconds; 0 inherits.
    #[serde(rename_all = "PascalCase")]
    pub struct HealthConfig {
        #[serde(skip_serializing_if = "zero")]
        pub test: Option<Vec<String>>,
        #[serde(skip_serializing_if = "zero")]
        pub interval: i64,
        #[serde(skip_serializing_if = "zero")]
        pub timeout: i64,
        #[serde(skip_serializing_if = "zero")]
        pub start_period: i64,
        #[serde(skip_serializing_if = "zero")]
        pub start_interval: i64,
        #[serde(skip_serializing_if = "zero")]
        pub retries: i64,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct DriverData {
        pub data: Option<BTreeMap<String, String>>,
        pub name: String,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct RootFs {
        #[serde(rename = "Type", skip_serializing_if = "zero")]
        pub kind: String,
        #[serde(skip_serializing_if = "zero")]
        pub layers: Vec<String>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Metadata {
        /// RFC 3339.
        #[serde(skip_serializing_if = "zero")]
        pub last_tag_time: Option<String>,
    }
}

wire! {
    /// A descriptor of the image specification.
    #[serde(rename_all = "camelCase")]
    pub struct Descriptor {
        pub media_type: String,
        pub digest: String,
        pub size: i64,
        #[serde(skip_serializing_if = "zero")]
        pub urls: Vec<String>,
        #[serde(skip_serializing_if = "zero")]
        pub annotations: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "zero")]
        pub data: Option<String>,
        #[serde(skip_serializing_if = "zero")]
        pub platform: Option<Platform>,
        #[serde(skip_serializing_if = "zero")]
        pub artifact_type: Option<String>,
    }
}

wire! {
    pub struct Platform {
        pub architecture: String,
        pub os: String,
        #[serde(rename = "os.version", skip_serializing_if = "zero")]
        pub os_version: String,
        #[serde(rename = "os.features", skip_serializing_if = "zero")]
        pub os_features: Vec<String>,
        #[serde(skip_serializing_if = "zero")]
        pub variant: String,
    }
}

wire! {
    /// One manifest of an index. Kind is `image`, `attestation` or `unknown`.
    #[serde(rename_all = "PascalCase")]
    pub struct ManifestSummary {
        #[serde(rename = "ID")]
        pub id: String,
        pub descriptor: Descriptor,
        pub available: bool,
        pub kind: String,
        pub size: ManifestSize,
        #[serde(skip_serializing_if = "zero")]
        pub image_data: Option<ManifestImageData>,
        #[serde(skip_serializing_if = "zero")]
        pub attestation_data: Option<AttestationData>,
    }
}

wire! {
    /// Bytes: of the blobs, and with what is unpacked.
    #[serde(rename_all = "PascalCase")]
    pub struct ManifestSize {
        pub content: i64,
        pub total: i64,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct ManifestImageData {
        pub platform: Platform,
        pub containers: Vec<String>,
        pub size: UnpackedSize,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct UnpackedSize {
        pub unpacked: i64,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct AttestationData {
        #[serde(rename = "For")]
        pub subject: String,
    }
}

wire! {
    /// One row of `GET /images/{name}/history`.
    #[serde(rename_all = "PascalCase")]
    pub struct HistoryItem {
        pub comment: String,
        /// Seconds since the epoch.
        pub created: i64,
        pub created_by: String,
        /// `<missing>` if no image here ends with this layer.
        pub id: String,
        pub size: i64,
        pub tags: Option<Vec<String>>,
    }
}

wire! {
    /// One row of the answer of `DELETE /images/{name}`: exactly one is set.
    #[serde(rename_all = "PascalCase")]
    pub struct DeleteItem {
        #[serde(skip_serializing_if = "zero")]
        pub deleted: String,
        #[serde(skip_serializing_if = "zero")]
        pub untagged: String,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct PruneResponse {
        pub images_deleted: Option<Vec<DeleteItem>>,
        pub space_reclaimed: u64,
    }
}
