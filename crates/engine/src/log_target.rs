//! Where a container's output goes: from its log configuration to the keeper's words.

use std::collections::BTreeMap;

use berth_base::size;
use berth_docker::container::LogConfig;
use berth_keeper::protocol::LogTarget;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::record::Record;

const JSON_FILE_OPTIONS: &[&str] = &[
    "max-file",
    "max-size",
    "compress",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "tag",
    "mode",
    "max-buffer-size",
];

/// Refuses at create what could not be served at a start.
pub fn check(log: &LogConfig) -> Result<()> {
    match log.driver.as_str() {
        "none" => Ok(()),
        "json-file" => json_file(log).map(|_| ()),
        other => Err(Error::invalid(format!(
            "error looking up logging plugin {other}: plugin \"{other}\" not found"
        ))),
    }
}

pub fn plan(config: &Config, record: &Record) -> Result<LogTarget> {
    let log = &record.host.log_config;
    if log.driver == "none" {
        return Ok(LogTarget::None);
    }
    let rotation = json_file(log)?;
    Ok(LogTarget::JsonFile {
        path: config.log_path(record.id.as_str()),
        max_size_bytes: rotation.max_size_bytes,
        max_files: rotation.max_files,
        compress: rotation.compress,
        attrs: attributes(record),
    })
}

struct Rotation {
    max_size_bytes: Option<u64>,
    max_files: u32,
    compress: bool,
}

fn json_file(log: &LogConfig) -> Result<Rotation> {
    let empty = BTreeMap::new();
    let options = log.config.as_ref().unwrap_or(&empty);
    if let Some(unknown) = options
        .keys()
        .find(|key| !JSON_FILE_OPTIONS.contains(&key.as_str()))
    {
        return Err(Error::invalid(format!(
            "unknown log opt '{unknown}' for json-file log driver"
        )));
    }
    if let Some(mode) = options.get("mode")
        && !matches!(mode.as_str(), "blocking" | "non-blocking" | "")
    {
        return Err(Error::invalid(format!(
            "logger: logging mode not supported: {mode}"
        )));
    }
    let max_size_bytes = match options.get("max-size").map(String::as_str) {
        None | Some("" | "-1") => None,
        Some(text) => match size::parse_decimal(text)
            .ok()
            .and_then(|size| u64::try_from(size).ok())
        {
            Some(size) if size > 0 => Some(size),
            _ => {
                return Err(Error::invalid(format!(
                    "invalid value for max-size: {text}"
                )));
            }
        },
    };
    let max_files = match options.get("max-file").map(String::as_str) {
        None | Some("") => 1,
        Some(text) => match text.parse::<u32>() {
            Ok(files) if files >= 1 => files,
            _ => return Err(Error::invalid("max-file cannot be less than 1")),
        },
    };
    let compress = match options.get("compress").map(String::as_str) {
        None | Some("" | "false" | "0") => false,
        Some("true" | "1") => true,
        Some(text) => {
            return Err(Error::invalid(format!(
                "invalid value for compress: {text}"
            )));
        }
    };
    if compress && (max_size_bytes.is_none() || max_files < 2) {
        return Err(Error::invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ));
    }
    Ok(Rotation {
        max_size_bytes,
        max_files,
        compress,
    })
}

/// The labels and variables that the options name, as `attrs` of every record.
fn attributes(record: &Record) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    let Some(options) = &record.host.log_config.config else {
        return attributes;
    };
    let named = |key: &str| -> Vec<String> {
        options
            .get(key)
            .map(|list| list.split(',').map(|name| name.trim().to_owned()).collect())
            .unwrap_or_default()
    };
    for name in named("labels") {
        if let Some(value) = record
            .config
            .labels
            .as_ref()
            .and_then(|labels| labels.get(&name))
        {
            attributes.insert(name, value.clone());
        }
    }
    for name in named("env") {
        let prefix = format!("{name}=");
        let value = record
            .config
            .env
            .iter()
            .flatten()
            .find_map(|entry| entry.strip_prefix(&prefix));
        if let Some(value) = value {
            attributes.insert(name, value.to_owned());
        }
    }
    if let Some(tag) = options.get("tag") {
        let id = record.id.as_str();
        let tag = tag
            .replace("{{.ID}}", record.id.short())
            .replace("{{.FullID}}", id)
            .replace("{{.Name}}", &record.name)
            .replace("{{.ImageName}}", &record.config.image);
        attributes.insert("tag".to_owned(), tag);
    }
    attributes
}
