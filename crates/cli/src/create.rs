//! From the flags of `run` and `create` to the body of `POST /containers/create`.
//!
//! Pure but for the files that flags name (`--env-file`, `--label-file`, a seccomp profile).

mod device;
pub mod env;
pub mod flags;
mod health;
pub mod limits;
pub mod mount;
pub mod network;
mod port;

use std::collections::BTreeMap;

use berth_docker::container::{
    Config, CreateRequest, HostConfig, LogConfig, RestartPolicy, Ulimit,
};
use berth_docker::json::{Empty, StrSlice};

use crate::flags::Parsed;

pub(crate) use mount::csv as mount_fields;

/// What is wrong with the flags together, in docker's words.
pub type Error = String;

/// Looks up a variable of the caller's environment.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The request that the flags ask for. `args` are the image, then the command.
pub fn plan(flags: &Parsed, lookup: Lookup) -> Result<CreateRequest, Error> {
    let image = flags.arg(0);
    let command = flags.args.get(1..).unwrap_or_default();
    check_modes(flags)?;
    let swappiness = flags.int("memory-swappiness");
    if !(-1..=100).contains(&swappiness) {
        return Err(format!(
            "invalid value: {swappiness}. Valid memory swappiness range is 0-100"
        ));
    }
    let ports = port::plan(flags.list("publish"), flags.list("expose"))?;
    let restart_policy = restart(flags.text("restart"))?;
    if flags.on("rm") && !matches!(restart_policy.name.as_str(), "" | "no") {
        return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
    }
    let volumes = mount::volumes(flags.list("volume"))?;
    let networks = network::plan(flags)?;
    // This option is the client's own: the API has lists of paths.
    let (system_paths, security_options): (Vec<String>, Vec<String>) = flags
        .list("security-opt")
        .iter()
        .cloned()
        .partition(|option| option == "systempaths=unconfined");
    let open_paths = !system_paths.is_empty();
    let (attach_stdin, attach_stdout, attach_stderr) = attached(flags);
    let open_stdin = flags.on("interactive");
    let config = Config {
        hostname: flags.text("hostname").to_owned(),
        domainname: flags.text("domainname").to_owned(),
        user: flags.text("user").to_owned(),
        attach_stdin,
        attach_stdout,
        attach_stderr,
        exposed_ports: ports.exposed,
        tty: flags.on("tty"),
        open_stdin,
        stdin_once: open_stdin && attach_stdin,
        env: some(env::variables(
            flags.list("env-file"),
            flags.list("env"),
            lookup,
        )?),
        cmd: (!command.is_empty()).then(|| StrSlice(command.to_vec())),
        healthcheck: health::plan(flags)?,
        image: image.to_owned(),
        volumes: Some(
            volumes
                .anonymous
                .into_iter()
                .map(|path| (path, Empty {}))
                .collect(),
        ),
        working_dir: flags.text("workdir").to_owned(),
        entrypoint: flags
            .given("entrypoint")
            .map(|entrypoint| StrSlice(vec![entrypoint.to_owned()])),
        mac_address: String::new(),
        labels: Some(env::labels(flags.list("label-file"), flags.list("label"))?),
        stop_signal: flags.text("stop-signal").to_owned(),
        stop_timeout: flags.given_int("stop-timeout"),
        ..Config::default()
    };
    let host_config = HostConfig {
        binds: some(volumes.binds),
        container_id_file: flags.text("cidfile").to_owned(),
        log_config: log(flags)?,
        network_mode: networks.mode,
        port_bindings: Some(ports.bindings),
        restart_policy,
        auto_remove: flags.on("rm"),
        volume_driver: flags.text("volume-driver").to_owned(),
        volumes_from: texts(flags, "volumes-from"),
        annotations: pairs(flags.list("annotation")),
        cap_add: capabilities(flags.list("cap-add")),
        cap_drop: capabilities(flags.list("cap-drop")),
        cgroupns_mode: flags.text("cgroupns").to_owned(),
        dns: Some(flags.list("dns").to_vec()),
        dns_options: Some(flags.list("dns-option").to_vec()),
        dns_search: Some(flags.list("dns-search").to_vec()),
        extra_hosts: some(network::extra_hosts(flags.list("add-host"))),
        group_add: texts(flags, "group-add"),
        ipc_mode: flags.text("ipc").to_owned(),
        links: texts(flags, "link"),
        oom_score_adj: flags.int("oom-score-adj"),
        pid_mode: flags.text("pid").to_owned(),
        privileged: flags.on("privileged"),
        publish_all_ports: flags.on("publish-all"),
        readonly_rootfs: flags.on("read-only"),
        security_opt: some(security(&security_options)?),
        masked_paths: open_paths.then(Vec::new),
        readonly_paths: open_paths.then(Vec::new),
        storage_opt: pairs(flags.list("storage-opt")),
        tmpfs: mount::tmpfs(flags.list("tmpfs")),
        uts_mode: flags.text("uts").to_owned(),
        userns_mode: flags.text("userns").to_owned(),
        shm_size: flags.bytes("shm-size"),
        sysctls: pairs(flags.list("sysctl")),
        runtime: flags.text("runtime").to_owned(),
        isolation: flags.text("isolation").to_owned(),
        mounts: flags
            .list("mount")
            .iter()
            .map(|text| mount::parse(text))
            .collect::<Result<_, _>>()?,
        init: flags.changed("init").then(|| flags.on("init")),
        ..resources(flags)?
    };
    Ok(CreateRequest {
        config,
        host_config: Some(host_config),
        networking_config: Some(networks.config),
    })
}

