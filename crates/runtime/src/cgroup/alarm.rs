//! Being told when a cgroup runs out of memory.
//!
//! Version 1: an eventfd that is registered with `cgroup.event_control`. Version 2: the kernel
//! wakes whoever polls `memory.events` for priority data, and the count of kills is compared.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, PollFlags, eventfd};

use super::{Cgroup, Layout, flat_key};

/// An open watch. It polls as [`Alarm::readiness`] says when something may have happened.
pub struct Alarm {
    kind: Kind,
}

enum Kind {
    Event {
        event: OwnedFd,
        directory: PathBuf,
    },
    File {
        events: File,
        known: std::cell::Cell<u64>,
    },
}

impl Cgroup {
    /// Starts to watch for processes that are killed for lack of memory.
    pub fn oom_alarm(&self) -> io::Result<Alarm> {
        let directory = self
            .directory("memory")
            .ok_or_else(|| io::Error::other("the memory controller is not available"))?;
        let kind = match self.layout {
            Layout::V1(_) => {
                let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                let control = File::open(directory.join("memory.oom_control"))?;
                let pair = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
                fs::write(directory.join("cgroup.event_control"), pair)?;
                Kind::Event { event, directory }
            }
            Layout::V2 { .. } => {
                let events = File::open(directory.join("memory.events"))?;
                let known = std::cell::Cell::new(kills(&events)?);
                Kind::File { events, known }
            }
        };
        Ok(Alarm { kind })
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Event { event, .. } => event.as_fd(),
            Kind::File { events, .. } => events.as_fd(),
        }
    }
}

impl Alarm {
    /// What to poll for.
    pub fn readiness(&self) -> PollFlags {
        match self.kind {
            Kind::Event { .. } => PollFlags::IN,
            Kind::File { .. } => PollFlags::PRI,
        }
    }

    /// Whether it rang since the last call. A cgroup that is removed wakes the poll too, and has
    /// not rung.
    pub fn take(&self) -> io::Result<bool> {
        match &self.kind {
            Kind::Event { event, directory } => {
                let mut count = [0; 8];
                match rustix::io::read(event, &mut count) {
                    Ok(_) => Ok(directory.exists()),
                    Err(rustix::io::Errno::AGAIN) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
            Kind::File { events, known } => match kills(events) {
                Ok(count) => Ok(known.replace(count) < count),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }
}

fn kills(events: &File) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut buffer = [0; 512];
    let length = events.read_at(&mut buffer, 0)?;
    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
    Ok(flat_key(&text, "oom_kill").unwrap_or(0))
}
