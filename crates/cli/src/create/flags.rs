//! The flags of `create` and `run`.

use super::{device, env, limits, mount, network, parse_ulimit};
use crate::flags::{Flag, Kind};

/// The flags of `create`, of which those of `run` are more.
pub const CREATE: &[Flag] = &with_pull(COMMON);

const COMMON_COUNT: usize = COMMON.len();

/// `run` has these besides.
pub const RUN: &[Flag] = &with_run(CREATE);

const RUN_ONLY: [Flag; 3] = [
    Flag::switch(
        "detach",
        "Leave the container running in the background and print its ID",
    )
    .short('d'),
    Flag::text("detach-keys", "The keys that detach from the container"),
    Flag::switch(
        "sig-proxy",
        "Pass the signals that arrive on to the process",
    )
    .default("true"),
];

const fn with_pull(common: &[Flag]) -> [Flag; COMMON_COUNT + 2] {
    let mut all = [common[0]; COMMON_COUNT + 2];
    let mut index = 0;
    while index < COMMON_COUNT {
        all[index] = common[index];
        index += 1;
    }
    all[COMMON_COUNT] = Flag::text(
        "pull",
        "When to pull the image (\"always\", \"missing\", \"never\")",
    )
    .default("missing");
    all[COMMON_COUNT + 1] = Flag::switch("quiet", "Do not show how the pull goes").short('q');
    all
}

const fn with_run(create: &[Flag]) -> [Flag; COMMON_COUNT + 5] {
    let mut all = [create[0]; COMMON_COUNT + 5];
    let mut index = 0;
    while index < create.len() {
        all[index] = create[index];
        index += 1;
    }
    let mut more = 0;
    while more < RUN_ONLY.len() {
        all[index + more] = RUN_ONLY[more];
        more += 1;
    }
    all
}

