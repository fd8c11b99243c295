//! The streams of a container on our own standard streams: attach, run, start -a and exec.
//!
//! ```text
//! stdin ──(detach keys)──> connection ──> container
//! stdout, stderr <──(frames, or a terminal's bytes)── connection
//! ```
//! The end of stdin closes the connection's writing half only; the end of the output ends all.

mod detach;
mod signals;
mod terminal;

use std::io::Write;

use berth_docker::stream::{Channel, FrameDecoder};
use berth_docker_client::Hijacked;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::failure::Failure;

pub use detach::Keys;
pub use signals::{forward, insistence, unsettle, watch_size};
pub use terminal::RawMode;

const BUFFER_BYTES: usize = 32 * 1024;

/// What to connect.
pub struct Streams {
    pub stdin: bool,
    /// The container has a terminal, so its output is one stream of bytes.
    pub tty: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub keys: Keys,
}

/// How the copying ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The container closed its output.
    Output,
    /// The user typed the detach keys.
    Detached,
}

/// What docker says when the detach keys end a command that waits for nothing else.
pub const DETACHED: &str = "read escape sequence";

impl Streams {
    /// Copies until the output or the user ends it. The terminal is raw meanwhile.
    pub async fn run(self, hijacked: Hijacked) -> Result<End, Failure> {
        let _raw = if self.tty && self.stdin {
            RawMode::enter()?
        } else {
            None
        };
        let input = input(self.stdin, self.tty, self.keys, hijacked.writer);
        let output = output(self.tty, self.stdout, self.stderr, hijacked.reader);
        tokio::pin!(input, output);
        let mut input_open = true;
        loop {
            tokio::select! {
                result = &mut output => return result.map(|()| End::Output),
                detached = &mut input, if input_open => match detached {
                    true => return Ok(End::Detached),
                    false => input_open = false,
                },
            }
        }
    }
}

/// Copies stdin; `true` if the user detached. Failures of the connection show in the output.
async fn input(
    wanted: bool,
    tty: bool,
    mut keys: Keys,
    mut writer: Box<dyn AsyncWrite + Send + Unpin>,
) -> bool {
    if !wanted {
        // Not closed: that would end the container's stdin for other clients too.
        std::future::pending::<()>().await;
    }
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = stdin.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            writer.shutdown().await.ok();
            return false;
        }
        let (bytes, detached) = match tty {
            true => keys.feed(&buffer[..read]),
            false => (buffer[..read].to_vec(), false),
        };
        if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
            return false;
        }
        if detached {
            return true;
        }
    }
}

async fn output(
    tty: bool,
    stdout: bool,
    stderr: bool,
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
) -> Result<(), Failure> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut frames = Demultiplexer::new(stdout, stderr);
    loop {
        let read = match reader.read(&mut buffer).await {
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error.into()),
        };
        match (read, tty) {
            (0, _) => return Ok(()),
            (read, true) => crate::cli::print(&buffer[..read])?,
            (read, false) => frames.feed(&buffer[..read])?,
        }
    }
}

/// Sends each frame to its stream.
pub struct Demultiplexer {
    decoder: FrameDecoder,
    stdout: bool,
    stderr: bool,
}

impl Demultiplexer {
    pub fn new(stdout: bool, stderr: bool) -> Self {
        Self {
            decoder: FrameDecoder::default(),
            stdout,
            stderr,
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut result = Ok(());
        let (to_stdout, to_stderr) = (self.stdout, self.stderr);
        let fed = self.decoder.feed(bytes, |channel, payload| {
            if result.is_err() {
                return;
            }
            result = match channel {
                Channel::Stdin | Channel::Stdout if to_stdout => crate::cli::print(payload),
                Channel::Stderr if to_stderr => {
                    std::io::stderr().write_all(payload).map_err(Failure::from)
                }
                Channel::SystemError => Err(Failure::new(format!(
                    "error from daemon in stream: {}",
                    String::from_utf8_lossy(payload)
                ))),
                _ => Ok(()),
            };
        });
        fed.map_err(|error| Failure::new(error.to_string()))?;
        result
    }
}
