//! Frames on a stream socket: a little-endian `u32` length, then that many bytes of JSON, with
//! descriptors beside the first byte (`runtime::protocol`).
//!
//! This is the asynchronous end of it; launcher and keepers have their own, without tokio. The
//! daemon only ever sends descriptors, so the receiving half is a plain read.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use berth_keeper::protocol::MAX_FRAME_BYTES;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// How many descriptors one frame carries at most; the kernel's own limit is 253.
pub const MAX_DESCRIPTORS: usize = 64;

const READ_BYTES: usize = 16 << 10;

/// One end of a connected stream socket that carries frames.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    input: Vec<u8>,
}

impl Channel {
    /// Takes the socket over and makes it non-blocking. Must be called inside a runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixStream::from_std(socket)?,
            input: Vec::new(),
        })
    }

    /// Sends one frame with its descriptors. Not cancel safe: a frame that was sent in part
    /// makes the stream useless, so whoever gives up on this drops the channel.
    pub async fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut frame = vec![0u8; 4];
        serde_json::to_writer(&mut frame, message)?;
        let length = frame.len() - 4;
        if length > MAX_FRAME_BYTES || fds.len() > MAX_DESCRIPTORS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a frame of {length} bytes with {} descriptors", fds.len()),
            ));
        }
        let header = u32::try_from(length).map_err(io::Error::other)?;
        frame[..4].copy_from_slice(&header.to_le_bytes());
        let mut sent = self.send_once(&frame, fds).await?;
        while sent < frame.len() {
            sent += self.send_once(&frame[sent..], &[]).await?;
        }
        Ok(())
    }

    async fn send_once(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let send = || {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(fds));
            }
            rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(bytes)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )
            .map_err(io::Error::from)
        };
        self.socket.async_io(Interest::WRITABLE, send).await
    }

    /// The next frame; `None` when the other side has closed. Cancel safe. `Unsupported`: a frame
    /// that cannot be read, after which others may come.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(message) = self.take_frame()? {
                return Ok(Some(message));
            }
            self.socket.readable().await?;
            let start = self.input.len();
            self.input.resize(start + READ_BYTES, 0);
            let result = self.socket.try_read(&mut self.input[start..]);
            self.input
                .truncate(start + result.as_ref().map_or(0, |count| *count));
            match result {
                Ok(0) if start == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionReset => return Ok(None),
                    _ => return Err(error),
                },
            }
        }
    }

    fn take_frame<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(header) = self.input.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a frame of {length} bytes"),
            ));
        }
        let Some(body) = self.input.get(4..4 + length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(body).map_err(|error| {
            // The next frame begins where this one ends, so that a message of another version can
            // be passed over.
            io::Error::new(io::ErrorKind::Unsupported, error)
        });
        self.input.drain(..4 + length);
        message.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order_whatever_their_size() {
        let (one, other) = UnixStream::pair().unwrap();
        let (one, mut other) = (
            Channel::new(one.into()).unwrap(),
            Channel::new(other.into()).unwrap(),
        );
        let big = "x".repeat(3 << 20);
        let send = async {
            for text in ["a", &big, "", "b"] {
                one.send(&text, &[]).await.unwrap();
            }
        };
        let receive = async {
            let mut seen = Vec::new();
            for _ in 0..4 {
                seen.push(other.receive::<String>().await.unwrap().unwrap());
            }
            seen
        };
        let (_, seen) = tokio::join!(send, receive);
        assert_eq!(seen, ["a", &big, "", "b"]);
        drop(one);
        assert_eq!(other.receive::<String>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn descriptors_travel_beside_the_first_byte() {
        let (one, other) = UnixStream::pair().unwrap();
        let channel = Channel::new(one.into()).unwrap();
        let (mut kept, passed) = UnixStream::pair().unwrap();
        channel.send(&"here", &[passed.as_fd()]).await.unwrap();
        drop(passed);

        let mut bytes = [0u8; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        rustix::net::recvmsg(
            &other,
            &mut [io::IoSliceMut::new(&mut bytes)],
            &mut control,
            rustix::net::RecvFlags::empty(),
        )
        .unwrap();
        let fds: Vec<OwnedFd> = control
            .drain()
            .flat_map(|message| match message {
                rustix::net::RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(fds.len(), 1);
        rustix::io::write(&fds[0], b"hi").unwrap();
        drop(fds);
        let mut text = String::new();
        kept.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi");
    }

    #[tokio::test]
    async fn an_oversized_frame_is_an_error() {
        let (one, other) = UnixStream::pair().unwrap();
        let mut channel = Channel::new(one.into()).unwrap();
        rustix::io::write(&other, &u32::MAX.to_le_bytes()).unwrap();
        assert!(channel.receive::<String>().await.is_err());
    }
}
