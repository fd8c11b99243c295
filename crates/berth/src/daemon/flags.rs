//! The daemon's options as data: dockerd's flags, and the keys of `daemon.json` behind them.

use berth_cli::flags::{Flag, Kind, Parsed};
use serde_json::{Map, Value, json};

/// How a flag's words become the key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Switch,
    Text,
    Int,
    List,
    /// `name=value`, collected into an object.
    Pairs,
    /// `base=CIDR,size=N`.
    Pools,
    /// `name=soft[:hard]`.
    Ulimits,
    /// `name=path`.
    Runtimes,
}

/// Flag and key, where the key is not the flag's name.
const KEYS: &[(&str, &str, Shape)] = &[
    ("add-runtime", "runtimes", Shape::Runtimes),
    ("bip", "bip", Shape::Text),
    ("bridge", "bridge", Shape::Text),
    ("cgroup-parent", "cgroup-parent", Shape::Text),
    ("data-root", "data-root", Shape::Text),
    ("debug", "debug", Shape::Switch),
    (
        "default-address-pool",
        "default-address-pools",
        Shape::Pools,
    ),
    (
        "default-cgroupns-mode",
        "default-cgroupns-mode",
        Shape::Text,
    ),
    ("default-ipc-mode", "default-ipc-mode", Shape::Text),
    ("default-runtime", "default-runtime", Shape::Text),
    ("default-shm-size", "default-shm-size", Shape::Text),
    ("default-ulimit", "default-ulimits", Shape::Ulimits),
    ("dns", "dns", Shape::List),
    ("dns-opt", "dns-opts", Shape::List),
    ("dns-search", "dns-search", Shape::List),
    ("exec-opt", "exec-opts", Shape::List),
    ("exec-root", "exec-root", Shape::Text),
    ("firewall", "firewall", Shape::Text),
    ("group", "group", Shape::Text),
    ("host", "hosts", Shape::List),
    ("host-gateway-ip", "host-gateway-ips", Shape::List),
    ("http-proxy", "http-proxy", Shape::Text),
    ("https-proxy", "https-proxy", Shape::Text),
    ("icc", "icc", Shape::Switch),
    ("init", "init", Shape::Switch),
    ("insecure-registry", "insecure-registries", Shape::List),
    ("ip", "ip", Shape::Text),
    ("ip-forward", "ip-forward", Shape::Switch),
    ("ip-masq", "ip-masq", Shape::Switch),
    ("iptables", "iptables", Shape::Switch),
    ("label", "labels", Shape::List),
    ("live-restore", "live-restore", Shape::Switch),
    ("log-driver", "log-driver", Shape::Text),
    ("log-level", "log-level", Shape::Text),
    ("log-opt", "log-opts", Shape::Pairs),
    ("mtu", "mtu", Shape::Int),
    ("no-proxy", "no-proxy", Shape::Text),
    ("no-new-privileges", "no-new-privileges", Shape::Switch),
    ("pidfile", "pidfile", Shape::Text),
    ("registry-mirror", "registry-mirrors", Shape::List),
    ("shutdown-timeout", "shutdown-timeout", Shape::Int),
    ("tls", "tls", Shape::Switch),
    ("tlscacert", "tlscacert", Shape::Text),
    ("tlscert", "tlscert", Shape::Text),
    ("tlskey", "tlskey", Shape::Text),
    ("tlsverify", "tlsverify", Shape::Switch),
];

