//! Listening sockets: unix, TCP, and those that a service supervisor opened before us.

use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustls::ServerConfig;
use tokio::net::{TcpListener, UnixListener};

use crate::stream::Stream;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// The first descriptor that systemd hands over (sd_listen_fds(3)).
const FIRST_INHERITED: i32 = 3;

/// A socket that accepts connections.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    path: Option<BoundPath>,
    tls: Option<Arc<ServerConfig>>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Where a unix socket was bound, and which inode it then was.
#[derive(Debug)]
struct BoundPath {
    path: PathBuf,
    inode: (u64, u64),
}

/// Who is at the other end; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A process on this machine, with its credentials when it connected.
    Unix {
        uid: u32,
        gid: u32,
        pid: Option<i32>,
    },
    /// A host on the network.
    Tcp(SocketAddr),
    /// Not known.
    Unknown,
}

/// What keeps a socket from listening.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listen on unix://{path}: another process is listening there")]
    InUse { path: PathBuf },
    #[error("listen on unix://{path}")]
    Unix { path: PathBuf, source: io::Error },
    #[error("listen on tcp://{address}")]
    Tcp {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("take over the inherited socket {number}")]
    Inherited { number: i32, source: io::Error },
    #[error("the inherited descriptor is not a listening unix or TCP socket")]
    NotListening,
}

impl Listener {
    /// Listens on a unix socket with the given mode, owned by group `gid` where given.
    ///
    /// A socket that nobody listens on any more is replaced; one that somebody does is refused.
    /// The file is removed when the listener is dropped, if it is still the same one.
    pub fn unix(path: &Path, mode: u32, gid: Option<u32>) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::Unix {
            path: path.to_owned(),
            source,
        };
        remove_stale(path)?;
        let (listener, inode) = bind_unix(path, mode, gid).map_err(failed)?;
        let listener = std::os::unix::net::UnixListener::from(listener);
        Ok(Self {
            socket: Socket::Unix(UnixListener::from_std(listener).map_err(failed)?),
            path: Some(BoundPath {
                path: path.to_owned(),
                inode,
            }),
            tls: None,
        })
    }

    /// Listens on a TCP address; port 0 takes any free one.
    pub async fn tcp(address: SocketAddr) -> Result<Self, Error> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| Error::Tcp { address, source })?;
        Ok(Self {
            socket: Socket::Tcp(listener),
            path: None,
            tls: None,
        })
    }

    /// The same, but [`crate::serve`] speaks TLS on its TCP connections. Nothing changes for a
    /// unix socket, as in dockerd.
    #[must_use]
    pub fn with_tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// What connections are to be greeted with, where they are.
    pub(crate) fn tls(&self) -> Option<&Arc<ServerConfig>> {
        match self.socket {
            Socket::Unix(_) => None,
            Socket::Tcp(_) => self.tls.as_ref(),
        }
    }

    /// Takes a socket that already listens, unix or TCP.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let not_listening = |_: io::Error| Error::NotListening;
        let listening = rustix::net::sockopt::socket_acceptconn(&fd).unwrap_or(false);
        if !listening {
            return Err(Error::NotListening);
        }
        let family = rustix::net::sockopt::socket_domain(&fd)
            .map_err(|errno| not_listening(errno.into()))?;
        rustix::io::ioctl_fionbio(&fd, true).map_err(|errno| not_listening(errno.into()))?;
        let socket = if family == AddressFamily::UNIX {
            let listener = std::os::unix::net::UnixListener::from(fd);
            Socket::Unix(UnixListener::from_std(listener).map_err(not_listening)?)
        } else if family == AddressFamily::INET || family == AddressFamily::INET6 {
            let listener = std::net::TcpListener::from(fd);
            Socket::Tcp(TcpListener::from_std(listener).map_err(not_listening)?)
        } else {
            return Err(Error::NotListening);
        };
        Ok(Self {
            socket,
            path: None,
            tls: None,
        })
    }

    /// The sockets that systemd opened for this process (`fd://`): `count` is its `LISTEN_FDS`.
    ///
    /// The caller has compared `LISTEN_PID` with its own process id.
    pub fn inherited(count: usize) -> Result<Vec<Self>, Error> {
        (FIRST_INHERITED..).take(count).map(inherit).collect()
    }

    /// Where a TCP listener listens.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Unix(_) => None,
            Socket::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// The next connection. Cancel safe.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.socket {
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = match stream.peer_cred() {
                    Ok(credentials) => Peer::Unix {
                        uid: credentials.uid(),
                        gid: credentials.gid(),
                        pid: credentials.pid(),
                    },
                    Err(_) => Peer::Unknown,
                };
                Ok((Stream::Unix(stream), peer))
            }
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Small frames of an attached terminal must not wait for each other.
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Peer::Tcp(address)))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(bound) = &self.path else { return };
        // A daemon that started meanwhile may have put its own socket there.
        if inode(&bound.path).is_ok_and(|now| now == bound.inode)
            && let Err(error) = std::fs::remove_file(&bound.path)
        {
            tracing::debug!(%error, path = %bound.path.display(), "remove the socket");
        }
    }
}

/// The descriptor `number` as a listener.
fn inherit(number: i32) -> Result<Listener, Error> {
    let failed = |errno: rustix::io::Errno| Error::Inherited {
        number,
        source: errno.into(),
    };
    // A number becomes an OwnedFd without unsafe code by asking the kernel for a copy of our own
    // descriptor (pidfd_getfd(2), Linux 5.6). The copy is close-on-exec.
    let own = rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    )
    .map_err(failed)?;
    let fd = rustix::process::pidfd_getfd(&own, number, rustix::process::PidfdGetfdFlags::empty())
        .map_err(failed)?;
    Listener::from_fd(fd)
}

/// Binds and listens; nobody but the owner can connect before the mode and group are right.
fn bind_unix(path: &Path, mode: u32, gid: Option<u32>) -> io::Result<(OwnedFd, (u64, u64))> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // bind(2) gives the file the mode of the socket's own inode.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    if let Some(gid) = gid {
        std::os::unix::fs::chown(path, None, Some(gid))?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((socket, inode(path)?))
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), Error> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(Error::InUse {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| Error::Unix {
                path: path.to_owned(),
                source,
            })
        }
        // Nothing there, or something that bind will report.
        Err(_) => Ok(()),
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[tokio::test]
    async fn an_inherited_number_becomes_a_listener() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = inherit(socket.as_raw_fd()).unwrap();
        assert_eq!(listener.local_addr(), socket.local_addr().ok());
        assert!(matches!(inherit(9999), Err(Error::Inherited { .. })));
    }
}
