//! One process of the container that the keeper is the parent of, with its pipes or terminal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::OpenptFlags;

use crate::log::Stream;
use berth_runtime::container::{self, Exit, Stdio, TerminalSize};

/// Typed input that the process has not read yet; at this size clients are read no more.
const INPUT_BYTES: usize = 64 * 1024;

/// A reader that always finds its pipe full is given a larger one.
const PIPE_BYTES: usize = 256 * 1024;

/// The most that one read takes.
pub const READ_BYTES: usize = PIPE_BYTES;

/// The container's first process, in [`Process::key`].
pub const INIT: u32 = 0;

/// Which of its outputs a process shall have a pipe for; the others go to `/dev/null`.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub terminal: bool,
    pub size: Option<(u16, u16)>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// The keeper's ends.
#[derive(Debug, Default)]
pub struct Ends {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

#[derive(Debug)]
pub struct Process {
    pub key: u32,
    /// `None` is the container's main process.
    pub exec: Option<String>,
    pub pid: i32,
    pub exit: Option<Exit>,
    /// Not of the main process: its container has it.
    pidfd: Option<OwnedFd>,
    console: Option<Console>,
    outputs: [Option<OwnedFd>; 2],
    input: Option<OwnedFd>,
    typed: Vec<u8>,
    /// Close the input when `typed` has been written.
    closing: bool,
    /// The input ends with the first client's.
    stdin_once: bool,
    has_large_pipe: bool,
}

#[derive(Debug)]
struct Console {
    master: OwnedFd,
    /// Held open so that a moment without any reader or writer is not taken for the end.
    _peer: Option<OwnedFd>,
}

/// Makes the pipes: the process's ends and ours.
pub fn stdio(wanted: Wanted) -> io::Result<(Stdio, Ends)> {
    if wanted.terminal {
        let size = wanted
            .size
            .map(|(rows, columns)| TerminalSize { rows, columns });
        return Ok((Stdio::Terminal { size }, Ends::default()));
    }
    let mut ends = Ends::default();
    let stdin = match wanted.stdin {
        true => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            ends.stdin = Some(nonblocking(write)?);
            read
        }
        false => null()?,
    };
    let output = |wanted: bool| -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        if !wanted {
            return Ok((null()?, None));
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((write, Some(nonblocking(read)?)))
    };
    let stdout;
    let stderr;
    (stdout, ends.stdout) = output(wanted.stdout)?;
    (stderr, ends.stderr) = output(wanted.stderr)?;
    Ok((
        Stdio::Descriptors {
            stdin,
            stdout,
            stderr,
        },
        ends,
    ))
}

impl Process {
    pub fn new(
        key: u32,
        exec: Option<String>,
        pid: i32,
        pidfd: Option<OwnedFd>,
        console: Option<OwnedFd>,
        ends: Ends,
        stdin_once: bool,
    ) -> io::Result<Self> {
        let mut outputs = [ends.stdout, ends.stderr];
        let mut input = ends.stdin;
        let console = match console {
            None => None,
            Some(master) => {
                let master = nonblocking(master)?;
                outputs[0] = Some(master.try_clone()?);
                input = Some(master.try_clone()?);
                let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
                let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags).ok();
                Some(Console {
                    master,
                    _peer: peer,
                })
            }
        };
        Ok(Self {
            key,
            exec,
            pid,
            exit: None,
            pidfd,
            console,
            outputs,
            input,
            typed: Vec::new(),
            closing: false,
            stdin_once,
            has_large_pipe: false,
        })
    }

    pub fn has_terminal(&self) -> bool {
        self.console.is_some()
    }

    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    pub fn output(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        self.outputs[stream.index()].as_ref().map(AsFd::as_fd)
    }

    pub fn has_outputs(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }

    /// The input, while something waits to be written to it.
    pub fn unwritten_input(&self) -> Option<BorrowedFd<'_>> {
        self.input
            .as_ref()
            .filter(|_| !self.typed.is_empty())
            .map(AsFd::as_fd)
    }

    pub fn input_has_room(&self) -> bool {
        self.typed.len() < INPUT_BYTES
    }

    /// Reads once into `buffer`, which is cleared first. `None`: nothing there now, or the end
    /// (then the output is closed).
    pub fn read(&mut self, stream: Stream, buffer: &mut Vec<u8>) -> Option<()> {
        buffer.clear();
        buffer.reserve_exact(READ_BYTES);
        let output = self.outputs[stream.index()].as_ref()?;
        match rustix::io::read(output, rustix::buffer::spare_capacity(buffer)) {
            Ok(1..) => {
                if buffer.len() >= 64 * 1024 && !self.has_large_pipe {
                    // May be refused, and does not apply to terminals.
                    let _ = rustix::pipe::fcntl_setpipe_size(output, PIPE_BYTES);
                    self.has_large_pipe = true;
                }
                Some(())
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            // A terminal's end is EIO.
            Ok(0) | Err(_) => {
                self.outputs[stream.index()] = None;
                None
            }
        }
    }

    /// Passes typed bytes on, as far as the process takes them.
    pub fn type_in(&mut self, bytes: &[u8]) {
        if self.input.is_some() {
            self.typed.extend_from_slice(bytes);
            self.flush_input();
        }
    }

    pub fn flush_input(&mut self) {
        let Some(input) = &self.input else {
            return self.typed = Vec::new();
        };
        let mut written = 0;
        while written < self.typed.len() {
            match rustix::io::write(input, &self.typed[written..]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => (),
                Err(Errno::AGAIN) => break,
                Err(_closed) => {
                    self.input = None;
                    return self.typed = Vec::new();
                }
            }
        }
        self.typed.drain(..written);
        if self.typed.is_empty() {
            self.typed = Vec::new();
            if self.closing {
                self.input = None;
            }
        }
    }

    /// A client's input has ended. `true`: so has the process's, and the client goes on listening.
    /// `false`: the process still waits for other clients, and this one is done, as with Docker.
    pub fn client_input_ended(&mut self) -> bool {
        if self.has_terminal() || !self.stdin_once {
            return self.input.is_none();
        }
        self.closing = true;
        self.flush_input();
        true
    }

    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Errno> {
        let Some(console) = &self.console else {
            return Err(Errno::NOTTY);
        };
        container::resize(console.master.as_fd(), TerminalSize { rows, columns })
    }

    /// The process is gone; nobody reads its input any more.
    pub fn ended(&mut self, exit: Exit) {
        self.exit = Some(exit);
        self.pidfd = None;
        self.console = None;
        self.input = None;
        self.typed = Vec::new();
    }
}

fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}
