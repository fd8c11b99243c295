//! The processes of an instance, and killing them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use berth_testkit::Random;
use rustix::process::{Pid, Signal, kill_process};

/// What is killed in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Daemon,
    Launcher,
    /// The daemon, and a keeper while it is away.
    DaemonAndKeeper,
    /// The daemon, and a container's first process while it is away.
    DaemonAndInit,
    /// Any keeper, whatever it is doing.
    Keeper,
    /// Nothing but what the clients kill themselves: inits, keepers and execs of theirs.
    Theirs,
}

impl Target {
    pub fn choose(random: &mut Random) -> Self {
        match random.below(100) {
            0..40 => Self::Daemon,
            40..50 => Self::DaemonAndKeeper,
            50..60 => Self::DaemonAndInit,
            60..70 => Self::Launcher,
            70..85 => Self::Keeper,
            _ => Self::Theirs,
        }
    }

    pub fn has_daemon(self) -> bool {
        matches!(
            self,
            Self::Daemon | Self::DaemonAndKeeper | Self::DaemonAndInit
        )
    }
}

/// One round: whether it goes on, and whose failures are nobody's fault.
#[derive(Debug, Default)]
pub struct Round {
    pub over: AtomicBool,
    /// How many answers the clients have had in it.
    pub answers: AtomicU64,
    /// Containers whose keeper or init was killed without its client knowing.
    victims: Mutex<HashSet<String>>,
    /// A keeper was killed before it had a container, or the launcher was.
    any: AtomicBool,
}

impl Round {
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Whether the clients have had so many answers.
    pub fn has_had(&self, answers: u64) -> Option<()> {
        (self.answers.load(Ordering::Relaxed) >= answers).then_some(())
    }

    /// Whether something that happens to this container in this round may be the harness's doing.
    pub fn excuses(&self, id: &str) -> bool {
        self.any.load(Ordering::Acquire) || self.victims.lock().unwrap().contains(id)
    }

    pub fn excuse_all(&self) {
        self.any.store(true, Ordering::Release);
    }

    /// Kills any keeper, or any container's first process.
    pub fn kill_any(&self, instance: &str, random: &mut Random, keeper: bool) {
        let keepers = named(instance, "berth-keeper");
        let Some(&pid) = random.pick(&keepers) else {
            return;
        };
        let child = children(pid)
            .into_iter()
            .find_map(|child| Some((child, container(instance, child)?)));
        match child {
            Some((init, id)) => {
                self.victims.lock().unwrap().insert(id);
                kill(if keeper { pid } else { init });
            }
            None => {
                self.excuse_all();
                kill(pid);
            }
        }
    }
}

pub fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// The instance's processes of this name.
pub fn named(instance: &str, name: &str) -> Vec<i32> {
    let mark = format!("/{instance}/keepers");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) else {
            continue;
        };
        let is_named = read(&entry.path().join("comm")).trim() == name;
        // A child that is on the way to become a container's has the name, too.
        let children_of_keeper = || named_parent(pid) == Some("berth-keeper".to_owned());
        if is_named && read(&entry.path().join("cgroup")).contains(&mark) && !children_of_keeper() {
            found.push(pid);
        }
    }
    found
}

fn named_parent(pid: i32) -> Option<String> {
    let parent = parent(pid)?;
    Some(
        read(Path::new(&format!("/proc/{parent}/comm")))
            .trim()
            .to_owned(),
    )
}

/// The parent of a process: of a container's first process that is its keeper.
pub fn parent(pid: i32) -> Option<i32> {
    let stat = read(Path::new(&format!("/proc/{pid}/stat")));
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn children(pid: i32) -> Vec<i32> {
    let text = read(Path::new(&format!("/proc/{pid}/task/{pid}/children")));
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// The container that a process is in, by its cgroup.
fn container(instance: &str, pid: i32) -> Option<String> {
    let groups = read(Path::new(&format!("/proc/{pid}/cgroup")));
    let (_, after) = groups.split_once(&format!("/{instance}/"))?;
    let id: String = after.chars().take_while(char::is_ascii_hexdigit).collect();
    (id.len() == 64).then_some(id)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
