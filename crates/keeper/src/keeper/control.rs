//! A connection to the daemon: requests in, replies and events out, never waiting.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::framing::{self, Decoder};
use crate::protocol::{Event, Failure, FailureKind, Message, Reply, ReplyBody, Request};
use berth_sys::fdpass;
use serde::Deserialize;

/// A daemon that lets this much wait is taken for dead.
const BUFFER_BYTES: usize = 16 << 20;

/// All that can be said of a request from the future.
#[derive(Deserialize)]
struct Unknown {
    seq: u64,
}

#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    decoder: Decoder,
    out: Vec<u8>,
    is_gone: bool,
    /// It receives events: since its `Hello`, or from the launch on.
    pub is_subscribed: bool,
}

impl Connection {
    pub fn new(socket: OwnedFd, is_subscribed: bool) -> Self {
        Self {
            socket,
            decoder: Decoder::new(),
            out: Vec::new(),
            is_gone: false,
            is_subscribed,
        }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    pub fn has_unsent(&self) -> bool {
        !self.is_gone && !self.out.is_empty()
    }

    pub fn interest(&self) -> PollFlags {
        if self.out.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::IN | PollFlags::OUT
        }
    }

    /// Waits for the byte that opens the gate of a start. `false`: nobody wants the container any
    /// more.
    pub fn await_go(&self) -> bool {
        let mut byte = [0];
        loop {
            match rustix::io::read(&self.socket, &mut byte) {
                Err(Errno::INTR) => {}
                read => return read == Ok(1),
            }
        }
    }

    /// Reads what has arrived. After a broken message the connection is given up.
    pub fn receive(&mut self) {
        loop {
            match self.decoder.fill_from(&self.socket) {
                Ok(0) => return self.is_gone = true,
                Ok(_) => (),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_gone) => return self.is_gone = true,
            }
        }
    }

    /// A request that a newer daemon has learnt since is refused here, and the next one given.
    pub fn next_request(&mut self) -> Option<Request> {
        loop {
            let read = |body: &[u8]| match framing::decode(body) {
                Ok(request) => Ok(Ok(request)),
                Err(error) => framing::decode::<Unknown>(body)
                    .map(|unknown| Err((unknown, error.to_string()))),
            };
            match self.decoder.next_as(read) {
                Ok(None) => return None,
                Ok(Some(Ok(request))) => return Some(request),
                Ok(Some(Err((unknown, message)))) => {
                    self.decoder.drop_fds();
                    let kind = FailureKind::InvalidRequest;
                    self.reply(unknown.seq, ReplyBody::Failed(Failure { kind, message }));
                }
                Err(_broken) => {
                    self.is_gone = true;
                    return None;
                }
            }
        }
    }

    /// The descriptor that belongs to the request just received.
    pub fn take_fd(&mut self) -> Result<OwnedFd, framing::Error> {
        self.decoder.take_fd()
    }

    pub fn reply(&mut self, seq: u64, body: ReplyBody) {
        self.send(&Message::Reply(Reply { seq, body }));
    }

    pub fn event(&mut self, event: &Event) {
        if self.is_subscribed {
            self.send(&Message::Event(event.clone()));
        }
    }

    pub fn flush(&mut self) {
        while !self.out.is_empty() && !self.is_gone {
            match fdpass::send_some(&self.socket, &self.out, &[], SendFlags::DONTWAIT) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => return,
                Err(_gone) => self.is_gone = true,
            }
        }
    }

    fn send(&mut self, message: &Message) {
        match framing::encode(message) {
            Ok(frame) if self.out.len() + frame.len() <= BUFFER_BYTES => {
                self.out.extend_from_slice(&frame);
                self.flush();
            }
            _ => self.is_gone = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::protocol::RequestBody;

    #[test]
    fn a_request_from_the_future_is_refused_and_the_next_one_is_heard() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours.into(), false);
        let future = serde_json::json!({"seq": 7, "op": "sing", "song": "x"});
        let known = Request {
            seq: 8,
            body: RequestBody::Pause,
        };
        for frame in [framing::encode(&future), framing::encode(&known)] {
            framing::send(&theirs, &frame.unwrap(), &[]).unwrap();
        }
        connection.receive();
        assert_eq!(connection.next_request().unwrap().seq, 8);
        assert!(!connection.is_gone());
        let (body, _) = framing::recv(&theirs).unwrap().unwrap();
        let Message::Reply(Reply { seq: 7, body }) = framing::decode(&body).unwrap() else {
            panic!("an answer")
        };
        assert!(matches!(body, ReplyBody::Failed(_)));
    }
}
