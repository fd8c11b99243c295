//! `POST /commit`: an image of a container.

use berth_docker::container::Config;
use berth_docker::image::CommitResponse;
use berth_engine::CommitOptions;
use http::StatusCode;

use super::named;
use crate::call::Call;
use crate::respond::{self, Answer};

pub async fn commit(mut call: Call) -> Answer {
    // The parameters come without a body, too.
    let config: Option<Config> = call.json::<Option<Config>>().await?.flatten();
    let text = |name: &str| call.query.text(name).to_owned();
    let name = match call.query.some("repo") {
        Some(repository) => Some(named(repository, call.query.text("tag"))?),
        None => None,
    };
    let options = CommitOptions {
        name,
        author: text("author"),
        comment: text("comment"),
        changes: call.query.all("changes").map(str::to_owned).collect(),
        config,
        // The clients say it only if it is not so.
        pause: call.query.some("pause").is_none() || call.query.flag("pause"),
    };
    let (engine, container) = (call.shared.engine.clone(), text("container"));
    let id = call
        .finish(async move { engine.commit(&container, options).await })
        .await?;
    Ok(respond::json(StatusCode::CREATED, &CommitResponse { id }))
}
