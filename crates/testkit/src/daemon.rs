//! A private daemon of the built binary.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::machine::Machine;
use crate::run::{Output, run};
use crate::wait::until;
use crate::{image, sh};

/// A daemon with directories of its own. When it is dropped, its containers are removed, it is
/// ended, and the machine has to be as it was.
pub struct Daemon {
    pub root: PathBuf,
    pub data: PathBuf,
    program: PathBuf,
    /// A program and its flags that the daemon is started by.
    under: Vec<String>,
    flags: Vec<String>,
    child: Option<Child>,
    machine: Machine,
    /// What its names end with.
    digits: String,
}

impl Daemon {
    /// Starts `program daemon` with further flags and waits until it answers.
    #[track_caller]
    pub fn start(program: impl Into<PathBuf>, flags: &[&str]) -> Self {
        Self::start_under(&[], program, flags)
    }

    /// The same in surroundings of its own: `under` is a command that executes what follows it
    /// (`nsenter`, `unshare`).
    #[track_caller]
    pub fn start_under(under: &[&str], program: impl Into<PathBuf>, flags: &[&str]) -> Self {
        Self::begin(under, program.into(), None, flags)
    }

    /// The same with its data elsewhere, in a directory that is made.
    #[track_caller]
    pub fn start_with_data(program: impl Into<PathBuf>, data: &Path, flags: &[&str]) -> Self {
        Self::begin(&[], program.into(), Some(data), flags)
    }

    fn begin(under: &[&str], program: PathBuf, data: Option<&Path>, flags: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("berth-test-{}-{number}", std::process::id()));
        let data = data.map_or_else(|| root.join("data"), Path::to_owned);
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&data).unwrap();
        let digest = sh(&format!(
            "printf %s $(realpath {}) | sha256sum",
            data.display()
        ));
        let six = &digest[..6];
        let marks = vec![
            root.to_string_lossy().into_owned() + "/",
            data.to_string_lossy().into_owned() + "/",
            format!("berth-{six}"),
            format!("br-{six}"),
        ];
        let mut daemon = Self {
            root,
            data,
            program,
            under: under.iter().map(|&word| word.to_owned()).collect(),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            child: None,
            machine: Machine::new(marks),
            digits: six.to_owned(),
        };
        daemon.spawn();
        daemon
    }

    /// Starts it (again) on the same directories.
    #[track_caller]
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.root.join("log"))
            .unwrap();
        let child = self
            .command()
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap());
        until("the daemon answers", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {}", self.log());
            (self.curl(&["/_ping"]).stdout == "OK").then_some(())
        });
    }

    /// `berth daemon` with this instance's directories and socket.
    pub fn command(&self) -> Command {
        let mut words = self
            .under
            .iter()
            .map(OsStr::new)
            .chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().expect("at least the program"));
        command.args(words);
        command.arg("daemon").arg("--data-root").arg(&self.data);
        command
            .arg("--exec-root")
            .arg(self.root.join("exec"))
            .arg("--host")
            .arg(self.host());
        command
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub fn socket(&self) -> PathBuf {
        self.root.join("sock")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.root.join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// The name of its cgroups and tables.
    pub fn instance(&self) -> String {
        format!("berth-{}", self.digits)
    }

    pub fn bridge(&self) -> String {
        format!("br-{}", self.digits)
    }

    /// What the daemon's threads have used of processors so far.
    pub fn processor_time(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let used = threads.flatten().filter_map(|thread| {
            // Nanoseconds come first (Documentation/scheduler/sched-stats.rst).
            let times = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            times.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(used.sum())
    }

    /// Ends it by a signal and waits.
    #[track_caller]
    pub fn signal(&mut self, signal: Signal) {
        let mut child = self.child.take().expect("the daemon runs");
        kill_process(Pid::from_child(&child), signal).unwrap();
        until("the daemon ends", || child.try_wait().unwrap());
    }

    /// Waits for one that was ended by others.
    #[track_caller]
    pub fn reap(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        until("the daemon ends", || child.try_wait().unwrap());
    }

    /// From now on it is this program: an upgrade, once it is started again.
    pub fn replace_program(&mut self, program: impl Into<PathBuf>) {
        self.program = program.into();
    }

    /// Tells it something that does not end it.
    pub fn tell(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the daemon runs");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// The real docker client.
    #[track_caller]
    pub fn docker(&self, words: &[&str]) -> Output {
        self.docker_with(words, b"")
    }

    #[track_caller]
    pub fn docker_with(&self, words: &[&str], input: &[u8]) -> Output {
        run(self.docker_command().args(words), input)
    }

    pub fn docker_command(&self) -> Command {
        let mut command = Command::new(image::docker());
        command
            .arg("--host")
            .arg(self.host())
            .env("DOCKER_CONFIG", self.root.join("docker-config"));
        command
    }

    /// Our own command line.
    #[track_caller]
    pub fn berth(&self, words: &[&str]) -> Output {
        self.berth_with(words, b"")
    }

    #[track_caller]
    pub fn berth_with(&self, words: &[&str], input: &[u8]) -> Output {
        run(self.berth_command().args(words), input)
    }

    pub fn berth_command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--host")
            .arg(self.host())
            .env("DOCKER_CONFIG", self.root.join("docker-config"));
        command
    }

    /// curl over the socket: the path, then further options.
    #[track_caller]
    pub fn curl(&self, words: &[&str]) -> Output {
        let (path, options) = words.split_first().expect("a path");
        let mut command = Command::new("curl");
        command
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "60",
                "--unix-socket",
            ])
            .arg(self.socket());
        run(command.args(options).arg(format!("http://d{path}")), b"")
    }

    /// Status and JSON of a request.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: Option<&str>) -> (u16, serde_json::Value) {
        let mut words = vec![path, "-X", method, "-w", "\n%{http_code}"];
        if let Some(body) = body {
            words.extend(["-H", "Content-Type: application/json", "-d", body]);
        }
        let output = self.curl(&words);
        let (body, status) = output.ok().rsplit_once('\n').expect("a status");
        (
            status.parse().unwrap(),
            serde_json::from_str(body).unwrap_or(serde_json::Value::Null),
        )
    }

    /// Loads an image of the tests.
    #[track_caller]
    pub fn load(&self, name: &str) {
        let archive = image::archive(name);
        self.docker(&["load", "-q", "-i", archive.to_str().unwrap()])
            .ok();
    }

    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Where the program is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn tear_down(&mut self) {
        if self.child.is_none() {
            self.spawn();
        }
        let all = self.docker(&["ps", "-aq"]);
        let ids: Vec<&str> = all.ok().split_whitespace().collect();
        if !ids.is_empty() {
            let mut words = vec!["rm", "-f"];
            words.extend(ids);
            self.docker(&words).ok();
        }
        self.signal(Signal::TERM);
        let log = self.log();
        assert!(!log.contains("did not end"), "a task hung:\n{log}");
        self.machine.assert_clean();
        std::fs::remove_dir_all(&self.root).unwrap();
    }
}

impl Daemon {
    /// Tidies up after a failure as far as it goes: the failure matters more than what stays.
    fn abandon(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.machine.sweep();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log:\n{}", self.log());
            self.abandon();
            return;
        }
        self.tear_down();
    }
}
