//! What a container publishes: its bindings, and with `-P` every exposed port that has none.

use std::net::IpAddr;

use berth_docker::port::{Port, PortMap, Protocol as DockerProtocol};
use berth_net::{PortRequest, Protocol};

use crate::error::{Error, Result};
use crate::record::Record;

/// The ports to bind, in the order of their names.
pub fn ports(record: &Record) -> Result<Vec<PortRequest>> {
    let empty = PortMap::new();
    let bindings = record.host.port_bindings.as_ref().unwrap_or(&empty);
    let mut requests = Vec::new();
    for (text, list) in bindings {
        let (protocol, container_port) = port(text)?;
        for binding in list.iter().flatten() {
            let host_ip = match binding.host_ip.as_str() {
                "" => None,
                text => Some(
                    text.trim_matches(['[', ']'])
                        .parse::<IpAddr>()
                        .map_err(|_| Error::invalid(format!("invalid IP address: {text}")))?,
                ),
            };
            requests.push(PortRequest {
                protocol,
                container_port,
                host_ip,
                host_ports: host_ports(&binding.host_port)?,
            });
        }
    }
    if record.host.publish_all_ports {
        for text in record.config.exposed_ports.keys() {
            let bound = bindings
                .get(text)
                .and_then(Option::as_ref)
                .is_some_and(|list| !list.is_empty());
            if !bound {
                let (protocol, container_port) = port(text)?;
                requests.push(PortRequest {
                    protocol,
                    container_port,
                    host_ip: None,
                    host_ports: None,
                });
            }
        }
    }
    Ok(requests)
}

fn port(text: &str) -> Result<(Protocol, u16)> {
    let port: Port = text.parse().map_err(|error| {
        Error::invalid(format!("invalid port specification: {text:?}: {error}"))
    })?;
    match port.protocol {
        DockerProtocol::Tcp => Ok((Protocol::Tcp, port.number)),
        DockerProtocol::Udp => Ok((Protocol::Udp, port.number)),
        DockerProtocol::Sctp => Err(Error::invalid("publishing SCTP ports is not supported")),
    }
}

fn host_ports(text: &str) -> Result<Option<std::ops::RangeInclusive<u16>>> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || Error::invalid(format!("invalid port specification: {text:?}"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let first: u16 = first.parse().map_err(|_| invalid())?;
    let last: u16 = last.parse().map_err(|_| invalid())?;
    match (first, last) {
        (0, 0) => Ok(None),
        _ if first > last => Err(invalid()),
        _ => Ok(Some(first..=last)),
    }
}
