//! Signals and the freezer: `kill`, `pause`, `resume`.

use super::state::{State, Status};
use super::{Call, io};
use crate::error::{Error, ErrorKind};

pub(super) fn kill(call: &Call<'_>) -> Result<(), Error> {
    let state = State::load(&call.root, call.args.id()?)?;
    let name = call.args.operand(1).filter(|name| !name.is_empty());
    let signal = signal_number(name.unwrap_or("SIGTERM"))?;
    let all = call.args.is_set("all");
    if state.status() == Status::Stopped {
        return match leftovers(&state, signal, all)? {
            true => Ok(()),
            false => Err(not_running()),
        };
    }
    let container = state.container()?;
    // Without a pid namespace of its own nothing else would end the rest.
    let sent = match all || (signal == libc::SIGKILL && !state.owns_pids) {
        true => container.kill_all(signal),
        false => container.kill(signal),
    };
    sent.map_err(io("unable to signal init"))?;
    if signal == libc::SIGKILL && state.status() == Status::Paused {
        // A frozen process of version 1 dies only when it is thawed.
        container.resume().map_err(io("thaw"))?;
    }
    Ok(())
}

/// Signals what a stopped container without a pid namespace of its own has left behind; `false`
/// when there is nothing. `--all` does not mind, as runc's.
fn leftovers(state: &State, signal: i32, all: bool) -> Result<bool, Error> {
    if !state.owns_pids {
        let cgroup = state.cgroup()?;
        let left = cgroup.pids().is_ok_and(|pids| !pids.is_empty());
        if left && (all || signal == libc::SIGKILL) {
            cgroup
                .kill(signal)
                .map_err(io("unable to kill all processes"))?;
            return Ok(true);
        }
    }
    Ok(all)
}

fn not_running() -> Error {
    Error::new(ErrorKind::NotRunning, "container not running")
}

pub(super) fn pause(call: &Call<'_>) -> Result<(), Error> {
    let state = State::load(&call.root, call.args.id()?)?;
    match state.status() {
        Status::Running | Status::Created => state.container()?.pause().map_err(io("pause")),
        Status::Paused | Status::Stopped => Err(not_running()),
    }
}

pub(super) fn resume(call: &Call<'_>) -> Result<(), Error> {
    let state = State::load(&call.root, call.args.id()?)?;
    let frozen = || state.cgroup().is_ok_and(|cgroup| cgroup.is_frozen());
    match state.status() {
        Status::Paused => {}
        Status::Created if frozen() => {}
        _ => return Err(Error::invalid("container not paused")),
    }
    state.container()?.resume().map_err(io("resume"))
}

/// `9`, `KILL` or `SIGKILL`.
pub(super) fn signal_number(name: &str) -> Result<i32, Error> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = name
        .parse()
        .ok()
        .or_else(|| (1..).zip(NAMES).find(|(_, n)| *n == bare).map(|(i, _)| i));
    number
        .filter(|number| (0..=berth_sys::signal::MAX).contains(number))
        .ok_or_else(|| Error::invalid(format!("unknown signal {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_three_spellings() {
        for name in ["9", "KILL", "SIGKILL", "sigkill"] {
            assert_eq!(signal_number(name).unwrap(), 9);
        }
        let unknown = signal_number("SIGNOTHING").unwrap_err();
        assert_eq!(unknown.message, "unknown signal \"SIGNOTHING\"");
        assert!(signal_number("65").is_err());
    }
}
