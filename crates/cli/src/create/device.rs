//! Devices, their limits, and requests for devices by their kind.

use berth_docker::container::{DeviceMapping, DeviceRequest, ThrottleDevice, WeightDevice};

use super::{Error, mount};

/// `/dev/a`, `/dev/a:rw`, `/dev/a:/dev/b` or `/dev/a:/dev/b:rwm`; or a CDI name.
pub fn mappings(texts: &[String]) -> Result<Vec<DeviceMapping>, Error> {
    texts.iter().map(|text| mapping(text)).collect()
}

fn mapping(text: &str) -> Result<DeviceMapping, Error> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, mode] if is_mode(mode) => (*source, *source, *mode),
        [source, target] => (*source, *target, "rwm"),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if !is_mode(permissions) {
        return Err(format!("invalid device mode: {permissions}"));
    }
    for path in [source, target] {
        if !path.starts_with('/') {
            return Err(format!("{path} is not an absolute path"));
        }
    }
    Ok(DeviceMapping {
        path_on_host: source.to_owned(),
        path_in_container: target.to_owned(),
        cgroup_permissions: permissions.to_owned(),
    })
}

fn is_mode(text: &str) -> bool {
    let mut seen = Vec::new();
    !text.is_empty()
        && text.chars().all(|c| {
            let new = matches!(c, 'r' | 'w' | 'm') && !seen.contains(&c);
            seen.push(c);
            new
        })
}

/// `c 1:3 mr`.
pub fn check_rule(text: &str) -> Result<(), String> {
    let invalid = Err(format!("invalid device cgroup format '{text}'"));
    let parts: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, permissions] = parts.as_slice() else {
        return invalid;
    };
    let number =
        |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    let numbers_good = numbers
        .split_once(':')
        .is_some_and(|(major, minor)| number(major) && number(minor));
    if matches!(*kind, "a" | "b" | "c") && numbers_good && is_mode(permissions) {
        Ok(())
    } else {
        invalid
    }
}

fn throttle(text: &str) -> Result<ThrottleDevice, Error> {
    let (path, rate) = text
        .split_once(':')
        .ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    let invalid = || {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    };
    let rate = berth_base::size::parse_binary(rate).map_err(|_| invalid())?;
    Ok(ThrottleDevice {
        path: path.to_owned(),
        rate: u64::try_from(rate).map_err(|_| invalid())?,
    })
}

pub fn throttles(texts: &[String]) -> Result<Vec<ThrottleDevice>, Error> {
    texts.iter().map(|text| throttle(text)).collect()
}

pub fn check_throttle(text: &str) -> Result<(), String> {
    throttle(text).map(drop)
}

fn weight(text: &str) -> Result<WeightDevice, Error> {
    let (path, weight) = text
        .split_once(':')
        .ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    match weight.parse() {
        Ok(weight) if weight == 0 || (10..=1000).contains(&weight) => Ok(WeightDevice {
            path: path.to_owned(),
            weight,
        }),
        _ => Err(format!("invalid weight for device: {text}")),
    }
}

pub fn weights(texts: &[String]) -> Result<Vec<WeightDevice>, Error> {
    texts.iter().map(|text| weight(text)).collect()
}

pub fn check_weight(text: &str) -> Result<(), String> {
    weight(text).map(drop)
}

/// `all`, a number, or `device=...,capabilities=...`.
pub fn gpus(texts: &[String]) -> Result<Vec<DeviceRequest>, Error> {
    texts.iter().map(|text| gpu(text)).collect()
}

fn gpu(text: &str) -> Result<DeviceRequest, Error> {
    let mut request = DeviceRequest {
        options: Some(Default::default()),
        ..DeviceRequest::default()
    };
    let mut capabilities = vec!["gpu".to_owned()];
    let mut counted = false;
    for field in mount::csv(text) {
        let (key, value) = match field.split_once('=') {
            Some(pair) => pair,
            None => ("count", field.as_str()),
        };
        match key {
            "count" => {
                counted = true;
                request.count = match value {
                    "all" => -1,
                    number => number.parse().map_err(|_| {
                        format!(
                            "invalid count ({number}): value must be either \"all\" or an integer"
                        )
                    })?,
                };
            }
            "device" => {
                counted = true;
                request.device_ids = Some(value.split(',').map(str::to_owned).collect());
            }
            "driver" => request.driver = value.to_owned(),
            "capabilities" => capabilities.extend(value.split(',').map(str::to_owned)),
            "options" => {}
            key => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if !counted {
        request.count = 1;
    }
    request.capabilities = Some(vec![capabilities]);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_paths_and_permissions() {
        let device = mapping("/dev/b:/dev/c:r").unwrap();
        assert_eq!(device.path_in_container, "/dev/c");
        assert_eq!(device.cgroup_permissions, "r");
        assert_eq!(mapping("/dev/x:rw").unwrap().path_in_container, "/dev/x");
        assert_eq!(
            mapping("/dev/a:zz").unwrap_err(),
            "zz is not an absolute path"
        );
        assert!(check_rule("c 1:3 mr").is_ok() && check_rule("bad").is_err());
    }
}
