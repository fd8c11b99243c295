//! Running programs to their end, with a limit.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// After this a program counts as hung.
const LIMIT: Duration = Duration::from_secs(120);

/// What a program left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output, without the last line's end.
    ///
    /// # Panics
    /// If the program failed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(
            self.code, 0,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self.stdout.trim_end_matches('\n')
    }

    /// Checks the exit code and that standard error has the words.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &str) -> &Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        assert!(
            self.stderr.contains(words),
            "{words:?} is not in {:?}",
            self.stderr
        );
        self
    }
}

/// Runs a command with this input.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let input = input.to_vec();
    let feed = std::thread::spawn(move || {
        // A program that does not read its input closes it.
        let _ = stdin.write_all(&input);
    });
    let drain = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = drain(Box::new(stdout));
    let err = drain(Box::new(stderr));
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{command:?} did not end within {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    feed.join().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    Output {
        code: status.code().unwrap_or_else(|| 128 + signal.unwrap_or(0)),
        stdout: out.join().unwrap(),
        stderr: err.join().unwrap(),
    }
}

/// Runs a shell line that has to succeed; returns its output.
#[track_caller]
pub fn sh(line: &str) -> String {
    let output = run(Command::new("bash").args(["-ec", line]), b"");
    assert_eq!(
        output.code, 0,
        "{line}\nstdout: {}\nstderr: {}",
        output.stdout, output.stderr
    );
    output.stdout.trim_end().to_owned()
}
