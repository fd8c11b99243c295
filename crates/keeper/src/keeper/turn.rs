//! The keeper's loop: poll, then handle what is ready, then bring the log to its file.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::client::{Client, Input};
use super::control::Connection;
use super::process::Process;
use super::{Keeper, now_ns};
use crate::log::Stream;
use crate::protocol::Event;
use berth_runtime::container;

/// Nothing has happened for this long: memory that a burst needed is given back.
const IDLE: Duration = Duration::from_secs(1);

/// What a polled descriptor stands for; indices hold for one turn.
#[derive(Debug, Clone, Copy)]
enum Source {
    Listener,
    Connection(usize),
    Client(usize),
    Output(usize, Stream),
    Input(usize),
    End(usize),
}

impl Keeper {
    /// Runs until the container has ended and its output is delivered.
    pub(super) fn serve(mut self) -> i32 {
        loop {
            let now = Instant::now();
            self.tidy(now);
            if self.finish(now) {
                return 0;
            }
            let ready = self.wait(now);
            if ready.is_empty() {
                self.rest();
            }
            // What has happened may have closed a descriptor.
            self.is_deaf = false;
            for (source, events) in ready {
                self.handle(source, events);
            }
            let flushed = self.log.flush();
            self.logged(flushed, false);
        }
    }

    /// Polls everything that is of interest now.
    fn wait(&self, now: Instant) -> Vec<(Source, PollFlags)> {
        let listens = if self.is_deaf {
            PollFlags::empty()
        } else {
            PollFlags::IN
        };
        let mut sources = vec![Source::Listener];
        let mut fds = vec![PollFd::new(&self.listener, listens)];
        for (index, connection) in self.connections.iter().enumerate() {
            sources.push(Source::Connection(index));
            fds.push(PollFd::from_borrowed_fd(
                connection.fd(),
                connection.interest(),
            ));
        }
        for (index, process) in self.processes.iter().enumerate() {
            self.poll_process(index, process, &mut sources, &mut fds);
        }
        for (index, client) in self.clients.iter().enumerate() {
            let room = self.owner(client).is_none_or(Process::input_has_room);
            if let Some(interest) = client.interest(room) {
                sources.push(Source::Client(index));
                fds.push(PollFd::from_borrowed_fd(client.fd(), interest));
            }
        }
        let timeout = self.deadline(now).map(|deadline| timespec(deadline - now));
        match poll(&mut fds, timeout.as_ref()) {
            // Interrupted: the caller comes back.
            Err(_) => Vec::new(),
            Ok(_) => sources
                .into_iter()
                .zip(&fds)
                .map(|(source, fd)| (source, fd.revents()))
                .filter(|(_, events)| !events.is_empty())
                .collect(),
        }
    }

    fn poll_process<'a>(
        &'a self,
        index: usize,
        process: &'a Process,
        sources: &mut Vec<Source>,
        fds: &mut Vec<PollFd<'a>>,
    ) {
        let mut add = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        // Back-pressure: while a client is full, its process's output stays where it is.
        let is_held = self
            .clients
            .iter()
            .any(|c| c.process == process.key && c.is_full());
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let (Some(output), false) = (process.output(stream), is_held) {
                add(Source::Output(index, stream), output, PollFlags::IN);
            }
        }
        if let Some(input) = process.unwritten_input() {
            add(Source::Input(index), input, PollFlags::OUT);
        }
        if process.exit.is_none() {
            let pidfd = process.pidfd().unwrap_or_else(|| self.container.pidfd());
            add(Source::End(index), pidfd, PollFlags::IN);
        }
    }

    fn handle(&mut self, source: Source, events: PollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Connection(index) => {
                self.connections[index].flush();
                if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.answer(index);
                }
            }
            Source::Client(index) => self.client_ready(index, events),
            Source::Output(index, stream) => {
                self.copy(index, stream);
            }
            Source::Input(index) => self.processes[index].flush_input(),
            Source::End(index) => {
                let process = &self.processes[index];
                let pidfd = process.pidfd().unwrap_or_else(|| self.container.pidfd());
                if let Ok(Some(exit)) = container::try_reap(pidfd) {
                    self.process_ended(index, exit);
                }
            }
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match rustix::net::accept_with(self.listener.as_fd(), flags) {
            Ok(socket) => self.connections.push(Connection::new(socket, false)),
            // It would be ready again at once, and so for as long as there is no room.
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => self.is_deaf = true,
            Err(_gone) => (),
        }
    }

    /// Copies one read's worth of output to the log and to the clients. `false`: there is none
    /// now, or none any more.
    pub(super) fn copy(&mut self, index: usize, stream: Stream) -> bool {
        let process = &mut self.processes[index];
        if process.read(stream, &mut self.buffer).is_none() {
            return false;
        }
        self.is_warm = true;
        // A child of an exec that ended writes on, and shall not fail; nobody listens.
        if process.exit.is_some() && process.exec.is_some() {
            return true;
        }
        for client in self
            .clients
            .iter_mut()
            .filter(|client| client.process == process.key)
        {
            client.offer(stream, &self.buffer);
        }
        if process.exec.is_none() {
            let written = self.log.write(stream, &self.buffer, now_ns());
            self.logged(written, false);
        }
        true
    }

    fn client_ready(&mut self, index: usize, events: PollFlags) {
        let now = Instant::now();
        let mut typed = Vec::new();
        let client = &mut self.clients[index];
        let input = client.ready(events, &mut typed, now);
        let Some(process) = self.processes.iter_mut().find(|p| p.key == client.process) else {
            return client.end(now);
        };
        process.type_in(&typed);
        match input {
            Input::Nothing => (),
            Input::Ended => {
                if !process.client_input_ended() {
                    client.end(now);
                }
            }
            Input::Detached => {
                client.end(now);
                let exec = process.exec.clone();
                self.publish(&Event::Detached { exec });
            }
        }
    }

    fn owner(&self, client: &Client) -> Option<&Process> {
        self.processes
            .iter()
            .find(|process| process.key == client.process)
    }

    /// Lets go of what is over.
    fn tidy(&mut self, now: Instant) {
        let connections = self.connections.len();
        self.connections.retain(|connection| !connection.is_gone());
        if self.connections.len() < connections {
            // Nobody may be left who would release them.
            self.clients.iter_mut().for_each(|it| it.release(now));
        }
        for client in &mut self.clients {
            client.expire(now);
        }
        self.clients.retain(|client| !client.is_gone());
        self.processes
            .retain(|p| p.exec.is_none() || p.exit.is_none() || p.has_outputs());
    }

    /// When the loop must turn although nothing arrives.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        let clients = self.clients.iter().filter_map(Client::deadline);
        let idle = self.is_warm.then(|| now + IDLE);
        clients
            .chain(idle)
            .chain(self.end_deadline(now))
            .map(|at| at.max(now))
            .min()
    }

    fn rest(&mut self) {
        if std::mem::take(&mut self.is_warm) {
            self.buffer = Vec::new();
            self.log.rest();
            berth_sys::memory::trim();
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    // Rounded up, so that the deadline has passed when the poll ends.
    let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX - 1) + 1;
    Timespec {
        tv_sec: millis / 1000,
        tv_nsec: millis % 1000 * 1_000_000,
    }
}
