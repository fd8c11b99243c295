//! Calls of other services over D-Bus (D-Bus Specification, version 1 of the protocol).
//!
//! A client of our own, since a daemon has only a handful of calls to make, synchronously: zbus
//! is 200,000 lines with an async runtime, the small libraries have not been kept up, and a
//! program like `firewall-cmd` costs 200 ms of Python for what is 1 ms on the socket.
//!
//! Signals that arrive in between are passed over; nothing is served, no descriptors are passed.

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

/// A connection to a bus, which has a name there.
pub struct Connection {
    stream: UnixStream,
    patience: Duration,
    serial: u32,
}

const BUS: Method<'static> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    name: "Hello",
};

/// A line of the authentication; the server's longest is its list of mechanisms.
const MAX_LINE_BYTES: usize = 1024;

impl Connection {
    /// Connects as the process's user. No call takes longer than `patience`.
    pub fn open(socket: &Path, patience: Duration) -> Result<Connection, Error> {
        let mut connection = Connection {
            stream: UnixStream::connect(socket)?,
            patience,
            serial: 0,
        };
        connection.stream.set_write_timeout(Some(patience))?;
        connection.authenticate()?;
        connection.call(BUS, &[])?;
        Ok(connection)
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

    fn receive(&mut self, deadline: Instant) -> io::Result<wire::Answer> {
        let mut start = [0; wire::START_BYTES];
        self.read(&mut start, deadline)?;
        let rest = wire::rest_of(&start)?;
        let mut message = start.to_vec();
        message.resize(start.len() + rest, 0);
        self.read(&mut message[start.len()..], deadline)?;
        wire::answer(&message)
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
