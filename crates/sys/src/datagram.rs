//! UDP with the address that a datagram was sent to, so that the answer can come from there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

/// Room for one control message with an `in6_pktinfo`, the larger of the two; in words, since
/// control messages are aligned as `size_t`.
type Control = [usize; 8];

/// A datagram that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub bytes: usize,
    pub from: SocketAddr,
    /// Which of the host's addresses it was sent to.
    pub to: IpAddr,
}

/// Makes the socket tell the destination of what it receives.
pub fn tell_destination(socket: impl AsFd, ipv6: bool) -> io::Result<()> {
    let (level, option) = if ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    let on: i32 = 1;
    // SAFETY: the pointer and the length describe `on`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Receives a datagram on a socket that [`tell_destination`] was called for.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut name: libc::sockaddr_in6 = zeroed_address();
    let mut control: Control = [0; 8];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut message = empty_message();
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: all pointers in `message` lead to live locals (and to `buffer`) of the given
    // lengths, which nothing else uses during the call.
    let bytes = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, 0) };
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    let from = read_address(&name).ok_or(io::ErrorKind::InvalidData)?;
    let to = destination(&message).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Received { bytes, from, to })
}

/// Sends a datagram with `from` as its source address.
pub fn send(socket: impl AsFd, bytes: &[u8], from: IpAddr, to: SocketAddr) -> io::Result<()> {
    let mut control: Control = [0; 8];
    let (name, name_length) = write_address(to);
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut message = empty_message();
    message.msg_name = (&raw const name).cast_mut().cast();
    message.msg_namelen = name_length;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    match from {
        IpAddr::V4(address) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(address).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put_control(&mut message, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        IpAddr::V6(address) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: address.octets(),
                },
                ipi6_ifindex: 0,
            };
            put_control(&mut message, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
    }
    // SAFETY: all pointers in `message` lead to live locals (and to `bytes`) of the given
    // lengths; sendmsg only reads through them.
    let sent = unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, 0) };
    if sent >= 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Writes the only control message, whose room is at `message.msg_control`.
fn put_control<T: Copy>(message: &mut libc::msghdr, level: i32, kind: i32, value: &T) {
    let length = u32::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: CMSG_SPACE only computes.
    let space = unsafe { libc::CMSG_SPACE(length) };
    assert!(
        space as usize <= size_of::<Control>(),
        "the room fits both kinds of pktinfo"
    );
    message.msg_controllen = space as _;
    // SAFETY: msg_control leads to a `Control`, which the caller borrows for `message`'s life.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: CMSG_LEN only computes.
    let total = unsafe { libc::CMSG_LEN(length) };
    // SAFETY: the room is larger than a header, as asserted, and aligned as one.
    let fields = unsafe { &mut *header };
    fields.cmsg_level = level;
    fields.cmsg_type = kind;
    fields.cmsg_len = total as _;
    // SAFETY: the header is within the room, whose rest holds a T, as asserted.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: as above; T is plain data, and the place may be unaligned.
    unsafe { data.cast::<T>().write_unaligned(*value) };
}

fn destination(message: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the kernel filled msg_control up to msg_controllen with whole control messages.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: a header that is not null lies within what the kernel filled.
    while let Some(fields) = unsafe { header.as_ref() } {
        // SAFETY: as above.
        let data = unsafe { libc::CMSG_DATA(header) };
        match (fields.cmsg_level, fields.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: a message of this type holds an in_pktinfo, of plain data.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                return Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: a message of this type holds an in6_pktinfo, of plain data.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                return Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            _ => {}
        }
        // SAFETY: `header` is one of the message's headers.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}

fn empty_message() -> libc::msghdr {
    // SAFETY: a msghdr of zeros is valid: null pointers with lengths of zero.
    unsafe { std::mem::zeroed() }
}

fn zeroed_address() -> libc::sockaddr_in6 {
    // SAFETY: a sockaddr_in6 of zeros is valid: plain numbers.
    unsafe { std::mem::zeroed() }
}

fn read_address(name: &libc::sockaddr_in6) -> Option<SocketAddr> {
    match i32::from(name.sin6_family) {
        libc::AF_INET6 => {
            let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(SocketAddrV6::new(address, port, name.sin6_flowinfo, name.sin6_scope_id).into())
        }
        libc::AF_INET => {
            // SAFETY: the kernel wrote a sockaddr_in, which is smaller and aligned alike.
            let name = unsafe { (&raw const *name).cast::<libc::sockaddr_in>().read() };
            let address = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddrV4::new(address, u16::from_be(name.sin_port)).into())
        }
        _ => None,
    }
}

fn write_address(address: SocketAddr) -> (libc::sockaddr_in6, libc::socklen_t) {
    let mut name = zeroed_address();
    match address {
        SocketAddr::V6(address) => {
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = address.port().to_be();
            name.sin6_flowinfo = address.flowinfo();
            name.sin6_addr.s6_addr = address.ip().octets();
            name.sin6_scope_id = address.scope_id();
            (name, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
        SocketAddr::V4(address) => {
            let short = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(*address.ip()).to_be(),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_in fits into the larger sockaddr_in6, and is aligned alike.
            unsafe { (&raw mut name).cast::<libc::sockaddr_in>().write(short) };
            (name, size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn check(server: &str, expect: &str) {
        let server = UdpSocket::bind(server).expect("bind");
        let address = server.local_addr().expect("an address");
        tell_destination(&server, address.is_ipv6()).expect("pktinfo");
        let client = UdpSocket::bind((expect, 0)).expect("bind");
        client
            .send_to(b"ping", (expect, address.port()))
            .expect("send");
        let mut buffer = [0; 16];
        let received = receive(&server, &mut buffer).expect("receive");
        assert_eq!(received.to.to_string(), expect);
        assert_eq!(received.from, client.local_addr().expect("an address"));
        assert_eq!(&buffer[..received.bytes], b"ping");
        send(&server, b"pong", received.to, received.from).expect("send");
        let (bytes, from) = client.recv_from(&mut buffer).expect("receive");
        assert_eq!(
            (&buffer[..bytes], from.ip().to_string().as_str()),
            (&b"pong"[..], expect)
        );
    }

    #[test]
    fn the_answer_comes_from_where_the_question_went() {
        check("0.0.0.0:0", "127.0.0.1");
        check("0.0.0.0:0", "127.0.0.9");
        check("[::]:0", "::1");
    }
}
