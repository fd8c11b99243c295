//! What dockerd refuses when a container is created, in its words (moby,
//! `daemon/container.go`, `daemon/daemon_unix.go`, `runconfig/hostconfig_unix.go`).

use berth_docker::container::{Config, HostConfig};

use super::{HostFacts, container_of, invalid, process, security};
use crate::error::{Error, Result};

mod limits;

pub use limits::{discard, parse_list};

/// Checks a request before anything is made of it; returns warnings.
pub fn check(config: &Config, host: &HostConfig, facts: &HostFacts) -> Result<Vec<String>> {
    check_config(config)?;
    check_modes(config, host)?;
    check_restart(host)?;
    security::capabilities(host)?;
    security::check_options(host)?;
    for ulimit in host.ulimits.iter().flatten() {
        process::rlimit(ulimit)?;
    }
    for rule in host.device_cgroup_rules.iter().flatten() {
        super::devices::parse_rule(rule)?;
    }
    for entry in host.extra_hosts.iter().flatten() {
        check_extra_host(entry)?;
    }
    check_device_requests(host)?;
    for (path, options) in &host.tmpfs {
        check_tmpfs(path, options)?;
    }
    check_unsupported(host)?;
    limits::cpu(host, facts)?;
    limits::block_io(host)?;
    limits::memory(host, facts)
}

fn check_config(config: &Config) -> Result<()> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    for entry in config.env.iter().flatten() {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(invalid(format!("invalid environment variable: {entry}")));
        }
        if entry.contains('\0') {
            return Err(invalid(
                "invalid environment variable: it contains a zero byte",
            ));
        }
    }
    if !config.stop_signal.is_empty() && crate::signal::parse(&config.stop_signal).is_none() {
        return Err(invalid(format!("invalid signal: {}", config.stop_signal)));
    }
    for port in config.exposed_ports.keys() {
        port.parse::<berth_docker::port::Port>()
            .map_err(|error| invalid(error.to_string()))?;
    }
    Ok(())
}

/// Options of `--tmpfs` that have a value; the others are mount flags.
const TMPFS_VALUES: &[&str] = &[
    "size",
    "mode",
    "uid",
    "gid",
    "nr_inodes",
    "nr_blocks",
    "mpol",
];
const TMPFS_FLAGS: &[&str] = &[
    "",
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "remount",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "bind",
    "rbind",
    "unbindable",
    "runbindable",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
];

