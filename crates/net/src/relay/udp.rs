//! Relayed datagrams: a flow for each client, which ends when nothing passed for a while.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use berth_sys::datagram;

/// As Docker's proxy: an idle flow is forgotten.
pub const IDLE: Duration = Duration::from_secs(90);
/// Datagrams that are passed on before others have their turn.
const TURNS: usize = 64;

/// Whose flow it is: the client, and the address that it spoke to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub listener: u64,
    pub client: SocketAddr,
    pub host_ip: IpAddr,
}

/// A socket that speaks to the container for one client.
pub struct Flow {
    pub key: FlowKey,
    pub target: UdpSocket,
    pub last: Instant,
}

impl Flow {
    pub fn connect(key: FlowKey, address: IpAddr, port: u16, now: Instant) -> io::Result<Flow> {
        let any: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let target = UdpSocket::bind((any, 0))?;
        target.set_nonblocking(true)?;
        target.connect((address, port))?;
        Ok(Flow {
            key,
            target,
            last: now,
        })
    }

    /// Passes the container's answers on. Returns whether there may be more.
    pub fn answer(&mut self, listener: &UdpSocket, scratch: &mut [u8], now: Instant) -> bool {
        for _ in 0..TURNS {
            match self.target.recv(scratch) {
                Ok(bytes) => {
                    // A datagram that cannot be sent is lost, as on any network.
                    let FlowKey {
                        client, host_ip, ..
                    } = self.key;
                    let _ = datagram::send(listener, &scratch[..bytes], host_ip, client);
                    self.last = now;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // The container has nobody listening, and the kernel says so once.
                Err(_) => {}
            }
        }
        true
    }
}

/// Receives the clients' datagrams and hands each to `pass`. Returns whether there may be more.
pub fn receive(
    listener: &UdpSocket,
    scratch: &mut [u8],
    mut pass: impl FnMut(SocketAddr, IpAddr, &[u8]),
) -> bool {
    for _ in 0..TURNS {
        match datagram::receive(listener, scratch) {
            Ok(received) => pass(received.from, received.to, &scratch[..received.bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => {}
        }
    }
    true
}
