//! What SIGHUP changes: the settings are read again as a whole, and those that a running daemon
//! can change take effect. A file with a mistake changes nothing.

use berth_cli::flags::Parsed;
use berth_engine::Engine;
use berth_image::distribution::Distribution;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

use super::run::{live, registries};
use super::settings::Settings;
use crate::surroundings::Surroundings;

pub type LevelHandle = Handle<EnvFilter, tracing_subscriber::Registry>;

/// The filter for `log-level` and `debug`: the libraries below say less than we do.
pub fn filter(settings: &Settings) -> EnvFilter {
    let level = settings.level();
    EnvFilter::new(format!(
        "warn,{}",
        OURS.map(|name| format!("{name}={level}")).join(",")
    ))
}

const OURS: [&str; 12] = [
    "berth",
    "berth_cli",
    "berth_docker_api",
    "berth_engine",
    "berth_http",
    "berth_image",
    "berth_net",
    "berth_keeper",
    "berth_runtime",
    "berth_store",
    "berth_sys",
    "berth_tasks",
];

/// The parts of the daemon that can be told anew.
pub struct Running<'a> {
    pub surroundings: &'a Surroundings,
    pub level: &'a LevelHandle,
    pub engine: &'a Engine,
    pub distribution: &'a Distribution,
}

/// Reads the settings again and applies what can be changed; returns those in force.
pub fn reload(old: Settings, flags: &Parsed, running: &Running<'_>) -> Settings {
    let loaded = Settings::load(flags).and_then(|mut new| {
        running.surroundings.complete_proxies(&mut new);
        Ok((registries(&new)?, new))
    });
    let (registries, new) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::error!("reload the configuration: {error:#}; the old one stays in force");
            return old;
        }
    };
    if let Err(error) = running.level.reload(filter(&new)) {
        tracing::error!(%error, "change the log level");
    }
    running.engine.reload(live(&new));
    running.distribution.reload(registries);
    if fixed(&old) != fixed(&new) {
        tracing::warn!(
            "the configuration has changes that need a restart of the daemon to take effect"
        );
    }
    tracing::info!("reloaded the configuration");
    new
}

/// The settings without those that a reload applies.
fn fixed(settings: &Settings) -> Settings {
    Settings {
        debug: None,
        log_level: None,
        labels: Vec::new(),
        live_restore: None,
        shutdown_timeout: None,
        insecure_registries: Vec::new(),
        registry_mirrors: Vec::new(),
        default_runtime: None,
        runtimes: std::collections::BTreeMap::new(),
        ..settings.clone()
    }
}
