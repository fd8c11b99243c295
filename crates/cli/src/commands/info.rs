//! `info`: what the daemon says about itself and its machine.

use std::fmt::Write;

use berth_docker::system::Info;
use berth_docker_client::Request;

use crate::cli::{Cli, print, warn};
use crate::command::Command;
use crate::failure::{Failure, Outcome};
use crate::flags::Parsed;
use crate::template::{self, Value};

use super::INSPECT_FORMAT;

pub const INFO: Command = Command::leaf("info", "", "Display system-wide information", run)
    .flags(&[INSPECT_FORMAT])
    .also(&["system info", "info"]);

fn run(cli: &Cli, flags: &Parsed) -> Outcome {
    let format = match flags.text("format") {
        "json" => "{{json .}}",
        text => text,
    };
    let template =
        match format {
            "" => None,
            text => Some(template::parse(text).map_err(|error| {
                Failure::new(format!("template parsing error: {error}")).code(64)
            })?),
        };
    let answer = cli.block_on(async {
        Ok(cli
            .client()?
            .send(Request::get("/info"))
            .await?
            .bytes()
            .await?)
    });
    if let Some(template) = template {
        let bytes = answer?;
        let value = Value::from_json(&bytes).map_err(|error| Failure::new(error.to_string()))?;
        let value = with_client(cli, value);
        let text = template
            .render_json(&value)
            .map_err(|error| Failure::new(error.to_string()))?;
        print(text + "\n")?;
        return Ok(0);
    }
    let mut out = "Client:\n".to_owned();
    let _ = writeln!(out, " Version:    {}", cli.build.version);
    let _ = writeln!(
        out,
        " Context:    {}\n Debug Mode: false\n\nServer:",
        cli.context_name()
    );
    let bytes = match answer {
        Ok(bytes) => bytes,
        Err(failure) => {
            print(out)?;
            return Err(failure);
        }
    };
    let info: Info =
        serde_json::from_slice(&bytes).map_err(|error| Failure::new(error.to_string()))?;
    server(&info, &mut out);
    print(out + "\n")?;
    for warning in info.warnings.iter().flatten() {
        warn(warning);
    }
    Ok(0)
}

/// Docker's answer to templates has the client's part beside the server's.
fn with_client(cli: &Cli, value: Value) -> Value {
    let Value::Object(object) = value else {
        return value;
    };
    let mut fields = object.fields.clone();
    let client = vec![
        ("Debug".to_owned(), Value::Bool(false)),
        ("Version".to_owned(), Value::text(&cli.build.version)),
        ("Context".to_owned(), Value::text(cli.context_name())),
    ];
    fields.push(("ClientInfo".to_owned(), Value::object(client)));
    Value::object(fields)
}

fn server(info: &Info, out: &mut String) {
    let mut line = |indent: usize, name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(out, "{}{name}: {value}", " ".repeat(indent));
    };
    line(1, "Containers", &info.containers);
    line(2, "Running", &info.containers_running);
    line(2, "Paused", &info.containers_paused);
    line(2, "Stopped", &info.containers_stopped);
    line(1, "Images", &info.images);
    line(1, "Server Version", &info.server_version);
    line(1, "Storage Driver", &info.driver);
    for pair in &info.driver_status {
        if let [name, value, ..] = pair.as_slice() {
            line(2, name, value);
        }
    }
    line(1, "Logging Driver", &info.logging_driver);
    line(1, "Cgroup Driver", &info.cgroup_driver);
    if !info.cgroup_version.is_empty() {
        line(1, "Cgroup Version", &info.cgroup_version);
    }
    let _ = writeln!(out, " Plugins:");
    let mut plugins = |name: &str, list: &Option<Vec<String>>| {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            let _ = writeln!(out, "  {name}: {}", list.join(" "));
        }
    };
    plugins("Volume", &info.plugins.volume);
    plugins("Network", &info.plugins.network);
    plugins("Authorization", &info.plugins.authorization);
    plugins("Log", &info.plugins.log);
    let swarm = match info.swarm.local_node_state.as_str() {
        "" => "inactive",
        state => state,
    };
    let _ = writeln!(out, " Swarm: {swarm}");
    if !info.runtimes.is_empty() {
        let names: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
        let _ = writeln!(out, " Runtimes: {}", names.join(" "));
        let _ = writeln!(out, " Default Runtime: {}", info.default_runtime);
    }
    let _ = writeln!(out, " Init Binary: {}", info.init_binary);
    let _ = writeln!(out, " containerd version: {}", info.containerd_commit.id);
    let _ = writeln!(out, " runc version: {}", info.runc_commit.id);
    let _ = writeln!(out, " init version: {}", info.init_commit.id);
    security(&info.security_options, out);
    machine(info, out);
    registries(info, out);
    let _ = writeln!(out, " Live Restore Enabled: {}", info.live_restore_enabled);
    if !info.product_license.is_empty() {
        let _ = writeln!(out, " Product License: {}", info.product_license);
    }
    if !info.default_address_pools.is_empty() {
        let _ = writeln!(out, " Default Address Pools:");
        for pool in &info.default_address_pools {
            let _ = writeln!(out, "   Base: {}, Size: {}", pool.base, pool.size);
        }
    }
    if let Some(firewall) = &info.firewall_backend {
        let _ = writeln!(out, " Firewall Backend: {}", firewall.driver);
    }
}

