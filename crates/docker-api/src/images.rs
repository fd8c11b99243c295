//! Operations on images.

mod create;

use std::collections::BTreeMap;

use berth_docker::event::{Actor, Message};
use berth_image::Images;
use berth_oci::Platform;
use http::StatusCode;

use crate::Shared;
use crate::call::Call;
use crate::error::Error;

pub use create::create;

/// The platform that a parameter names.
fn platform(call: &Call) -> Result<Option<Platform>, Error> {
    let Some(text) = call.query.some("platform") else {
        return Ok(None);
    };
    text.parse()
        .map(Some)
        .map_err(|e: berth_oci::platform::InvalidPlatform| Error::invalid(e.to_string()))
}

/// Work on the store blocks on the disk: it runs on a thread, and to its end.
async fn block<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce(&Images) -> Result<T, berth_image::Error> + Send + 'static,
) -> Result<T, Error> {
    let images = shared.images.clone();
    match shared.scope.spawn_blocking(move || work(&images)).await {
        Ok(result) => result.map_err(Error::from),
        Err(_) => Err(Error::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the request failed unexpectedly: see the daemon's log",
        )),
    }
}

/// Tells the listeners of events what happened to an image.
fn publish(shared: &Shared, action: &str, id: &str, name: &str) {
    shared.engine.publish(Message {
        kind: "image".into(),
        action: action.into(),
        actor: Actor {
            id: id.into(),
            attributes: BTreeMap::from([("name".to_owned(), name.to_owned())]),
        },
        ..Message::default()
    });
}
