//! A keeper: the parent of one container's processes, forked by the launcher.
//!
//! It owns the container's pipes or terminal, is the only writer of its log, serves attached
//! clients, and answers on `keeper.sock`. It lives as long as its container, and no daemon has to.
//!
//! ```text
//! launch ─► start ──► serving ──init ended──► exit.json, `Exited` ──clients served──► `Released`
//!              └─ StartFailed
//! ```
//!
//! One thread, one `poll` loop ([`turn`]). The container never waits for the daemon; it waits for
//! attached clients only, as with Docker.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use crate::foreign::Foreign;
use crate::log::Log;
use crate::protocol::{
    Event, ExecState, ExitRecord, Failure, FailureKind, KeeperState, Launch, VERSION,
};
use berth_runtime::container::Container;
use berth_runtime::seccomp::Filter;

mod client;
mod control;
mod detach;
mod end;
mod files;
mod process;
mod requests;
pub mod sources;
mod start;
mod turn;

pub use files::{connect, read_exit, read_state};

use client::Client;
use control::Connection;
use process::Process;

/// The exit codes of execs that are remembered for a daemon that comes later.
const MAX_FINISHED_EXECS: usize = 256;

/// The keeper's whole life. Returns the exit code of the keeper itself. `birth` is closed when the
/// keeper can be found.
pub fn run(launch: Box<Launch>, fds: VecDeque<OwnedFd>, birth: Option<File>) -> i32 {
    match start::start(launch, fds, birth) {
        Some(keeper) => keeper.serve(),
        None => 1,
    }
}

struct Keeper {
    id: String,
    dir: PathBuf,
    container: Container,
    /// The other runtime that made the container.
    foreign: Option<Foreign>,
    /// Holds the overlay until the end has been reported: the last reference syncs the disk.
    mount: Option<OwnedFd>,
    /// The container's filter, for execs.
    filter: Option<Arc<Filter>>,
    log: Log,
    /// The log's failure has been told; once is enough until it works again.
    log_has_failed: bool,
    listener: UnixListener,
    connections: Vec<Connection>,
    /// The main process is the first.
    processes: Vec<Process>,
    clients: Vec<Client>,
    finished_execs: VecDeque<ExecState>,
    next_key: u32,
    started_at_ns: i64,
    init_start_ticks: u64,
    paused: bool,
    /// How many of the container's processes were killed for lack of memory, as far as told.
    oom_kills: u64,
    /// The overlay has been let go.
    released: bool,
    exit: Option<(ExitRecord, Instant)>,
    /// For one read of output.
    buffer: Vec<u8>,
    /// A caller could not be let in for want of descriptors; it waits until something has happened.
    is_deaf: bool,
    /// Memory is in use that is given back when nothing happens.
    is_warm: bool,
}

impl Keeper {
    fn state(&self) -> KeeperState {
        let running = self.processes.iter().filter_map(|process| {
            let exec = process.exec.clone().filter(|_| process.exit.is_none())?;
            Some(ExecState {
                exec,
                pid: process.pid,
                code: None,
            })
        });
        KeeperState {
            version: VERSION,
            id: self.id.clone(),
            keeper_pid: rustix::process::getpid().as_raw_nonzero().get(),
            init_pid: self.container.pid().as_raw_nonzero().get(),
            init_start_ticks: self.init_start_ticks,
            started_at_ns: self.started_at_ns,
            paused: self.paused,
            execs: self.finished_execs.iter().cloned().chain(running).collect(),
            exited: self.exit.as_ref().map(|(record, _)| record.clone()),
        }
    }

    fn publish(&mut self, event: &Event) {
        for connection in &mut self.connections {
            connection.event(event);
        }
    }

    /// Tells a failure that the container shall not notice.
    fn warn(&mut self, error: &dyn std::error::Error) {
        let message = sentence(error);
        self.publish(&Event::Warning { message });
    }

    /// Tells what became of records: once that they are dropped, and how many when the log takes
    /// them again or the container has ended.
    fn logged(&mut self, result: Result<(), crate::log::Error>, is_final: bool) {
        match result {
            Err(error) if !self.log_has_failed => {
                self.log_has_failed = true;
                self.warn(&error);
            }
            Err(_same) => (),
            Ok(()) => self.log_has_failed &= self.log.is_failing(),
        }
        // A number that nobody hears waits for the next daemon.
        if self.connections.iter().any(|it| it.is_subscribed) {
            let count = self.log.take_dropped(is_final);
            if count > 0 {
                let message = format!("{count} records of the container's log were dropped");
                self.publish(&Event::Warning { message });
            }
        }
    }
}

fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn internal(error: &dyn std::error::Error) -> Failure {
    Failure {
        kind: FailureKind::Internal,
        message: sentence(error),
    }
}

fn sentence(error: &dyn std::error::Error) -> String {
    berth_base::chain::Chain(error).to_string()
}
