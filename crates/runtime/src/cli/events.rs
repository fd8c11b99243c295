//! `events`: what a container uses, now and then, and when it runs out of memory.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use super::state::{State, Status};
use super::{Call, io, print};
use crate::cgroup::Cgroup;
use crate::error::Error;

/// Between two statistics, unless another time is asked for.
const INTERVAL: Duration = Duration::from_secs(5);

pub(super) fn events(call: &Call<'_>) -> Result<(), Error> {
    let state = State::load(&call.root, call.args.id()?)?;
    let interval = match call.args.value("interval") {
        None => INTERVAL,
        Some(text) => {
            let nanos = berth_base::duration::parse_go(text).map_err(|_| {
                Error::invalid(format!(
                    "invalid value {text:?} for flag -interval: parse error"
                ))
            })?;
            match u64::try_from(nanos) {
                Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
                _ => return Err(Error::invalid("duration interval must be greater than 0")),
            }
        }
    };
    if state.status() == Status::Stopped {
        let id = &state.id;
        return Err(Error::invalid(format!(
            "container with id {id} is not running"
        )));
    }
    let cgroup = state.cgroup()?;
    if call.args.is_set("stats") {
        return print_stats(&state.id, &cgroup);
    }
    let container = state.container()?;
    let alarm = cgroup.oom_alarm().map_err(io("watch for OOM"))?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).map_err(|_| Error::invalid("interval is too long"))?;
        let pidfd = container.pidfd();
        let mut polled = [
            PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(alarm.as_fd(), alarm.readiness()),
        ];
        match poll(&mut polled, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(io("poll")(error.into())),
            Ok(_) => {}
        }
        let [ended, rang] = polled.map(|fd| !fd.revents().is_empty());
        if rang && alarm.take().map_err(io("watch for OOM"))? {
            print(&format!("{}\n", json!({"type": "oom", "id": state.id})));
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            print_stats(&state.id, &cgroup)?;
            next += interval;
        }
    }
}

fn print_stats(id: &str, cgroup: &Cgroup) -> Result<(), Error> {
    let data = cgroup.stats();
    print(&format!(
        "{}\n",
        json!({"type": "stats", "id": id, "data": data})
    ));
    Ok(())
}
