//! Netlink sockets: requests with their acknowledgements, and dumps.
//!
//! A socket belongs for ever to the network namespace of the thread that opened it. All calls
//! block, with [`TIMEOUT`] as the deadline of each answer.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt,
};

pub mod attributes;
pub mod conntrack;
pub mod route;

/// How long an answer of the kernel may take.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The largest part of a dump that the kernel sends is 32 KiB.
const RECEIVE_BYTES: usize = 64 << 10;
/// Above this a request needs a larger send buffer than the default.
const DEFAULT_SEND_BYTES: usize = 128 << 10;

const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

pub const NLM_F_REQUEST: u16 = 0x1;
pub const NLM_F_ACK: u16 = 0x4;
pub const NLM_F_DUMP: u16 = 0x300;
pub const NLM_F_REPLACE: u16 = 0x100;
pub const NLM_F_EXCL: u16 = 0x200;
pub const NLM_F_CREATE: u16 = 0x400;
pub const NLM_F_APPEND: u16 = 0x800;

/// A socket of `NETLINK_ROUTE` or `NETLINK_NETFILTER`.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Messages that are sent together. The kernel handles them in order.
#[derive(Default)]
pub struct Messages {
    bytes: Vec<u8>,
    count: u32,
}

/// One message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub kind: u16,
    pub payload: Vec<u8>,
}

/// The kernel's refusal.
#[derive(Debug)]
pub struct Error {
    /// Which message of the request, counted from 0.
    pub index: u32,
    pub errno: i32,
    /// The kernel's own words, if it had any.
    pub message: Option<String>,
}

impl Socket {
    pub fn route() -> io::Result<Socket> {
        Socket::open(libc::NETLINK_ROUTE)
    }

    pub fn netfilter() -> io::Result<Socket> {
        Socket::open(libc::NETLINK_NETFILTER)
    }

