//! `-p [[host address:][host port[-last]]:]container port[-last][/protocol]` and `--expose`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_docker::json::Empty;
use berth_docker::port::{PortBinding, PortMap};

use super::Error;

#[derive(Debug, Default)]
pub struct Ports {
    pub exposed: BTreeMap<String, Empty>,
    pub bindings: PortMap,
}

pub fn plan(published: &[String], exposed: &[String]) -> Result<Ports, Error> {
    let mut ports = Ports::default();
    for text in published {
        publish(text, &mut ports)?;
    }
    for text in exposed {
        if text.contains(':') {
            return Err(format!("invalid port format for --expose: {text}"));
        }
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = parse_range(range).map_err(|error| {
            format!("invalid range format for --expose: {text}, error: {error}")
        })?;
        for port in first..=last {
            ports
                .exposed
                .insert(format!("{port}/{}", protocol.to_lowercase()), Empty {});
        }
    }
    Ok(ports)
}

fn publish(text: &str, ports: &mut Ports) -> Result<(), Error> {
    let (address, host, container) = split(text);
    let (container, protocol) = container.split_once('/').unwrap_or((container, "tcp"));
    let protocol = protocol.to_lowercase();
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>"));
    }
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {address}"));
    }
    let (first, last) =
        parse_range(container).map_err(|_| format!("invalid containerPort: {container}"))?;
    let host_range = match host {
        "" => None,
        host => Some(parse_range(host).map_err(|_| format!("invalid hostPort: {host}"))?),
    };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    if let Some((from, to)) = host_range {
        // Several host ports for one container port: the daemon picks a free one of them.
        if to - from != last - first && first != last {
            return Err(format!(
                "invalid ranges specified for container and host Ports: {container} and {host}"
            ));
        }
    }
    for port in first..=last {
        let host_port = match host_range {
            None => String::new(),
            Some((from, to)) if first == last && from != to => format!("{from}-{to}"),
            Some((from, _)) => (from + (port - first)).to_string(),
        };
        let key = format!("{port}/{protocol}");
        ports.exposed.insert(key.clone(), Empty {});
        let bindings = ports.bindings.entry(key).or_default();
        bindings.get_or_insert_default().push(PortBinding {
            host_ip: address.to_owned(),
            host_port,
        });
    }
    Ok(())
}

/// Address, host ports, container ports; IPv6 addresses may be in brackets or bare.
fn split(text: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = text.rsplit_once(':') else {
        return ("", "", text);
    };
    match rest.rsplit_once(':') {
        Some((address, host)) => (address, host, container),
        None => ("", rest, container),
    }
}

fn parse_range(text: &str) -> Result<(u16, u16), Error> {
    let number = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if last < first {
        return Err(format!("invalid range specified for port: {text}"));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[(&str, &str, &str)]) {
        let ports = plan(&[text.to_owned()], &[]).unwrap();
        let got: Vec<(String, String, String)> = ports
            .bindings
            .into_iter()
            .flat_map(|(port, bindings)| {
                bindings
                    .unwrap()
                    .into_iter()
                    .map(move |binding| (port.clone(), binding.host_ip, binding.host_port))
            })
            .collect();
        let got: Vec<(&str, &str, &str)> = got
            .iter()
            .map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str()))
            .collect();
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn every_form_of_a_port_is_understood() {
        check("80", &[("80/tcp", "", "")]);
        check("8080:80/udp", &[("80/udp", "", "8080")]);
        check("127.0.0.1::90", &[("90/tcp", "127.0.0.1", "")]);
        check("[::1]:8:9", &[("9/tcp", "::1", "8")]);
        check("::1:8:9", &[("9/tcp", "::1", "8")]);
        check(
            "7000-7001:80-81",
            &[("80/tcp", "", "7000"), ("81/tcp", "", "7001")],
        );
        check("7000-7005:80", &[("80/tcp", "", "7000-7005")]);
    }

    #[test]
    fn bad_ports_are_named() {
        let check = |text: &str, message: &str| {
            assert_eq!(plan(&[text.to_owned()], &[]).unwrap_err(), message);
        };
        check("x", "invalid containerPort: x");
        check("70000:1", "invalid hostPort: 70000");
        check("1:2/x", "invalid proto: x");
        assert_eq!(
            plan(&[], &["x".to_owned()]).unwrap_err(),
            "invalid range format for --expose: x, error: strconv.ParseUint: parsing \"x\": invalid syntax"
        );
    }
}
