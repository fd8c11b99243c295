//! The daemon dies and comes back.

use std::path::PathBuf;

use berth_testkit::until;
use rustix::process::Signal;

use crate::{daemon, run_detached};

/// As often as the issue that asked for it says.
const KILLS: usize = 20;

#[test]
fn a_container_outlives_twenty_kills_of_the_daemon_with_every_line() {
    let mut daemon = daemon();
    let script =
        "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i; usleep 1000; done; echo end; exit 42";
    run_detached(&daemon, "--name writer", script);
    let pid = |daemon: &berth_testkit::Daemon| {
        daemon
            .docker(&["inspect", "-f", "{{.State.Pid}}", "writer"])
            .ok()
            .to_owned()
    };
    let first = pid(&daemon);
    for _ in 0..KILLS {
        daemon.signal(Signal::KILL);
        daemon.spawn();
        assert_eq!(pid(&daemon), first);
    }
    daemon.docker(&["exec", "writer", "touch", "/stop"]).ok();
    assert_eq!(daemon.docker(&["wait", "writer"]).ok(), "42");
    let logs = daemon.docker(&["logs", "writer"]);
    let lines: Vec<&str> = logs.ok().lines().collect();
    let (last, numbers) = lines.split_last().unwrap();
    assert_eq!(*last, "end");
    assert!(numbers.len() > KILLS, "only {} lines", numbers.len());
    for (index, number) in numbers.iter().enumerate() {
        assert_eq!(number.parse::<usize>().unwrap(), index + 1);
    }
}

#[test]
fn what_ended_while_no_daemon_ran_is_told_by_the_next() {
    let mut daemon = daemon();
    run_detached(&daemon, "--name short", "sleep 0.3; echo done; exit 9");
    run_detached(
        &daemon,
        "--name again --restart on-failure",
        "sleep 0.3; exit 1",
    );
    let pid = daemon
        .docker(&["inspect", "-f", "{{.State.Pid}}", "short"])
        .ok()
        .to_owned();
    daemon.signal(Signal::KILL);
    until("the container ends", || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    daemon.spawn();
    assert_eq!(
        daemon
            .docker(&[
                "inspect",
                "-f",
                "{{.State.Status}} {{.State.ExitCode}}",
                "short"
            ])
            .ok(),
        "exited 9"
    );
    assert_eq!(daemon.docker(&["logs", "short"]).ok(), "done");
    until("the policy brings it back", || {
        let count = daemon
            .docker(&["inspect", "-f", "{{.RestartCount}}", "again"])
            .ok()
            .parse::<u32>()
            .unwrap();
        (count >= 1).then_some(())
    });
}

#[test]
fn a_killed_keeper_ends_its_container_only() {
    let daemon = daemon();
    for name in ["one", "other"] {
        daemon
            .docker(&["run", "-d", "--name", name, "busybox", "sleep", "1000"])
            .ok();
    }
    let pid = daemon
        .docker(&["inspect", "-f", "{{.State.Pid}}", "one"])
        .ok()
        .to_owned();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let keeper = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(1)
        .unwrap()
        .to_owned();
    berth_testkit::sh(&format!("kill -9 {keeper}"));
    assert_eq!(daemon.docker(&["wait", "one"]).ok(), "137");
    assert_eq!(
        daemon
            .docker(&["inspect", "-f", "{{.State.Running}}", "other"])
            .ok(),
        "true"
    );
    until("its processes are gone", || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
}

#[test]
fn sigterm_leaves_containers_running_unless_told_otherwise() {
    let mut daemon = daemon();
    daemon
        .docker(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])
        .ok();
    let state = |daemon: &berth_testkit::Daemon| {
        daemon
            .docker(&["inspect", "-f", "{{.State.Pid}} {{.State.Status}}", "cc"])
            .ok()
            .to_owned()
    };
    let before = state(&daemon);
    daemon.signal(Signal::TERM);
    daemon.spawn();
    assert_eq!(state(&daemon), before);
    daemon.docker(&["rm", "-f", "cc"]).ok();

    let mut other = berth_testkit::Daemon::start(
        crate::program(),
        &["--live-restore=false", "--shutdown-timeout", "1"],
    );
    other.load("busybox");
    other
        .docker(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])
        .ok();
    other.signal(Signal::TERM);
    other.spawn();
    assert_eq!(state(&other), "0 exited");
}

#[test]
fn acknowledged_objects_survive_kill_9() {
    let mut daemon = daemon();
    for round in 0..5 {
        let name = format!("c{round}");
        daemon
            .docker(&["create", "--name", &name, "busybox", "true"])
            .ok();
        daemon
            .docker(&["tag", "busybox", &format!("copy:{round}")])
            .ok();
        daemon
            .docker(&["volume", "create", &format!("v{round}")])
            .ok();
        daemon.signal(Signal::KILL);
        daemon.spawn();
    }
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok().lines().count(), 5);
    assert_eq!(
        daemon
            .docker(&["images", "-q", "copy"])
            .ok()
            .lines()
            .count(),
        5
    );
    assert_eq!(
        daemon.docker(&["volume", "ls", "-q"]).ok().lines().count(),
        5
    );
    assert_eq!(daemon.docker(&["start", "-a", "c3"]).ok(), "");
}

#[test]
fn empty_cgroups_that_killed_processes_left_are_removed_at_the_start() {
    let mut daemon = daemon();
    daemon
        .docker(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])
        .ok();
    let id = daemon.docker(&["inspect", "-f", "{{.Id}}", "cc"]);
    let parent = daemon.instance();
    let parents: Vec<PathBuf> = std::fs::read_dir("/sys/fs/cgroup")
        .unwrap()
        .flatten()
        .map(|hierarchy| hierarchy.path().join(&parent))
        .chain([PathBuf::from("/sys/fs/cgroup").join(&parent)])
        .filter(|directory| directory.join(id.ok()).exists())
        .collect();
    assert!(!parents.is_empty());
    daemon.signal(Signal::KILL);
    let (mut left, mut kept) = (Vec::new(), Vec::new());
    for parent in &parents {
        left.push(parent.join("left"));
        kept.push(parent.join(id.ok()).join("inner"));
    }
    for path in left.iter().map(|it| it.join("below")).chain(kept.clone()) {
        std::fs::create_dir_all(path).unwrap();
    }
    daemon.spawn();
    for path in left {
        assert!(!path.exists(), "{}", path.display());
    }
    for path in kept {
        assert!(path.exists(), "{}", path.display());
    }
    assert_eq!(
        daemon.docker(&["exec", "cc", "echo", "alive"]).ok(),
        "alive"
    );
    daemon.docker(&["rm", "-f", "cc"]).ok();
}
