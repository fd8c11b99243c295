//! `commit`: an image of a container (moby, `daemon/commit.go`).

use std::sync::Arc;

use berth_docker::container::Config;
use berth_image::Commit;
use berth_image::changes;
use berth_oci::config::Execution;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Context, Error, Result};
use crate::images::from_image;
use crate::options::CommitOptions;
use crate::record::Phase;
use crate::shared::Shared;
use crate::spec::merge::merge;
use crate::volume::writers;

/// Returns the new image's id.
pub async fn commit(
    shared: &Arc<Shared>,
    reference: &str,
    options: CommitOptions,
) -> Result<String> {
    let handle = shared.table.find(reference)?;
    let view = handle.view();
    let id = &view.record.id;
    match view.state.phase {
        Phase::Dead => {
            let message = format!("You cannot commit container {id} which is Dead");
            return Err(Error::conflict(message));
        }
        Phase::Removing => {
            let message = format!("You cannot commit container {id} which is being removed");
            return Err(Error::conflict(message));
        }
        _ => {}
    }
    let commit = plan(&view.record.config, &options)?;
    let paused = match view.state.phase {
        Phase::Running { paused: false, .. } if options.pause => {
            writers::pause(shared, vec![handle.clone()]).await?
        }
        _ => Vec::new(),
    };
    let (images, record) = (shared.images.clone(), view.record.clone());
    let made = shared
        .block(move || images.commit(record.id.as_str(), &record.rootfs.directories(), &commit))
        .await;
    writers::resume(shared, paused).await;
    let image = made?.map_err(from_image)?.to_string();
    let name = options.name.map(|name| name.or_latest().familiar());
    let attributes = [
        ("comment", options.comment.as_str()),
        ("imageID", image.as_str()),
        ("imageRef", name.as_deref().unwrap_or_default()),
    ];
    shared.container_event(&view.record, "commit", &attributes);
    Ok(image)
}

/// The new image's configuration: what the client gives, changed by its instructions, completed by
/// the container's.
fn plan(container: &Config, options: &CommitOptions) -> Result<Commit> {
    let given = options.config.as_ref().unwrap_or(container);
    let mut execution: Execution = convert(given)?;
    changes::apply(&mut execution, &options.changes).map_err(Error::invalid)?;
    let mut config: Config = convert(&execution)?;
    merge(&mut config, &convert(container)?);
    Ok(Commit {
        name: options.name.clone(),
        author: options.author.clone(),
        message: options.comment.clone(),
        created_by: container
            .cmd
            .iter()
            .flat_map(|words| words.iter())
            .cloned()
            .collect::<Vec<_>>()
            .join(" "),
        config: convert(&config)?,
    })
}

/// Docker's configuration of a container has all fields of an image's, by the same names.
fn convert<T: DeserializeOwned>(from: &impl Serialize) -> Result<T> {
    let value = serde_json::to_value(from).context("encode a configuration")?;
    serde_json::from_value(value).context("read a configuration")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: Option<serde_json::Value>, changes: &[&str], expect: serde_json::Value) {
        let container = serde_json::json!({
            "Cmd": ["serve"], "Entrypoint": ["/entry"], "Env": ["A=1"], "User": "u",
            "ExposedPorts": {"80/tcp": {}}, "Hostname": "h",
        });
        let options = CommitOptions {
            name: None,
            author: String::new(),
            comment: String::new(),
            changes: changes.iter().map(|&change| change.to_owned()).collect(),
            config: config.map(|config| serde_json::from_value(config).unwrap()),
            pause: false,
        };
        let container: Config = serde_json::from_value(container).unwrap();
        let planned = plan(&container, &options).unwrap();
        let mut found = serde_json::to_value(&planned.config).unwrap();
        found.as_object_mut().unwrap().retain(|_, value| {
            !(value.is_null() || *value == "" || *value == serde_json::json!({}) || *value == false)
        });
        assert_eq!(found, expect);
        assert_eq!(planned.created_by, "serve");
    }

    #[test]
    fn the_container_fills_what_is_left_open() {
        check(
            None,
            &["CMD [\"other\"]", "ENV B=2"],
            serde_json::json!({
                "Cmd": ["other"], "Entrypoint": ["/entry"], "Env": ["A=1", "B=2"], "User": "u",
                "ExposedPorts": {"80/tcp": {}}, "Hostname": "h",
            }),
        );
        check(
            Some(serde_json::json!({"Entrypoint": ["/mine"], "Env": ["A=9"]})),
            &[],
            serde_json::json!({
                "Entrypoint": ["/mine"], "Env": ["A=9"], "User": "u",
                "ExposedPorts": {"80/tcp": {}},
            }),
        );
    }
}
