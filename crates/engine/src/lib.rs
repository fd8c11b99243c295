//! Containers: one owner task each; exec, logs, events, restarts, volumes.
//!
//! [`Engine`] is the handle that the API's handlers hold. What reads (`list`, `inspect`, `logs`)
//! looks at published snapshots and never waits for an owner task; what changes a container is a
//! message to its owner.
//!
//! ```text
//!  Engine ──▶ table ──▶ Handle ── mailbox ──▶ owner task ──▶ launcher, keeper
//!    │                    └── view (published) ◀──┘
//!    ├──▶ events, execs, volumes, networks, logs
//!    └──▶ spec: pure functions from configuration to the OCI specification
//! ```

mod attach;
mod commit;
pub mod config;
mod container;
mod create;
mod detach;
mod engine;
pub mod error;
mod etc;
pub mod events;
mod exec;
mod files;
mod frame;
mod image_mount;
mod images;
mod inspect;
mod keeper;
mod lifecycle;
mod links;
mod list;
mod log_target;
pub mod logs;
mod names;
mod network;
pub mod options;
mod populate;
mod prune;
mod reachable;
mod record;
mod recover;
pub mod restart;
mod shared;
pub mod signal;
pub mod spec;
mod system;
mod table;
mod top;
mod update;
mod volume;
mod workdir;

pub use config::{Config, Live, Runtime, Version};
pub use engine::{Engine, Parts};
pub use error::{Error, ErrorKind, Result};
pub use events::EventStream;
pub use lifecycle::Waiter;
pub use logs::LogStream;
pub use options::{
    AttachOptions, CommitOptions, Condition, EventOptions, ExecStartOptions, ExtractOptions,
    ListOptions, LogOptions, RemoveOptions, StartOptions, StopOptions, StreamTarget, Waited,
};
pub use volume::{Backup, CopyKind};
