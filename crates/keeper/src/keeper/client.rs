//! One attached client: its socket, and what is on the way to it.
//!
//! ```text
//! Streaming ──end()──► Draining ──all sent──► Closing ──peer closed, or deadline──► gone
//!     └──────── peer vanished, send failed, no progress ────────────────────────────┘
//! ```
//!
//! A client's buffer is bounded: when it is full the keeper stops reading the process's output,
//! and the process waits, as with Docker. `Closing` reads what the client still sends: a socket
//! that is closed with unread input is reset, and the client would lose its last output.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, sendmsg, shutdown};

use super::detach::DetachKeys;
use crate::log::Stream;
use crate::protocol::AttachOptions;

/// From here on the process has to wait for this client.
pub const BUFFER_BYTES: usize = 1 << 20;

/// How long a client may take nothing once the output has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long a client may keep the connection once it has everything.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Streaming,
    Draining { progress: Instant },
    Closing { since: Instant },
    Gone,
}

/// What a client's side of the connection brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    Nothing,
    /// Its side is at its end.
    Ended,
    Detached,
}

#[derive(Debug)]
pub struct Client {
    /// Which process it is attached to.
    pub process: u32,
    pub options: AttachOptions,
    socket: OwnedFd,
    phase: Phase,
    keys: DetachKeys,
    /// Its input is still read.
    typing: bool,
    /// It is being told what came before: output waits.
    hold: Option<u32>,
    out: Vec<u8>,
    /// How much of `out` has been sent.
    sent: usize,
}

impl Client {
    pub fn new(process: u32, options: AttachOptions, socket: OwnedFd, has_terminal: bool) -> Self {
        // Docker knows detach keys on terminals only.
        let keys = if has_terminal {
            options.detach_keys.clone()
        } else {
            Vec::new()
        };
        Self {
            process,
            socket,
            phase: Phase::Streaming,
            keys: DetachKeys::new(keys),
            typing: options.stdin,
            hold: None,
            out: Vec::new(),
            sent: 0,
            options,
        }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Output waits from now on for [`Client::release`] with the same name.
    pub fn hold(&mut self, name: u32) {
        self.hold = Some(name);
    }

    pub fn hold_name(&self) -> Option<u32> {
        self.hold
    }

    pub fn release(&mut self, now: Instant) {
        if self.hold.take().is_some() {
            self.flush(now);
        }
    }

    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    pub fn is_full(&self) -> bool {
        self.out.len() - self.sent >= BUFFER_BYTES
    }

    /// What to poll for; `None` leaves the client out of the poll, since a hang-up that is known
    /// already would be reported again and again.
    pub fn interest(&self, input_has_room: bool) -> Option<PollFlags> {
        let mut flags = PollFlags::empty();
        match self.phase {
            Phase::Streaming if self.typing && input_has_room => flags |= PollFlags::IN,
            Phase::Closing { .. } => flags |= PollFlags::IN,
            Phase::Gone => return None,
            _ => (),
        }
        if self.sent < self.out.len() && self.hold.is_none() {
            flags |= PollFlags::OUT;
        }
        let waits_for_room = self.phase == Phase::Streaming && self.typing && !input_has_room;
        (!flags.is_empty() || !waits_for_room).then_some(flags)
    }

    /// Sends a piece of output, or keeps it for later.
    pub fn offer(&mut self, stream: Stream, piece: &[u8]) {
        let wanted = match stream {
            Stream::Stdout => self.options.stdout,
            Stream::Stderr => self.options.stderr,
        };
        if !wanted || self.phase != Phase::Streaming {
            return;
        }
        let header = if self.options.multiplexed {
            Some(header(stream, piece.len()))
        } else {
            None
        };
        let header = header.as_ref().map_or(&[][..], |header| header.as_slice());
        let mut taken = 0;
        if self.out.is_empty() && self.hold.is_none() {
            match send(self.fd(), &[IoSlice::new(header), IoSlice::new(piece)]) {
                Ok(count) => taken = count,
                Err(_gone) => return self.phase = Phase::Gone,
            }
        }
        self.out
            .extend_from_slice(header.get(taken..).unwrap_or_default());
        self.out
            .extend_from_slice(&piece[taken.saturating_sub(header.len())..]);
    }

    /// Sends what is kept.
    pub fn flush(&mut self, now: Instant) {
        if self.hold.is_some() {
            return;
        }
        while self.sent < self.out.len() {
            match send(self.socket.as_fd(), &[IoSlice::new(&self.out[self.sent..])]) {
                Ok(0) => return,
                Ok(count) => {
                    self.sent += count;
                    if let Phase::Draining { progress } = &mut self.phase {
                        *progress = now;
                    }
                }
                Err(_gone) => return self.phase = Phase::Gone,
            }
        }
        self.out = Vec::new();
        self.sent = 0;
        if let Phase::Draining { .. } = self.phase {
            let _ = shutdown(&self.socket, Shutdown::Write);
            self.phase = Phase::Closing { since: now };
            self.discard_input();
        }
    }

    /// There will be no more output.
    pub fn end(&mut self, now: Instant) {
        if self.phase == Phase::Streaming {
            self.phase = Phase::Draining { progress: now };
            self.typing = false;
            self.flush(now);
        }
    }

    /// Handles what `poll` reported. What is meant for the process is appended to `typed`.
    pub fn ready(&mut self, events: PollFlags, typed: &mut Vec<u8>, now: Instant) -> Input {
        if events.contains(PollFlags::OUT) {
            self.flush(now);
        }
        match self.phase {
            Phase::Closing { .. } if events.intersects(PollFlags::IN | PollFlags::HUP) => {
                self.discard_input();
                Input::Nothing
            }
            Phase::Streaming if self.typing && events.contains(PollFlags::IN) => self.read(typed),
            Phase::Streaming | Phase::Draining { .. }
                if events.intersects(PollFlags::HUP | PollFlags::ERR) =>
            {
                self.phase = Phase::Gone;
                if self.typing {
                    Input::Ended
                } else {
                    Input::Nothing
                }
            }
            _ => Input::Nothing,
        }
    }

    /// When [`Client::expire`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Draining { progress } => Some(progress + DRAIN_TIMEOUT),
            Phase::Closing { since } => Some(since + CLOSE_TIMEOUT),
            Phase::Streaming | Phase::Gone => None,
        }
    }

    pub fn expire(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.phase = Phase::Gone;
        }
    }

    fn read(&mut self, typed: &mut Vec<u8>) -> Input {
        let mut piece = [0; 8192];
        match recv(&self.socket, &mut piece, RecvFlags::DONTWAIT) {
            Ok((0, _)) => self.input_ended(),
            Ok((count, _)) => {
                if self.keys.filter(&piece[..count], typed) {
                    self.typing = false;
                    return Input::Detached;
                }
                Input::Nothing
            }
            Err(Errno::AGAIN | Errno::INTR) => Input::Nothing,
            Err(_gone) => {
                self.phase = Phase::Gone;
                self.input_ended()
            }
        }
    }

    fn input_ended(&mut self) -> Input {
        self.typing = false;
        Input::Ended
    }

    fn discard_input(&mut self) {
        let mut piece = [0; 4096];
        loop {
            match recv(&self.socket, &mut piece, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => return,
                Ok((0, _)) | Err(_) => return self.phase = Phase::Gone,
                Ok(_) => (),
            }
        }
    }
}