/// `name=seccomp,profile=builtin` in lines.
fn security(options: &[String], out: &mut String) {
    if options.is_empty() {
        return;
    }
    let _ = writeln!(out, " Security Options:");
    for option in options {
        for pair in option.split(',') {
            match pair.split_once('=') {
                Some(("name", name)) => {
                    let _ = writeln!(out, "  {name}");
                }
                Some((key, value)) => {
                    let mut chars = key.chars();
                    let first = chars.next().map(|c| c.to_ascii_uppercase());
                    let key: String = first.into_iter().chain(chars).collect();
                    let _ = writeln!(out, "   {key}: {value}");
                }
                None => {
                    let _ = writeln!(out, "  {pair}");
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "only four digits are shown")]
fn machine(info: &Info, out: &mut String) {
    let _ = writeln!(out, " Kernel Version: {}", info.kernel_version);
    let _ = writeln!(out, " Operating System: {}", info.operating_system);
    let _ = writeln!(out, " OSType: {}", info.os_type);
    let _ = writeln!(out, " Architecture: {}", info.architecture);
    let _ = writeln!(out, " CPUs: {}", info.ncpu);
    let memory = berth_base::size::human_binary(info.mem_total as f64);
    let _ = writeln!(out, " Total Memory: {memory}");
    let _ = writeln!(out, " Name: {}", info.name);
    let _ = writeln!(out, " ID: {}", info.id);
    let _ = writeln!(out, " Docker Root Dir: {}", info.docker_root_dir);
    let _ = writeln!(out, " Debug Mode: {}", info.debug);
    for (name, value) in [
        ("HTTP Proxy", &info.http_proxy),
        ("HTTPS Proxy", &info.https_proxy),
        ("No Proxy", &info.no_proxy),
    ] {
        if !value.is_empty() {
            let _ = writeln!(out, " {name}: {value}");
        }
    }
    if !info.labels.is_empty() {
        let _ = writeln!(out, " Labels:");
        for label in &info.labels {
            let _ = writeln!(out, "  {label}");
        }
    }
    let _ = writeln!(out, " Experimental: {}", info.experimental_build);
}

fn registries(info: &Info, out: &mut String) {
    let Some(registry) = &info.registry_config else {
        return;
    };
    let insecure = registry
        .index_configs
        .values()
        .filter(|index| !index.secure);
    let mut names: Vec<&str> = insecure.map(|index| index.name.as_str()).collect();
    names.extend(registry.insecure_registry_cidrs.iter().map(String::as_str));
    if !names.is_empty() {
        let _ = writeln!(out, " Insecure Registries:");
        for name in names {
            let _ = writeln!(out, "  {name}");
        }
    }
    if let Some(mirrors) = registry
        .mirrors
        .as_ref()
        .filter(|mirrors| !mirrors.is_empty())
    {
        let _ = writeln!(out, " Registry Mirrors:");
        for mirror in mirrors {
            let _ = writeln!(out, "  {mirror}");
        }
    }
}
