//! The agent that decides about calls for which a profile says SCMP_ACT_NOTIFY: it listens on a
//! socket of the host, and gets the filter's descriptor with the state of the process (OCI
//! runtime specification, config-linux.md "Seccomp" and "The Container Process State").

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use berth_sys::fdpass;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};
use rustix::net::SendFlags;
use serde_json::{Value, json};

use crate::error::{Error, io_words};
use crate::hooks::Subject;

/// Where a profile says that its agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    path: PathBuf,
    metadata: Option<String>,
}

impl Listener {
    /// `None` when no call needs an agent. It cannot decide about those by which it is told of
    /// the filter, and there must be one (the words are runc's).
    pub fn of(profile: &LinuxSeccomp) -> Result<Option<Self>, Error> {
        let is_notify = |action| action == LinuxSeccompAction::ScmpActNotify;
        if is_notify(profile.default_action()) {
            return Err(Error::invalid(
                "SCMP_ACT_NOTIFY cannot be used as default action",
            ));
        }
        let rules = profile.syscalls().iter().flatten();
        let mut names = rules
            .filter(|rule| is_notify(rule.action()))
            .flat_map(|rule| rule.names())
            .peekable();
        if names.peek().is_none() {
            return Ok(None);
        }
        if names.any(|name| name == "write") {
            return Err(Error::invalid(
                "SCMP_ACT_NOTIFY cannot be used for the write syscall",
            ));
        }
        let path = profile.listener_path().clone().ok_or_else(|| {
            Error::invalid("SCMP_ACT_NOTIFY needs a listenerPath in the seccomp profile")
        })?;
        Ok(Some(Self {
            path,
            metadata: profile.listener_metadata().clone(),
        }))
    }
}

/// Where a process's filter is handed to, and what is said with it.
#[derive(Debug, Clone)]
pub struct Agent {
    listener: Listener,
    version: String,
    state: Value,
}

impl Agent {
    /// That of a profile, if it has one; see [`super::Filter::agent`].
    pub fn of(
        profile: Option<&LinuxSeccomp>,
        subject: &Subject<'_>,
        status: &str,
    ) -> Result<Option<Self>, Error> {
        let listener = profile.map_or(Ok(None), Listener::of)?;
        Ok(listener.map(|listener| Self::new(&listener, subject, status)))
    }

    pub(super) fn new(listener: &Listener, subject: &Subject<'_>, status: &str) -> Self {
        Self {
            listener: listener.clone(),
            version: subject.version.to_owned(),
            state: subject.state(status, 0),
        }
    }

    /// Hands the descriptor over; `pid` is the process that the filter is in force for.
    pub(crate) fn hand_over(&self, filter: BorrowedFd<'_>, pid: i32) -> Result<(), Error> {
        let fail = |what: &str, error: &io::Error| {
            let (path, reason) = (self.listener.path.display(), io_words(error));
            Error::internal(format!("{what} the seccomp agent at {path}: {reason}"))
        };
        let agent = UnixStream::connect(&self.listener.path).map_err(|e| fail("connect to", &e))?;
        let message = self.message(pid).to_string();
        let mut rest = message.as_bytes();
        let filter = [filter];
        let mut descriptors = filter.as_slice();
        while !rest.is_empty() {
            let sent = fdpass::send_some(agent.as_fd(), rest, descriptors, SendFlags::empty())
                .map_err(|e| fail("send to", &e))?;
            descriptors = &[];
            rest = rest.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    fn message(&self, pid: i32) -> Value {
        let mut state = self.state.clone();
        state["pid"] = pid.into();
        let mut message = json!({
            "ociVersion": self.version,
            "fds": ["seccompFd"],
            "pid": pid,
            "state": state,
        });
        if let Some(metadata) = &self.listener.metadata {
            message["metadata"] = metadata.as_str().into();
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_state_is_the_specifications() {
        let profile: LinuxSeccomp = serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent", "listenerMetadata": "m",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        }))
        .unwrap();
        let subject = Subject {
            version: "1.2.0",
            id: "c1",
            bundle: Path::new("/b"),
            annotations: None,
        };
        let agent = Agent::of(Some(&profile), &subject, "creating")
            .unwrap()
            .unwrap();
        assert_eq!(
            agent.message(7),
            json!({
                "ociVersion": "1.2.0", "fds": ["seccompFd"], "pid": 7, "metadata": "m",
                "state": {"ociVersion": "1.2.0", "id": "c1", "status": "creating", "pid": 7, "bundle": "/b"},
            })
        );
        let plain = Agent::of(Some(&LinuxSeccomp::default()), &subject, "creating");
        assert!(plain.unwrap().is_none());
    }
}
