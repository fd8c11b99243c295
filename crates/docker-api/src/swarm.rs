//! The operations of a swarm, on a node that is in none.

use http::StatusCode;

use crate::call::Call;
use crate::error::Error;
use crate::respond::Answer;

/// What clients read to learn about a swarm.
pub const PATHS: &[&str] = &[
    "/swarm",
    "/nodes",
    "/services",
    "/tasks",
    "/secrets",
    "/configs",
];

pub async fn inactive(_call: Call) -> Answer {
    Err(Error::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
         connect this node to swarm and try again.",
    ))
}