fn resources(flags: &Parsed) -> Result<HostConfig, Error> {
    let throttles = |name: &str| device::throttles(flags.list(name));
    Ok(HostConfig {
        cpu_shares: flags.int("cpu-shares"),
        memory: flags.bytes("memory"),
        nano_cpus: flags
            .given("cpus")
            .map_or(Ok(0), crate::flags::parse_cpus)?,
        cgroup_parent: flags.text("cgroup-parent").to_owned(),
        blkio_weight: flags.text("blkio-weight").parse().unwrap_or(0),
        blkio_weight_device: Some(device::weights(flags.list("blkio-weight-device"))?),
        blkio_device_read_bps: Some(throttles("device-read-bps")?),
        blkio_device_write_bps: Some(throttles("device-write-bps")?),
        blkio_device_read_iops: Some(throttles("device-read-iops")?),
        blkio_device_write_iops: Some(throttles("device-write-iops")?),
        cpu_period: flags.int("cpu-period"),
        cpu_quota: flags.int("cpu-quota"),
        cpu_realtime_period: flags.int("cpu-rt-period"),
        cpu_realtime_runtime: flags.int("cpu-rt-runtime"),
        cpuset_cpus: flags.text("cpuset-cpus").to_owned(),
        cpuset_mems: flags.text("cpuset-mems").to_owned(),
        devices: Some(device::mappings(flags.list("device"))?),
        device_cgroup_rules: texts(flags, "device-cgroup-rule"),
        device_requests: some(device::gpus(flags.list("gpus"))?),
        kernel_memory: flags.bytes("kernel-memory"),
        memory_reservation: flags.bytes("memory-reservation"),
        memory_swap: flags.bytes("memory-swap"),
        memory_swappiness: Some(flags.int("memory-swappiness")),
        oom_kill_disable: Some(flags.on("oom-kill-disable")),
        pids_limit: Some(flags.int("pids-limit")),
        ulimits: Some(ulimits(flags.list("ulimit"))?),
        ..HostConfig::default()
    })
}

/// Which streams are attached: those named, or the output and an open stdin.
fn attached(flags: &Parsed) -> (bool, bool, bool) {
    let named = flags.list("attach");
    let has = |stream: &str| named.iter().any(|name| name.eq_ignore_ascii_case(stream));
    let all = named.is_empty();
    let stdin = flags.on("interactive") || has("stdin");
    (stdin, all || has("stdout"), all || has("stderr"))
}

fn check_modes(flags: &Parsed) -> Result<(), Error> {
    let known = |name: &str, words: &[&str], label: &str| {
        let mode = flags.text(name);
        let container = name == "pid"
            && mode
                .strip_prefix("container:")
                .is_some_and(|id| !id.is_empty());
        if mode.is_empty() || words.contains(&mode) || container {
            return Ok(());
        }
        Err(format!("--{name}: invalid {label} mode"))
    };
    known("pid", &["host"], "PID")?;
    known("uts", &["host"], "UTS")?;
    known("userns", &["host"], "USER")?;
    known("cgroupns", &["host", "private"], "CGROUP")
}

/// `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:3`.
pub fn restart(text: &str) -> Result<RestartPolicy, Error> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    let maximum_retry_count = match count {
        Some(count) => count
            .parse()
            .map_err(|_| "invalid restart policy format: maximum retry count must be an integer")?,
        None => 0,
    };
    if name.is_empty() && count.is_some() {
        return Err("invalid restart policy format: no policy provided before colon".to_owned());
    }
    Ok(RestartPolicy {
        name: name.to_owned(),
        maximum_retry_count,
    })
}

fn log(flags: &Parsed) -> Result<LogConfig, Error> {
    let driver = flags.text("log-driver").to_owned();
    let config = pairs(flags.list("log-opt"));
    if driver == "none" && !config.is_empty() {
        return Err("invalid logging opts for driver none".to_owned());
    }
    Ok(LogConfig {
        driver,
        config: Some(config),
    })
}

