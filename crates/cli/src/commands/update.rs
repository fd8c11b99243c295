//! `update`: new limits and a new restart policy for existing containers.

use berth_docker::container::{HostConfig, UpdateResponse};
use berth_docker_client::Request;

use crate::cli::{Cli, print, warn};
use crate::command::{Arity, Command};
use crate::create::{self, limits};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};

use super::Failures;
use super::run::container_path;

pub const UPDATE: Command = Command::leaf(
    "update",
    "CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    update,
)
.flags(FLAGS)
.arity(Arity::AtLeast(1))
.also(&["container update", "update"]);

const FLAGS: &[Flag] = &[
    limits::CPU_PERIOD,
    limits::CPU_QUOTA,
    limits::CPU_RT_PERIOD,
    limits::CPU_RT_RUNTIME,
    limits::CPU_SHARES,
    limits::CPUS,
    limits::CPUSET_CPUS,
    limits::CPUSET_MEMS,
    limits::MEMORY,
    limits::MEMORY_RESERVATION,
    limits::MEMORY_SWAP,
    limits::PIDS_LIMIT,
    limits::RESTART,
];

fn request(flags: &Parsed) -> Result<HostConfig, String> {
    Ok(HostConfig {
        cpu_period: flags.int("cpu-period"),
        cpu_quota: flags.int("cpu-quota"),
        cpu_realtime_period: flags.int("cpu-rt-period"),
        cpu_realtime_runtime: flags.int("cpu-rt-runtime"),
        cpu_shares: flags.int("cpu-shares"),
        nano_cpus: flags
            .given("cpus")
            .map_or(Ok(0), crate::flags::parse_cpus)?,
        cpuset_cpus: flags.text("cpuset-cpus").to_owned(),
        cpuset_mems: flags.text("cpuset-mems").to_owned(),
        memory: flags.bytes("memory"),
        memory_reservation: flags.bytes("memory-reservation"),
        memory_swap: flags.bytes("memory-swap"),
        pids_limit: flags.given_int("pids-limit"),
        restart_policy: create::restart(flags.text("restart"))?,
        ..HostConfig::default()
    })
}

fn update(cli: &Cli, flags: &Parsed) -> Outcome {
    if !FLAGS.iter().any(|flag| flags.changed(flag.long)) {
        return Err(Failure::new(
            "you must provide one or more flags when using this command",
        ));
    }
    let request = request(flags).map_err(Failure::new)?;
    cli.block_on(async {
        let client = cli.client()?;
        let mut failures = Failures::default();
        for name in &flags.args {
            let path = format!("{}/update", container_path(name));
            let call = Request::post(path).json(&request)?;
            match client.call::<UpdateResponse>(call).await {
                Ok(response) => {
                    print(format!("{name}\n"))?;
                    for warning in response.warnings.iter().flatten() {
                        warn(warning);
                    }
                }
                Err(error) => failures.push(error),
            }
        }
        failures.outcome()
    })
}
