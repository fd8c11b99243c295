//! Ports of containers: `80/tcp`, and what they are bound to.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::json::wire;

/// Container port (`80/tcp`) to the addresses on the host; null and empty are both no binding.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

wire! {
    #[serde(rename_all = "PascalCase")]
    pub struct PortBinding {
        /// Empty for all addresses.
        pub host_ip: String,
        /// Empty for any port; `8000-8010` for one of a range.
        pub host_port: String,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A container's port. Ordered by number, then protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    pub number: u16,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    #[error("invalid port specification: {0:?}")]
    Port(String),
    #[error("invalid proto: {0}")]
    Protocol(String),
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl FromStr for Protocol {
    type Err = PortError;
    fn from_str(text: &str) -> Result<Self, PortError> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(PortError::Protocol(text.to_owned())),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Port {
    type Err = PortError;
    /// `80` is `80/tcp`.
    fn from_str(text: &str) -> Result<Self, PortError> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let number = number
            .parse()
            .map_err(|_| PortError::Port(text.to_owned()))?;
        Ok(Self {
            number,
            protocol: protocol.parse()?,
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_tcp_unless_they_say_otherwise() {
        assert_eq!("80".parse::<Port>().unwrap().to_string(), "80/tcp");
        assert_eq!("53/UDP".parse::<Port>().unwrap().to_string(), "53/udp");
        assert_eq!("53/x".parse::<Port>(), Err(PortError::Protocol("x".into())));
        assert_eq!(
            "65536".parse::<Port>(),
            Err(PortError::Port("65536".into()))
        );
    }
}