fn check_attach(text: &str) -> Result<(), String> {
    match text.to_lowercase().as_str() {
        "stdin" | "stdout" | "stderr" => Ok(()),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

fn check_sysctl(text: &str) -> Result<(), String> {
    let name = text.split('=').next().unwrap_or_default();
    let allowed = berth_base::sysctl::is_ipc(name) || name.starts_with("net.");
    if allowed && text.contains('=') {
        return Ok(());
    }
    Err(format!("sysctl '{text}' is not allowed"))
}

fn check_ulimit(text: &str) -> Result<(), String> {
    parse_ulimit(text).map(drop)
}

const COMMON: &[Flag] = &[
    Flag::list("add-host", "Add a line to the hosts file (host:ip)").check(network::check_host),
    Flag::of(
        "annotation",
        Kind::Many("map"),
        "Add an annotation for the OCI runtime",
    ),
    Flag::list("attach", "Attach to STDIN, STDOUT or STDERR")
        .short('a')
        .check(check_attach),
    Flag::of(
        "blkio-weight",
        Kind::Uint16,
        "Relative weight of block IO, 10 to 1000, or 0 for none",
    )
    .default("0"),
    Flag::list(
        "blkio-weight-device",
        "Relative weight of block IO of a device",
    )
    .default("[]")
    .check(device::check_weight),
    Flag::list("cap-add", "Add Linux capabilities"),
    Flag::list("cap-drop", "Drop Linux capabilities"),
    Flag::text("cgroup-parent", "The cgroup above the container's"),
    Flag::text("cgroupns", "The cgroup namespace (host|private)"),
    Flag::text("cidfile", "Write the ID of the container to this file"),
    limits::CPU_PERIOD,
    limits::CPU_QUOTA,
    limits::CPU_RT_PERIOD,
    limits::CPU_RT_RUNTIME,
    limits::CPU_SHARES,
    limits::CPUS,
    limits::CPUSET_CPUS,
    limits::CPUSET_MEMS,
    Flag::list("device", "Add a device of the host"),
    Flag::list(
        "device-cgroup-rule",
        "Add a rule about devices to the cgroup",
    )
    .check(device::check_rule),
    Flag::list(
        "device-read-bps",
        "Limit reads from a device, in bytes per second",
    )
    .default("[]")
    .check(device::check_throttle),
    Flag::list(
        "device-read-iops",
        "Limit reads from a device, in operations per second",
    )
    .default("[]")
    .check(device::check_throttle),
    Flag::list(
        "device-write-bps",
        "Limit writes to a device, in bytes per second",
    )
    .default("[]")
    .check(device::check_throttle),
    Flag::list(
        "device-write-iops",
        "Limit writes to a device, in operations per second",
    )
    .default("[]")
    .check(device::check_throttle),
    Flag::switch(
        "disable-content-trust",
        "Do not verify the image's signature",
    )
    .default("true"),
    Flag::list("dns", "Set the DNS servers").check(network::check_address),
    Flag::list("dns-option", "Set options of the resolver"),
    Flag::list("dns-search", "Set the domains that are searched"),
    Flag::text("domainname", "The NIS domain name"),
    Flag::text("entrypoint", "Use this in place of the image's ENTRYPOINT"),
    Flag::list("env", "Set an environment variable")
        .short('e')
        .check(env::check_variable),
    Flag::list("env-file", "Set the environment variables of a file"),
    Flag::list("expose", "Expose a port or several"),
    Flag::of(
        "gpus",
        Kind::Many("gpu-request"),
        "Add GPUs ('all' for all of them)",
    ),
    Flag::list("group-add", "Join another group"),
    Flag::text("health-cmd", "The command that checks the health"),
    Flag::of(
        "health-interval",
        Kind::Duration,
        "Time between two checks (ms|s|m|h)",
    )
    .default("0s"),
    Flag::int(
        "health-retries",
        "How many failures in a row are needed to be unhealthy",
    ),
    Flag::of(
        "health-start-interval",
        Kind::Duration,
        "Time between two checks during the start (ms|s|m|h)",
    )
    .default("0s"),
    Flag::of(
        "health-start-period",
        Kind::Duration,
        "Time for the start before failures count (ms|s|m|h)",
    )
    .default("0s"),
    Flag::of(
        "health-timeout",
        Kind::Duration,
        "The longest time that a check may take (ms|s|m|h)",
    )
    .default("0s"),
    Flag::switch("help", "Show this help"),
    Flag::text("hostname", "The container's host name").short('h'),
    Flag::switch(
        "init",
        "Start an init that passes signals on and reaps processes",
    ),
    Flag::switch(
        "interactive",
        "Keep STDIN open, also when it is not attached",
    )
    .short('i'),
    Flag::text("ip", "IPv4 address (172.30.100.104)"),
    Flag::text("ip6", "IPv6 address (2001:db8::33)"),
    Flag::text("ipc", "The IPC namespace"),
    Flag::text("isolation", "How the container is isolated"),
    Flag::of("kernel-memory", Kind::Bytes, "Limit of the kernel's memory"),
    Flag::list("label", "Set a label")
        .short('l')
        .check(env::check_label),
    Flag::list("label-file", "Set the labels of a file"),
    Flag::list("link", "Link to another container").check(network::check_link),
    Flag::list("link-local-ip", "Link-local addresses, IPv4 or IPv6"),
    Flag::text("log-driver", "How the output is logged"),
    Flag::list("log-opt", "Options of the logging driver"),
    Flag::text("mac-address", "MAC address (92:d0:c6:0a:29:33)"),
    limits::MEMORY,
    limits::MEMORY_RESERVATION,
    limits::MEMORY_SWAP,
    Flag::int(
        "memory-swappiness",
        "How willingly memory is swapped out (0 to 100)",
    )
    .default("-1"),
    Flag::of("mount", Kind::Many("mount"), "Mount a file system").check(mount::check),
    Flag::text("name", "The container's name"),
    Flag::of("network", Kind::Many("network"), "Connect to a network").check(network::check),
    Flag::list(
        "network-alias",
        "Add a name of the container on its network",
    ),
    Flag::switch(
        "no-healthcheck",
        "Run no health check, also not the image's",
    ),
    Flag::switch("oom-kill-disable", "Never kill for lack of memory"),
    Flag::int(
        "oom-score-adj",
        "How willingly it is killed for lack of memory (-1000 to 1000)",
    ),
    Flag::text("pid", "The PID namespace"),
    limits::PIDS_LIMIT,
    Flag::text("platform", "The platform, of servers that know several"),
    Flag::switch("privileged", "Give the container all that root has"),
    Flag::list("publish", "Publish a port to the host").short('p'),
    Flag::switch("publish-all", "Publish all exposed ports to random ports").short('P'),
    Flag::switch("read-only", "Make the root file system read-only"),
    limits::RESTART.default("no"),
    Flag::switch(
        "rm",
        "Remove the container and its anonymous volumes at its end",
    ),
    Flag::text("runtime", "The OCI runtime"),
    Flag::list("security-opt", "Options of security"),
    Flag::of("shm-size", Kind::Bytes, "Size of /dev/shm"),
    Flag::text("stop-signal", "The signal that stops the container"),
    Flag::int(
        "stop-timeout",
        "Seconds to wait before killing it when it is stopped",
    ),
    Flag::list("storage-opt", "Options of the storage driver"),
    Flag::of("sysctl", Kind::Many("map"), "Set a kernel parameter").check(check_sysctl),
    Flag::list("tmpfs", "Mount a tmpfs at this path"),
    Flag::switch("tty", "Give the process a pseudo-TTY").short('t'),
    Flag::of("ulimit", Kind::Many("ulimit"), "Set a resource limit")
        .default("[]")
        .check(check_ulimit),
    Flag::text("user", "User and group (<name|uid>[:<group|gid>])").short('u'),
    Flag::text("userns", "The user namespace"),
    Flag::text("uts", "The UTS namespace"),
    Flag::list("volume", "Mount a volume or a directory").short('v'),
    Flag::text("volume-driver", "The driver of the volumes"),
    Flag::list("volumes-from", "Mount the volumes of another container"),
    Flag::text("workdir", "The working directory").short('w'),
];
