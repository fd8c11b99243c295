//! `update`: new limits and a new restart policy for an existing container.

use berth_docker::container::HostConfig;

use crate::error::{Error, Result};
use crate::record::Record;

/// The host configuration after the update; what the update leaves at zero stays as it is
/// (`container.UpdateContainer`, moby).
pub fn plan(record: &Record, update: &HostConfig) -> Result<HostConfig> {
    let mut host = record.host.clone();
    let number = |field: &mut i64, new: i64| {
        if new != 0 {
            *field = new;
        }
    };
    number(&mut host.cpu_shares, update.cpu_shares);
    number(&mut host.nano_cpus, update.nano_cpus);
    number(&mut host.cpu_period, update.cpu_period);
    number(&mut host.cpu_quota, update.cpu_quota);
    number(&mut host.memory, update.memory);
    number(&mut host.memory_swap, update.memory_swap);
    number(&mut host.memory_reservation, update.memory_reservation);
    let text = |field: &mut String, new: &str| {
        if !new.is_empty() {
            new.clone_into(field);
        }
    };
    text(&mut host.cpuset_cpus, &update.cpuset_cpus);
    text(&mut host.cpuset_mems, &update.cpuset_mems);
    if update.blkio_weight != 0 {
        host.blkio_weight = update.blkio_weight;
    }
    if update.pids_limit.is_some() {
        host.pids_limit = update.pids_limit;
    }
    if !update.restart_policy.name.is_empty() {
        if host.auto_remove && update.restart_policy.name != "no" {
            return Err(Error::invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        host.restart_policy = update.restart_policy.clone();
    }
    Ok(host)
}
