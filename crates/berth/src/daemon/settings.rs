//! The daemon's settings: flags and `daemon.json` joined, with dockerd's rules and refusals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use berth_cli::flags::Parsed;
use berth_docker::container::Ulimit;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::flags;

/// Read if it exists; one that was named has to.
pub const CONFIG_FILE: &str = "/etc/berth/daemon.json";
/// May use the socket, if the system has such a group.
pub const GROUP: &str = "berth";

/// The keys of `daemon.json`. What is `None` was not given.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Settings {
    pub hosts: Vec<String>,
    pub group: Option<String>,
    pub data_root: Option<PathBuf>,
    pub exec_root: Option<PathBuf>,
    pub exec_opts: Vec<String>,
    pub pidfile: Option<PathBuf>,
    pub bridge: Option<String>,
    pub bip: Option<String>,
    pub default_address_pools: Vec<AddressPool>,
    pub mtu: Option<u32>,
    pub dns: Vec<std::net::IpAddr>,
    pub dns_opts: Vec<String>,
    pub dns_search: Vec<String>,
    pub insecure_registries: Vec<String>,
    pub registry_mirrors: Vec<String>,
    pub log_driver: Option<String>,
    pub log_opts: BTreeMap<String, String>,
    pub log_level: Option<String>,
    pub default_ulimits: BTreeMap<String, UlimitSetting>,
    pub cgroup_parent: Option<String>,
    pub runtimes: BTreeMap<String, RuntimeSetting>,
    pub default_runtime: Option<String>,
    pub init: Option<bool>,
    pub live_restore: Option<bool>,
    pub firewall: Option<String>,
    pub debug: Option<bool>,
    pub iptables: Option<bool>,
    pub ip_forward: Option<bool>,
    pub ip_masq: Option<bool>,
    pub icc: Option<bool>,
    pub ip: Option<std::net::IpAddr>,
    pub shutdown_timeout: Option<u64>,
    pub labels: Vec<String>,
    pub default_shm_size: Option<String>,
    pub default_ipc_mode: Option<String>,
    pub default_cgroupns_mode: Option<String>,
    pub host_gateway_ips: Vec<std::net::IpAddr>,
    pub no_new_privileges: Option<bool>,
    pub http_proxy: Option<String>,
    pub https_proxy: Option<String>,
    pub no_proxy: Option<String>,
    pub tls: Option<bool>,
    pub tlsverify: Option<bool>,
    pub tlscacert: Option<PathBuf>,
    pub tlscert: Option<PathBuf>,
    pub tlskey: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPool {
    pub base: String,
    pub size: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct UlimitSetting {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeSetting {
    pub path: PathBuf,
    #[serde(default)]
    pub runtime_args: Vec<String>,
}

/// Every key that [`Settings`] has; `daemon.json` may hold no other.
const KEYS: &[&str] = &[
    "hosts",
    "group",
    "data-root",
    "exec-root",
    "exec-opts",
    "pidfile",
    "bridge",
    "bip",
    "default-address-pools",
    "mtu",
    "dns",
    "dns-opts",
    "dns-search",
    "insecure-registries",
    "registry-mirrors",
    "log-driver",
    "log-opts",
    "log-level",
    "default-ulimits",
    "cgroup-parent",
    "runtimes",
    "default-runtime",
    "init",
    "live-restore",
    "firewall",
    "debug",
    "iptables",
    "ip-forward",
    "ip-masq",
    "icc",
    "ip",
    "shutdown-timeout",
    "labels",
    "default-shm-size",
    "default-ipc-mode",
    "default-cgroupns-mode",
    "host-gateway-ips",
    "no-new-privileges",
    "http-proxy",
    "https-proxy",
    "no-proxy",
    "tls",
    "tlsverify",
    "tlscacert",
    "tlscert",
    "tlskey",
];

impl Settings {
    /// Reads the configuration file that the flags name and joins it with them.
    pub fn load(parsed: &Parsed) -> Result<Self> {
        let given = flags::to_keys(parsed).map_err(|why| anyhow!(why))?;
        let path = PathBuf::from(parsed.text("config-file"));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    && !parsed.changed("config-file") =>
            {
                String::new()
            }
            Err(error) => bail!("{}: open {}: {error}", unable(&path), path.display()),
        };
        Self::join(given, &text, &path)
    }

    fn join(given: Map<String, Value>, text: &str, path: &Path) -> Result<Self> {
        let mut all = parse(text).map_err(|why| anyhow!("{}: {why}", unable(path)))?;
        let clashes: Vec<String> = given
            .iter()
            .filter_map(|(key, flag)| {
                let file = all.get(key)?;
                Some(format!(
                    "{key}: (from flag: {}, from file: {})",
                    plain(flag),
                    plain(file)
                ))
            })
            .collect();
        if !clashes.is_empty() {
            bail!(
                "{}: the following directives are specified both as a flag and in the configuration file: {}",
                unable(path),
                clashes.join(", ")
            );
        }
        all.extend(given);
        let settings: Self =
            serde_path_to_error(all).map_err(|why| anyhow!("{}: {why}", unable(path)))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        let one_of = |name: &str, value: &Option<String>, known: &[&str]| match value {
            Some(value) if !known.contains(&value.as_str()) => {
                bail!("invalid {name} {value:?}: use one of {}", known.join(", "))
            }
            _ => Ok(()),
        };
        one_of("firewall", &self.firewall, &["auto", "own"])?;
        one_of("log-driver", &self.log_driver, &["json-file", "none"])?;
        one_of(
            "log-level",
            &self.log_level,
            &["debug", "info", "warn", "error", "fatal", "trace"],
        )?;
        one_of(
            "default-ipc-mode",
            &self.default_ipc_mode,
            &["private", "shareable"],
        )?;
        one_of(
            "default-cgroupns-mode",
            &self.default_cgroupns_mode,
            &["private", "host"],
        )?;
        if self.bridge.is_some() && self.bip.is_some() {
            bail!(
                "you specified --bridge and --bip, which are mutually exclusive. Please specify only one"
            );
        }
        if let Some(size) = &self.default_shm_size {
            berth_base::size::parse_binary(size)?;
        }
        if self
            .runtimes
            .contains_key(berth_engine::config::OWN_RUNTIME)
        {
            // What clients call the daemon's own runtime.
            bail!(
                "runtime name '{}' is reserved",
                berth_engine::config::OWN_RUNTIME
            );
        }
        if let Some(name) = &self.default_runtime
            && name != berth_engine::config::OWN_RUNTIME
            && !self.runtimes.contains_key(name)
        {
            bail!(
                "specified default runtime '{name}' does not exist; register it with --add-runtime {name}=PATH"
            );
        }
        for option in &self.exec_opts {
            exec_option(option)?;
        }
        for label in &self.labels {
            if !label.contains('=') {
                bail!("bad attribute format: {label}: labels are key=value");
            }
        }
        Ok(())
    }

    pub fn ulimits(&self) -> BTreeMap<String, Ulimit> {
        let ulimit = |setting: &UlimitSetting| Ulimit {
            name: setting.name.clone(),
            soft: setting.soft,
            hard: setting.hard,
        };
        self.default_ulimits
            .iter()
            .map(|(name, setting)| (name.clone(), ulimit(setting)))
            .collect()
    }

    /// What `log-level` and `debug` come to.
    pub fn level(&self) -> &str {
        match (self.debug, self.log_level.as_deref()) {
            (Some(true), _) => "debug",
            (_, Some("fatal")) => "error",
            (_, Some(level)) => level,
            (_, None) => "info",
        }
    }
}

/// dockerd's one option of this kind. Containers are in cgroups that we write to, under systemd
/// below a scope that it has left to us; a unit for each container would cost a call to systemd
/// for each start, and gains nothing.
fn exec_option(option: &str) -> Result<()> {
    match option.split_once('=') {
        Some(("native.cgroupdriver", "cgroupfs")) => Ok(()),
        Some(("native.cgroupdriver", "systemd")) => bail!(
            "native.cgroupdriver=systemd is not supported: under systemd, all containers are in one delegated scope (berth.slice/berth.scope) with the driver cgroupfs; leave the option out"
        ),
        Some(("native.cgroupdriver", other)) => {
            bail!("native.cgroupdriver option {other} not supported: use cgroupfs")
        }
        Some((key, _)) => bail!("invalid exec-opt {key:?}: the only one is native.cgroupdriver"),
        None => bail!("unable to parse key/value option: {option}"),
    }
}

/// The file's object; an empty file is an empty object. `proxies` is spelled out into its keys.
fn parse(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let mut map: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    if let Some(Value::Object(proxies)) = map.remove("proxies") {
        map.extend(proxies);
    }
    let unknown: Vec<&str> = map
        .keys()
        .map(String::as_str)
        .filter(|key| !KEYS.contains(key))
        .collect();
    if unknown.is_empty() {
        return Ok(map);
    }
    Err(format!(
        "the following directives don't match any configuration option: {}",
        unknown.join(", ")
    ))
}

/// Reads the settings key by key, so that a wrong value is told with its key.
fn serde_path_to_error(map: Map<String, Value>) -> Result<Settings, String> {
    for (key, value) in &map {
        let one: Map<String, Value> = [(key.clone(), value.clone())].into_iter().collect();
        if let Err(error) = serde_json::from_value::<Settings>(Value::Object(one)) {
            return Err(format!("{key}: {error}"));
        }
    }
    serde_json::from_value(Value::Object(map)).map_err(|error| error.to_string())
}

fn unable(path: &Path) -> String {
    format!(
        "unable to configure the daemon with file {}",
        path.display()
    )
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(plain).collect::<Vec<_>>().join(" ")
        ),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(flags: Value, text: &str) -> Result<Settings, String> {
        let Value::Object(given) = flags else {
            panic!("an object")
        };
        Settings::join(given, text, Path::new("/etc/d.json")).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_and_file_add_up() {
        let settings = join(
            serde_json::json!({"debug": true}),
            r#"{"data-root": "/x", "log-opts": {"max-size": "1m"}, "proxies": {"http-proxy": "http://p"}}"#,
        )
        .unwrap();
        assert_eq!(settings.data_root, Some(PathBuf::from("/x")));
        assert_eq!(settings.level(), "debug");
        assert_eq!(settings.http_proxy.as_deref(), Some("http://p"));
    }

    #[test]
    fn mistakes_are_told_by_key() {
        let check = |flags: Value, text: &str, words: &str| {
            let message = join(flags, text).unwrap_err();
            assert!(message.contains(words), "{message}");
        };
        let none = || serde_json::json!({});
        check(
            none(),
            r#"{"data-rot": "/x"}"#,
            "don't match any configuration option: data-rot",
        );
        check(none(), r#"{"debug": "yes"}"#, "debug: invalid type");
        check(none(), "{", "EOF while parsing");
        check(
            serde_json::json!({"debug": true}),
            r#"{"debug": false}"#,
            "debug: (from flag: true, from file: false)",
        );
        check(
            none(),
            r#"{"log-driver": "papyrus"}"#,
            "invalid log-driver \"papyrus\"",
        );
        check(none(), r#"{"default-runtime": "crun"}"#, "does not exist");
        let driver = |word: &str| format!(r#"{{"exec-opts": ["native.cgroupdriver={word}"]}}"#);
        assert!(join(none(), &driver("cgroupfs")).is_ok());
        check(none(), &driver("systemd"), "native.cgroupdriver=systemd");
        check(none(), &driver("x"), "option x not supported");
        check(none(), r#"{"exec-opts": ["a=b"]}"#, "exec-opt \"a\"");
    }

    #[test]
    fn every_key_is_known_to_the_parser() {
        for key in KEYS {
            let map: Map<String, Value> = [((*key).to_owned(), Value::Null)].into_iter().collect();
            // Null is no value for any key that is not optional, but an unknown key is no error at all here.
            let _ = serde_json::from_value::<Settings>(Value::Object(map));
        }
        let known = format!("{:?}", Settings::default());
        for key in KEYS {
            assert!(known.contains(&key.replace('-', "_")), "{key}");
        }
    }
}
