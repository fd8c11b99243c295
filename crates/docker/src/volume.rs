//! Volumes.

use std::collections::BTreeMap;

use crate::json::{wire, zero};

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct Volume {
        #[serde(skip_serializing_if = "zero")]
        pub created_at: String,
        pub driver: String,
        pub labels: Option<BTreeMap<String, String>>,
        pub mountpoint: String,
        pub name: String,
        pub options: Option<BTreeMap<String, String>>,
        pub scope: String,
        #[serde(skip_serializing_if = "zero")]
        pub status: BTreeMap<String, serde_json::Value>,
        #[serde(skip_serializing_if = "zero")]
        pub usage_data: Option<UsageData>,
    }
}

wire! {
    /// -1 is not known.
    #[serde(rename_all = "PascalCase")]
    pub struct UsageData {
        pub size: i64,
        pub ref_count: i64,
    }
}

wire! {
    /// The body of `POST /volumes/create`.
    #[serde(rename_all = "PascalCase")]
    pub struct CreateRequest {
        /// Empty for a generated name.
        pub name: String,
        pub driver: String,
        pub driver_opts: Option<BTreeMap<String, String>>,
        pub labels: Option<BTreeMap<String, String>>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct List {
        pub volumes: Vec<Volume>,
        pub warnings: Option<Vec<String>>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct PruneResponse {
        pub volumes_deleted: Option<Vec<String>>,
        pub space_reclaimed: u64,
    }
}

wire! {
    /// The answer to `POST /berth/volumes/NAME/snapshot` and `.../clone`, which Docker does not have.
    #[serde(rename_all = "PascalCase")]
    pub struct Copied {
        pub volume: Volume,
        /// `reflink` where the files share their blocks, otherwise `copy`.
        pub method: String,
        /// The containers that were paused meanwhile.
        pub paused: Vec<String>,
        pub warnings: Vec<String>,
    }
}
