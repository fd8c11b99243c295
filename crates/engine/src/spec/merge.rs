//! What the image says fills what the client left open (moby, `daemon/commit.go: merge`).

use berth_docker::container::{Config, HealthConfig};
use berth_docker::json::{Empty, StrSlice};
use berth_oci::config::{Execution, Healthcheck};

/// Completes the client's configuration with the image's.
pub fn merge(config: &mut Config, image: &Execution) {
    if config.user.is_empty() {
        config.user = image.user.clone().unwrap_or_default();
    }
    for port in image.exposed_ports.iter().flat_map(|set| &set.0) {
        config.exposed_ports.entry(port.clone()).or_insert(Empty {});
    }
    merge_env(
        config.env.get_or_insert_default(),
        image.env.as_deref().unwrap_or_default(),
    );
    merge_command(config, image);
    let labels = config.labels.get_or_insert_default();
    for (key, value) in image.labels.iter().flatten() {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if config.working_dir.is_empty() {
        config.working_dir = image.working_dir.clone().unwrap_or_default();
    }
    for path in image.volumes.iter().flat_map(|set| &set.0) {
        config
            .volumes
            .get_or_insert_default()
            .entry(path.clone())
            .or_insert(Empty {});
    }
    if config.stop_signal.is_empty() {
        config.stop_signal = image.stop_signal.clone().unwrap_or_default();
    }
    if config.stop_timeout.is_none() {
        config.stop_timeout = image.stop_timeout;
    }
    if let Some(health) = &image.healthcheck {
        merge_health(config.healthcheck.get_or_insert_default(), health);
    }
}

fn merge_env(env: &mut Vec<String>, image: &[String]) {
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let given: Vec<String> = env.iter().map(|entry| key(entry)).collect();
    env.extend(
        image
            .iter()
            .filter(|entry| !given.contains(&key(entry)))
            .cloned(),
    );
}

/// An entrypoint of the client's drops the image's command; the empty word (`--entrypoint ""`)
/// resets the image's entrypoint.
fn merge_command(config: &mut Config, image: &Execution) {
    let words = |list: &Option<Vec<String>>| list.clone().map(StrSlice::from);
    let empty = |list: &Option<StrSlice>| list.as_ref().is_none_or(|words| words.is_empty());
    if empty(&config.entrypoint) {
        if empty(&config.cmd) {
            config.cmd = words(&image.cmd);
        }
        if config.entrypoint.is_none() {
            config.entrypoint = words(&image.entrypoint);
        }
    }
}

fn merge_health(health: &mut HealthConfig, image: &Healthcheck) {
    let fill = |value: &mut i64, image: Option<i64>| {
        if *value == 0 {
            *value = image.unwrap_or(0);
        }
    };
    if health.test.as_ref().is_none_or(Vec::is_empty) {
        health.test = image.test.clone();
    }
    fill(&mut health.interval, image.interval);
    fill(&mut health.timeout, image.timeout);
    fill(&mut health.start_period, image.start_period);
    fill(&mut health.start_interval, image.start_interval);
    fill(&mut health.retries, image.retries);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Execution {
        Execution {
            env: Some(vec!["PATH=/bin".into(), "A=image".into()]),
            entrypoint: Some(vec!["/entry".into()]),
            cmd: Some(vec!["serve".into()]),
            user: Some("redis".into()),
            ..Execution::default()
        }
    }

    fn check(entrypoint: Option<&[&str]>, cmd: Option<&[&str]>) -> (Vec<String>, Vec<String>) {
        let words = |list: Option<&[&str]>| {
            list.map(|list| {
                list.iter()
                    .map(|&word| word.to_owned())
                    .collect::<StrSlice>()
            })
        };
        let mut config = Config {
            entrypoint: words(entrypoint),
            cmd: words(cmd),
            ..Config::default()
        };
        merge(&mut config, &image());
        (
            config.entrypoint.unwrap_or_default().0,
            config.cmd.unwrap_or_default().0,
        )
    }

    #[test]
    fn commands_merge_as_docker_does() {
        let list = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(check(None, None), (list(&["/entry"]), list(&["serve"])));
        assert_eq!(check(None, Some(&["x"])), (list(&["/entry"]), list(&["x"])));
        assert_eq!(check(Some(&["/mine"]), None), (list(&["/mine"]), list(&[])));
        assert_eq!(check(Some(&[]), None), (list(&[]), list(&["serve"])));
    }

    #[test]
    fn the_clients_environment_wins() {
        let mut config = Config {
            env: Some(vec!["A=mine".into()]),
            ..Config::default()
        };
        merge(&mut config, &image());
        assert_eq!(config.env.unwrap(), ["A=mine", "PATH=/bin"]);
        assert_eq!(config.user, "redis");
    }
}
