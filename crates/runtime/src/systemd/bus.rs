//! What is asked of systemd: over the system bus, or over systemd's own socket where no bus runs.

use std::path::Path;
use std::time::Duration;

use berth_sys::dbus::{self, Connection, Method, SYSTEM_BUS, Value};

/// Where systemd answers root without a bus, as `systemctl` uses it.
const PRIVATE: &str = "/run/systemd/private";
/// As long as D-Bus libraries wait by default.
const PATIENCE: Duration = Duration::from_secs(25);

const MANAGER: Method<'static> = Method {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    name: "Subscribe",
};
const JOB_REMOVED: &str = "JobRemoved";
const JOB_RULE: &str = "type='signal',sender='org.freedesktop.systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("connect to systemd at {path}")]
    Connect {
        path: &'static str,
        #[source]
        source: dbus::Error,
    },
    /// systemd's own words, among others.
    #[error("{member}")]
    Call {
        member: &'static str,
        #[source]
        source: dbus::Error,
    },
    #[error("{member}: no job in the answer")]
    NoJob { member: &'static str },
    #[error("the job of {unit} ended as {result:?}, see: journalctl -u {unit}")]
    Job { unit: String, result: String },
}

impl Error {
    /// Whether systemd answered with the error of this name.
    pub fn is(&self, expect: &str) -> bool {
        matches!(self, Self::Call { source: dbus::Error::Refused { name, .. }, .. } if name == expect)
    }
}

/// A connection to systemd; calls wait for their answers.
#[derive(Debug)]
pub struct Bus(Connection);

impl Bus {
    /// Connects to the system's systemd. Needs root.
    pub fn connect() -> Result<Self, Error> {
        if !Path::new(SYSTEM_BUS).exists() {
            let connection = Connection::open_peer(Path::new(PRIVATE), PATIENCE);
            return connection.map(Self).map_err(|source| Error::Connect {
                path: PRIVATE,
                source,
            });
        }
        let open = || {
            let mut connection = Connection::open(Path::new(SYSTEM_BUS), PATIENCE)?;
            connection.listen(JOB_RULE)?;
            connection.call(MANAGER, &[])?;
            Ok(Self(connection))
        };
        open().map_err(|source| Error::Connect {
            path: SYSTEM_BUS,
            source,
        })
    }

    /// Calls a method of systemd's manager.
    pub fn manager(&mut self, member: &'static str, args: &[Value]) -> Result<Vec<Value>, Error> {
        let method = Method {
            name: member,
            ..MANAGER
        };
        let answer = self.0.call(method, args);
        answer.map_err(|source| Error::Call { member, source })
    }

    /// Calls a method that starts a job, and waits for its end.
    pub fn job(&mut self, unit: &str, member: &'static str, args: &[Value]) -> Result<(), Error> {
        let answer = self.manager(member, args)?;
        let job = answer.first().and_then(Value::as_text);
        let job = job.ok_or(Error::NoJob { member })?;
        loop {
            let signal = self.0.signal();
            let signal = signal.map_err(|source| Error::Call { member, source })?;
            // Number, path, unit and result.
            let [_, path, _, result] = signal.body.as_slice() else {
                continue;
            };
            if signal.name == JOB_REMOVED && path.as_text() == Some(job) {
                return match result.as_text().unwrap_or_default() {
                    "done" => Ok(()),
                    result => Err(Error::Job {
                        unit: unit.to_owned(),
                        result: result.to_owned(),
                    }),
                };
            }
        }
    }
}
