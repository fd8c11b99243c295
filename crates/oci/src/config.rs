//! Image configurations: what OCI specifies (config.md) and the fields that Docker adds. Unknown
//! fields survive a change.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::{Digest, Platform};

/// No real configuration is larger; the limit keeps hostile ones out of memory, where they take a
/// multiple of it.
pub const CONFIG_LIMIT: u64 = 4 << 20;
/// More layers than overlayfs stacks (the kernel's `OVL_MAX_STACK`) make no root file system.
/// Docker stops at 125.
pub const MAX_LAYERS: usize = 500;
/// Steps that made the image: those without a layer are many times fewer than this.
const MAX_HISTORY: usize = 10_000;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(flatten)]
    pub platform: Platform,
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: Execution,
    #[serde(default, deserialize_with = "null_as_default")]
    pub rootfs: RootFs,
    #[serde(
        default,
        deserialize_with = "at_most::<_, _, MAX_HISTORY>",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<History>,
    /// Docker's: the builder's version, the comment of a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// How a container of the image runs. The field names are Docker's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposed_ports: Option<Set>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Set>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args_escaped: Option<bool>,
    /// Docker's extensions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Docker's health check; durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default, deserialize_with = "at_most::<_, _, MAX_LAYERS>")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: "layers".to_owned(),
            diff_ids: Vec::new(),
        }
    }
}

/// One step of the image's making; `empty_layer` ones have no layer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Go's `map[string]struct{}`: an object whose values are empty objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set(pub std::collections::BTreeSet<String>);

impl Serialize for Set {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let empty = Value::Object(serde_json::Map::new());
        serializer.collect_map(self.0.iter().map(|key| (key, &empty)))
    }
}

impl<'de> Deserialize<'de> for Set {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<String, serde::de::IgnoredAny>::deserialize(deserializer)?;
        Ok(Self(map.into_keys().collect()))
    }
}

impl ImageConfig {
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// The chain ids of the layers, bottom first (config.md, "Layer ChainID").
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

fn null_as_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A list that is refused before it fills the memory; nothing for `null`.
fn at_most<'de, T, D, const LIMIT: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Bounded<T, const LIMIT: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const LIMIT: usize> Visitor<'de> for Bounded<T, LIMIT> {
        type Value = Vec<T>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(out, "a list of at most {LIMIT}")
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = list.next_element()? {
                if items.len() == LIMIT {
                    return Err(serde::de::Error::custom(format_args!(
                        "max depth exceeded: more than {LIMIT}"
                    )));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_any(Bounded::<T, LIMIT>(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_would_fill_the_memory_are_refused() {
        let digest = format!("\"{}\",", Digest::of(b""));
        let layers = |count: usize| {
            let ids = digest.repeat(count);
            let ids = ids.trim_end_matches(',');
            let text = format!("{{\"rootfs\":{{\"diff_ids\":[{ids}]}}}}");
            ImageConfig::parse(text.as_bytes()).map(|config| config.rootfs.diff_ids.len())
        };
        assert_eq!(layers(MAX_LAYERS).unwrap(), MAX_LAYERS);
        let error = layers(MAX_LAYERS + 1).unwrap_err().to_string();
        assert!(error.starts_with("max depth exceeded"), "{error}");
        let history = format!("{{\"history\":[{}{{}}]}}", "{},".repeat(1_000_000));
        assert!(ImageConfig::parse(history.as_bytes()).is_err());
    }

    #[test]
    fn docker_fields_and_unknown_ones_survive() {
        let text = r#"{
            "architecture": "amd64", "os": "linux", "container": "abc", "moby.buildkit.x": [1],
            "config": {"Env": ["A=b"], "Cmd": null, "Healthcheck": {"Test": ["NONE"]},
                "OnBuild": ["RUN x"], "ExposedPorts": {"80/tcp": {}}, "Hostname": "h"},
            "rootfs": {"type": "layers", "diff_ids": null}, "history": null}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(
            config.config.healthcheck.as_ref().unwrap().test,
            Some(vec!["NONE".into()])
        );
        let again = serde_json::to_value(&config).unwrap();
        assert_eq!(again["container"], "abc");
        assert_eq!(again["moby.buildkit.x"][0], 1);
        assert_eq!(again["config"]["Hostname"], "h");
        assert_eq!(
            again["config"]["ExposedPorts"]["80/tcp"],
            serde_json::json!({})
        );
    }

    #[test]
    fn the_first_chain_id_is_the_diff_id() {
        let ids = [Digest::of(b"a"), Digest::of(b"b")];
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0]);
        assert_eq!(
            chain[1],
            Digest::of(format!("{} {}", ids[0], ids[1]).as_bytes())
        );
    }
}
