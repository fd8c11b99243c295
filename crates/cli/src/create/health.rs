//! `--health-*` and `--no-healthcheck`.

use berth_docker::container::HealthConfig;

use super::Error;
use crate::flags::Parsed;

pub fn plan(flags: &Parsed) -> Result<Option<HealthConfig>, Error> {
    const FLAGS: &[&str] = &[
        "health-cmd",
        "health-interval",
        "health-timeout",
        "health-retries",
        "health-start-period",
        "health-start-interval",
    ];
    let has_health = FLAGS.iter().any(|flag| flags.changed(flag));
    if flags.on("no-healthcheck") {
        if has_health {
            return Err("--no-healthcheck conflicts with --health-* options".to_owned());
        }
        return Ok(Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }));
    }
    if !has_health {
        return Ok(None);
    }
    for flag in [
        "health-interval",
        "health-timeout",
        "health-start-period",
        "health-start-interval",
    ] {
        if flags.nanos(flag) < 0 {
            return Err(format!("--{flag} cannot be negative"));
        }
    }
    if flags.int("health-retries") < 0 {
        return Err("--health-retries cannot be negative".to_owned());
    }
    let command = flags.given("health-cmd");
    Ok(Some(HealthConfig {
        test: command.map(|command| vec!["CMD-SHELL".to_owned(), command.to_owned()]),
        interval: flags.nanos("health-interval"),
        timeout: flags.nanos("health-timeout"),
        start_period: flags.nanos("health-start-period"),
        start_interval: flags.nanos("health-start-interval"),
        retries: flags.int("health-retries"),
    }))
}