    fn open(protocol: i32) -> io::Result<Socket> {
        let protocol = u32::try_from(protocol)
            .ok()
            .and_then(std::num::NonZeroU32::new);
        let protocol = protocol.map(Protocol::from_raw);
        let flags = SocketFlags::CLOEXEC;
        let fd =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(TIMEOUT))?;
        // Without an address of its own the socket gets no events of a multicast group.
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        // Refusals carry the kernel's words, and do not repeat the request.
        set_option(&fd, libc::NETLINK_EXT_ACK, 1)?;
        set_option(&fd, libc::NETLINK_CAP_ACK, 1)?;
        Ok(Socket {
            fd,
            sequence: 0,
            buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// Makes the socket receive what happens in a multicast group.
    pub fn subscribe(&self, group: u32) -> io::Result<()> {
        set_option(&self.fd, libc::NETLINK_ADD_MEMBERSHIP, group)
    }

    /// Throws away the events that have arrived. Lost ones (`ENOBUFS`) count as arrived.
    pub fn drain(&mut self) -> io::Result<()> {
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Sends the messages and waits until each was acknowledged or refused; the first refusal is
    /// returned, after all were handled. Each must have `NLM_F_ACK`.
    pub fn execute(&mut self, messages: Messages) -> Result<Vec<Reply>, Error> {
        let mut replies = Vec::new();
        self.converse(messages, false, &mut |kind, payload| {
            replies.push(Reply::new(kind, payload));
        })?;
        Ok(replies)
    }

    /// Sends a batch of nfnetlink: all or nothing; its last message but the closing one must have
    /// `NLM_F_ACK`.
    pub fn execute_batch(&mut self, messages: Messages) -> Result<(), Error> {
        self.converse(messages, true, &mut |_, _| {})
    }

    /// One message with `NLM_F_DUMP`, answered by many.
    pub fn dump(&mut self, messages: Messages) -> Result<Vec<Reply>, Error> {
        self.execute(messages)
    }

    /// As [`Socket::dump`], where the answers may be too many to keep: each is seen as it comes.
    pub fn dump_each(
        &mut self,
        messages: Messages,
        mut see: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        self.converse(messages, false, &mut |_, payload| see(payload))
    }

    /// Ends with the end of a dump or with the answer to the last message that asked for one. A
    /// batch that is refused as a whole is answered at its beginning, perhaps with nothing after.
    fn converse(
        &mut self,
        mut messages: Messages,
        batch: bool,
        see: &mut dyn FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        let first = self.sequence.wrapping_add(1);
        let last_asking = messages.number(first);
        self.sequence = self.sequence.wrapping_add(messages.count);
        self.send(&messages.bytes)?;
        let mut refusal = None;
        loop {
            let flags = RecvFlags::empty();
            let (received, _) = rustix::net::recv(&self.fd, &mut self.buffer[..], flags)?;
            let mut rest = &self.buffer[..received];
            while let Some((header, payload, next)) = split_message(rest) {
                rest = next;
                let index = header.sequence.wrapping_sub(first);
                if index >= messages.count {
                    continue; // left over from a request that ended early
                }
                match header.kind {
                    NLMSG_DONE => return refusal.map_or(Ok(()), Err),
                    NLMSG_ERROR => {
                        let error = Error::parse(index, payload);
                        let whole = batch && index == 0 && error.is_some();
                        refusal = refusal.or(error);
                        if whole || index == last_asking {
                            return refusal.map_or(Ok(()), Err);
                        }
                    }
                    kind => see(kind, payload),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > DEFAULT_SEND_BYTES {
            sockopt::set_socket_send_buffer_size_force(&self.fd, bytes.len() * 2)?;
        }
        rustix::net::send(&self.fd, bytes, SendFlags::empty())?;
        Ok(())
    }
}

impl Messages {
    pub fn new() -> Messages {
        Messages::default()
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Appends a message; `write` appends its payload.
    pub fn push(&mut self, kind: u16, flags: u16, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend([0; HEADER_BYTES]);
        write(&mut self.bytes);
        attributes::pad(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        let header = &mut self.bytes[start..start + HEADER_BYTES];
        header[0..4].copy_from_slice(&length.to_ne_bytes());
        header[4..6].copy_from_slice(&kind.to_ne_bytes());
        header[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.count += 1;
    }

    /// Gives the messages their sequence numbers, and says which one is the last that asks for an
    /// acknowledgement.
    fn number(&mut self, first: u32) -> u32 {
        let (mut at, mut index, mut last_asking) = (0, 0, 0);
        while let Some(header) = self.bytes.get_mut(at..at + HEADER_BYTES) {
            header[8..12].copy_from_slice(&first.wrapping_add(index).to_ne_bytes());
            if u16::from_ne_bytes([header[6], header[7]]) & NLM_F_ACK != 0 {
                last_asking = index;
            }
            at += u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            index += 1;
        }
        last_asking
    }
}

struct Header {
    kind: u16,
    sequence: u32,
}

/// The first message of `bytes`, its payload, and what follows it.
fn split_message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = attributes::u32_at(bytes, 0)? as usize;
    let payload = bytes.get(HEADER_BYTES..length)?;
    let header = Header {
        kind: attributes::u16_at(bytes, 4)?,
        sequence: attributes::u32_at(bytes, 8)?,
    };
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((header, payload, next))
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn set_option(fd: &impl AsFd, option: i32, value: u32) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const value).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

impl Reply {
    fn new(kind: u16, payload: &[u8]) -> Self {
        Self {
            kind,
            payload: payload.to_vec(),
        }
    }
}

impl Error {
    /// `None` is an acknowledgement.
    fn parse(index: u32, payload: &[u8]) -> Option<Error> {
        const NLMSGERR_ATTR_MSG: u16 = 1;
        let code = attributes::u32_at(payload, 0).map_or(-libc::EPROTO, u32::cast_signed);
        if code == 0 {
            return None;
        }
        // The error is followed by the request's header (its body is left out by CAP_ACK).
        let attributes = payload.get(4 + HEADER_BYTES..).unwrap_or_default();
        let message = attributes::find(attributes, NLMSGERR_ATTR_MSG).map(attributes::text);
        Some(Error {
            index,
            errno: -code,
            message,
        })
    }

    pub fn is(&self, errno: i32) -> bool {
        self.errno == errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        match &self.message {
            Some(message) => write!(f, "{error}: {message}"),
            None => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error {
            index: 0,
            errno: errno.raw_os_error(),
            message: None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error {
            index: 0,
            errno: error.raw_os_error().unwrap_or(libc::EIO),
            message: None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = io::Error::from_raw_os_error(error.errno).kind();
        io::Error::new(kind, error)
    }
}
