//! A relayed connection: two sockets, and what is on its way in each direction.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Pieces a direction may pass on before other connections have their turn.
const TURNS: usize = 16;

/// Client and container, joined.
pub struct Pair {
    pub client: TcpStream,
    pub target: TcpStream,
    upward: Direction,
    downward: Direction,
}

#[derive(Default)]
struct Direction {
    /// Read, and not yet taken by the other side.
    pending: Vec<u8>,
    ended: bool,
    closed: bool,
}

/// What became of a connection in its turn.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Both sides have nothing more to give for now.
    Waits,
    /// There is more to do.
    Again,
    Over,
}

enum Passed {
    Waits,
    Again,
}

impl Pair {
    /// Begins to connect to the container.
    pub fn connect(client: TcpStream, address: IpAddr, port: u16) -> io::Result<Pair> {
        client.set_nonblocking(true)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let family = match address {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        let target = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&target, &SocketAddr::new(address, port)) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        let target = TcpStream::from(target);
        // Small answers are not to wait for one another; failing at it costs only time.
        let _ = client.set_nodelay(true);
        let _ = target.set_nodelay(true);
        Ok(Pair {
            client,
            target,
            upward: Direction::default(),
            downward: Direction::default(),
        })
    }

    /// Passes on what can be passed on.
    pub fn turn(&mut self, scratch: &mut [u8]) -> Turn {
        let upward = self.upward.pass(&self.client, &self.target, scratch);
        let downward = self.downward.pass(&self.target, &self.client, scratch);
        match (upward, downward) {
            (Err(_), _) | (_, Err(_)) => Turn::Over,
            _ if self.upward.closed && self.downward.closed => Turn::Over,
            (Ok(Passed::Waits), Ok(Passed::Waits)) => Turn::Waits,
            _ => Turn::Again,
        }
    }
}

impl Direction {
    fn pass(
        &mut self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        scratch: &mut [u8],
    ) -> io::Result<Passed> {
        for _ in 0..TURNS {
            if self.closed {
                return Ok(Passed::Waits);
            }
            while !self.pending.is_empty() {
                match unless_blocked(|| to.write(&self.pending))? {
                    Some(written) => drop(self.pending.drain(..written)),
                    None => return Ok(Passed::Waits),
                }
            }
            if self.ended {
                if to.peer_addr().is_err() {
                    return Ok(Passed::Waits); // still connecting: this would break it off
                }
                to.shutdown(Shutdown::Write)?;
                self.closed = true;
                return Ok(Passed::Waits);
            }
            let Some(read) = unless_blocked(|| from.read(scratch))? else {
                return Ok(Passed::Waits);
            };
            self.ended = read == 0;
            let written = match read {
                0 => 0,
                _ => unless_blocked(|| to.write(&scratch[..read]))?.unwrap_or(0),
            };
            self.pending.extend_from_slice(&scratch[written..read]);
        }
        Ok(Passed::Again)
    }
}

/// `None` if the socket has to be waited for, which includes one that is still connecting.
fn unless_blocked(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
