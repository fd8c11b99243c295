//! Another OCI runtime in place of ours (`--add-runtime`), driven by its command line, which is
//! runc's: create, start, exec, kill, pause, resume, update, delete.
//!
//! ```text
//! <container's runtime directory>/bundle/config.json, rootfs   the overlay, mounted where only
//!                                                               the keeper and the runtime see it
//!                                /runtime/                      the runtime's own state
//!                                /runtime.log                   what it says went wrong
//! ```
//!
//! The runtime ends when a container is created; what it leaves behind are processes. The keeper
//! is their subreaper, so it learns how they end.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as ChildStdio};
use std::time::Duration;

use berth_sys::clone::{self, Namespaces};
use berth_sys::{fdpass, wait};
use oci_spec::runtime::{LinuxResources, Process as ProcessSpec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount,
};
use rustix::net::RecvFlags;
use rustix::process::Pid;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::protocol::{Launch, Rootfs};
use berth_runtime::container::{Stdio, TerminalSize, resize};
use berth_runtime::error::{Error, ErrorKind, io_words};

/// The longest that one command of a runtime may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Put before the runtime's own words; the engine knows it.
pub const CREATE_FAILED: &str = "OCI runtime create failed: ";
/// Surroundings of the daemon that a runtime would pass into the container.
const NOT_PASSED_ON: [&str; 4] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// A container that another runtime looks after.
pub struct Foreign {
    program: PathBuf,
    args: Vec<String>,
    id: String,
    /// The container's runtime directory.
    dir: PathBuf,
    is_mounted: bool,
}

/// A process that the runtime has made.
pub struct Begun {
    pub pid: Pid,
    pub console: Option<OwnedFd>,
}

