//! What the kernel knows of a connected socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Whether nothing that was written to the socket waits any more: the peer of a unix socket has
/// read it (unix(7), `SIOCOUTQ`), that of a TCP socket has acknowledged it (tcp(7)).
pub fn is_drained(socket: impl AsFd) -> io::Result<bool> {
    let mut waiting: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int, to which the pointer is
    // valid; the descriptor is open while it is borrowed.
    let result =
        unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
    match result {
        0 => Ok(waiting == 0),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_unix_socket_is_drained_when_its_peer_has_read() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        assert!(is_drained(&near).unwrap());
        near.write_all(b"head").unwrap();
        assert!(!is_drained(&near).unwrap());
        far.read_exact(&mut [0; 4]).unwrap();
        assert!(is_drained(&near).unwrap());
    }
}