pub const FLAGS: &[Flag] = &[
    Flag::of("add-runtime", Kind::Many("runtime"), "Register an additional OCI compatible runtime (name=path)"),
    Flag::text("bip", "IPv4 address for the default bridge, as CIDR"),
    Flag::text("bridge", "Attach containers to a network bridge of yours; \"none\" disables the network").short('b'),
    Flag::text("cgroup-parent", "Set parent cgroup for all containers"),
    Flag::text("config-file", "Daemon configuration file").default(super::settings::CONFIG_FILE),
    Flag::text("data-root", "Root directory of persistent state").default(super::instance::DATA_ROOT),
    Flag::switch("debug", "Enable debug mode").short('D'),
    Flag::of("default-address-pool", Kind::Many("pool-options"), "Default address pools for networks (base=CIDR,size=PREFIX)"),
    Flag::text("default-cgroupns-mode", "Default mode for containers cgroup namespace (\"host\" | \"private\")"),
    Flag::text("default-ipc-mode", "Default mode for containers ipc (\"shareable\" | \"private\")").default("private"),
    Flag::text("default-runtime", "Default OCI runtime for containers").default("runc"),
    Flag::of("default-shm-size", Kind::Bytes, "Default shm size for containers").default("64MiB"),
    Flag::of("default-ulimit", Kind::Many("ulimit"), "Default ulimits for containers (name=soft[:hard])"),
    Flag::list("dns", "DNS server to use"),
    Flag::list("dns-opt", "DNS options to use"),
    Flag::list("dns-search", "DNS search domains to use"),
    Flag::list("exec-opt", "Runtime execution options (native.cgroupdriver=cgroupfs)"),
    Flag::text("exec-root", "Root directory for execution state files").default(super::instance::EXEC_ROOT),
    Flag::text("firewall", "How foreign firewalls are treated: \"auto\" adds one jump to their FORWARD chain, \"own\" only says what is missing").default("auto"),
    Flag::text("group", "Group for the unix socket").short('G').default(super::settings::GROUP),
    Flag::list("host", "Daemon socket(s) to listen on (unix://PATH, tcp://ADDRESS:PORT, fd://)").short('H'),
    Flag::list("host-gateway-ip", "IP addresses that the special 'host-gateway' string in --add-host resolves to"),
    Flag::text("http-proxy", "HTTP proxy URL to use for outgoing traffic"),
    Flag::text("https-proxy", "HTTPS proxy URL to use for outgoing traffic"),
    Flag::switch("icc", "Enable inter-container communication for the default bridge").default("true"),
    Flag::switch("init", "Run an init in the container to forward signals and reap processes"),
    Flag::list("insecure-registry", "Registries to reach without TLS or without verifying it"),
    Flag::text("ip", "Host address where ports are published by default").default("0.0.0.0"),
    Flag::switch("ip-forward", "Enable IP forwarding in system configuration").default("true"),
    Flag::switch("ip-masq", "Enable IP masquerading for the default bridge").default("true"),
    Flag::switch("iptables", "Add firewall rules").default("true"),
    Flag::list("label", "Set key=value labels to the daemon"),
    Flag::switch("live-restore", "Keep containers running while the daemon is down").default("true"),
    Flag::text("log-driver", "Default driver for container logs").default("json-file"),
    Flag::text("log-level", "Set the logging level (\"debug\" | \"info\" | \"warn\" | \"error\" | \"fatal\")").short('l').default("info"),
    Flag::of("log-opt", Kind::Many("map"), "Default log driver options for containers"),
    Flag::int("mtu", "Set the MTU of the default bridge"),
    Flag::switch("no-new-privileges", "Set no-new-privileges by default for new containers"),
    Flag::text("no-proxy", "Hosts and networks that are reached without the proxy"),
    Flag::text("pidfile", "Path to use for the daemon's PID file").short('p'),
    Flag::list("registry-mirror", "Preferred registry mirror"),
    Flag::int("shutdown-timeout", "Seconds that containers are given to end at shutdown").default("15"),
    Flag::switch("tls", "Use TLS on tcp:// sockets; clients have to show a certificate unless --tlsverify=false"),
    Flag::text("tlscacert", "Let in only clients with a certificate of this authority"),
    Flag::text("tlscert", "The daemon's TLS certificate"),
    Flag::text("tlskey", "The key of the daemon's TLS certificate"),
    Flag::switch("tlsverify", "Use TLS on tcp:// sockets, and verify the clients"),
    Flag::switch("validate", "Validate the configuration and exit"),
    Flag::switch("version", "Print version information and quit").short('v'),
];