impl Foreign {
    /// Writes the bundle. Gives this process mounts of its own, and makes it the parent of what
    /// the runtime leaves behind.
    pub fn prepare(
        program: &Path,
        launch: &Launch,
        mount: Option<&OwnedFd>,
        netns: Option<&OwnedFd>,
    ) -> Result<Self, Error> {
        if launch.init {
            return Err(Error::invalid(
                "--init works with berth's own runtime only: leave it out, or leave --runtime out",
            ));
        }
        let mut foreign = Self {
            program: program.to_owned(),
            args: launch.oci_runtime_args.clone(),
            id: launch.id.clone(),
            dir: launch.dir.clone(),
            is_mounted: false,
        };
        let fail = |what: &str| {
            let what = format!("{CREATE_FAILED}{what}");
            move |error: io::Error| Error::internal(format!("{what}: {}", io_words(&error)))
        };
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| fail("become a subreaper")(error.into()))?;
        let bundle = foreign.bundle();
        let rootfs = bundle.join("rootfs");
        fs::create_dir_all(&rootfs).map_err(fail("make the bundle"))?;
        let root = match (&launch.rootfs, mount) {
            (Rootfs::Overlay { .. }, Some(mount)) => {
                attach(mount, &rootfs).map_err(fail("mount the root file system"))?;
                foreign.is_mounted = true;
                rootfs
            }
            (Rootfs::Directory(path), _) => path.clone(),
            (Rootfs::Overlay { .. }, None) => {
                return Err(Error::internal(format!(
                    "{CREATE_FAILED}no root file system"
                )));
            }
        };
        let config = config(launch, &root, netns)
            .map_err(|error| Error::internal(format!("{CREATE_FAILED}{error}")))?;
        fs::write(bundle.join("config.json"), config.to_string())
            .map_err(fail("write the bundle's config.json"))?;
        Ok(foreign)
    }

    /// Creates the container; its process waits for [`Foreign::start`].
    pub fn create(&self, stdio: Stdio) -> Result<Begun, Error> {
        let bundle = self.bundle();
        let words = ["create", "--bundle", text(&bundle)?];
        self.begin(&words, stdio)
            .map_err(|error| error.prefixed(CREATE_FAILED))
    }

    pub fn start(&self) -> Result<(), Error> {
        self.command(&["start", &self.id])
            .map_err(|error| error.prefixed(CREATE_FAILED))
    }

    /// Runs another process in the container.
    pub fn exec(&self, process: &ProcessSpec, stdio: Stdio) -> Result<Begun, Error> {
        let file = self.dir.join("process.json");
        let written = serde_json::to_vec(process)
            .map_err(io::Error::from)
            .and_then(|json| fs::write(&file, json));
        written.map_err(|error| Error::internal(format!("write process: {}", io_words(&error))))?;
        let words = ["exec", "--detach", "--process", text(&file)?];
        let begun = self.begin(&words, stdio);
        // It holds the environment, maybe with secrets.
        let _ = fs::remove_file(&file);
        begun.map_err(|error| match error.message.starts_with("exec failed") {
            true => error,
            false => error.prefixed("exec failed: "),
        })
    }

    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        self.command(&["kill", &self.id, &signal.to_string()])
    }

    pub fn pause(&self) -> Result<(), Error> {
        self.command(&["pause", &self.id])
    }

    pub fn resume(&self) -> Result<(), Error> {
        self.command(&["resume", &self.id])
    }

    pub fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        let file = self.dir.join("resources.json");
        serde_json::to_vec(resources)
            .map_err(io::Error::from)
            .and_then(|json| fs::write(&file, json))
            .map_err(|error| Error::internal(format!("write limits: {}", io_words(&error))))?;
        self.command(&["update", "--resources", text(&file)?, &self.id])
    }

    /// Removes what the runtime has of the container, and kills what is left of it.
    pub fn delete(&self) -> Result<(), Error> {
        self.command(&["delete", "--force", &self.id])
    }

    /// Lets go of the root file system. Idempotent.
    pub fn unmount(&mut self) {
        if std::mem::take(&mut self.is_mounted) {
            // The keeper's mount namespace ends soon in any case.
            let _ = unmount(self.bundle().join("rootfs"), UnmountFlags::DETACH);
        }
    }

    fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    /// A command that leaves a process behind.
    fn begin(&self, words: &[&str], stdio: Stdio) -> Result<Begun, Error> {
        let io_error = |error: io::Error| Error::internal(io_words(&error));
        let pid_file = self.dir.join("runtime.pid");
        let mut all = words.to_vec();
        all.extend(["--pid-file", text(&pid_file)?]);
        let begun = match stdio {
            Stdio::Terminal { size } => {
                let socket = ConsoleSocket::new(&self.dir).map_err(io_error)?;
                all.extend(["--console-socket", text(&socket.path)?]);
                all.push(&self.id);
                self.run(
                    &all,
                    [ChildStdio::null(), ChildStdio::null(), ChildStdio::null()],
                )?;
                Some(socket.receive(size).map_err(io_error)?)
            }
            Stdio::Descriptors {
                stdin,
                stdout,
                stderr,
            } => {
                all.push(&self.id);
                self.run(&all, [stdin.into(), stdout.into(), stderr.into()])?;
                None
            }
            Stdio::Inherit => return Err(Error::internal("a keeper has no streams to inherit")),
        };
        let pid = fs::read_to_string(&pid_file).map_err(io_error)?;
        // A later one must not be taken for this one's.
        let _ = fs::remove_file(&pid_file);
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::internal("the runtime wrote no process id"))?;
        Ok(Begun {
            pid,
            console: begun,
        })
    }

    /// A command without streams.
    fn command(&self, words: &[&str]) -> Result<(), Error> {
        self.run(
            words,
            [ChildStdio::null(), ChildStdio::null(), ChildStdio::null()],
        )
    }

    fn run(&self, words: &[&str], stdio: [ChildStdio; 3]) -> Result<(), Error> {
        let log = self.dir.join("runtime.log");
        let _ = fs::remove_file(&log);
        let [stdin, stdout, stderr] = stdio;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .arg("--root")
            .arg(self.dir.join("runtime"))
            .args(["--log-format", "json", "--log"])
            .arg(&log)
            .args(words)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        for name in NOT_PASSED_ON {
            command.env_remove(name);
        }
        let program = self.program.display();
        let mut child = command.spawn().map_err(|error| {
            let message = format!("fork/exec {program}: {}", io_words(&error));
            Error::new(kind(&message), message)
        })?;
        let verb = words.first().copied().unwrap_or_default();
        let status = wait::child(&mut child, PATIENCE)
            .and_then(|status| status.ok_or_else(|| io::ErrorKind::TimedOut.into()))
            .map_err(|error| Error::internal(format!("{program} {verb}: {}", io_words(&error))))?;
        if status.success() {
            return Ok(());
        }
        let message = last_error(&fs::read_to_string(&log).unwrap_or_default())
            .unwrap_or_else(|| format!("{program} {verb}: {status}"));
        Err(Error::new(kind(&message), message))
    }
}

