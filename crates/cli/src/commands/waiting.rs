//! The end of a container: its exit code, or the end of its removal.

use berth_docker::container::WaitResponse;
use berth_docker_client::{Client, Query, Request, Response, query};

use crate::cli::warn;
use crate::failure::Failure;

/// The request that answers at the end. It is sent before the start, so that no end is missed:
/// daemons send the head of their answer when they watch.
pub async fn begin(
    client: &Client,
    container: &str,
    until_removed: bool,
) -> Result<Response, Failure> {
    let condition = if until_removed {
        "removed"
    } else {
        "next-exit"
    };
    let path = format!("/containers/{}/wait", query::segment(container));
    let request = Request::post(path).query(Query::new().with("condition", condition));
    Ok(client.send(request).await?)
}

/// The exit code; 125 when the daemon could not wait.
pub async fn end(response: Response) -> u8 {
    match response.json::<WaitResponse>().await {
        Ok(WaitResponse {
            error: Some(error), ..
        }) if !error.message.is_empty() => {
            warn(format!("Error waiting for container: {}", error.message));
            125
        }
        Ok(response) => exit_code(response.status_code),
        Err(error) => {
            warn(format!(
                "Error waiting for container: {}",
                berth_base::Chain(&error)
            ));
            125
        }
    }
}

/// Exit codes are a byte.
pub fn exit_code(code: i64) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}
