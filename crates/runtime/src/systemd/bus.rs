//! A connection to systemd: over the system bus, or over systemd's own socket where no bus runs.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::wire::{self, Message, Reader, Target, Value};

/// The system bus (D-Bus specification, "Well-known message bus instances").
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// Where systemd answers root without a bus, as `systemctl` uses it.
const PRIVATE: &str = "/run/systemd/private";
/// As long as D-Bus libraries wait by default.
const PATIENCE: Duration = Duration::from_secs(25);
/// The longest line of the authentication that is read.
const MAX_LINE_BYTES: usize = 512;
/// Finished jobs that are remembered until somebody asks.
const MAX_JOBS: usize = 64;

const BUS: Target = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "",
};
const MANAGER: Target = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
};
const JOB_REMOVED: &str = "type='signal',sender='org.freedesktop.systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("connect to systemd at {path}")]
    Connect {
        path: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("talk to systemd")]
    Io(#[from] io::Error),
    #[error("systemd sent what is no D-Bus message")]
    Malformed,
    /// systemd's own words.
    #[error("{member}: {message}")]
    Refused {
        member: &'static str,
        name: String,
        message: String,
    },
    #[error("the job of {unit} ended as {result:?}, see: journalctl -u {unit}")]
    Job { unit: String, result: String },
}

/// A connection; calls wait for their answers.
#[derive(Debug)]
pub struct Bus {
    socket: UnixStream,
    serial: u32,
    /// Ends of jobs that were told while something else was waited for: path and result.
    jobs: VecDeque<(String, String)>,
}

impl Bus {
    /// Connects to the system's systemd. Needs root.
    pub fn connect() -> Result<Self, Error> {
        let is_bus = Path::new(SYSTEM_BUS).exists();
        let path = if is_bus { SYSTEM_BUS } else { PRIVATE };
        let fail = |source| Error::Connect { path, source };
        let socket = UnixStream::connect(path).map_err(fail)?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(fail)?;
        let mut bus = Self {
            socket,
            serial: 0,
            jobs: VecDeque::new(),
        };
        bus.authenticate().map_err(fail)?;
        if is_bus {
            bus.ask(
                Target {
                    member: "Hello",
                    ..BUS
                },
                &[],
            )?;
            let member = "AddMatch";
            bus.ask(Target { member, ..BUS }, &[JOB_REMOVED.into()])?;
            bus.manager("Subscribe", &[])?;
        }
        Ok(bus)
    }

    /// By the credentials of the socket (D-Bus specification, "EXTERNAL").
    fn authenticate(&mut self) -> io::Result<()> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let digits: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.socket
            .write_all(format!("\0AUTH EXTERNAL {digits}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < MAX_LINE_BYTES {
            let mut byte = [0];
            self.socket.read_exact(&mut byte)?;
            line.extend(byte);
        }
        if !line.starts_with(b"OK ") {
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, line));
        }
        self.socket.write_all(b"BEGIN\r\n")
    }

    /// Calls a method of systemd's manager.
    pub fn manager(&mut self, member: &'static str, args: &[Value]) -> Result<Message, Error> {
        self.ask(Target { member, ..MANAGER }, args)
    }

    /// Calls a method that starts a job, and waits for its end.
    pub fn job(&mut self, unit: &str, member: &'static str, args: &[Value]) -> Result<(), Error> {
        let reply = self.manager(member, args)?;
        let job = reply.body().text().ok_or(Error::Malformed)?;
        let result = loop {
            match self.jobs.pop_front() {
                Some((path, result)) if path == job => break result,
                Some(_) => {}
                None => {
                    let message = self.receive()?;
                    self.note(&message);
                }
            }
        };
        match result.as_str() {
            "done" => Ok(()),
            _ => Err(Error::Job {
                unit: unit.to_owned(),
                result,
            }),
        }
    }

    fn ask(&mut self, target: Target, args: &[Value]) -> Result<Message, Error> {
        self.serial += 1;
        self.socket
            .write_all(&wire::call(self.serial, target, args))?;
        loop {
            let message = self.receive()?;
            let is_reply = message.reply_serial == self.serial;
            match message.kind {
                wire::METHOD_RETURN if is_reply => return Ok(message),
                wire::ERROR if is_reply => {
                    return Err(Error::Refused {
                        member: target.member,
                        message: message.body().text().unwrap_or_default(),
                        name: message.error_name,
                    });
                }
                _ => self.note(&message),
            }
        }
    }

    /// Remembers the end of a job; nothing else is of interest.
    fn note(&mut self, message: &Message) {
        if message.kind != wire::SIGNAL || message.member != "JobRemoved" {
            return;
        }
        if let Some(end) = job_removed(message.body()) {
            if self.jobs.len() == MAX_JOBS {
                self.jobs.pop_front();
            }
            self.jobs.push_back(end);
        }
    }

    fn receive(&mut self) -> Result<Message, Error> {
        let mut header = [0; wire::FIXED_HEADER_BYTES];
        self.socket.read_exact(&mut header)?;
        let rest = wire::rest_of(&header).ok_or(Error::Malformed)?;
        let mut bytes = header.to_vec();
        bytes.resize(header.len() + rest, 0);
        self.socket.read_exact(&mut bytes[header.len()..])?;
        Message::parse(&bytes).ok_or(Error::Malformed)
    }
}

/// Number, path, unit and result.
fn job_removed(mut body: Reader<'_>) -> Option<(String, String)> {
    body.u32()?;
    let path = body.text()?;
    body.text()?;
    Some((path, body.text()?))
}
