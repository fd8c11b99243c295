//! `top`: the processes of a container, read from /proc.
//!
//! dockerd runs the host's `ps` and picks the container's lines; the daemon here starts no
//! programs, so the columns of `ps -ef` are what there is.

use berth_docker::container::TopResponse;
use berth_runtime::cgroup::Cgroup;

use crate::error::{Context, Error, Result};
use crate::record::{Phase, View};
use crate::shared::Shared;

const TITLES: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
/// Ticks of a second in /proc, on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

pub fn top(shared: &Shared, view: &View, ps_args: &str) -> Result<TopResponse> {
    let id = view.record.id.as_str();
    match view.state.phase {
        Phase::Running { .. } => {}
        Phase::Restarting => {
            return Err(Error::conflict(format!(
                "Container {id} is restarting, wait until the container is running"
            )));
        }
        _ => return Err(Error::not_running(id)),
    }
    if !matches!(ps_args, "" | "-ef") {
        return Err(Error::not_implemented(format!(
            "top with the arguments {ps_args:?} is not supported: only -ef is"
        )));
    }
    let cgroup =
        Cgroup::new(&shared.cgroup(&view.record)).context("find the container's cgroup")?;
    let mut pids = cgroup.pids().context("list the container's processes")?;
    pids.sort_unstable();
    // One that ended while we looked is left out.
    let processes = pids.into_iter().filter_map(process).collect();
    Ok(TopResponse {
        titles: TITLES.map(str::to_owned).to_vec(),
        processes,
    })
}

fn process(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uid = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))?
        .split_whitespace()
        .nth(1)?;
    // The name in parentheses may hold anything, also parentheses.
    let (head, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let seconds = (number(11)? + number(12)?) / TICKS_PER_SECOND;
    let started = started_at(number(19)?)?;
    Some(vec![
        uid.to_owned(),
        pid.to_string(),
        fields.get(1)?.to_string(),
        "0".to_owned(),
        started,
        tty(number(4)?),
        format!(
            "{:02}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
        command_line(pid)
            .unwrap_or_else(|| format!("[{}]", head.split_once('(').map_or("", |(_, name)| name))),
    ])
}

fn command_line(pid: i32) -> Option<String> {
    let text = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end_matches('\0').replace('\0', " ");
    (!text.is_empty()).then_some(text)
}

/// Hour and minute of the start in UTC.
fn started_at(ticks: u64) -> Option<String> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let boot = stat
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse::<u64>()
        .ok()?;
    let minutes = (boot + ticks / TICKS_PER_SECOND) / 60;
    Some(format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60))
}

fn tty(number: u64) -> String {
    // Major 136 to 143 are pseudo-terminals (Documentation/admin-guide/devices.txt).
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => "?".to_owned(),
    }
}
