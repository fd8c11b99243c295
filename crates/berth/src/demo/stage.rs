//! The demo's private daemon, and the lines that are run against it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// How long the daemon may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(1);

/// A running daemon in a directory of its own.
pub struct Stage {
    directory: PathBuf,
    daemon: std::sync::Mutex<Child>,
    program: PathBuf,
    interrupted: AtomicBool,
}

impl Stage {
    pub fn build() -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let directory = make_directory()?;
        let begin = Instant::now();
        let log = std::fs::File::create(directory.join("daemon.log"))
            .context("create the daemon's log")?;
        let daemon = Command::new(&program)
            .arg("daemon")
            .args([
                "--data-root",
                &path(&directory, "data"),
                "--exec-root",
                &path(&directory, "exec"),
            ])
            .args(["--host", &format!("unix://{}", path(&directory, "sock"))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start the daemon")?;
        let stage = Self {
            directory,
            daemon: daemon.into(),
            program,
            interrupted: AtomicBool::new(false),
        };
        stage.say("A private daemon, in a directory of its own:");
        if let Err(error) = stage.wait_for_daemon() {
            let log =
                std::fs::read_to_string(stage.directory.join("daemon.log")).unwrap_or_default();
            // The first failure is the one to tell.
            let _ = stage.tear_down();
            return Err(error.context(log.trim().to_owned()));
        }
        let line = format!(
            "berth daemon --data-root {}/data ...",
            stage.directory.display()
        );
        shown(&line, begin.elapsed());
        Ok(stage)
    }

    fn wait_for_daemon(&self) -> Result<()> {
        let socket = self.directory.join("sock");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if answers(&socket) {
                return Ok(());
            }
            if let Some(status) = self.child().try_wait()? {
                bail!("the daemon ended: {status}");
            }
            if Instant::now() > deadline {
                bail!("the daemon did not answer within {} s", PATIENCE.as_secs());
            }
            pause();
        }
    }

    /// Runs `play`, which ends at its next line if the user interrupts it.
    pub fn interruptible(&self, play: impl FnOnce(&Self) -> Result<()> + Send) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::scope(|threads| {
            let (done, mut ended) = tokio::sync::oneshot::channel();
            threads.spawn(move || {
                // The receiver waits until this is sent.
                let _ = done.send(play(self));
            });
            runtime.block_on(async {
                tokio::select! {
                    outcome = &mut ended => return outcome?,
                    interrupt = tokio::signal::ctrl_c() => interrupt?,
                }
                self.interrupted.store(true, Ordering::Relaxed);
                // Each line got the signal too, so the play ends soon.
                let _ = ended.await;
                bail!("interrupted")
            })
        })
    }

    pub fn say(&self, text: &str) {
        println!("\n{text}");
    }

    /// Runs a line and shows it with its time, its output below.
    pub fn run(&self, words: &[&str]) -> Result<()> {
        self.feed(words, Vec::new())
    }

    /// The same with something to read.
    pub fn feed(&self, words: &[&str], input: Vec<u8>) -> Result<()> {
        let begin = Instant::now();
        let output = self.output(words, input)?;
        shown(&line(words), begin.elapsed());
        print!("{}", super::indent(&output));
        Ok(())
    }

    /// Runs a line silently, and returns its output.
    pub fn capture(&self, words: &[&str]) -> Result<String> {
        self.output(words, Vec::new())
    }

    /// Does something that is no line, and shows its time.
    pub fn timed<T>(&self, what: &str, work: impl FnOnce() -> io::Result<T>) -> Result<T> {
        let begin = Instant::now();
        let value = work().with_context(|| what.to_owned())?;
        shown(what, begin.elapsed());
        Ok(value)
    }

    fn output(&self, words: &[&str], input: Vec<u8>) -> Result<String> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        let mut child = Command::new(&self.program)
            .args([
                "--host",
                &format!("unix://{}", path(&self.directory, "sock")),
            ])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| line(words))?;
        let mut stdin = child
            .stdin
            .take()
            .ok_or_else(|| anyhow!("no standard input"))?;
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().with_context(|| line(words))?;
        if !output.status.success() {
            bail!(
                "{}: {}: {}",
                line(words),
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        match writer.join() {
            Ok(Ok(())) => {}
            // A command that reads no input closes it.
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Ok(Err(error)) => return Err(error).with_context(|| line(words)),
            Err(_) => bail!("{}: the writer panicked", line(words)),
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn keep(self) {
        let socket = path(&self.directory, "sock");
        println!("\nKept running. Use it:     berth -H unix://{socket} ps");
        println!(
            "Put it away again:        berth -H unix://{socket} rm -f web; kill {}; rm -r {}",
            self.child().id(),
            self.directory.display()
        );
    }

    /// Removes the containers, ends the daemon and removes its directory.
    pub fn tear_down(self) -> Result<()> {
        self.interrupted.store(false, Ordering::Relaxed);
        if answers(&self.directory.join("sock")) {
            println!("\nEverything away again:");
            let begin = Instant::now();
            let names = self.capture(&["ps", "-aq"])?;
            let mut words = vec!["rm", "-f"];
            words.extend(names.split_whitespace());
            if words.len() > 2 {
                self.capture(&words)?;
            }
            shown("berth rm -f web", begin.elapsed());
        }
        let begin = Instant::now();
        let pid = rustix::process::Pid::from_child(&self.child());
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while self.child().try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child().kill()?;
                self.child().wait()?;
                bail!(
                    "the daemon did not end within {} s and was killed; see {}",
                    PATIENCE.as_secs(),
                    self.directory.display()
                );
            }
            pause();
        }
        std::fs::remove_dir_all(&self.directory)
            .with_context(|| format!("remove {}", self.directory.display()))?;
        shown("daemon ended, directory removed", begin.elapsed());
        Ok(())
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.daemon
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn make_directory() -> Result<PathBuf> {
    let id = berth_base::Id::random();
    let directory = Path::new("/var/tmp").join(format!("berth-demo-{}", id.short()));
    std::fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
    Ok(directory)
}

fn answers(socket: &Path) -> bool {
    use std::io::Read;
    let ask = || -> io::Result<bool> {
        let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}

fn pause() {
    std::thread::sleep(POLL);
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).to_string_lossy().into_owned()
}

fn line(words: &[&str]) -> String {
    let quoted = words.iter().map(|word| {
        if word.contains([' ', '"', '{']) {
            format!("'{word}'")
        } else {
            (*word).to_owned()
        }
    });
    format!("berth {}", quoted.collect::<Vec<_>>().join(" "))
}

fn shown(line: &str, took: Duration) {
    println!("  $ {line}    [{:.1} ms]", took.as_secs_f64() * 1000.0);
}
