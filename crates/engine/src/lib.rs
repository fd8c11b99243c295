//! Containers: one owner task each; exec, logs, events, restarts, volumes.
//!
//! [`Engine`] is the handle that the API's handlers hold. What reads (`list`, `inspect`, `logs`)
//! looks at published snapshots and never waits for an owner task; what changes a container is a
//! message to its owner.

pub mod config;
mod engine;
pub mod error;
pub mod events;
mod frame;
mod launcher;
pub mod logs;
pub mod options;
pub mod restart;
pub mod signal;
pub mod spec;

pub use config::{Config, Runtime, Version};
pub use engine::{Engine, Parts, Waiter};
pub use error::{Error, ErrorKind, Result};
pub use events::EventStream;
pub use launcher::Launcher;
pub use logs::LogStream;
pub use options::{
    AttachOptions, Condition, EventOptions, ExecStartOptions, ListOptions, LogOptions,
    RemoveOptions, StartOptions, StopOptions, StreamTarget, Waited,
};
