//! Reading what callers write: config.json and the `process` of an exec.

use std::path::Path;

use oci_spec::runtime::{Capability, Process as ProcessSpec, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::io;
use super::log::Log;
use crate::error::Error;

/// The specification of a bundle.
pub(super) fn load_spec(bundle: &Path, log: &Log) -> Result<Spec, Error> {
    let text = std::fs::read(bundle.join("config.json")).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::invalid("JSON specification file config.json not found")
        }
        _ => io("open config.json")(error),
    })?;
    let spec: Spec = parse(&text, "/process/capabilities", "config.json", log)?;
    let process = spec.process().as_ref();
    check_process(process.ok_or_else(|| Error::invalid("process property must not be empty"))?)?;
    Ok(spec)
}

/// A process in a file of its own.
pub(super) fn load_process(path: &str, log: &Log) -> Result<ProcessSpec, Error> {
    let text = std::fs::read(path).map_err(io(&format!("open {path}")))?;
    let process = parse(&text, "/capabilities", path, log)?;
    check_process(&process)?;
    Ok(process)
}

/// What no process can be without.
pub(super) fn check_process(process: &ProcessSpec) -> Result<(), Error> {
    if process.cwd().as_os_str().is_empty() {
        return Err(Error::invalid("Cwd property must not be empty"));
    }
    if !process.cwd().is_absolute() {
        return Err(Error::invalid("Cwd must be an absolute path"));
    }
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Error::invalid("args must not be empty"));
    }
    Ok(())
}

/// Capabilities that nobody knows are worth a warning only (config.md, "Linux Process"), so they
/// are taken out when they are what is in the way.
fn parse<T: DeserializeOwned>(
    text: &[u8],
    capabilities: &str,
    name: &str,
    log: &Log,
) -> Result<T, Error> {
    let wrong = |error: serde_json::Error| Error::invalid(format!("{name}: {error}"));
    let error = match serde_json::from_slice(text) {
        Ok(parsed) => return Ok(parsed),
        Err(error) => error,
    };
    let mut value: Value = serde_json::from_slice(text).map_err(wrong)?;
    let unknown = value.pointer_mut(capabilities).map(take_unknown);
    let unknown = unknown.unwrap_or_default();
    if unknown.is_empty() {
        return Err(wrong(error));
    }
    log.warning(&format!(
        "ignoring unknown capabilities: {}",
        unknown.join(", ")
    ));
    serde_json::from_value(value).map_err(wrong)
}

/// Removes the unknown names from all sets, and returns each once.
fn take_unknown(sets: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for set in sets
        .as_object_mut()
        .into_iter()
        .flat_map(|sets| sets.values_mut())
    {
        if let Some(names) = set.as_array_mut() {
            names.retain(|name| {
                let is_known = serde_json::from_value::<Capability>(name.clone()).is_ok();
                if let (false, Some(name)) = (is_known, name.as_str()) {
                    unknown.push(name.to_owned());
                }
                is_known
            });
        }
    }
    unknown.sort();
    unknown.dedup();
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(capabilities: Value) -> Result<Spec, Error> {
        let text = json!({
            "ociVersion": "1.2.0",
            "process": {"user": {}, "cwd": "/", "args": ["x"], "capabilities": capabilities},
            "root": {"path": "rootfs"},
        });
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("config.json"), text.to_string()).unwrap();
        load_spec(directory.path(), &Log::stderr())
    }

    #[test]
    fn unknown_capabilities_are_left_out() {
        let spec = spec(json!({"bounding": ["CAP_KILL", "CAP_NONESUCH"]})).unwrap();
        let process = spec.process().clone().unwrap();
        let bounding = process
            .capabilities()
            .as_ref()
            .unwrap()
            .bounding()
            .clone()
            .unwrap();
        assert_eq!(bounding.into_iter().collect::<Vec<_>>(), [Capability::Kill]);
    }

    #[test]
    fn other_mistakes_are_refused() {
        let error = spec(json!({"bounding": "CAP_KILL"})).unwrap_err();
        assert!(error.message.starts_with("config.json: "), "{error}");
    }
}
