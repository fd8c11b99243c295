//! What a keeper leaves in its container's runtime directory, and how a keeper is reached there.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{ExitRecord, KeeperState};

const SOCKET: &str = "keeper.sock";
const STATE: &str = "keeper.json";
const EXIT: &str = "exit.json";

/// Takes the directory over from an earlier keeper, and listens in it.
pub fn listen(dir: &Path) -> io::Result<UnixListener> {
    // Nobody else has any business with sockets and states.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    for name in [SOCKET, STATE, EXIT] {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
    }
    let listener = through_descriptor(dir, UnixListener::bind)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the keeper of the container with this runtime directory. `ConnectionRefused` or
/// `NotFound`: there is none.
pub fn connect(dir: &Path) -> io::Result<UnixStream> {
    through_descriptor(dir, UnixStream::connect)
}

/// The record of a container that has ended; `None` if its keeper wrote none.
pub fn read_exit(dir: &Path) -> io::Result<Option<ExitRecord>> {
    read(&dir.join(EXIT))
}

/// What the keeper wrote at the container's start.
pub fn read_state(dir: &Path) -> io::Result<Option<KeeperState>> {
    read(&dir.join(STATE))
}

pub fn write_exit(dir: &Path, record: &ExitRecord) -> io::Result<()> {
    write(dir, EXIT, record)
}

pub fn write_state(dir: &Path, state: &KeeperState) -> io::Result<()> {
    write(dir, STATE, state)
}

/// The file appears whole or not at all. It is not synced: after a crash of the machine the
/// container is gone in any case.
fn write<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.tmp"));
    fs::write(&temporary, serde_json::to_vec(value)?)?;
    fs::rename(&temporary, dir.join(name))
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A socket's address holds 108 bytes, and a runtime directory's path may be longer.
fn through_descriptor<T>(dir: &Path, act: impl FnOnce(PathBuf) -> io::Result<T>) -> io::Result<T> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty())?;
    act(PathBuf::from(format!(
        "/proc/self/fd/{}/{SOCKET}",
        fd.as_raw_fd()
    )))
}
