//! Kernel parameters: which ones a container may have of its own.

use std::path::{Path, PathBuf};

use berth_base::sysctl;
use berth_sys::clone::Namespaces;

use super::namespaces::owns;
use crate::error::Error;

/// Only what belongs to a namespace of the container's own: everything else would change the
/// host, and Docker refuses it in the same words (runc `validate.go`).
pub(super) fn plan(
    spec: Option<&std::collections::HashMap<String, String>>,
    new: Namespaces,
    join: &[(Namespaces, PathBuf)],
) -> Result<Vec<(PathBuf, String)>, Error> {
    let mut planned = Vec::new();
    for (key, value) in spec.into_iter().flatten() {
        let dotted = key.replace('/', ".");
        let (namespace, name) = if sysctl::is_ipc(&dotted) {
            (Namespaces::IPC, "ipc")
        } else if dotted.starts_with("net.") {
            (Namespaces::NETWORK, "net")
        } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
            (Namespaces::UTS, "uts")
        } else if dotted.starts_with("user.") {
            (Namespaces::USER, "user")
        } else {
            let message = format!("sysctl {key:?} is not in a separate kernel namespace");
            return Err(Error::invalid(message));
        };
        if !owns(namespace, new, join) {
            let message = format!("sysctl {key:?} is not allowed in the hosts {name} namespace");
            return Err(Error::invalid(message));
        }
        // With slashes given, dots are part of a name (`net/ipv4/conf/eth0.1/x`).
        let path = if key.contains('/') {
            key.clone()
        } else {
            key.replace('.', "/")
        };
        if path.split('/').any(|part| part == "..") {
            return Err(Error::invalid(format!("sysctl {key:?} is malformed")));
        }
        planned.push((Path::new("sys").join(path), value.clone()));
    }
    planned.sort();
    Ok(planned)
}
