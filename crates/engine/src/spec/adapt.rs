//! Fills what the client left open in the host configuration with the daemon's defaults, so that
//! an inspection shows what is in force (moby, `adaptContainerSettings`).

use berth_docker::container::{Config, HostConfig};

use super::HostFacts;

/// 64 MiB, as Docker's.
pub const DEFAULT_SHM_SIZE_BYTES: i64 = 64 << 20;
/// CFS knows no weight below this one.
const MIN_CPU_SHARES: i64 = 2;

/// The daemon's part of the defaults.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    pub log_driver: String,
    pub log_options: std::collections::BTreeMap<String, String>,
    pub runtime: String,
    pub init: bool,
}

/// Completes the host configuration. `id_short` becomes the host name where none was given.
pub fn adapt(
    config: &mut Config,
    host: &mut HostConfig,
    id_short: &str,
    defaults: &Defaults,
    facts: &HostFacts,
) {
    if matches!(host.network_mode.as_str(), "" | "default") {
        host.network_mode = "bridge".to_owned();
    }
    if config.hostname.is_empty() && needs_hostname(host) {
        config.hostname = id_short.to_owned();
    }
    if host.log_config.driver.is_empty() {
        host.log_config.driver = defaults.log_driver.clone();
    }
    if host.log_config.driver == defaults.log_driver {
        let options = host.log_config.config.get_or_insert_default();
        for (key, value) in &defaults.log_options {
            options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    if host.ipc_mode.is_empty() {
        host.ipc_mode = "private".to_owned();
    }
    if host.cgroupns_mode.is_empty() {
        let private = facts.cgroup_v2 && !host.privileged;
        host.cgroupns_mode = if private { "private" } else { "host" }.to_owned();
    }
    if host.restart_policy.name.is_empty() {
        host.restart_policy.name = "no".to_owned();
    }
    // What docker's client sends when nothing was asked for.
    host.memory_swappiness.take_if(|value| *value == -1);
    config.volumes.take_if(|volumes| volumes.is_empty());
    if host.shm_size == 0 {
        host.shm_size = DEFAULT_SHM_SIZE_BYTES;
    }
    if host.memory > 0 && host.memory_swap == 0 && facts.swap_limit {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    if (1..MIN_CPU_SHARES).contains(&host.cpu_shares) {
        host.cpu_shares = MIN_CPU_SHARES;
    }
    if host.runtime.is_empty() {
        host.runtime = defaults.runtime.clone();
    }
    adapt_paths(host);
}

fn needs_hostname(host: &HostConfig) -> bool {
    host.uts_mode != "host"
        && host.network_mode != "host"
        && !host.network_mode.starts_with("container:")
}

/// Docker records the lists that are in force; a privileged container has none.
fn adapt_paths(host: &mut HostConfig) {
    let unconfined = host.security_opt.iter().flatten().any(|option| {
        matches!(
            option.as_str(),
            "systempaths=unconfined" | "systempaths:unconfined"
        )
    });
    if host.privileged || unconfined {
        host.masked_paths = Some(Vec::new());
        host.readonly_paths = Some(Vec::new());
        return;
    }
    if host.masked_paths.is_none() {
        host.masked_paths = Some(berth_runtime::defaults::masked_paths());
    }
    if host.readonly_paths.is_none() {
        host.readonly_paths = Some(berth_runtime::defaults::readonly_paths());
    }
}
