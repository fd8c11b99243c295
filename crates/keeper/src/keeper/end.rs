//! The ends of processes, and the keeper's own.

use std::time::{Duration, Instant};

use super::control::Connection;
use super::process::Process;
use super::{Keeper, MAX_FINISHED_EXECS, files, now_ns};
use crate::foreign::Foreign;
use crate::log::Stream;
use crate::protocol::{Event, ExecState, ExitRecord};
use berth_runtime::container::Exit;

/// After the container's end the overlay is let go when all clients are served, or after this
/// long: letting go syncs the disk, for which no client shall wait.
const RELEASE_AFTER: Duration = Duration::from_millis(50);

/// How long the keeper tries to tell the daemon what `exit.json` says, too.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

impl Keeper {
    pub(super) fn process_ended(&mut self, index: usize, exit: Exit) {
        let oom_kills = self.container.oom_kills();
        if oom_kills > self.oom_kills {
            self.oom_kills = oom_kills;
            self.publish(&Event::Oom);
        }
        if self.processes[index].exec.is_some() {
            self.exec_ended(index, exit);
        } else {
            self.init_ended(index, exit);
        }
    }

    fn exec_ended(&mut self, index: usize, exit: Exit) {
        self.drain(index);
        let process = &mut self.processes[index];
        let (key, pid, code) = (process.key, process.pid, exit.code());
        let exec = process.exec.clone().unwrap_or_default();
        process.ended(exit);
        if self.finished_execs.len() == MAX_FINISHED_EXECS {
            self.finished_execs.pop_front();
        }
        self.finished_execs.push_back(ExecState {
            exec: exec.clone(),
            pid,
            code: Some(code),
        });
        // Before the client sees the end: it then asks the daemon for the code.
        self.publish(&Event::ExecExited { exec, code });
        self.end_clients(key);
    }

    fn init_ended(&mut self, index: usize, exit: Exit) {
        let finished_at_ns = now_ns();
        // With the host's process namespace others may be left, and hold the pipes.
        let _ = self.container.kill_all(libc::SIGKILL);
        if let Some(Err(error)) = self.foreign.as_ref().map(Foreign::delete) {
            self.warn(&error);
        }
        let removed = self.container.remove_cgroup();
        self.drain(index);
        self.processes[index].ended(exit);
        let key = self.processes[index].key;
        let finished = self.log.finish();
        self.logged(finished, true);
        let record = ExitRecord {
            code: exit.code(),
            signal: exit.signal(),
            oom_killed: self.oom_kills > 0,
            finished_at_ns,
        };
        if let Err(error) = files::write_exit(&self.dir, &record) {
            self.warn(&error);
        }
        if let Err(error) = removed {
            self.warn(&error);
        }
        self.publish(&Event::Exited(record.clone()));
        self.exit = Some((record, Instant::now()));
        self.end_clients(key);
    }

    /// Reads what is in the pipes of a process that has ended. A full client does not hold this
    /// up: a pipe's content is bounded, too.
    fn drain(&mut self, index: usize) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.copy(index, stream) {}
        }
    }

    fn end_clients(&mut self, process: u32) {
        let now = Instant::now();
        for client in self
            .clients
            .iter_mut()
            .filter(|client| client.process == process)
        {
            client.end(now);
        }
    }

    /// Once the container has ended: brings the keeper nearer to its own end. `true`: done.
    pub(super) fn finish(&mut self, now: Instant) -> bool {
        let Some((_, since)) = self.exit else {
            return false;
        };
        let execs_ended = self
            .processes
            .iter()
            .all(|process: &Process| process.exit.is_some());
        let served = self.clients.is_empty() && execs_ended;
        if !self.released && (served || now >= since + RELEASE_AFTER) {
            if let Some(foreign) = &mut self.foreign {
                foreign.unmount();
            }
            self.mount = None;
            self.released = true;
            self.publish(&Event::Released);
        }
        let reported = !self.connections.iter().any(Connection::has_unsent);
        self.released && served && (reported || now >= since + REPORT_TIMEOUT)
    }

    pub(super) fn end_deadline(&self, now: Instant) -> Option<Instant> {
        let (_, since) = self.exit.as_ref()?;
        let is_reporting = self.connections.iter().any(Connection::has_unsent);
        let next = match self.released {
            false => RELEASE_AFTER,
            true if is_reporting => REPORT_TIMEOUT,
            true => return None,
        };
        Some(*since + next).filter(|at| *at > now || !self.released)
    }
}
