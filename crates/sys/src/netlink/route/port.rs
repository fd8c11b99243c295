//! The ports of bridges.

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::LinkMessage;

use super::super::attributes::{nest, put};
use super::super::{Error, Messages, Socket};
use super::{CHANGE, RTM_SETLINK, emit};

/// A bridge's port passes nothing any more, and the bridge forgets what it learnt of it. Unlike
/// taking the link down this does not wait for the kernel's readers (27 ms).
pub fn silence_port(socket: &mut Socket, index: u32) -> Result<(), Error> {
    const IFLA_BRPORT_STATE: u16 = 1;
    const IFLA_BRPORT_FLUSH: u16 = 24;
    const BR_STATE_DISABLED: u8 = 0;
    let set = set_port(socket, index, |out| {
        put(out, IFLA_BRPORT_STATE, &[BR_STATE_DISABLED]);
        put(out, IFLA_BRPORT_FLUSH, &[]);
    });
    match set {
        Err(error) if !error.is(libc::ENODEV) => Err(error),
        _ => Ok(()),
    }
}

/// How a bridge's port treats what comes from the bridge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortMode {
    /// Gives back through the port what came in by it.
    pub hairpin: bool,
    /// Passes nothing to the other isolated ports.
    pub isolated: bool,
}

pub fn set_port_mode(socket: &mut Socket, index: u32, mode: PortMode) -> Result<(), Error> {
    const IFLA_BRPORT_MODE: u16 = 4;
    const IFLA_BRPORT_ISOLATED: u16 = 33;
    set_port(socket, index, |out| {
        put(out, IFLA_BRPORT_MODE, &[u8::from(mode.hairpin)]);
        put(out, IFLA_BRPORT_ISOLATED, &[u8::from(mode.isolated)]);
    })
}

fn set_port(
    socket: &mut Socket,
    index: u32,
    write: impl FnOnce(&mut Vec<u8>),
) -> Result<(), Error> {
    const IFLA_PROTINFO: u16 = 12;
    let mut header = LinkMessage::default();
    header.header.interface_family = AddressFamily::Bridge;
    header.header.index = index;
    let mut messages = Messages::new();
    messages.push(RTM_SETLINK, CHANGE, |out| {
        emit(&header)(out);
        nest(out, IFLA_PROTINFO, write);
    });
    socket.execute(messages).map(|_| ())
}
