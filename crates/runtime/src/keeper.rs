//! A keeper: the parent of one container's processes.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use crate::protocol::{Event, Failure, FailureKind, Launch};

/// The keeper's whole life. Returns the exit code.
pub fn run(launch: Box<Launch>, mut fds: VecDeque<OwnedFd>) -> i32 {
    let Some(control) = fds.pop_front() else {
        return 1;
    };
    let message = format!("container {} cannot be started yet", launch.id);
    let event = Event::StartFailed(Failure {
        kind: FailureKind::Internal,
        message,
    });
    let sent = crate::framing::encode(&crate::protocol::Message::Event(event))
        .and_then(|frame| crate::framing::send(&control, &frame, &[]));
    i32::from(sent.is_err())
}
