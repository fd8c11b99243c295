//! What the daemon may ask a keeper for.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use oci_spec::runtime::Process as ProcessSpec;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, WaitOptions};

use super::client::Client;
use super::control::Connection;
use super::process::{self, INIT, Process, Wanted};
use super::{Keeper, internal};
use crate::foreign::Begun;
use crate::log::Stream;
use crate::protocol::{
    AttachOptions, Event, Failure, FailureKind, ReplyBody, Request, RequestBody, Target,
};
use berth_runtime::container::{self, ExecRequest};
use berth_runtime::hooks::Subject;
use berth_runtime::user;

impl Keeper {
    /// Answers all requests that have arrived on one connection.
    pub(super) fn answer(&mut self, index: usize) {
        self.connections[index].receive();
        while let Some(Request { seq, body }) = self.connections[index].next_request() {
            let mut connection = self.connections.remove(index);
            let reply = self
                .perform(body, &mut connection)
                .unwrap_or_else(ReplyBody::Failed);
            connection.reply(seq, reply);
            self.connections.insert(index, connection);
        }
    }

    fn perform(
        &mut self,
        body: RequestBody,
        connection: &mut Connection,
    ) -> Result<ReplyBody, Failure> {
        match body {
            RequestBody::Hello { version: _ } => {
                connection.is_subscribed = true;
                return Ok(ReplyBody::State(self.state()));
            }
            RequestBody::Attach { exec, options } => {
                let socket = connection.take_fd().map_err(|error| internal(&error))?;
                let process = self.process(exec.as_deref())?;
                let client = Client::new(process.key, options, socket, process.has_terminal());
                self.clients.push(client);
            }
            RequestBody::Join { options } => {
                let socket = connection.take_fd().map_err(|error| internal(&error))?;
                return self.join(options, socket);
            }
            RequestBody::Release { client: name } => {
                let now = Instant::now();
                for client in &mut self.clients {
                    if client.hold_name() == Some(name) {
                        client.release(now);
                    }
                }
            }
            RequestBody::Exec {
                exec,
                mut process,
                user,
                console_size,
                attach,
                open_stdin,
            } => {
                let attach = match attach {
                    None => None,
                    Some(options) => Some((
                        options,
                        connection.take_fd().map_err(|error| internal(&error))?,
                    )),
                };
                self.running()?;
                user::apply(&mut process, self.root()?.as_fd(), &user)?;
                let pid = self.exec(exec, &process, console_size, attach, open_stdin)?;
                return Ok(ReplyBody::ExecStarted { pid });
            }
            RequestBody::Signal { signal, target } => self.signal(signal, &target)?,
            RequestBody::Resize {
                exec,
                rows,
                columns,
            } => {
                let process = self.process(exec.as_deref())?;
                process
                    .resize(rows, columns)
                    .map_err(|error| internal(&error))?;
            }
            RequestBody::Pause => {
                self.running()?;
                match &self.foreign {
                    Some(foreign) => foreign.pause()?,
                    None => self.container.pause().map_err(|error| internal(&error))?,
                }
                self.paused = true;
            }
            RequestBody::Resume => {
                self.running()?;
                match &self.foreign {
                    Some(foreign) => foreign.resume()?,
                    None => self.container.resume().map_err(|error| internal(&error))?,
                }
                self.paused = false;
            }
            RequestBody::Update { resources } => {
                self.running()?;
                match &self.foreign {
                    Some(foreign) => foreign.update(&resources)?,
                    None => self.container.update(&resources)?,
                }
            }
        }
        Ok(ReplyBody::Done)
    }

    /// A client that comes to the main process between two records of its log. Of a line that has
    /// begun, the client is given what the log does not have yet.
    fn join(&mut self, options: AttachOptions, socket: OwnedFd) -> Result<ReplyBody, Failure> {
        let flushed = self.log.flush();
        self.logged(flushed, false);
        let Some(log) = self.log.position().map_err(|error| internal(&error))? else {
            return Err(Failure {
                kind: FailureKind::InvalidRequest,
                message: "the container has no log".to_owned(),
            });
        };
        let process = self.process(None)?;
        let mut client = Client::new(process.key, options, socket, process.has_terminal());
        let name = self.next_key;
        self.next_key += 1;
        client.hold(name);
        for stream in [Stream::Stdout, Stream::Stderr] {
            let begun = self.log.begun(stream);
            if !begun.is_empty() {
                client.offer(stream, begun);
            }
        }
        self.clients.push(client);
        Ok(ReplyBody::Joined { client: name, log })
    }

