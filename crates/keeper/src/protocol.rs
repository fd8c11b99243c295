//! What the daemon, the launcher and the keepers say to each other.
//!
//! Every message is one frame: a little-endian `u32` length, then that many bytes of JSON.
//! Descriptors travel as `SCM_RIGHTS` beside the frame's first byte, in the order in which the
//! message's documentation names them. The JSON form is versioned by [`VERSION`]: a keeper that
//! was started by an older daemon goes on with the older version, so fields are only ever added.

use std::path::PathBuf;

pub use berth_runtime::error::ErrorKind as FailureKind;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use serde::{Deserialize, Serialize};

pub use berth_runtime::user::UserRequest;

/// The version of this protocol. It rises when a field's meaning changes.
pub const VERSION: u32 = 1;

/// The largest frame that either side accepts, in bytes.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

/// Daemon to launcher.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum LauncherRequest {
    /// Answer once all that an earlier launcher has forked can be found.
    Settle,
    /// Fork a keeper. Descriptors: the keeper's end of its control socket; then the network
    /// namespace if `has_netns`; then one stream socket for each of `attach`.
    Launch(Box<Launch>),
    /// Fork a named service of the binary (the port relay). Descriptors are handed to it as is.
    Service {
        name: String,
        args: serde_json::Value,
    },
}

/// Launcher to daemon, one for each request, in order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum LauncherReply {
    Settled,
    Forked { pid: i32 },
    Failed { message: String },
}

/// All that a keeper needs to run one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    pub version: u32,
    /// The container's full id.
    pub id: String,
    /// The container's runtime directory; holds `keeper.sock`, `keeper.json` and `exit.json`.
    pub dir: PathBuf,
    pub spec: Box<Spec>,
    /// The container has the default seccomp profile of the default capabilities, and the
    /// specification leaves it out: the launcher has compiled it already, and it is most of a
    /// specification's text. Never with `oci_runtime`.
    pub default_seccomp: bool,
    /// Looked up in the container's own account files; overrides the specification's user.
    #[serde(default)]
    pub user: UserRequest,
    pub rootfs: Rootfs,
    /// Path below each hierarchy's root, for example `/berth/<id>`.
    pub cgroup: String,
    pub has_netns: bool,
    /// The command is executed only when a byte has come on the control socket. If that is closed
    /// instead, the container is given up and nothing is left of it. So the caller can complete
    /// the network while the keeper makes the container.
    #[serde(default)]
    pub gated: bool,
    /// Keep stdin open although nobody is attached (`OpenStdin`).
    pub open_stdin: bool,
    /// Close stdin when the first attached client closes its side (`StdinOnce`).
    pub stdin_once: bool,
    /// Rows and columns of the terminal at start.
    pub console_size: Option<(u16, u16)>,
    /// Run our reaper as process 1 and the command below it (`--init`).
    pub init: bool,
    pub log: LogTarget,
    /// Clients that attached before the start.
    pub attach: Vec<AttachOptions>,
    /// Another OCI runtime to use in place of ours (`--add-runtime`).
    pub oci_runtime: Option<PathBuf>,
    /// What goes before that runtime's own words (`runtimeArgs`).
    #[serde(default)]
    pub oci_runtime_args: Vec<String>,
    /// Directories that others may write to. A bind source below one of them is opened without
    /// leaving it, whatever links are put in the way.
    #[serde(default)]
    pub beneath: Vec<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// An overlay; `lower` has the topmost layer first.
    Overlay {
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        volatile: bool,
    },
    /// A directory that is used as it is.
    Directory(PathBuf),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogTarget {
    None,
    JsonFile {
        path: PathBuf,
        /// Rotate when the file passes this many bytes; `None` never rotates.
        max_size_bytes: Option<u64>,
        /// How many files are kept, the current one included.
        max_files: u32,
        compress: bool,
        /// Written into each record as `attrs`.
        attrs: std::collections::BTreeMap<String, String>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Docker's 8-byte headers; `false` with a terminal.
    pub multiplexed: bool,
    /// The key sequence that detaches, already decoded; empty for none.
    pub detach_keys: Vec<u8>,
}

/// Daemon to keeper. Each request has one [`Reply`] with the same `seq`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    pub seq: u64,
    #[serde(flatten)]
    pub body: RequestBody,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum RequestBody {
    /// First message on `keeper.sock`; answered by [`ReplyBody::State`]. From then on this
    /// connection also receives [`Event`]s.
    Hello {
        version: u32,
    },
    /// Descriptor: the client's stream socket. `None` is the container's main process.
    Attach {
        exec: Option<String>,
        options: AttachOptions,
    },
    /// As `Attach` to the main process, at a place of its log that [`ReplyBody::Joined`] names.
    /// What the process says from there on waits for `Release`: until then the client is told what
    /// the log has before. Released, too, when a daemon's connection ends. Descriptor: the
    /// client's stream socket.
    Join {
        options: AttachOptions,
    },
    Release {
        client: u32,
    },
    /// Descriptor, if `attach` is set: the client's stream socket.
    Exec {
        exec: String,
        process: Box<Process>,
        #[serde(default)]
        user: UserRequest,
        console_size: Option<(u16, u16)>,
        attach: Option<AttachOptions>,
        open_stdin: bool,
    },
    Signal {
        signal: i32,
        target: Target,
    },
    Resize {
        exec: Option<String>,
        rows: u16,
        columns: u16,
    },
    Pause,
    Resume,
    Update {
        resources: Box<LinuxResources>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Init,
    Exec(String),
    /// Every process in the container's cgroup.
    All,
}

/// Keeper to daemon: answers and events on one stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    Reply(Reply),
    Event(Event),
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    pub seq: u64,
    #[serde(flatten)]
    pub body: ReplyBody,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ReplyBody {
    Done,
    State(KeeperState),
    ExecStarted { pid: i32 },
    Joined { client: u32, log: LogPosition },
    Failed(Failure),
}

/// The end of a record in a log, which may have been rotated since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// Of the file.
    pub inode: u64,
    pub offset: u64,
}

/// Sent without being asked. The control socket that came with [`Launch`] gets `Started` or
/// `StartFailed` first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Started {
        pid: i32,
        started_at_ns: i64,
    },
    StartFailed(Failure),
    Exited(ExitRecord),
    ExecExited {
        exec: String,
        code: i32,
    },
    /// A process of the container was killed for lack of memory.
    Oom,
    /// A client left by its detach keys.
    Detached {
        exec: Option<String>,
    },
    /// After `Exited`: the root file system has been let go, so that the same overlay may be
    /// mounted again. The end of the connection says so, too.
    Released,
    /// Something went wrong that the container does not notice (the log's disk is full).
    Warning {
        message: String,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// In the words of runc, without Docker's prefix.
    pub message: String,
}

