//! Threads that wait for something until they are told to end.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// A running thread. Dropping it ends the thread, and waits for that.
pub struct Watch {
    /// Written to end the thread.
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

/// What the thread hears of its end by.
pub struct Stop(OwnedFd);

#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    /// The thread is to end.
    Stopped,
    /// What was waited for is there.
    Ready,
    /// The time is over.
    Late,
}

impl Watch {
    /// `work` returns when [`Stop::wait`] says so.
    pub fn start(name: &str, work: impl FnOnce(&Stop) + Send + 'static) -> io::Result<Watch> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let stopped = Stop(stop.try_clone()?);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&stopped))?;
        Ok(Watch {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take()
            && rustix::io::write(&self.stop, &1u64.to_ne_bytes()).is_ok()
        {
            // Its panic has been printed.
            let _ = thread.join();
        }
    }
}

impl Stop {
    /// Waits for `other`, or for the time to pass.
    pub fn wait(
        &self,
        other: Option<(BorrowedFd<'_>, PollFlags)>,
        limit: Option<Duration>,
    ) -> Woken {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        loop {
            let mut polled = vec![PollFd::new(&self.0, PollFlags::IN)];
            polled.extend(other.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
            match poll(&mut polled, limit.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                _ if polled[0].revents().contains(PollFlags::IN) => return Woken::Stopped,
                Ok(1..) => return Woken::Ready,
                _ => return Woken::Late,
            }
        }
    }
}
