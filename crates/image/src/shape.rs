//! Images in the shapes of the Docker Engine API.

use std::collections::BTreeMap;

use berth_docker::image as wire;
use berth_docker::json::{Empty, StrSlice};
use berth_oci::config::{Execution, Healthcheck, Set};
use berth_oci::{Descriptor, Platform};

pub(crate) fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(crate) fn descriptor(descriptor: &Descriptor) -> wire::Descriptor {
    wire::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: size(descriptor.size),
        urls: descriptor.urls.clone().unwrap_or_default(),
        annotations: descriptor.annotations.clone().unwrap_or_default(),
        data: descriptor.data.clone(),
        platform: descriptor.platform.as_ref().map(platform),
        artifact_type: descriptor.artifact_type.clone(),
    }
}

pub(crate) fn platform(platform: &Platform) -> wire::Platform {
    wire::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone().unwrap_or_default(),
        os_features: platform.os_features.clone().unwrap_or_default(),
        variant: platform.variant.clone().unwrap_or_default(),
    }
}

/// How the image's containers run.
pub fn config(execution: &Execution) -> wire::Config {
    let words = |list: &Option<Vec<String>>| list.clone().map(StrSlice);
    let set = |set: &Option<Set>| -> Option<BTreeMap<String, Empty>> {
        let keys = set.as_ref()?.0.iter();
        Some(keys.map(|key| (key.clone(), Empty {})).collect())
    };
    wire::Config {
        user: execution.user.clone().unwrap_or_default(),
        exposed_ports: set(&execution.exposed_ports).unwrap_or_default(),
        env: execution.env.clone(),
        entrypoint: words(&execution.entrypoint),
        cmd: words(&execution.cmd),
        volumes: set(&execution.volumes),
        working_dir: execution.working_dir.clone().unwrap_or_default(),
        labels: execution.labels.clone(),
        stop_signal: execution.stop_signal.clone().unwrap_or_default(),
        args_escaped: execution.args_escaped.unwrap_or_default(),
        healthcheck: execution.healthcheck.as_ref().map(health),
        on_build: execution.on_build.clone(),
        shell: words(&execution.shell),
    }
}

fn health(check: &Healthcheck) -> wire::HealthConfig {
    wire::HealthConfig {
        test: check.test.clone(),
        interval: check.interval.unwrap_or_default(),
        timeout: check.timeout.unwrap_or_default(),
        start_period: check.start_period.unwrap_or_default(),
        start_interval: check.start_interval.unwrap_or_default(),
        retries: check.retries.unwrap_or_default(),
    }
}
