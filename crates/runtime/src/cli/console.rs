//! The process's terminal and the caller's: handing the master over, or copying between the two
//! until the process ends.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use berth_sys::fdpass;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::SendFlags;
use rustix::process::{Pid, WaitOptions};
use rustix::termios::{OptionalActions, OutputModes, Termios};

use super::io;
use crate::container::{Exit, TerminalSize, resize};
use crate::error::Error;

/// Sends a descriptor to whoever listens at `path`, with a word.
pub(super) fn hand_over(path: &str, what: BorrowedFd<'_>, word: &[u8]) -> Result<(), Error> {
    let socket = UnixStream::connect(path).map_err(io(&format!("dial unix {path}")))?;
    fdpass::send_some(&socket, word, &[what], SendFlags::empty())
        .map(drop)
        .map_err(io("console socket"))
}

/// Blocks every signal from before the fork on, so that none is lost, and until it is dropped.
pub(super) struct Signals;

impl Signals {
    pub fn hold() -> Self {
        berth_sys::signal::block_all();
        Self
    }

    /// Passes signals on to `child` and window sizes to its terminal until it ends. Reaps what
    /// else this process is the parent of.
    pub fn forward(&self, child: Pid, relay: Option<&Relay>) -> Exit {
        if let Some(relay) = relay {
            relay.resize();
        }
        loop {
            if let Some(exit) = reap(child) {
                return exit;
            }
            match berth_sys::signal::wait_any() {
                Ok(libc::SIGWINCH) => {
                    if let Some(relay) = relay {
                        relay.resize();
                    }
                }
                Ok(libc::SIGCHLD) | Err(_) => {}
                // One that is gone is reaped above.
                Ok(signal) => {
                    drop(berth_sys::signal::kill(
                        child.as_raw_nonzero().get(),
                        signal,
                    ));
                }
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        berth_sys::signal::unblock_all();
    }
}

fn reap(child: Pid) -> Option<Exit> {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == child {
            return Some(status.into());
        }
    }
    None
}

/// Copies between the process's terminal and our standard streams. Our own terminal, if we have
/// one, is raw until this is dropped.
pub(super) struct Relay {
    master: OwnedFd,
    ended: OwnedFd,
    output: Option<JoinHandle<()>>,
    ours: Option<(OwnedFd, Termios)>,
}

impl Relay {
    /// Nothing may be forked from this process any more: there are threads from now on.
    pub fn start(master: OwnedFd) -> Result<Self, Error> {
        let fail = |e: rustix::io::Errno| io("console")(e.into());
        // Our own terminal, or whoever reads us, sees line ends as the process writes them.
        let mut modes = rustix::termios::tcgetattr(&master).map_err(fail)?;
        modes.output_modes.remove(OutputModes::ONLCR);
        rustix::termios::tcsetattr(&master, OptionalActions::Now, &modes).map_err(fail)?;
        let ours = own_terminal().map(raw).transpose()?;
        let ended = eventfd(0, EventfdFlags::CLOEXEC).map_err(fail)?;
        let copies = |fd: &OwnedFd| fd.try_clone().map_err(io("console"));
        let (from, until, to) = (copies(&master)?, copies(&ended)?, copies(&master)?);
        let output = std::thread::spawn(move || copy_output(from, until.as_fd()));
        std::thread::spawn(move || {
            // The end of our input is not the end of the process's terminal.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::fs::File::from(to));
        });
        Ok(Self {
            master,
            ended,
            output: Some(output),
            ours,
        })
    }

    /// Our terminal's size becomes the process's.
    fn resize(&self) {
        if let Some((ours, _)) = &self.ours
            && let Ok(size) = rustix::termios::tcgetwinsize(ours)
        {
            // A terminal that is gone needs no size.
            let _ = resize(
                self.master.as_fd(),
                TerminalSize {
                    rows: size.ws_row,
                    columns: size.ws_col,
                },
            );
        }
    }
}

impl Drop for Relay {
    /// Copies what the process has written and gives our terminal back.
    fn drop(&mut self) {
        // Neither can be helped: the descriptor is ours, and a panic has been printed.
        let _ = rustix::io::write(&self.ended, &1_u64.to_ne_bytes());
        if let Some(output) = self.output.take() {
            let _ = output.join();
        }
        if let Some((ours, modes)) = &self.ours {
            let _ = rustix::termios::tcsetattr(ours, OptionalActions::Now, modes);
        }
    }
}

/// Until the terminal's last user is gone, or `ended` is set and nothing is left to read.
fn copy_output(master: OwnedFd, ended: BorrowedFd<'_>) {
    let mut master = std::fs::File::from(master);
    let mut out = std::io::stdout();
    let mut buffer = vec![0; 16384];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut is_ended = false;
    loop {
        let mut polled = [
            PollFd::new(&master, PollFlags::IN),
            PollFd::from_borrowed_fd(ended, PollFlags::IN),
        ];
        let limit = is_ended.then_some(&at_once);
        match poll(&mut polled, limit) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        is_ended |= !polled[1].revents().is_empty();
        if polled[0].revents().is_empty() {
            if is_ended {
                return;
            }
            continue;
        }
        match master.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let written = out.write_all(&buffer[..length]).and_then(|()| out.flush());
                if written.is_err() {
                    return;
                }
            }
        }
    }
}

/// The first of our standard streams that is a terminal.
fn own_terminal() -> Option<OwnedFd> {
    let stdin = rustix::stdio::stdin();
    [rustix::stdio::stderr(), rustix::stdio::stdout(), stdin]
        .into_iter()
        .find(|fd| rustix::termios::isatty(fd))
        .and_then(|fd| fd.try_clone_to_owned().ok())
}

fn raw(terminal: OwnedFd) -> Result<(OwnedFd, Termios), Error> {
    let fail = |e: rustix::io::Errno| io("set the terminal raw")(e.into());
    let before = rustix::termios::tcgetattr(&terminal).map_err(fail)?;
    let mut modes = before.clone();
    modes.make_raw();
    // Line ends are still ours to make.
    modes.output_modes.insert(OutputModes::OPOST);
    rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &modes).map_err(fail)?;
    Ok((terminal, before))
}
