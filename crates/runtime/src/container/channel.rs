//! What the caller and the forked process say to each other until the command is executed.
//!
//! A SEQPACKET socket pair, so a message is a packet: one letter, then its body. The socket is
//! close-on-exec: its end without an error is the news that the command runs.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_sys::fdpass;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{Error, ErrorKind};

/// The largest message: an error's sentence.
const MAX_BYTES: usize = 8192;

/// From the forked process.
#[derive(Debug)]
pub(crate) enum Report {
    /// The master of its terminal.
    Console(OwnedFd),
    Warning(String),
    /// The mounts are made, and hooks are to be run; waits for [`Order::GoOn`].
    Mounted,
    /// Set up; waits for [`Order::Start`].
    Ready,
    /// The filter is in force, and its agent shall get the descriptor of this number; waits for
    /// [`Channel::order_to_the_filtered`].
    Listener(i32),
    Failed(Error),
    /// The socket closed: the command runs, or the process died.
    Closed,
}

/// To the forked process.
#[derive(Debug)]
pub(crate) enum Order {
    /// The cgroups are there: the doors of version 1, and what is to be mounted of them.
    Join(Vec<OwnedFd>),
    /// The user namespace has its mappings.
    Mapped,
    /// The runtime's hooks were run.
    GoOn,
    Start,
    /// The caller is gone or gave up.
    Closed,
}

pub(crate) struct Channel(OwnedFd);

pub(crate) fn pair() -> io::Result<(Channel, Channel)> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((Channel(ours), Channel(theirs)))
}

impl From<OwnedFd> for Channel {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Channel {
    pub fn report_console(&self, master: BorrowedFd<'_>) -> io::Result<()> {
        self.send(b'C', b"", &[master])
    }

    pub fn report_warning(&self, text: &str) -> io::Result<()> {
        self.send(b'W', text.as_bytes(), &[])
    }

    pub fn report_mounted(&self) -> io::Result<()> {
        self.send(b'M', b"", &[])
    }

    pub fn report_ready(&self) -> io::Result<()> {
        self.send(b'R', b"", &[])
    }

    /// By write(2): a filter may be in force that refuses all else. Then waits, by read(2), and
    /// tells whether to go on.
    pub fn report_listener(&self, number: i32) -> io::Result<bool> {
        let mut packet = [b'L'; 5];
        packet[1..].copy_from_slice(&number.to_ne_bytes());
        rustix::io::write(&self.0, &packet)?;
        let mut answer = [0];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut answer))?;
        Ok(length == 1)
    }

    pub fn order_to_the_filtered(&self) -> io::Result<()> {
        self.send(b'A', b"", &[])
    }

    pub fn report_failure(&self, error: &Error) -> io::Result<()> {
        let mut body = vec![kind_letter(error.kind)];
        body.extend_from_slice(error.message.as_bytes());
        body.truncate(MAX_BYTES - 1);
        self.send(b'E', &body, &[])
    }

    pub fn order_join(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send(b'J', b"", descriptors)
    }

    pub fn order_mapped(&self) -> io::Result<()> {
        self.send(b'U', b"", &[])
    }

    pub fn order_go_on(&self) -> io::Result<()> {
        self.send(b'G', b"", &[])
    }

    pub fn order_start(&self) -> io::Result<()> {
        self.send(b'S', b"", &[])
    }

    pub fn report(&self) -> io::Result<Report> {
        let (packet, mut descriptors) = self.receive()?;
        Ok(match packet.split_first() {
            None => Report::Closed,
            Some((b'L', number)) => match number.try_into() {
                Ok(number) => Report::Listener(i32::from_ne_bytes(number)),
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            },
            Some((b'M', _)) => Report::Mounted,
            Some((b'R', _)) => Report::Ready,
            Some((b'W', text)) => Report::Warning(String::from_utf8_lossy(text).into_owned()),
            Some((b'C', _)) => match descriptors.pop() {
                Some(master) => Report::Console(master),
                None => return Err(io::ErrorKind::InvalidData.into()),
            },
            Some((b'E', [kind, text @ ..])) => Report::Failed(Error::new(
                letter_kind(*kind),
                String::from_utf8_lossy(text).into_owned(),
            )),
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
        })
    }

    pub fn order(&self) -> io::Result<Order> {
        let (packet, descriptors) = self.receive()?;
        match packet.first() {
            None => Ok(Order::Closed),
            Some(b'J') => Ok(Order::Join(descriptors)),
            Some(b'U') => Ok(Order::Mapped),
            Some(b'G') => Ok(Order::GoOn),
            Some(b'S') => Ok(Order::Start),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn send(&self, tag: u8, body: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let packet = [&[tag], body].concat();
        // A packet goes whole or not at all.
        fdpass::send_some(&self.0, &packet, descriptors, SendFlags::empty()).map(drop)
    }

    fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let (mut body, mut descriptors) = (vec![0; MAX_BYTES], VecDeque::new());
        let length = loop {
            match fdpass::recv_some(&self.0, &mut body, &mut descriptors, RecvFlags::empty()) {
                // The other side died with a message of ours unread. The kernel says so once, and
                // before what the other side had said last.
                Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => {}
                received => break received?,
            }
        };
        body.truncate(length);
        Ok((body, descriptors.into()))
    }
}

fn kind_letter(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::CommandNotFound => b'f',
        ErrorKind::CommandNotExecutable => b'x',
        ErrorKind::InvalidRequest => b'i',
        ErrorKind::NotRunning => b'r',
        ErrorKind::NotFound => b'n',
        ErrorKind::Internal => b'e',
    }
}

fn letter_kind(letter: u8) -> ErrorKind {
    match letter {
        b'f' => ErrorKind::CommandNotFound,
        b'x' => ErrorKind::CommandNotExecutable,
        b'i' => ErrorKind::InvalidRequest,
        b'r' => ErrorKind::NotRunning,
        b'n' => ErrorKind::NotFound,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_kind_and_words() {
        let (ours, theirs) = pair().unwrap();
        let error = Error::new(ErrorKind::CommandNotFound, "exec: \"x\"");
        theirs.report_failure(&error).unwrap();
        assert!(matches!(ours.report().unwrap(), Report::Failed(e) if e == error));
        drop(theirs);
        assert!(matches!(ours.report().unwrap(), Report::Closed));
    }

    #[test]
    fn the_last_words_of_one_who_did_not_listen_are_heard() {
        let (ours, theirs) = pair().unwrap();
        ours.order_start().unwrap();
        theirs.report_failure(&Error::internal("x")).unwrap();
        drop(theirs);
        assert!(matches!(ours.report().unwrap(), Report::Failed(e) if e.message == "x"));
        assert!(matches!(ours.report().unwrap(), Report::Closed));
    }

    #[test]
    fn descriptors_travel_in_order() {
        let (ours, theirs) = pair().unwrap();
        let (a, b) = rustix::pipe::pipe().unwrap();
        ours.order_join(&[b.as_fd(), a.as_fd()]).unwrap();
        let Order::Join(received) = theirs.order().unwrap() else {
            panic!("wrong order")
        };
        rustix::io::write(&received[0], b"x").unwrap();
        let mut byte = [0];
        rustix::io::read(&received[1], &mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
}