/// `nofile=1024` or `nofile=1024:2048`.
pub(crate) fn parse_ulimit(text: &str) -> Result<Ulimit, Error> {
    let invalid = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

const ULIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn ulimits(texts: &[String]) -> Result<Vec<Ulimit>, Error> {
    let mut by_name: BTreeMap<String, Ulimit> = BTreeMap::new();
    for text in texts {
        let ulimit = parse_ulimit(text)?;
        by_name.insert(ulimit.name.clone(), ulimit);
    }
    Ok(by_name.into_values().collect())
}

/// The names as the API has them since 1.40: upper case, with their prefix.
fn capabilities(names: &[String]) -> Option<StrSlice> {
    let mut all: Vec<String> = names
        .iter()
        .map(|name| {
            let name = name.trim().to_uppercase();
            match name.as_str() {
                "ALL" => name,
                _ if name.starts_with("CAP_") => name,
                _ => format!("CAP_{name}"),
            }
        })
        .collect();
    all.sort();
    all.dedup();
    (!all.is_empty()).then_some(StrSlice(all))
}

/// Options as they are, but a seccomp profile becomes the text of its file.
fn security(options: &[String]) -> Result<Vec<String>, Error> {
    options
        .iter()
        .map(|option| {
            let (key, value) = option
                .split_once('=')
                .or_else(|| option.split_once(':'))
                .unwrap_or((option, ""));
            if value.is_empty() && key != "no-new-privileges" {
                return Err(format!("Invalid --security-opt: {option:?}"));
            }
            if key != "seccomp" || matches!(value, "unconfined" | "builtin") {
                return Ok(option.clone());
            }
            let text = std::fs::read_to_string(value).map_err(|error| {
                let why = os_words(&error);
                format!("opening seccomp profile ({value}) failed: open {value}: {why}")
            })?;
            let profile: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
                format!("compacting json for seccomp profile ({value}) failed: {error}")
            })?;
            Ok(format!("seccomp={profile}"))
        })
        .collect()
}

/// The system's words for an error, without Rust's number behind them.
pub(crate) fn os_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => text,
    }
}

/// `key=value` texts as a map; what has no value has an empty one.
pub(crate) fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (text.clone(), String::new()),
        })
        .collect()
}

fn texts(flags: &Parsed, name: &str) -> Option<Vec<String>> {
    some(flags.list(name).to_vec())
}

fn some<T>(values: Vec<T>) -> Option<Vec<T>> {
    (!values.is_empty()).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Order, parse};

    fn request(words: &[&str]) -> Result<CreateRequest, Error> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let parsed = parse(flags::CREATE, Order::FlagsFirst, &words).unwrap();
        plan(&parsed, &|name| (name == "SET").then(|| "yes".to_owned()))
    }

    #[test]
    fn nothing_but_an_image_asks_for_the_defaults() {
        let request = request(&["debian", "ls", "-l"]).unwrap();
        let host = request.host_config.unwrap();
        assert_eq!(request.config.image, "debian");
        assert_eq!(request.config.cmd.unwrap().0, ["ls", "-l"]);
        assert!(request.config.attach_stdout && !request.config.attach_stdin);
        assert_eq!(host.network_mode, "default");
        assert_eq!(host.restart_policy.name, "no");
        assert_eq!(host.memory_swappiness, Some(-1));
        assert_eq!(host.init, None);
    }

    #[test]
    fn an_open_stdin_is_attached_even_beside_a_named_stream() {
        let config = request(&["-i", "-a", "stdout", "x"]).unwrap().config;
        assert!(config.attach_stdin && config.stdin_once && config.attach_stdout);
        assert!(!config.attach_stderr);
    }

    #[test]
    fn limits_and_capabilities_are_normalised() {
        let words = [
            "-m",
            "64m",
            "--cpus",
            "1.5",
            "--cap-add",
            "net_admin",
            "--cap-drop",
            "all",
            "--ulimit",
            "nofile=10:20",
            "--restart",
            "on-failure:3",
            "x",
        ];
        let host = request(&words).unwrap().host_config.unwrap();
        assert_eq!(host.memory, 64 << 20);
        assert_eq!(host.nano_cpus, 1_500_000_000);
        assert_eq!(host.cap_add.unwrap().0, ["CAP_NET_ADMIN"]);
        assert_eq!(host.cap_drop.unwrap().0, ["ALL"]);
        assert_eq!(host.restart_policy.maximum_retry_count, 3);
        assert_eq!(host.ulimits.unwrap()[0].hard, 20);
    }

    #[test]
    fn contradictions_are_refused_in_dockers_words() {
        let check = |words: &[&str], message: &str| {
            assert_eq!(request(words).unwrap_err(), message);
        };
        check(
            &["--rm", "--restart", "always", "x"],
            "conflicting options: cannot specify both --restart and --rm",
        );
        check(&["--pid", "bad", "x"], "--pid: invalid PID mode");
        check(
            &["--log-driver", "none", "--log-opt", "a=b", "x"],
            "invalid logging opts for driver none",
        );
        check(
            &["--no-healthcheck", "--health-cmd", "x", "x"],
            "--no-healthcheck conflicts with --health-* options",
        );
        check(
            &["-p", "1-3:1-2", "x"],
            "invalid ranges specified for container and host Ports: 1-2 and 1-3",
        );
    }
}