/// The given flags under the keys of `daemon.json`.
pub fn to_keys(parsed: &Parsed) -> Result<Map<String, Value>, String> {
    let mut map = Map::new();
    for &(flag, key, shape) in KEYS {
        if !parsed.changed(flag) {
            continue;
        }
        let bad = |word: &str, form: &str| {
            format!("invalid argument {word:?} for \"--{flag}\" flag: expected {form}")
        };
        let value = match shape {
            Shape::Switch => json!(parsed.on(flag)),
            Shape::Text => json!(parsed.text(flag)),
            Shape::Int => json!(parsed.int(flag)),
            Shape::List => json!(parsed.list(flag)),
            Shape::Pairs => collect(parsed.list(flag), |word| {
                let (name, value) = word.split_once('=').ok_or_else(|| bad(word, "key=value"))?;
                Ok((name.to_owned(), json!(value)))
            })?,
            Shape::Runtimes => collect(parsed.list(flag), |word| {
                let (name, path) = word.split_once('=').ok_or_else(|| bad(word, "name=path"))?;
                Ok((name.to_owned(), json!({ "path": path })))
            })?,
            Shape::Ulimits => collect(parsed.list(flag), |word| {
                ulimit(word).ok_or_else(|| bad(word, "name=soft[:hard]"))
            })?,
            Shape::Pools => {
                let pools = parsed
                    .list(flag)
                    .iter()
                    .map(|word| pool(word).ok_or_else(|| bad(word, "base=CIDR,size=PREFIX")));
                Value::Array(pools.collect::<Result<_, _>>()?)
            }
        };
        map.insert(key.to_owned(), value);
    }
    Ok(map)
}

fn collect(
    words: &[String],
    parse: impl Fn(&str) -> Result<(String, Value), String>,
) -> Result<Value, String> {
    words
        .iter()
        .map(|word| parse(word))
        .collect::<Result<Map<_, _>, _>>()
        .map(Value::Object)
}

fn ulimit(word: &str) -> Option<(String, Value)> {
    let (name, limits) = word.split_once('=')?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| match text {
        "unlimited" => Some(-1),
        digits => digits.parse::<i64>().ok(),
    };
    Some((
        name.to_owned(),
        json!({ "Name": name, "Soft": number(soft)?, "Hard": number(hard)? }),
    ))
}

fn pool(word: &str) -> Option<Value> {
    let (mut base, mut size) = (None, None);
    for part in word.split(',') {
        match part.split_once('=')? {
            ("base", value) => base = Some(value),
            ("size", value) => size = value.parse::<u8>().ok(),
            _ => return None,
        }
    }
    Some(json!({ "base": base?, "size": size? }))
}

/// Columns of the help.
const HELP_WIDTH: usize = 100;

/// What `--help` prints.
pub fn help(program: &str) -> String {
    let options = berth_cli::help::flags(FLAGS, HELP_WIDTH);
    format!(
        "Usage:  {program} [OPTIONS]\n\nRun containers: the engine that docker's clients talk to.\n\nOptions:\n{options}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_but_the_actions_has_a_key() {
        let actions = ["config-file", "validate", "version"];
        for flag in FLAGS.iter().filter(|flag| !actions.contains(&flag.long)) {
            assert!(
                KEYS.iter().any(|(name, _, _)| *name == flag.long),
                "{}",
                flag.long
            );
        }
    }

    #[test]
    fn structured_words_become_dockers_objects() {
        assert_eq!(
            pool("base=10.0.0.0/8,size=24"),
            Some(json!({"base": "10.0.0.0/8", "size": 24}))
        );
        assert_eq!(
            ulimit("nofile=1:2").unwrap().1,
            json!({"Name": "nofile", "Soft": 1, "Hard": 2})
        );
        assert_eq!(pool("size=24"), None);
        assert_eq!(ulimit("nofile"), None);
    }
}
