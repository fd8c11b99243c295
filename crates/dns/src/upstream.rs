//! Other name servers: which, how patiently, and one question asked of one of them.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use berth_tasks::Scope;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::dice;
use crate::query::{Query, Transport};
use crate::reply::{Mismatch, Reply};

/// How many servers are asked; resolv.conf(5)'s number, and Docker's.
const MAX_SERVERS: usize = 3;
/// How long one server is waited for, where `timeout:` does not say; Docker's.
const TIMEOUT: Duration = Duration::from_secs(4);
/// The limits of resolv.conf(5).
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ATTEMPTS: u32 = 5;
/// The longest message that UDP brings, in bytes.
const MAX_DATAGRAM: usize = 65_535;

/// The servers that unknown names are asked of, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstreams {
    /// In the order of preference.
    pub servers: Vec<SocketAddr>,
    /// How long each is waited for.
    pub timeout: Duration,
    /// How often all are asked.
    pub attempts: u32,
    /// Each question begins with another server.
    pub rotate: bool,
    /// Never by UDP.
    pub tcp: bool,
}

impl Upstreams {
    /// The first three of `servers`; `options` are the words of a resolv.conf's `options`.
    pub fn new<'a>(servers: &[SocketAddr], options: impl IntoIterator<Item = &'a str>) -> Self {
        let mut upstreams = Self {
            servers: servers.iter().copied().take(MAX_SERVERS).collect(),
            timeout: TIMEOUT,
            attempts: 1,
            rotate: false,
            tcp: false,
        };
        for option in options {
            let (name, value) = option.split_once(':').unwrap_or((option, ""));
            match (name, value.parse::<u32>()) {
                ("timeout", Ok(seconds)) => {
                    let given = Duration::from_secs(seconds.max(1).into());
                    upstreams.timeout = given.min(MAX_TIMEOUT);
                }
                ("attempts", Ok(attempts)) => upstreams.attempts = attempts.clamp(1, MAX_ATTEMPTS),
                ("rotate", _) => upstreams.rotate = true,
                ("use-vc", _) => upstreams.tcp = true,
                _ => (),
            }
        }
        upstreams
    }
}

/// Makes a socket of a kind for an address's family, in some network namespace. May block.
pub type MakeSocket = dyn Fn(Transport, SocketAddr) -> io::Result<OwnedFd> + Send + Sync;

/// From which network the servers are asked.
#[derive(Clone)]
pub enum Origin {
    /// The one that this process is in: for the host's own servers.
    Host,
    /// Another: for servers that were given to a container, which may be on its network.
    Namespace(Arc<MakeSocket>),
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "Host",
            Self::Namespace(_) => "Namespace",
        })
    }
}

impl Origin {
    async fn socket(
        &self,
        scope: &Scope,
        kind: Transport,
        server: SocketAddr,
    ) -> io::Result<OwnedFd> {
        match self {
            Self::Host => make_socket(kind, server),
            Self::Namespace(make) => {
                let make = Arc::clone(make);
                let made = scope.spawn_blocking(move || make(kind, server));
                made.await.map_err(io::Error::other)?
            }
        }
    }
}

/// Asks one server. Waits for ever: the caller has the time.
pub async fn exchange(
    origin: &Origin,
    scope: &Scope,
    server: SocketAddr,
    kind: Transport,
    query: &Query,
) -> io::Result<Reply> {
    let socket = origin.socket(scope, kind, server).await?;
    match kind {
        Transport::Udp => by_udp(socket, server, query).await,
        Transport::Tcp => by_tcp(socket, server, query).await,
    }
}

/// The socket is new, so that its port is as unknown to others as the id; and connected, so that
/// only the server's answers arrive.
async fn by_udp(socket: OwnedFd, server: SocketAddr, query: &Query) -> io::Result<Reply> {
    let socket = UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    socket.connect(server).await?;
    let (id, message) = with_own_id(query);
    socket.send(&message).await?;
    loop {
        let mut bytes = Vec::with_capacity(MAX_DATAGRAM);
        socket.recv_buf(&mut bytes).await?;
        match Reply::read(bytes, query, id) {
            Ok(reply) => return Ok(reply),
            Err(Mismatch::Other) => (),
            Err(Mismatch::Damaged) => return Err(damaged()),
        }
    }
}

async fn by_tcp(socket: OwnedFd, server: SocketAddr, query: &Query) -> io::Result<Reply> {
    let socket = TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    let mut stream = tokio::net::TcpSocket::from_std_stream(socket)
        .connect(server)
        .await?;
    let (id, message) = with_own_id(query);
    stream.write_all(&framed(&message)).await?;
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await?;
    Reply::read(bytes, query, id).map_err(|_| damaged())
}

/// A message as TCP carries it, after its length (RFC 1035 section 4.2.2).
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut frame = Vec::with_capacity(2 + message.len());
    frame.extend(length.to_be_bytes());
    frame.extend(&message[..length.into()]);
    frame
}

fn make_socket(kind: Transport, server: SocketAddr) -> io::Result<OwnedFd> {
    let family = match server {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match kind {
        Transport::Udp => SocketType::DGRAM,
        Transport::Tcp => SocketType::STREAM,
    };
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}

fn with_own_id(query: &Query) -> (u16, Vec<u8>) {
    let id = dice::secret();
    let mut message = query.bytes().to_vec();
    message[..2].copy_from_slice(&id.to_be_bytes());
    (id, message)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_resolv_conf() {
        let server = SocketAddr::from(([192, 0, 2, 1], 53));
        let new = |options: &str| Upstreams::new(&[server; 5], options.split_whitespace());
        let default = new("ndots:0 edns0 trust-ad timeout:x");
        assert_eq!(default.servers, [server; 3]);
        assert_eq!((default.timeout.as_secs(), default.attempts), (4, 1));
        assert!(!default.rotate && !default.tcp);
        let given = new("timeout:2 attempts:3 rotate use-vc");
        assert_eq!((given.timeout.as_secs(), given.attempts), (2, 3));
        assert!(given.rotate && given.tcp);
        let wild = new("timeout:0 attempts:99");
        assert_eq!((wild.timeout.as_secs(), wild.attempts), (1, 5));
        assert_eq!(new("timeout:4000000000").timeout.as_secs(), 30);
    }
}
