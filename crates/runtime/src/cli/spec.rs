//! `spec`: a config.json to start from.

use std::path::Path;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::{Call, features, io};
use crate::defaults;
use crate::error::Error;

pub(super) fn spec(call: &Call<'_>) -> Result<(), Error> {
    let path = Path::new(call.args.value("bundle").unwrap_or(".")).join("config.json");
    if path.exists() {
        return Err(Error::invalid("File config.json exists. Remove it first"));
    }
    let text = serde_json::to_string_pretty(&example(call.args.is_set("rootless"))?)
        .map_err(|e| Error::internal(format!("write the specification: {e}")))?;
    std::fs::write(path, text).map_err(io("write the specification"))
}

/// A shell without privileges, on a read-only root file system.
pub(super) fn example(rootless: bool) -> Result<Spec, Error> {
    // What a shell wants that is nobody's root.
    let names = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let mut kinds = vec!["pid", "ipc", "uts", "mount", "cgroup"];
    kinds.push(if rootless { "user" } else { "network" });
    let namespaces: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    let mounts = serde_json::to_value(defaults::mounts()).map_err(written)?;
    let mut linux = json!({
        "namespaces": namespaces,
        "maskedPaths": defaults::masked_paths(),
        "readonlyPaths": defaults::readonly_paths(),
    });
    if rootless {
        let id = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1}]);
        linux["uidMappings"] = id(rustix::process::geteuid().as_raw());
        linux["gidMappings"] = id(rustix::process::getegid().as_raw());
    } else {
        linux["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    }
    serde_json::from_value(json!({
        "ociVersion": features::SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {"bounding": names, "effective": names, "permitted": names},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "berth",
        "mounts": if rootless { rootless_mounts(mounts) } else { mounts },
        "linux": linux,
    }))
    .map_err(written)
}

fn written(error: serde_json::Error) -> Error {
    Error::internal(format!("make the specification: {error}"))
}

/// A user cannot mount sysfs in the host's network namespace, nor give files to groups that are
/// not mapped.
fn rootless_mounts(mut mounts: Value) -> Value {
    for mount in mounts.as_array_mut().into_iter().flatten() {
        if mount["destination"] == "/sys" {
            *mount = json!({
                "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
            });
        }
        if let Some(options) = mount["options"].as_array_mut() {
            let ids = |option: &Value| {
                let text = option.as_str().unwrap_or_default();
                text.starts_with("gid=") || text.starts_with("uid=")
            };
            options.retain(|option| !ids(option));
        }
    }
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_a_user_asks_for_nothing_that_needs_root() {
        let spec = serde_json::to_value(example(true).unwrap()).unwrap();
        let text = spec.to_string();
        assert!(!text.contains("gid=") && !text.contains("\"network\""));
        assert_eq!(spec["linux"]["uidMappings"][0]["size"], 1);
        assert!(spec["linux"].get("resources").is_none());
        assert!(
            example(false)
                .unwrap()
                .linux()
                .as_ref()
                .unwrap()
                .uid_mappings()
                .is_none()
        );
    }
}
