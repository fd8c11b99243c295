//! Calls of other services over D-Bus (D-Bus Specification, version 1 of the protocol).
//!
//! A client of our own, since a daemon has only a handful of calls to make, synchronously: zbus
//! is 200,000 lines with an async runtime, the small libraries have not been kept up, and a
//! program like `firewall-cmd` costs 200 ms of Python for what is 1 ms on the socket.
//!
//! Nothing is served, and no descriptors are passed.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

mod value;
mod wire;

pub use value::Value;

/// Where the system's bus listens (D-Bus Specification, "System message bus").
pub const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// What is called, and where.
#[derive(Debug, Clone, Copy)]
pub struct Method<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub name: &'a str,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side answered with an error of its own; `name` is one like
    /// `org.freedesktop.DBus.Error.ServiceUnknown`.
    #[error("{message} ({name})")]
    Refused { name: String, message: String },
    /// No bus, no answer in time, or an answer that is none.
    #[error("speak to the message bus")]
    Io(#[from] io::Error),
}

/// A signal that was listened for.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    pub name: String,
    pub body: Vec<Value>,
}

/// A connection to a bus, or to a service's own socket.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    patience: Duration,
    serial: u32,
    /// Those that came while an answer was waited for; the oldest are lost first.
    signals: VecDeque<Signal>,
}

const BUS: Method<'static> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    name: "Hello",
};

/// Signals that are kept until somebody asks.
const MAX_SIGNALS: usize = 64;
/// A line of the authentication; the server's longest is its list of mechanisms.
const MAX_LINE_BYTES: usize = 1024;

impl Connection {
    /// Connects to a bus as the process's user. No call takes longer than `patience`.
    pub fn open(socket: &Path, patience: Duration) -> Result<Connection, Error> {
        let mut connection = Connection::open_peer(socket, patience)?;
        connection.call(BUS, &[])?;
        Ok(connection)
    }

    /// Connects to a service that listens itself, without a bus between.
    pub fn open_peer(socket: &Path, patience: Duration) -> Result<Connection, Error> {
        let mut connection = Connection {
            stream: UnixStream::connect(socket)?,
            patience,
            serial: 0,
            signals: VecDeque::new(),
        };
        connection.stream.set_write_timeout(Some(patience))?;
        connection.authenticate()?;
        Ok(connection)
    }

    /// Asks the bus for the signals that the rule describes (D-Bus Specification, "Match Rules").
    pub fn listen(&mut self, rule: &str) -> Result<(), Error> {
        let name = "AddMatch";
        self.call(Method { name, ..BUS }, &[rule.into()]).map(drop)
    }

    /// The next signal: one that came already, or the first that comes.
    pub fn signal(&mut self) -> Result<Signal, Error> {
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let message = self.receive(deadline)?;
            self.keep(message);
        }
    }

    fn keep(&mut self, message: wire::Message) {
        let Some(name) = message.signal else {
            return;
        };
        if self.signals.len() == MAX_SIGNALS {
            self.signals.pop_front();
        }
        let body = message.body;
        self.signals.push_back(Signal { name, body });
    }

    /// Calls a method and waits for its answer, which is the list of what it returns. After
    /// [`Error::Io`] the connection is not to be used any more.
    pub fn call(&mut self, method: Method<'_>, arguments: &[Value]) -> Result<Vec<Value>, Error> {
        self.serial = self.serial.wrapping_add(1).max(1);
        let message = wire::call(method, self.serial, arguments);
        self.stream.write_all(&message)?;
        let deadline = Instant::now() + self.patience;
        loop {
            let answer = self.receive(deadline)?;
            if answer.reply_to != Some(self.serial) {
                self.keep(answer);
                continue;
            }
            return match answer.error {
                None => Ok(answer.body),
                Some(name) => {
                    let message = match answer.body.into_iter().next() {
                        Some(Value::Text(text)) => text,
                        _ => String::new(),
                    };
                    Err(Error::Refused { name, message })
                }
            };
        }
    }

    /// SASL's mechanism EXTERNAL: the kernel tells the server who we are.
    fn authenticate(&mut self) -> io::Result<()> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let digits: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.stream
            .write_all(format!("\0AUTH EXTERNAL {digits}\r\n").as_bytes())?;
        let deadline = Instant::now() + self.patience;
        let mut line = Vec::new();
        // Byte by byte, once; the server says nothing after it until we began.
        while !line.ends_with(b"\r\n") {
            if line.len() == MAX_LINE_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut byte = [0];
            self.read(&mut byte, deadline)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<wire::Message> {
        let mut start = [0; wire::START_BYTES];
        self.read(&mut start, deadline)?;
        let rest = wire::rest_of(&start)?;
        let mut message = start.to_vec();
        message.resize(start.len() + rest, 0);
        self.read(&mut message[start.len()..], deadline)?;
        wire::read(&message)
    }

    fn read(&mut self, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !buffer.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => buffer = &mut buffer[bytes..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