impl From<berth_runtime::error::Error> for Failure {
    fn from(error: berth_runtime::error::Error) -> Self {
        Self {
            kind: error.kind,
            message: error.message,
        }
    }
}

/// What `exit.json` holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExitRecord {
    /// As a shell has it: 128 + signal for a process that a signal ended.
    pub code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    /// Nanoseconds since the epoch.
    pub finished_at_ns: i64,
}

/// What `keeper.json` holds, and what [`RequestBody::Hello`] is answered with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeeperState {
    pub version: u32,
    pub id: String,
    pub keeper_pid: i32,
    pub init_pid: i32,
    /// Field 22 of `/proc/PID/stat` of the init, so that a reused pid is noticed.
    pub init_start_ticks: u64,
    pub started_at_ns: i64,
    pub paused: bool,
    pub execs: Vec<ExecState>,
    pub exited: Option<ExitRecord>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecState {
    pub exec: String,
    pub pid: i32,
    pub code: Option<i32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tags of nested enums and the fields lie in one JSON object, and must not collide.
    fn check(message: &Message) {
        let text = serde_json::to_string(message).unwrap();
        let read: Message = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }

    #[test]
    fn every_message_is_read_back() {
        let failure = || Failure {
            kind: FailureKind::CommandNotFound,
            message: "no such".to_owned(),
        };
        let exited = || ExitRecord {
            code: 137,
            signal: Some(9),
            oom_killed: true,
            finished_at_ns: 1,
        };
        let state = KeeperState {
            version: VERSION,
            id: "i".to_owned(),
            keeper_pid: 1,
            init_pid: 2,
            init_start_ticks: 3,
            started_at_ns: 4,
            paused: false,
            execs: vec![ExecState {
                exec: "e".to_owned(),
                pid: 5,
                code: None,
            }],
            exited: Some(exited()),
        };
        for body in [
            ReplyBody::Done,
            ReplyBody::State(state),
            ReplyBody::ExecStarted { pid: 1 },
            ReplyBody::Joined {
                client: 1,
                log: LogPosition {
                    inode: 2,
                    offset: 3,
                },
            },
            ReplyBody::Failed(failure()),
        ] {
            check(&Message::Reply(Reply { seq: 7, body }));
        }
        for event in [
            Event::Started {
                pid: 1,
                started_at_ns: 2,
            },
            Event::StartFailed(failure()),
            Event::Exited(exited()),
            Event::ExecExited {
                exec: "e".to_owned(),
                code: 1,
            },
            Event::Oom,
            Event::Detached { exec: None },
            Event::Released,
            Event::Warning {
                message: "disk full".to_owned(),
            },
        ] {
            check(&Message::Event(event));
        }
    }
}
