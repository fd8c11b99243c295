//! The owner's side of a keeper: requests with their answers, and events, on one socket.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use berth_keeper::protocol::{
    Event, FailureKind, KeeperState, Message, Reply, ReplyBody, Request, RequestBody, VERSION,
};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Result};
use crate::frame::Channel;

/// How long a keeper may take to accept a request; it does nothing that could block it.
const SEND_DEADLINE: Duration = Duration::from_secs(10);
/// How long a start of the daemon waits for a keeper to introduce itself. One that takes longer
/// (its disk hangs) stands by what it wrote at its container's start until it says more.
const HELLO_DEADLINE: Duration = Duration::from_secs(1);

/// Where a request's answer goes.
pub type Answer = oneshot::Sender<Result<ReplyBody>>;

/// A connection to one keeper.
#[derive(Debug)]
pub struct Keeper {
    channel: Channel,
    next: u64,
    waiting: HashMap<u64, Answer>,
}

impl Keeper {
    /// On the control socket that went with the launch.
    pub fn new(control: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            channel: Channel::new(control)?,
            next: 0,
            waiting: HashMap::new(),
        })
    }

    /// The way to a keeper that an earlier daemon left; `None` when none is there any more.
    pub fn find(directory: &Path) -> io::Result<Option<UnixStream>> {
        match berth_keeper::keeper::connect(directory) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Asks a keeper that was found how its container is. `None` when it ends without an answer.
    pub async fn reconnect(
        socket: UnixStream,
        directory: &Path,
    ) -> io::Result<Option<(Self, KeeperState)>> {
        let mut keeper = Self::new(socket.into())?;
        let hello = async {
            let (answer, mut answered) = oneshot::channel();
            keeper
                .request(RequestBody::Hello { version: VERSION }, Vec::new(), answer)
                .await;
            loop {
                let Some(message) = keeper.message().await? else {
                    return Ok(None);
                };
                // Events that come before the answer are in the state already.
                keeper.settle(message);
                match answered.try_recv() {
                    Ok(Ok(ReplyBody::State(state))) => return Ok(Some(state)),
                    Ok(other) => {
                        return Err(io::Error::other(format!("keeper answered {other:?}")));
                    }
                    Err(oneshot::error::TryRecvError::Empty) => {}
                    Err(oneshot::error::TryRecvError::Closed) => return Ok(None),
                }
            }
        };
        match tokio::time::timeout(HELLO_DEADLINE, hello).await {
            Ok(Ok(Some(state))) => Ok(Some((keeper, state))),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => match berth_keeper::keeper::read_state(directory) {
                Ok(Some(written)) => {
                    tracing::warn!(container = written.id, "its keeper does not respond yet");
                    Ok(Some((keeper, written)))
                }
                _ => Err(io::ErrorKind::TimedOut.into()),
            },
        }
    }

    /// Sends a request; `answer` is completed by a later [`Keeper::event`], or dropped when the
    /// keeper has ended.
    pub async fn request(&mut self, body: RequestBody, fds: Vec<OwnedFd>, answer: Answer) {
        self.next += 1;
        let seq = self.next;
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let request = Request { seq, body };
        let sent = tokio::time::timeout(SEND_DEADLINE, self.channel.send(&request, &fds)).await;
        match sent {
            Ok(Ok(())) => {
                self.waiting.insert(seq, answer);
            }
            Ok(Err(error)) if is_end(&error) => drop(answer),
            // Whoever asked may have gone.
            Ok(Err(error)) => {
                answer
                    .send(Err(Error::failed("ask the container's keeper", &error)))
                    .ok();
            }
            Err(_) => {
                answer
                    .send(Err(Error::internal(
                        "the container's keeper does not respond",
                    )))
                    .ok();
            }
        }
    }

    /// The next event; answers are handed out on the way. `None` when the keeper is gone. Cancel
    /// safe.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            match self.message().await {
                Ok(Some(message)) => {
                    if let Some(event) = self.settle(message) {
                        return Some(event);
                    }
                }
                Ok(None) => return None,
                Err(error) => {
                    tracing::warn!(%error, "lost a keeper");
                    return None;
                }
            }
        }
    }

    /// The next message; those of another version that this one does not know are passed over.
    async fn message(&mut self) -> io::Result<Option<Message>> {
        loop {
            match self.channel.receive().await {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    tracing::warn!(%error, "a keeper of another version says what is not understood");
                }
                received => return received,
            }
        }
    }

    fn settle(&mut self, message: Message) -> Option<Event> {
        match message {
            Message::Event(event) => Some(event),
            Message::Reply(Reply { seq, body }) => {
                let answer = self.waiting.remove(&seq)?;
                match answer.send(Ok(body)) {
                    // It introduces itself late, and had no more to say since its container's end.
                    Err(Ok(ReplyBody::State(state))) => state.exited.map(Event::Exited),
                    // Whoever asked may have gone.
                    _ => None,
                }
            }
        }
    }
}

/// The other side has closed; its last words may be unread.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// A keeper's refusal of a request as an error of the engine.
pub fn settled(body: ReplyBody) -> Result<ReplyBody> {
    match body {
        ReplyBody::Failed(failure) => Err(refusal(failure.kind, failure.message)),
        body => Ok(body),
    }
}

pub fn refusal(kind: FailureKind, message: String) -> Error {
    let kind = match kind {
        FailureKind::CommandNotFound
        | FailureKind::CommandNotExecutable
        | FailureKind::InvalidRequest => ErrorKind::Invalid,
        FailureKind::NotRunning => ErrorKind::Conflict,
        FailureKind::NotFound => ErrorKind::NotFound,
        FailureKind::Internal => ErrorKind::Internal,
    };
    Error::new(kind, message)
}