fn check_tmpfs(path: &str, options: &str) -> Result<()> {
    if !path.starts_with('/') {
        return Err(invalid(format!(
            "invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    let unknown = options
        .split(',')
        .find(|option| match option.split_once('=') {
            Some((key, _)) => !TMPFS_VALUES.contains(&key),
            None => !TMPFS_FLAGS.contains(option),
        });
    match unknown {
        Some(option) => Err(invalid(format!("invalid tmpfs option {option:?}"))),
        None => Ok(()),
    }
}

/// What would be ignored, and must not be in silence.
fn check_unsupported(host: &HostConfig) -> Result<()> {
    if !host.storage_opt.is_empty() {
        return Err(invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    Ok(())
}

fn check_modes(config: &Config, host: &HostConfig) -> Result<()> {
    let one_of = |mode: &str, known: &[&str]| {
        mode.is_empty() || known.contains(&mode) || container_of(mode).is_some()
    };
    let modes: [(&str, &str, &[&str]); 4] = [
        (
            "IPC",
            &host.ipc_mode,
            &["none", "private", "shareable", "host"],
        ),
        ("PID", &host.pid_mode, &["host"]),
        ("UTS", &host.uts_mode, &["host"]),
        (
            "cgroup namespace",
            &host.cgroupns_mode,
            &["private", "host"],
        ),
    ];
    for (name, mode, known) in modes {
        let joinable = matches!(name, "IPC" | "PID");
        if !one_of(mode, known) || (!joinable && container_of(mode).is_some()) {
            return Err(invalid(format!("invalid {name} mode: {mode}")));
        }
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return Err(invalid(format!("invalid USER mode: {}", host.userns_mode)));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(invalid(format!(
            "invalid isolation ({}): linux only supports 'default'",
            host.isolation
        )));
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(invalid("conflicting options: hostname and the UTS mode"));
    }
    if container_of(&host.network_mode).is_some() {
        check_shared_network(config, host)?;
    }
    if host.privileged
        && host
            .security_opt
            .iter()
            .flatten()
            .any(|o| o.starts_with("systempaths="))
    {
        return Err(invalid(
            "invalid --security-opt: \"systempaths=unconfined\" with a privileged container",
        ));
    }
    Ok(())
}

/// A container in another one's network cannot have its own settings of it.
fn check_shared_network(config: &Config, host: &HostConfig) -> Result<()> {
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let conflicts = [
        (!config.hostname.is_empty(), "hostname and the network mode"),
        (
            given(&host.links),
            "links and the container type network mode",
        ),
        (given(&host.dns), "dns and the network mode"),
        (
            given(&host.extra_hosts),
            "custom host-to-IP mapping and the network mode",
        ),
        (
            !config.mac_address.is_empty(),
            "mac-address and the network mode",
        ),
        (
            host.publish_all_ports
                || host
                    .port_bindings
                    .as_ref()
                    .is_some_and(|ports| !ports.is_empty()),
            "port publishing and the container type network mode",
        ),
        (
            !config.exposed_ports.is_empty(),
            "port exposing and the container type network mode",
        ),
    ];
    match conflicts.iter().find(|(conflict, _)| *conflict) {
        Some((_, what)) => Err(invalid(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}

fn check_restart(host: &HostConfig) -> Result<()> {
    let policy = &host.restart_policy;
    let retries = policy.maximum_retry_count;
    let problem = |why: String| Err(invalid(format!("invalid restart policy: {why}")));
    match policy.name.as_str() {
        "always" | "unless-stopped" | "no" if retries > 0 => {
            return problem("maximum retry count can only be used with 'on-failure'".to_owned());
        }
        "" if retries > 0 => {
            return problem("maximum retry count can only be used with 'on-failure'".to_owned());
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" if retries < 0 => {
            return problem("maximum retry count cannot be negative".to_owned());
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return problem(format!(
                "unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ));
        }
    }
    if host.auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    Ok(())
}

/// No device driver is registered, which is what dockerd says where it has none either.
fn check_device_requests(host: &HostConfig) -> Result<()> {
    let Some(request) = host.device_requests.iter().flatten().next() else {
        return Ok(());
    };
    let capabilities: Vec<String> = request
        .capabilities
        .iter()
        .flatten()
        .map(|all_of| format!("[{}]", all_of.join(" ")))
        .collect();
    Err(Error::internal(format!(
        "could not select device driver {:?} with capabilities: [{}]",
        request.driver,
        capabilities.join(" ")
    )))
}

fn check_extra_host(entry: &str) -> Result<()> {
    let bad = || invalid(format!("bad format for add-host: {entry:?}"));
    let (name, address) = entry.split_once(':').ok_or_else(bad)?;
    if name.is_empty() {
        return Err(bad());
    }
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if address != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(invalid(format!(
            "invalid IP address in add-host: {address:?}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config, &mut HostConfig)) -> String {
        let (mut config, mut host) = (Config::default(), HostConfig::default());
        change(&mut config, &mut host);
        check(&config, &host, &HostFacts::small())
            .unwrap_err()
            .message
    }

    #[test]
    fn a_plain_request_passes_without_warnings() {
        assert_eq!(
            check(
                &Config::default(),
                &HostConfig::default(),
                &HostFacts::small()
            ),
            Ok(vec![])
        );
    }

    #[test]
    fn limits_are_checked_in_dockers_words() {
        assert_eq!(
            refused(|_, host| host.memory = 1),
            "Minimum memory limit allowed is 6MB"
        );
        assert!(
            refused(|_, host| host.nano_cpus = 3_000_000_000).contains("only 2 CPUs available")
        );
        assert!(
            refused(|_, host| host.cpuset_cpus = "0-5".into())
                .contains("Requested CPUs are not available")
        );
        assert!(
            refused(|_, host| host.cpuset_cpus = "x".into())
                .contains("Invalid value x for cpuset cpus")
        );
        assert!(refused(|_, host| host.oom_score_adj = 2000).contains("range for oom score adj"));
    }

    #[test]
    fn devices_without_a_driver_are_refused_as_dockerd_does() {
        let message = refused(|_, host| {
            host.device_requests = Some(vec![berth_docker::container::DeviceRequest {
                capabilities: Some(vec![vec!["gpu".into()]]),
                ..Default::default()
            }]);
        });
        assert_eq!(
            message,
            "could not select device driver \"\" with capabilities: [[gpu]]"
        );
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(
            refused(|_, host| {
                host.auto_remove = true;
                host.restart_policy.name = "always".into();
            })
            .contains("can't create 'AutoRemove'")
        );
        assert!(
            refused(|config, host| {
                config.hostname = "h".into();
                host.network_mode = "container:x".into();
            })
            .contains("hostname and the network mode")
        );
        assert!(
            refused(|_, host| host.restart_policy.name = "often".into())
                .contains("unknown policy 'often'")
        );
        assert!(
            refused(|config, _| config.stop_signal = "SIGFOO".into())
                .contains("invalid signal: SIGFOO")
        );
        assert!(
            refused(|config, _| config.working_dir = "rel".into())
                .contains("needs to be an absolute path")
        );
    }
}
