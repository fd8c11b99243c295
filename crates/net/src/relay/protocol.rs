//! What the daemon and the relay say to each other: a little-endian `u32` length, then JSON.
//! Fields are only ever added within a [`VERSION`], since a relay outlives its daemon.

use std::io::{self, Read, Write};
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::endpoint::{PortBinding, Protocol};
use crate::error::Holder;

pub const VERSION: u32 = 1;

/// Ten thousand bindings are about one megabyte.
const MAX_FRAME_BYTES: usize = 16 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    Hello,
    Publish(Publication),
    Withdraw {
        container_id: String,
    },
    /// Makes the relay's state exactly this.
    Adopt {
        containers: Vec<Adoption>,
    },
    /// Ends the relay.
    Quit,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Hello {
        version: u32,
    },
    Published {
        bindings: Vec<PortBinding>,
    },
    Refused(Refusal),
    /// Which bindings someone else has by now.
    Adopted {
        lost: Vec<PortBinding>,
    },
    Done,
}

/// Ports to bind for a container: all or none.
#[derive(Debug, Serialize, Deserialize)]
pub struct Publication {
    pub container_id: String,
    pub target: IpAddr,
    pub ports: Vec<Wanted>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Wanted {
    pub protocol: Protocol,
    pub container_port: u16,
    /// All of them get the same port. Where both families are wanted wholly, a host without IPv6
    /// gives IPv4 only.
    pub host_ips: Vec<IpAddr>,
    /// First and last; `None` takes one of the ephemeral range.
    pub range: Option<(u16, u16)>,
}

/// A container with the bindings that it has already.
#[derive(Debug, Serialize, Deserialize)]
pub struct Adoption {
    pub container_id: String,
    pub target: IpAddr,
    pub bindings: Vec<PortBinding>,
}

/// Why a port was not bound.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refusal {
    pub protocol: Protocol,
    pub host_ip: IpAddr,
    /// The port, or the last of the range that was tried.
    pub port: u16,
    pub range: Option<(u16, u16)>,
    pub errno: i32,
    pub holder: Option<Holder>,
}

pub fn write_frame(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).map_err(|_| io::ErrorKind::InvalidInput)?;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    to.write_all(&frame)
}

pub fn read_frame<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut body = vec![0; checked_length(length)?];
    from.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

/// Takes the first whole message off what was received so far.
pub fn take_frame<T: DeserializeOwned>(received: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(length) = received.first_chunk::<4>() else {
        return Ok(None);
    };
    let end = 4 + checked_length(*length)?;
    let Some(body) = received.get(4..end) else {
        return Ok(None);
    };
    let message = serde_json::from_slice(body)?;
    received.drain(..end);
    Ok(Some(message))
}

fn checked_length(length: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME_BYTES {
        Err(io::ErrorKind::InvalidData.into())
    } else {
        Ok(length)
    }
}
