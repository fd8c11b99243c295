//! `update`: other limits for a living container, from options or from JSON.

use std::io::Read;

use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use super::state::{State, Status};
use super::{Args, Call, io};
use crate::error::{Error, ErrorKind};

pub(super) fn update(call: &Call<'_>) -> Result<(), Error> {
    let args = call.args;
    let state = State::load(&call.root, args.id()?)?;
    let resources = match args.value("resources") {
        Some("-") => {
            let mut text = Vec::new();
            let read = std::io::stdin().read_to_end(&mut text);
            read.map_err(io("read standard input"))?;
            parse(&text)?
        }
        Some(path) => parse(&std::fs::read(path).map_err(io(&format!("open {path}")))?)?,
        None => from_options(args)?,
    };
    for (option, words) in [
        (
            "l3-cache-schema",
            "Intel RDT/CAT: l3 cache schema is not enabled",
        ),
        (
            "mem-bw-schema",
            "Intel RDT/MBA: memory bandwidth schema is not enabled",
        ),
    ] {
        if args.value(option).is_some() {
            return Err(Error::invalid(words));
        }
    }
    if args.is_given("kernel-memory") || args.is_given("kernel-memory-tcp") {
        call.log
            .warning("Kernel memory settings are ignored and will be removed");
    }
    if state.status() == Status::Stopped {
        return Err(Error::new(ErrorKind::NotRunning, "container not running"));
    }
    state.container()?.update(&resources)?;
    match &state.unit {
        Some(unit) => crate::systemd::update_scope(unit, &resources),
        None => Ok(()),
    }
}

fn parse(text: &[u8]) -> Result<LinuxResources, Error> {
    serde_json::from_slice(text).map_err(|e| Error::invalid(format!("resources: {e}")))
}

/// The resources that the options name, as the specification writes them.
fn from_options(args: &Args) -> Result<LinuxResources, Error> {
    let (mut cpu, mut memory) = (Map::new(), Map::new());
    for (option, field, signed) in [
        ("cpu-burst", "burst", false),
        ("cpu-period", "period", false),
        ("cpu-rt-period", "realtimePeriod", false),
        ("cpu-share", "shares", false),
        ("cpu-quota", "quota", true),
        ("cpu-rt-runtime", "realtimeRuntime", true),
        ("cpu-idle", "idle", true),
    ] {
        if let Some(text) = args.value(option) {
            let number = match signed {
                true => text.parse::<i64>().map(Value::from),
                false => text.parse::<u64>().map(Value::from),
            };
            let number = number.map_err(|_| invalid(option, text))?;
            cpu.insert(field.to_owned(), number);
        }
    }
    for (option, field) in [("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")] {
        if let Some(text) = args.value(option) {
            cpu.insert(field.to_owned(), text.into());
        }
    }
    for (option, field) in [
        ("memory", "limit"),
        ("memory-swap", "swap"),
        ("memory-reservation", "reservation"),
    ] {
        if let Some(text) = args.value(option) {
            let bytes = match text {
                "-1" => -1,
                text => berth_base::size::parse_binary(text).map_err(|_| invalid(option, text))?,
            };
            memory.insert(field.to_owned(), bytes.into());
        }
    }
    let mut resources = json!({"cpu": cpu, "memory": memory});
    if let Some(limit) = args.number("pids-limit") {
        resources["pids"] = json!({"limit": limit});
    }
    if let Some(weight) = args.number("blkio-weight").filter(|&weight| weight != 0) {
        resources["blockIO"] = json!({"weight": weight});
    }
    serde_json::from_value(resources).map_err(|e| Error::invalid(format!("resources: {e}")))
}

fn invalid(option: &str, text: &str) -> Error {
    Error::invalid(format!("invalid value for {option}: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::parsed;

    #[test]
    fn options_become_resources() {
        let resources = from_options(&parsed(
            "update --memory 10m --memory-swap -1 --cpu-quota 5000 --cpu-period 10000 \
             --cpuset-cpus 0-1 --pids-limit 0 --blkio-weight 100 c1",
        ))
        .unwrap();
        let memory = resources.memory().as_ref().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(10 << 20), Some(-1)));
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(5000), Some(10000)));
        assert_eq!(cpu.cpus().as_deref(), Some("0-1"));
        assert_eq!(resources.pids().as_ref().unwrap().limit(), 0);
        let weight = resources.block_io().as_ref().unwrap().weight();
        assert_eq!(weight, Some(100));
    }

    #[test]
    fn what_is_not_given_is_not_changed() {
        let resources = from_options(&parsed("update --cpu-share 5 c1")).unwrap();
        assert!(resources.pids().is_none() && resources.block_io().is_none());
        assert_eq!(resources.memory().as_ref().unwrap().limit(), None);
    }

    #[test]
    fn values_that_are_none_are_named() {
        for (line, words) in [
            ("update --memory x c1", "invalid value for memory: \"x\""),
            (
                "update --cpu-share -3 c1",
                "invalid value for cpu-share: \"-3\"",
            ),
        ] {
            assert_eq!(from_options(&parsed(line)).unwrap_err().message, words);
        }
    }
}