    fn exec(
        &mut self,
        exec: String,
        spec: &ProcessSpec,
        size: Option<(u16, u16)>,
        attach: Option<(AttachOptions, OwnedFd)>,
        open_stdin: bool,
    ) -> Result<i32, Failure> {
        let options = attach.as_ref().map(|(options, _)| options);
        let wanted = Wanted {
            terminal: spec.terminal().unwrap_or(false),
            size,
            stdin: open_stdin,
            stdout: options.is_some_and(|options| options.stdout),
            stderr: options.is_some_and(|options| options.stderr),
        };
        let (stdio, ends) = process::stdio(wanted).map_err(|error| internal(&error))?;
        let subject = Subject {
            version: "1.2.0",
            id: &self.id,
            bundle: Path::new(""),
            annotations: None,
        };
        let filter = self.filter.as_deref();
        let agent = filter.and_then(|filter| filter.agent(&subject, "running"));
        let request = ExecRequest {
            filter,
            agent: agent.as_ref(),
            keyring: Some(&self.id),
            ..ExecRequest::new(spec, stdio)
        };
        let child = match &self.foreign {
            Some(foreign) => adopt(foreign.exec(spec, request.stdio)?)?,
            None => self.container.exec(request)?,
        };
        for message in child.warnings {
            self.publish(&Event::Warning { message });
        }
        self.is_warm = true;

        let key = self.next_key;
        self.next_key += 1;
        let pid = child.pid.as_raw_nonzero().get();
        let (pidfd, console) = (Some(child.pidfd), child.console);
        // An exec's input always ends with its only client's.
        let process = Process::new(key, Some(exec), pid, pidfd, console, ends, true);
        let process = process.map_err(|error| {
            // Without a record of it nobody would see its end. Its number is its own until then.
            let _ = rustix::process::kill_process(child.pid, Signal::KILL);
            let wait = || rustix::process::waitpid(Some(child.pid), WaitOptions::empty());
            let _ = rustix::io::retry_on_intr(wait);
            internal(&error)
        })?;
        if let Some((options, socket)) = attach {
            self.clients
                .push(Client::new(key, options, socket, process.has_terminal()));
        }
        self.processes.push(process);
        Ok(pid)
    }

    /// The root as the container's first process sees it.
    fn root(&self) -> Result<OwnedFd, Failure> {
        let path = format!("/proc/{}/root", self.container.pid().as_raw_nonzero());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(|error| internal(&error))
    }

    fn signal(&mut self, signal: i32, target: &Target) -> Result<(), Failure> {
        let sent = match target {
            Target::Init => {
                self.running()?;
                if let Some(foreign) = &self.foreign {
                    return Ok(foreign.kill(signal)?);
                }
                self.container.kill(signal)
            }
            Target::All => {
                self.running()?;
                self.container.kill_all(signal)
            }
            Target::Exec(exec) => {
                let process = self.process(Some(exec))?;
                let pidfd = process.pidfd().ok_or_else(|| not_running(exec))?;
                berth_sys::pidfd::send_signal(pidfd, signal)
            }
        };
        sent.map_err(|error| internal(&error))
    }

    /// A process that runs.
    fn process(&self, exec: Option<&str>) -> Result<&Process, Failure> {
        let found = self.processes.iter().find(|process| match exec {
            None => process.key == INIT,
            Some(exec) => process.exec.as_deref() == Some(exec),
        });
        match (found, exec) {
            (Some(process), _) if process.exit.is_none() => Ok(process),
            (Some(_), _) => Err(not_running(exec.unwrap_or(&self.id))),
            (None, _) => {
                let message = format!("No such exec instance: {}", exec.unwrap_or_default());
                Err(Failure {
                    kind: FailureKind::NotFound,
                    message,
                })
            }
        }
    }

    fn running(&self) -> Result<(), Failure> {
        self.process(None).map(|_init| ())
    }
}

/// A process that another runtime left to us.
fn adopt(begun: Begun) -> Result<container::Process, Failure> {
    let pidfd = rustix::process::pidfd_open(begun.pid, rustix::process::PidfdFlags::empty())
        .map_err(|error| internal(&error))?;
    Ok(container::Process {
        pid: begun.pid,
        pidfd,
        console: begun.console,
        warnings: Vec::new(),
    })
}

fn not_running(name: &str) -> Failure {
    Failure {
        kind: FailureKind::NotRunning,
        message: format!("{name} is not running"),
    }
}