/// The bundle's configuration: the launch's, with what is the keeper's to know.
fn config(launch: &Launch, root: &Path, netns: Option<&OwnedFd>) -> serde_json::Result<Value> {
    let mut config = serde_json::to_value(&launch.spec)?;
    config["root"]["path"] = json!(root);
    config["linux"]["cgroupsPath"] = json!(launch.cgroup);
    if let Some((rows, columns)) = launch.console_size {
        config["process"]["consoleSize"] = json!({"height": rows, "width": columns});
    }
    if let (Some(netns), Some(namespaces)) = (netns, config["linux"]["namespaces"].as_array_mut()) {
        let pid = rustix::process::getpid().as_raw_nonzero();
        for namespace in namespaces {
            if namespace["type"] == "network" {
                namespace["path"] = json!(format!("/proc/{pid}/fd/{}", netns.as_raw_fd()));
            }
        }
    }
    Ok(config)
}

/// Mounts of our own, which follow those of the host, and the detached mount among them.
fn attach(mount: &OwnedFd, place: &Path) -> io::Result<()> {
    clone::unshare(Namespaces::MOUNT)?;
    let follow = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", follow)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, "", CWD, place, flags)?)
}

/// Where the runtime sends the terminal's master.
struct ConsoleSocket {
    listener: UnixListener,
    /// By a descriptor of the directory: a socket's address holds 108 bytes only.
    path: PathBuf,
    _directory: OwnedFd,
}

impl ConsoleSocket {
    fn new(dir: &Path) -> io::Result<Self> {
        let name = "console.sock";
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(dir, flags, Mode::empty())?;
        let pid = rustix::process::getpid().as_raw_nonzero();
        let path = PathBuf::from(format!("/proc/{pid}/fd/{}/{name}", directory.as_raw_fd()));
        let _ = fs::remove_file(dir.join(name));
        Ok(Self {
            listener: UnixListener::bind(&path)?,
            path,
            _directory: directory,
        })
    }

    /// After the runtime's end: what it has sent is there already.
    fn receive(self, size: Option<TerminalSize>) -> io::Result<OwnedFd> {
        let _ = fs::remove_file(&self.path);
        if !wait::readable(&self.listener, Duration::from_secs(1))? {
            return Err(io::Error::other("the runtime sent no terminal"));
        }
        let (socket, _) = self.listener.accept()?;
        let mut fds = std::collections::VecDeque::new();
        fdpass::recv_some(&socket, &mut [0; 4096], &mut fds, RecvFlags::empty())?;
        let master = fds
            .pop_front()
            .ok_or_else(|| io::Error::other("the runtime sent no terminal"))?;
        if let Some(size) = size {
            resize(master.as_fd(), size)?;
        }
        Ok(master)
    }
}

/// The last line of the log that tells an error.
fn last_error(log: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    log.lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .rfind(|line| line.level == "error")
        .map(|line| line.msg)
}

/// As Docker tells it from the sentence. crun puts the command's name in the middle.
fn kind(message: &str) -> ErrorKind {
    let lower = message.to_lowercase();
    let not_found = lower.contains("executable file") && lower.contains("not found")
        || lower.contains("no such file or directory");
    if not_found {
        ErrorKind::CommandNotFound
    } else if lower.contains("permission denied") || lower.contains("is a directory") {
        ErrorKind::CommandNotExecutable
    } else {
        ErrorKind::Internal
    }
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str()
        .ok_or_else(|| Error::internal(format!("{} is no text", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_the_log_is_the_reason() {
        let log = "{\"level\":\"warning\",\"msg\":\"a\",\"time\":\"t\"}\nnoise\n\
                   {\"level\":\"error\",\"msg\":\"b\",\"time\":\"t\"}\n\
                   {\"level\":\"error\",\"msg\":\"c\",\"time\":\"t\"}\n\
                   {\"level\":\"info\",\"msg\":\"d\",\"time\":\"t\"}\n";
        assert_eq!(last_error(log).as_deref(), Some("c"));
        assert_eq!(last_error(""), None);
    }

    #[test]
    fn the_kind_follows_from_the_words_of_runc_and_of_crun() {
        for (message, expect) in [
            (
                "exec: \"x\": executable file not found in $PATH",
                ErrorKind::CommandNotFound,
            ),
            (
                "executable file `x` not found in $PATH: No such file or directory",
                ErrorKind::CommandNotFound,
            ),
            (
                "exec: \"/etc\": permission denied",
                ErrorKind::CommandNotExecutable,
            ),
            ("anything", ErrorKind::Internal),
        ] {
            assert_eq!(kind(message), expect, "{message}");
        }
    }
}
