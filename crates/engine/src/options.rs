//! What the operations of the engine are asked for.

use berth_base::Timestamp;
use berth_docker::container::Config;
use berth_docker::filters::Filters;
use berth_oci::Reference;

#[derive(Debug, Clone, Default)]
pub struct StartOptions {
    /// Docker's notation, `ctrl-p,ctrl-q`; `None` is that default.
    pub detach_keys: Option<String>,
    /// Rows and columns; `None` is what the container was created with.
    pub console_size: Option<(u16, u16)>,
}

#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// A name or a number; `None` is the container's.
    pub signal: Option<String>,
    /// Seconds until it is killed; -1 is never, `None` the container's.
    pub timeout_s: Option<i64>,
}

/// What a wait waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    #[default]
    NotRunning,
    NextExit,
    Removed,
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waited {
    pub exit_code: i64,
    /// Why the container could not be started or removed.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
    /// Remove a link, `parent/alias`, not a container.
    pub link: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub all: bool,
    /// The newest that many, running or not.
    pub limit: Option<usize>,
    pub size: bool,
    pub filters: Filters,
}

#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub timestamps: bool,
    /// Records from the end; `None` is all.
    pub tail: Option<u64>,
    pub follow: bool,
    pub details: bool,
}

#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Replay the log first.
    pub logs: bool,
    /// Stay connected; without it only `logs` has an effect.
    pub stream: bool,
    /// Docker's notation; `None` is the default.
    pub detach_keys: Option<String>,
    /// Written to the client before any output, once the attach is certain: the head of the
    /// HTTP answer. A client that has seen it may start the container, and misses nothing.
    pub greeting: Vec<u8>,
}

/// What the caller has to know before it hands over a client's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTarget {
    /// The container's full id, or the exec's.
    pub id: String,
    /// With a terminal the stream is raw, otherwise it has Docker's 8-byte headers.
    pub tty: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ExecStartOptions {
    pub detach: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
}

/// What a commit says of the new image.
#[derive(Debug, Clone)]
pub struct CommitOptions {
    pub name: Option<Reference>,
    pub author: String,
    pub comment: String,
    /// Dockerfile instructions.
    pub changes: Vec<String>,
    /// In place of the container's own, which fills what this leaves open.
    pub config: Option<Config>,
    /// Stop the container's processes meanwhile.
    pub pause: bool,
}

/// How an archive is added to a container's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtractOptions {
    /// A directory is not replaced by something else, nor the other way round.
    pub keep_kinds: bool,
    /// Everything belongs to the user that the container runs as.
    pub as_user: bool,
}

#[derive(Debug, Clone, Default)]
pub struct EventOptions {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub filters: Filters,
}
