//! From what the client asked for to what the runtime does: pure functions over plain data.
//!
//! ```text
//!  create:  request ──merge(image)──▶ config ──adapt──▶ host config ──validate──▶ warnings
//!                                        └──mounts::requested──▶ volumes are made ──▶ Mount records
//!  start:   Inputs (config, host config, mounts, facts) ──plan──▶ OCI specification
//!  exec:    exec's request + config ──process::exec──▶ OCI process
//! ```
//!
//! The words of the refusals are dockerd's. Users and groups are looked up later, in the
//! container's own files (`berth_runtime::user`).

pub mod adapt;
pub mod devices;
pub mod merge;
pub mod mounts;
pub mod process;
pub mod resources;
pub mod seccomp;
pub mod security;
pub mod validate;

use std::path::PathBuf;

use berth_docker::container::{Config, HostConfig, Ulimit};
use oci_spec::runtime::{
    Hooks, Linux, LinuxNamespace, LinuxNamespaceType as Namespace, Mount as OciMount, Root, Spec,
};

use crate::error::{Error, Result};
use devices::Device;
use mounts::Mount;

/// What the host has, read once when the daemon starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    pub cpus: u32,
    /// The CPUs that may be used, as the kernel's list (`0-3`).
    pub cpuset_cpus: String,
    pub cgroup_v2: bool,
    /// Whether the kernel accounts swap to cgroups.
    pub swap_limit: bool,
    /// Whether the kernel shares block I/O by weights.
    pub block_io_weight: bool,
}

#[cfg(test)]
impl HostFacts {
    /// A machine for tests: two processors, cgroup v1.
    fn small() -> Self {
        Self {
            cpus: 2,
            cpuset_cpus: "0-1".into(),
            cgroup_v2: false,
            swap_limit: true,
            block_io_weight: true,
        }
    }
}

/// Files of the container that the daemon writes and binds below `/etc`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcFiles {
    pub hostname: Option<PathBuf>,
    pub hosts: Option<PathBuf>,
    pub resolv_conf: Option<PathBuf>,
}

/// Everything that [`plan`] decides from.
pub struct Inputs<'a> {
    /// Already merged with the image's.
    pub config: &'a Config,
    /// Already adapted.
    pub host: &'a HostConfig,
    pub mounts: &'a [Mount],
    pub devices: &'a [Device],
    pub etc: &'a EtcFiles,
    /// Process 1 of the containers that `PidMode` and `IpcMode` name.
    pub pid_of: Option<i32>,
    pub ipc_of: Option<i32>,
    /// Below each hierarchy's root.
    pub cgroup: &'a str,
    pub default_ulimits: &'a [Ulimit],
    /// Leave the seccomp profile out: it is the default one, which the keeper has.
    pub omit_seccomp: bool,
    pub facts: &'a HostFacts,
}

/// The specification of one start.
///
/// # Errors
/// What only shows at the start, such as an unknown capability in a record of an older daemon.
pub fn plan(inputs: &Inputs<'_>) -> Result<Spec> {
    let host = inputs.host;
    let mut spec = Spec::default();
    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs"));
    root.set_readonly(Some(host.readonly_rootfs));
    spec.set_root(Some(root));
    spec.set_process(Some(process::main(inputs)?));
    spec.set_mounts(Some(all_mounts(inputs)));
    spec.set_hooks(None::<Hooks>);
    // The type's default is a name of its own.
    spec.set_hostname(None::<String>);
    if host.uts_mode != "host" && !inputs.config.hostname.is_empty() {
        spec.set_hostname(Some(inputs.config.hostname.clone()));
        if !inputs.config.domainname.is_empty() {
            spec.set_domainname(Some(inputs.config.domainname.clone()));
        }
    }
    if !host.annotations.is_empty() {
        spec.set_annotations(Some(host.annotations.clone().into_iter().collect()));
    }
    spec.set_linux(Some(linux(inputs)?));
    Ok(spec)
}

fn linux(inputs: &Inputs<'_>) -> Result<Linux> {
    let host = inputs.host;
    let mut linux = Linux::default();
    linux.set_namespaces(Some(namespaces(inputs)));
    linux.set_cgroups_path(Some(PathBuf::from(inputs.cgroup)));
    linux.set_resources(Some(resources::plan(host, inputs.devices, inputs.facts)));
    linux.set_devices(Some(devices::nodes(inputs.devices)));
    linux.set_masked_paths(host.masked_paths.clone());
    linux.set_readonly_paths(host.readonly_paths.clone());
    linux.set_seccomp(match inputs.omit_seccomp {
        true => None,
        false => security::seccomp(host)?,
    });
    linux.set_sysctl(Some(sysctls(host).collect()));
    linux.set_rootfs_propagation(mounts::rootfs_propagation(inputs.mounts));
    Ok(linux)
}

fn all_mounts(inputs: &Inputs<'_>) -> Vec<OciMount> {
    let user = mounts::user_mounts(inputs.mounts, inputs.host, inputs.etc);
    let shadowed = |destination: &str| {
        user.iter()
            .any(|mount| mounts::covers(&mount.destination().to_string_lossy(), destination))
    };
    let mut all = mounts::system_mounts(inputs.host, inputs.ipc_of);
    all.retain(|mount| !shadowed(&mount.destination().to_string_lossy()));
    all.extend(user);
    all
}

fn namespaces(inputs: &Inputs<'_>) -> Vec<LinuxNamespace> {
    let host = inputs.host;
    let mut list = Vec::new();
    let mut add = |kind: Namespace, path: Option<PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind);
        namespace.set_path(path);
        list.push(namespace);
    };
    let joined = |pid: i32, name: &str| Some(PathBuf::from(format!("/proc/{pid}/ns/{name}")));
    add(Namespace::Mount, None);
    if host.network_mode != "host" {
        // The descriptor that goes with the launch stands for the path.
        add(Namespace::Network, None);
    }
    if host.uts_mode != "host" {
        add(Namespace::Uts, None);
    }
    match inputs.pid_of {
        Some(pid) => add(Namespace::Pid, joined(pid, "pid")),
        None if host.pid_mode == "host" => {}
        None => add(Namespace::Pid, None),
    }
    match inputs.ipc_of {
        Some(pid) => add(Namespace::Ipc, joined(pid, "ipc")),
        None if host.ipc_mode == "host" => {}
        None => add(Namespace::Ipc, None),
    }
    if host.cgroupns_mode != "host" {
        add(Namespace::Cgroup, None);
    }
    list
}

/// Docker's two network defaults, then what was asked for.
fn sysctls(host: &HostConfig) -> impl Iterator<Item = (String, String)> {
    let own_network = host.network_mode != "host" && !host.network_mode.starts_with("container:");
    let defaults = [
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("net.ipv4.ping_group_range", "0 2147483647"),
    ];
    defaults
        .into_iter()
        .filter(move |_| own_network)
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .chain(host.sysctls.clone())
}

/// The id or name behind `container:`.
pub fn container_of(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:")
        .filter(|name| !name.is_empty())
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::invalid(message)
}
