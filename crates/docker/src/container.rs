//! Containers: what a client asks for and what it is told.

mod host_config;
mod inspect;
mod mount;
mod path;
mod summary;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use host_config::{
    DeviceMapping, DeviceRequest, HostConfig, LogConfig, RestartPolicy, ThrottleDevice, Ulimit,
    WeightDevice,
};
pub use inspect::{Health, HealthcheckResult, Inspect, NetworkSettings, State};
pub use mount::{
    BindOptions, DriverConfig, ImageOptions, Mount, MountPoint, TmpfsOptions, VolumeOptions,
};
pub use path::PathStat;
pub use summary::{Summary, SummaryHostConfig, SummaryNetworkSettings, SummaryPort};

pub use crate::image::HealthConfig;
use crate::json::{Empty, Error, StrSlice, from_value, wire, zero};
use crate::network::EndpointSettings;

wire! {
    /// The part of a container's configuration that does not depend on the host.
    #[serde(rename_all = "PascalCase")]
    pub struct Config {
        pub hostname: String,
        pub domainname: String,
        pub user: String,
        pub attach_stdin: bool,
        pub attach_stdout: bool,
        pub attach_stderr: bool,
        /// Keys are `80/tcp`.
        #[serde(skip_serializing_if = "zero")]
        pub exposed_ports: BTreeMap<String, Empty>,
        pub tty: bool,
        pub open_stdin: bool,
        pub stdin_once: bool,
        pub env: Option<Vec<String>>,
        pub cmd: Option<StrSlice>,
        #[serde(skip_serializing_if = "zero")]
        pub healthcheck: Option<HealthConfig>,
        #[serde(skip_serializing_if = "zero")]
        pub args_escaped: bool,
        pub image: String,
        pub volumes: Option<BTreeMap<String, Empty>>,
        pub working_dir: String,
        pub entrypoint: Option<StrSlice>,
        #[serde(skip_serializing_if = "zero")]
        pub network_disabled: bool,
        /// Deprecated in 1.44 in favour of [`EndpointSettings::mac_address`].
        #[serde(skip_serializing_if = "zero")]
        pub mac_address: String,
        pub on_build: Option<Vec<String>>,
        pub labels: Option<BTreeMap<String, String>>,
        #[serde(skip_serializing_if = "zero")]
        pub stop_signal: String,
        /// Seconds; -1 waits for ever.
        #[serde(skip_serializing_if = "zero")]
        pub stop_timeout: Option<i64>,
        #[serde(skip_serializing_if = "zero")]
        pub shell: Option<StrSlice>,
    }
}

/// The body of `POST /containers/create`: a [`Config`] with two more fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CreateRequest {
    #[serde(flatten)]
    pub config: Config,
    #[serde(rename = "HostConfig")]
    pub host_config: Option<HostConfig>,
    #[serde(rename = "NetworkingConfig")]
    pub networking_config: Option<NetworkingConfig>,
}

// By hand, since serde's flattening would lose the path of a field with a wrong value.
impl<'de> Deserialize<'de> for CreateRequest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        fn part<T, E>(value: Option<serde_json::Value>, name: &str) -> Result<Option<T>, E>
        where
            T: serde::de::DeserializeOwned,
            E: serde::de::Error,
        {
            let Some(value) = value.filter(|v| !v.is_null()) else {
                return Ok(None);
            };
            from_value(serde_json::json!({ name: value }))
                .map(|mut part: BTreeMap<String, T>| part.remove(name))
                .map_err(|e| E::custom(inner(e)))
        }
        fn inner(error: Error) -> String {
            match error {
                Error::Shape(text) => text,
                other => other.to_string(),
            }
        }
        let fields = Option::<serde_json::Map<_, _>>::deserialize(deserializer)?;
        let mut fields = fields.unwrap_or_default();
        Ok(Self {
            host_config: part(fields.remove("HostConfig"), "HostConfig")?,
            networking_config: part(fields.remove("NetworkingConfig"), "NetworkingConfig")?,
            config: from_value(fields.into()).map_err(|e| D::Error::custom(inner(e)))?,
        })
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct NetworkingConfig {
        pub endpoints_config: Option<BTreeMap<String, Option<EndpointSettings>>>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct CreateResponse {
        pub id: String,
        pub warnings: Vec<String>,
    }
}

wire! {
    /// The answer of `POST /containers/{id}/wait`.
    #[serde(rename_all = "PascalCase")]
    pub struct WaitResponse {
        pub status_code: i64,
        #[serde(skip_serializing_if = "zero")]
        pub error: Option<WaitError>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct WaitError {
        pub message: String,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct TopResponse {
        pub titles: Vec<String>,
        pub processes: Vec<Vec<String>>,
    }
}

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct PruneResponse {
        pub containers_deleted: Option<Vec<String>>,
        pub space_reclaimed: u64,
    }
}

wire! {
    /// The answer of `POST /containers/{id}/update`.
    #[serde(rename_all = "PascalCase")]
    pub struct UpdateResponse {
        pub warnings: Option<Vec<String>>,
    }
}

wire! {
    /// One path of `GET /containers/{id}/changes`; kind 0 is modified, 1 added, 2 deleted.
    #[serde(rename_all = "PascalCase")]
    pub struct FilesystemChange {
        pub path: String,
        pub kind: u8,
    }
}
