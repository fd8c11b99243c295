//! Waiting with a limit.

use std::io;
use std::os::fd::AsFd;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Waits until there is something to read, or a pidfd's process has ended. `false`: not within
/// the limit.
pub fn readable(fd: impl AsFd, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// Waits for a child's end. `None`: it took longer than the limit, and was killed.
pub fn child(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pidfd = pidfd_open(pid.ok_or(io::ErrorKind::InvalidData)?, PidfdFlags::empty())?;
    if readable(&pidfd, limit)? {
        return child.wait().map(Some);
    }
    child.kill()?;
    child.wait().map(|_| None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_ends_or_is_ended() {
        let mut quick = Command::new("true").spawn().unwrap();
        let status = child(&mut quick, Duration::from_secs(60)).unwrap();
        assert!(status.unwrap().success());
        let mut slow = Command::new("sleep").arg("1000").spawn().unwrap();
        assert_eq!(child(&mut slow, Duration::from_millis(1)).unwrap(), None);
        assert!(slow.try_wait().unwrap().is_some(), "it is dead and reaped");
    }
}
