//! What a daemon that died has asked of its launcher, and nobody can find yet.
//!
//! A launcher reads what was sent to it even when the sender is gone by then, and a keeper that was
//! just forked listens on no socket. The next daemon would take such a container for one that does
//! not run. So a lock is held from the launcher's first request on, by it and by each keeper until
//! it listens; the next launcher takes it before it answers its daemon ([`Launcher::settle`]).
//!
//! The lock belongs to the open file, which forks share (flock(2)), so closing it is giving it up.
//!
//! [`Launcher::settle`]: super::Launcher::settle

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A launcher ends with its daemon, and a keeper listens within a millisecond. One that does not
/// (it was stopped) must not keep the next daemon from starting.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

/// Waits for those before us. `None`: they took too long.
pub fn take_over(lock: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    let file = options.create(true).append(true).open(lock)?;
    let deadline = Instant::now() + LIMIT;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(file)),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
    }
}
