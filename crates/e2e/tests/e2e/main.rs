//! End to end: the built binary, driven by the real docker client, docker-py, curl and our own
//! command line. Needs root and what `tests/prepare` makes.
//!
//! Every daemon of a test is private; when it goes, the machine has to be as it was
//! (`berth_testkit::Machine`).

#![allow(clippy::unwrap_used, reason = "a failed test is told by a panic")]

mod attacks;
mod clients;
mod containers;
mod control;
mod daemon;
mod damage;
mod demo;
mod faults;
mod hosts;
mod images;
mod isolation;
mod kills;
mod network;
mod parity;
mod proxies;
mod refusals;
mod registry;
mod runtimes;
mod shortage;
mod stuck;
mod terminal;
mod watching;

use std::path::PathBuf;

use berth_testkit::Daemon;

/// The binary: `BERTH_BIN`, or the one beside this test's directory.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("BERTH_BIN") {
        return path.into();
    }
    let own = std::env::current_exe().unwrap();
    own.ancestors().nth(2).unwrap().join("berth")
}

/// A daemon of its own with busybox loaded.
#[track_caller]
fn daemon() -> Daemon {
    let daemon = Daemon::start(program(), &[]);
    daemon.load("busybox");
    daemon
}