/// Docker's frame header for one piece of output.
fn header(stream: Stream, length: usize) -> [u8; 8] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let kind = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    [kind, 0, 0, 0, length[0], length[1], length[2], length[3]]
}

/// `Ok(0)`: the socket takes nothing now. The socket's own mode is left alone, because the daemon
/// may share it.
fn send(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let mut none = SendAncillaryBuffer::default();
    match sendmsg(
        socket,
        parts,
        &mut none,
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    ) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn client(stdin: bool, multiplexed: bool) -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let detach_keys = vec![16, 17];
        let options = AttachOptions {
            stdin,
            stdout: true,
            stderr: false,
            multiplexed,
            detach_keys,
        };
        (Client::new(0, options, ours.into(), true), theirs)
    }

    #[test]
    fn output_is_framed_and_followed_by_the_end() {
        let (mut client, mut peer) = client(false, true);
        client.offer(Stream::Stdout, b"one");
        client.offer(Stream::Stderr, b"not wanted");
        client.end(Instant::now());
        let mut text = Vec::new();
        peer.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"\x01\0\0\0\0\0\0\x03one");
        drop(peer);
        client.ready(PollFlags::HUP, &mut Vec::new(), Instant::now());
        assert!(client.is_gone());
    }

    #[test]
    fn a_client_that_does_not_read_fills_up_and_loses_nothing() {
        let (mut client, mut peer) = client(false, true);
        let mut pieces = 0_usize;
        while !client.is_full() {
            client.offer(Stream::Stdout, &[b'x'; 1000]);
            pieces += 1;
        }
        assert_eq!(client.interest(true), Some(PollFlags::OUT));
        client.end(Instant::now());
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        while !client.is_gone() {
            client.ready(
                PollFlags::OUT | PollFlags::IN,
                &mut Vec::new(),
                Instant::now(),
            );
        }
        let all = reader.join().unwrap();
        assert_eq!(all.len(), pieces * 1008);
        assert!(
            all.chunks(1008)
                .all(|frame| frame[..8] == header(Stream::Stdout, 1000))
        );
    }

    #[test]
    fn a_held_client_gets_everything_when_it_is_released() {
        let (mut client, mut peer) = client(false, false);
        peer.set_nonblocking(true).unwrap();
        client.hold(7);
        client.offer(Stream::Stdout, b"one ");
        client.offer(Stream::Stdout, b"two");
        client.end(Instant::now());
        assert!(peer.read(&mut [0; 1]).is_err(), "nothing has come");
        client.release(Instant::now());
        let mut text = Vec::new();
        peer.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"one two");
    }

    #[test]
    fn a_vanished_client_is_dropped() {
        let (mut client, peer) = client(false, false);
        drop(peer);
        client.offer(Stream::Stdout, b"x");
        assert!(client.is_gone());
    }

    #[test]
    fn what_was_typed_before_the_hang_up_arrives() {
        let (mut client, mut peer) = client(true, false);
        peer.write_all(b"last words").unwrap();
        drop(peer);
        let mut typed = Vec::new();
        let both = PollFlags::IN | PollFlags::HUP;
        assert_eq!(
            client.ready(both, &mut typed, Instant::now()),
            Input::Nothing
        );
        assert_eq!(typed, b"last words");
        assert_eq!(client.ready(both, &mut typed, Instant::now()), Input::Ended);
    }
}
