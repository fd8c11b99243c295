//! `features`: what this runtime can do, whatever the host has (OCI runtime specification,
//! features.md).

use serde_json::{Value, json};

use super::print;
use crate::caps;
use crate::error::Error;
use crate::hooks::POINTS;

/// The newest specification that this runtime knows.
pub(super) const SPEC_VERSION: &str = "1.2.1";
const OLDEST_SPEC_VERSION: &str = "1.0.0";

/// Words in the `options` of mounts that are not the file system's own.
const MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "idmap",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "tmpcopyup",
    "unbindable",
];

const NAMESPACES: &[&str] = &[
    "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
];

const SECCOMP_ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const SECCOMP_OPERATORS: &[&str] = &[
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

const SECCOMP_ARCHITECTURES: &[&str] = &[
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

const SECCOMP_FLAGS: &[&str] = &[
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

pub(super) fn features() -> Result<(), Error> {
    print(&format!("{:#}\n", document()));
    Ok(())
}

fn document() -> Value {
    let hooks: Vec<&str> = POINTS.iter().map(|point| point.name()).collect();
    let capabilities: Vec<String> = caps::ALL.iter().map(|c| format!("CAP_{c}")).collect();
    json!({
        "ociVersionMin": OLDEST_SPEC_VERSION,
        "ociVersionMax": SPEC_VERSION,
        "hooks": hooks,
        "mountOptions": MOUNT_OPTIONS,
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": capabilities,
            "cgroup": {
                "v1": true,
                "v2": true,
                "systemd": true,
                "systemdUser": false,
                "rdma": true,
            },
            "seccomp": {
                "enabled": true,
                "actions": SECCOMP_ACTIONS,
                "operators": SECCOMP_OPERATORS,
                "archs": SECCOMP_ARCHITECTURES,
                "knownFlags": SECCOMP_FLAGS,
                "supportedFlags": SECCOMP_FLAGS,
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        "potentiallyUnsafeConfigAnnotations": [],
        "annotations": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::options::Options;
    use crate::seccomp::Filter;

    #[test]
    fn the_mount_options_are_none_of_the_file_systems() {
        for word in MOUNT_OPTIONS {
            assert_eq!(Options::parse(&[word]).data, [], "{word}");
        }
    }

    #[test]
    fn the_seccomp_words_compile() {
        let compiles = |value: Value| {
            let profile = serde_json::from_value(value.clone()).unwrap();
            assert!(Filter::compile(&profile).is_ok(), "{value}");
        };
        for action in SECCOMP_ACTIONS {
            compiles(
                json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x",
                "architectures": SECCOMP_ARCHITECTURES, "flags": SECCOMP_FLAGS,
                "syscalls": [{"names": ["read"], "action": action}]}),
            );
        }
        for op in SECCOMP_OPERATORS {
            compiles(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ERRNO",
                 "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": op}]},
            ]}));
        }
    }

    #[test]
    fn every_hook_is_named_as_the_specification_names_it() {
        let hooks = POINTS.map(|point| (point.name().to_owned(), json!([{"path": "/x"}])));
        let hooks = serde_json::from_value(Value::Object(hooks.into_iter().collect())).unwrap();
        for point in POINTS {
            assert_eq!(point.of(&hooks).len(), 1, "{point:?}");
        }
    }
}
