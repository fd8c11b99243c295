//! End to end: the built binary, driven by the real docker client, docker-py, curl and our own
//! command line. Needs root and what `tests/prepare` makes.
//!
//! Every daemon of a test is private; when it goes, the machine has to be as it was
//! (`berth_testkit::Machine`).

#![allow(clippy::unwrap_used, reason = "a failed test is told by a panic")]

mod attacks;
mod beside;
mod clients;
mod containers;
mod control;
mod copies;
mod daemon;
mod damage;
mod demo;
mod disk;
mod faults;
mod files;
mod firewalls;
mod hosts;
mod images;
mod interrupted;
mod island;
mod isolation;
mod kills;
mod links;
mod macvlan;
mod mounts;
mod names;
mod network;
mod network_faults;
mod network_kills;
mod networks;
mod options;
mod parity;
mod place;
mod ports;
mod proxies;
mod refusals;
mod registry;
mod resolvers;
mod runtimes;
mod shortage;
mod streams;
mod stuck;
mod terminal;
mod upgrades;
mod volumes;
mod watching;
mod wordpress;

use std::path::PathBuf;

use berth_testkit::{Daemon, Output};

type Client = fn(&Daemon, &[&str]) -> Output;

/// Both clients have to give the same.
const CLIENTS: [Client; 2] = [Daemon::docker, Daemon::berth];

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

/// A field of a container, by docker's template.
#[track_caller]
fn inspect(daemon: &Daemon, name: &str, form: &str) -> String {
    daemon
        .docker(&["inspect", "-f", form, name])
        .ok()
        .to_owned()
}

/// A script in a container of busybox, with these options (words between spaces); its id.
#[track_caller]
fn run_detached(daemon: &Daemon, options: &str, script: &str) -> String {
    let mut words = vec!["run", "-d"];
    words.extend(options.split(' '));
    words.extend(["busybox", "sh", "-c", script]);
    daemon.docker(&words).ok().to_owned()
}
