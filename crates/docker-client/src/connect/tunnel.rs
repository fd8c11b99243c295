//! `ssh://`: the standard streams of the user's own ssh program are the connection.
//!
//! ```text
//! running --stdout ends, or stdin breaks--> ending --the process ended--> ended
//! ```
//!
//! What the program says on its standard error is kept, and told when it fails.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// How much of the program's complaints is kept: the newest.
const COMPLAINTS_BYTES: usize = 4096;
/// How long a program whose stdout ended may take to end itself.
const END_PATIENCE: Duration = Duration::from_secs(3);
/// How long its last words may take. Another process (a ControlPersist master) may hold the pipe.
const COMPLAINT_PATIENCE: Duration = Duration::from_millis(100);

/// On the far side: whatever it has, docker's command line first.
const FAR_SIDE: &str =
    r#"sh -c 'command -v docker >/dev/null || exec berth "$@"; exec docker "$@"' sh"#;

/// Why the last tunnel failed; shared with the client, since HTTP hides it.
pub type Verdict = Arc<OnceLock<String>>;

/// Where ssh goes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub user: Option<&'a str>,
    pub host: &'a str,
    pub port: Option<u16>,
    /// The remote daemon's socket, where it is not its default.
    pub socket: Option<&'a str>,
}

/// A child process whose standard streams are the connection. It ends when this is dropped.
pub struct Tunnel {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    state: State,
    complaints: Vec<u8>,
    command: String,
    verdict: Verdict,
}

enum State {
    Running {
        child: Box<Child>,
        stderr: Option<ChildStderr>,
    },
    Ending(Pin<Box<dyn Future<Output = Ended> + Send>>),
    Ended,
}

struct Ended {
    status: Option<ExitStatus>,
    last_words: Vec<u8>,
}

/// The words after `ssh`, as docker's client chooses them.
fn arguments(target: Target<'_>) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(user) = target.user {
        words.extend(["-l".to_owned(), user.to_owned()]);
    }
    if let Some(port) = target.port {
        words.extend(["-p".to_owned(), port.to_string()]);
    }
    let mut far = FAR_SIDE.to_owned();
    if let Some(socket) = target.socket {
        far += &format!(" {}", quoted(&format!("--host=unix://{socket}")));
    }
    far += " system dial-stdio";
    words.extend(["-o", "ConnectTimeout=30", "-T", "--", target.host].map(str::to_owned));
    words.push(far);
    words
}

/// One word of a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl Tunnel {
    /// Starts ssh, in a session of its own: Ctrl-C is for the command, not for its connection.
    pub fn start(target: Target<'_>, verdict: &Verdict) -> io::Result<Self> {
        let words = arguments(target);
        let mut command = Command::new("ssh");
        command.args(&words);
        berth_sys::session::detach(command.as_std_mut());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        Ok(Self {
            stdin: Some(child.stdin.take().ok_or_else(closed)?),
            stdout: child.stdout.take().ok_or_else(closed)?,
            state: State::Running {
                stderr: child.stderr.take(),
                child: Box::new(child),
            },
            complaints: Vec::new(),
            command: format!("ssh {}", words.join(" ")),
            verdict: Arc::clone(verdict),
        })
    }

    /// Reads what the program complains about, so that it is never held up by it.
    fn listen(&mut self, cx: &mut Context<'_>) {
        let State::Running { stderr, .. } = &mut self.state else {
            return;
        };
        while let Some(pipe) = stderr {
            let mut bytes = [0; 1024];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(pipe).poll_read(cx, &mut buffer) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    keep_newest(&mut self.complaints, buffer.filled());
                }
                Poll::Ready(_) => *stderr = None,
            }
        }
    }

    /// Waits for the program; an error if it failed.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::Ended => {
                    let failed = self.verdict.get().cloned().map(io::Error::other);
                    return Poll::Ready(failed.map_or(Ok(()), Err));
                }
                State::Ending(future) => {
                    let ended = ready!(future.as_mut().poll(cx));
                    keep_newest(&mut self.complaints, &ended.last_words);
                    self.judge(ended.status);
                    self.state = State::Ended;
                }
                running @ State::Running { .. } => {
                    self.stdin = None;
                    if let State::Running { child, stderr } =
                        std::mem::replace(running, State::Ended)
                    {
                        self.state = State::Ending(Box::pin(end(child, stderr)));
                    }
                }
            }
        }
    }

    fn judge(&self, status: Option<ExitStatus>) {
        let how = match status {
            Some(status) if status.success() => return,
            Some(status) => match status.code() {
                Some(code) => format!("has exited with exit status {code}"),
                None => format!("has ended: {status}"),
            },
            None => "has closed its output".to_owned(),
        };
        let complaints = String::from_utf8_lossy(&self.complaints);
        let verdict = format!(
            "command [{}] {how}, make sure the URL is valid, and Berth, or Docker 18.09 or later, \
             is installed on the remote host: stderr={}",
            self.command,
            complaints.trim_end()
        );
        // The first failure is the one that is told.
        self.verdict.set(verdict).ok();
    }
}

async fn end(mut child: Box<Child>, stderr: Option<ChildStderr>) -> Ended {
    let waited = tokio::time::timeout(END_PATIENCE, child.wait()).await;
    let status = waited.ok().and_then(Result::ok);
    let mut last_words = Vec::new();
    if let Some(mut stderr) = stderr {
        // What came until then is in `last_words` also when the time is up.
        let reading = stderr.read_to_end(&mut last_words);
        tokio::time::timeout(COMPLAINT_PATIENCE, reading).await.ok();
    }
    Ended { status, last_words }
}

fn keep_newest(kept: &mut Vec<u8>, more: &[u8]) {
    kept.extend_from_slice(more);
    let excess = kept.len().saturating_sub(COMPLAINTS_BYTES);
    kept.drain(..excess);
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.listen(cx);
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stdout).poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.poll_end(cx)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        if let Some(stdin) = &mut self.stdin {
            match ready!(Pin::new(stdin).poll_write(cx, buf)) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                result => return Poll::Ready(result),
            }
        }
        ready!(self.poll_end(cx))?;
        Poll::Ready(Err(broken()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Closes the child's stdin, which is how the far end learns that no more will come.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_gets_options_first_and_the_far_command_as_one_word() {
        let words = arguments(Target {
            user: Some("me"),
            host: "box",
            port: Some(2222),
            socket: Some("/run/it's.sock"),
        });
        assert_eq!(
            words[..9],
            [
                "-l",
                "me",
                "-p",
                "2222",
                "-o",
                "ConnectTimeout=30",
                "-T",
                "--",
                "box"
            ]
        );
        assert_eq!(
            words[9],
            format!(r"{FAR_SIDE} '--host=unix:///run/it'\''s.sock' system dial-stdio")
        );
    }

    #[test]
    fn only_the_newest_complaints_are_kept() {
        let mut kept = vec![b'a'; COMPLAINTS_BYTES];
        keep_newest(&mut kept, b"end");
        assert_eq!(kept.len(), COMPLAINTS_BYTES);
        assert!(kept.ends_with(b"aend"));
    }
}
