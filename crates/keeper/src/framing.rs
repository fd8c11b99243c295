//! Frames of the private protocol on stream sockets, with descriptors beside them.
//!
//! A frame is a little-endian `u32` length and that many bytes of JSON. Descriptors travel with
//! the frame's first byte and are received in order, so a [`Decoder`] keeps them in a queue, and
//! the message says how many of them are its own. Nothing here blocks or knows an event loop:
//! the daemon uses the same functions from its asynchronous side.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::fdpass::{MAX_FDS, recv_some, send_some};
use rustix::net::{RecvFlags, SendFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::MAX_FRAME_BYTES;

/// What [`recv`] gives: a frame's JSON, and the descriptors that came along.
pub type Frame = (Vec<u8>, VecDeque<OwnedFd>);

const HEADER_BYTES: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("write a message as JSON")]
    Encode(#[source] serde_json::Error),
    #[error("read a message of {length} bytes")]
    Decode {
        length: usize,
        source: serde_json::Error,
    },
    #[error("a message of {0} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLong(usize),
    #[error("the other side closed the connection")]
    Closed,
    #[error("a message came without its descriptor")]
    MissingFd,
    #[error("a message with {0} descriptors is over the limit of {MAX_FDS}")]
    TooManyFds(usize),
    #[error("transfer a message")]
    Io(#[from] io::Error),
}

/// One frame, ready to be sent.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    let mut frame = vec![0; HEADER_BYTES];
    serde_json::to_writer(&mut frame, message).map_err(Error::Encode)?;
    let length = frame.len() - HEADER_BYTES;
    let header = u32::try_from(length).map_err(|_wide| Error::TooLong(length))?;
    if length > MAX_FRAME_BYTES {
        return Err(Error::TooLong(length));
    }
    frame[..HEADER_BYTES].copy_from_slice(&header.to_le_bytes());
    Ok(frame)
}

/// Sends a whole frame over a blocking socket.
pub fn send(socket: impl AsFd, frame: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
    if fds.len() > MAX_FDS {
        return Err(Error::TooManyFds(fds.len()));
    }
    let mut sent = 0;
    while sent < frame.len() {
        let fds = if sent == 0 { fds } else { &[] };
        sent += send_some(&socket, &frame[sent..], fds, SendFlags::empty())?;
    }
    Ok(())
}

/// Receives the JSON of one frame and its descriptors from a blocking socket. `None` is the end
/// of the stream between two frames.
pub fn recv(socket: impl AsFd) -> Result<Option<Frame>, Error> {
    let mut fds = VecDeque::new();
    let mut header = [0; HEADER_BYTES];
    if !fill(&socket, &mut header, &mut fds)? {
        return Ok(None);
    }
    let length = frame_length(header)?;
    let mut body = vec![0; length];
    if !fill(&socket, &mut body, &mut fds)? {
        return Err(Error::Closed);
    }
    Ok(Some((body, fds)))
}

/// The message in one frame's JSON.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|source| Error::Decode {
        length: body.len(),
        source,
    })
}

/// `false` when the stream ended before the first byte.
fn fill(socket: impl AsFd, buffer: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> Result<bool, Error> {
    let mut filled = 0;
    while filled < buffer.len() {
        match recv_some(&socket, &mut buffer[filled..], fds, RecvFlags::empty())? {
            0 if filled == 0 => return Ok(false),
            0 => return Err(Error::Closed),
            count => filled += count,
        }
    }
    Ok(true)
}

fn frame_length(header: [u8; HEADER_BYTES]) -> Result<usize, Error> {
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_FRAME_BYTES {
        Err(Error::TooLong(length))
    } else {
        Ok(length)
    }
}

/// Puts frames together from what arrives in pieces, for non-blocking sockets.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    fds: VecDeque<OwnedFd>,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Receives once from a socket; `Ok(0)` is the end of the stream.
    pub fn fill_from(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let mut piece = [0; 4096];
        let count = recv_some(socket, &mut piece, &mut self.fds, RecvFlags::DONTWAIT)?;
        self.push(&piece[..count]);
        Ok(count)
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub fn push_fd(&mut self, fd: OwnedFd) {
        self.fds.push_back(fd);
    }

    /// The next whole message, if there is one. After an error the stream cannot be used.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        self.next_as(decode)
    }

    /// The same with a way to read it that may look twice.
    pub fn next_as<T>(
        &mut self,
        read: impl FnOnce(&[u8]) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let pending = &self.buffer[self.start..];
        let Some(header) = pending.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = frame_length(*header)?;
        let Some(body) = pending.get(HEADER_BYTES..HEADER_BYTES + length) else {
            return Ok(None);
        };
        let message = read(body)?;
        self.start += HEADER_BYTES + length;
        if self.start == self.buffer.len() {
            self.buffer = Vec::new();
            self.start = 0;
        }
        Ok(Some(message))
    }

    /// Closes the descriptors that have arrived: nobody knows which message they belong to.
    pub fn drop_fds(&mut self) {
        self.fds.clear();
    }

    /// The next descriptor, which belongs to the message that [`Decoder::next_message`] gave last.
    pub fn take_fd(&mut self) -> Result<OwnedFd, Error> {
        self.fds.pop_front().ok_or(Error::MissingFd)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::protocol::{LauncherReply, Message, Reply, ReplyBody};

    #[test]
    fn frames_survive_any_splitting() {
        let mut stream = Vec::new();
        for seq in 0..3 {
            stream.extend(
                encode(&Message::Reply(Reply {
                    seq,
                    body: ReplyBody::Done,
                }))
                .unwrap(),
            );
        }
        for step in 1..stream.len() {
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                decoder.push(piece);
                while let Some(Message::Reply(reply)) = decoder.next_message().unwrap() {
                    seen.push(reply.seq);
                }
            }
            assert_eq!(seen, [0, 1, 2], "in pieces of {step}");
        }
    }

    #[test]
    fn descriptors_arrive_with_their_message() {
        let (a, b) = UnixStream::pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let long = LauncherReply::Failed {
            message: "x".repeat(100_000),
        };
        let frame = encode(&long).unwrap();
        let sender = std::thread::spawn(move || send(&a, &frame, &[writer.as_fd()]));
        let (body, mut fds) = recv(&b).unwrap().unwrap();
        sender.join().unwrap().unwrap();
        let LauncherReply::Failed { message } = decode(&body).unwrap() else {
            panic!("kind")
        };
        assert_eq!(message.len(), 100_000);
        rustix::io::write(fds.pop_front().unwrap(), b"through").unwrap();
        let mut text = [0; 7];
        rustix::io::read(&reader, &mut text).unwrap();
        assert_eq!(&text, b"through");
        assert!(recv(&b).unwrap().is_none());
    }

    #[test]
    fn a_frame_over_the_limit_is_refused() {
        let mut decoder = Decoder::new();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(
            decoder.next_message::<LauncherReply>(),
            Err(Error::TooLong(_))
        ));
    }
}
