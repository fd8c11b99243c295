//! The daemon is killed at any moment of what it does with volumes: afterwards each is whole, or as
//! it was, or not there.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_testkit::{Daemon, Random, http, sh, until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::daemon;
use crate::volumes::mountpoint;

/// For each operation.
const ROUNDS: u64 = 6;
const SEED: u64 = 4;

/// One operation on volumes, and what is to be the case after it was interrupted.
struct Operation {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    body: Value,
    /// What it needs, through docker, before each time.
    before: &'static [&'static str],
    check: fn(&Daemon, acknowledged: bool),
}

/// A container with the volume `filled` at `/bin`, where the image has hundreds of files.
fn filling() -> Value {
    json!({"Image": "busybox", "HostConfig": {"Binds": ["filled:/bin"]}})
}

fn operations() -> [Operation; 6] {
    let operation = |name, method, path, before, check| Operation {
        name,
        method,
        path,
        body: json!({}),
        before,
        check,
    };
    [
        Operation {
            body: json!({"Name": "made", "Labels": {"a": "b"}}),
            ..operation("create", "POST", "/volumes/create", &[], |daemon, done| {
                assert!(is_there(daemon, "made") || !done);
            })
        },
        Operation {
            body: filling(),
            ..operation("fill", "POST", "/containers/create", &[], |daemon, done| {
                if is_there(daemon, "filled") {
                    let count = files(daemon, "filled").len();
                    let whole = files(daemon, "source").len();
                    assert!(count == whole || count == 0 && !done, "{count} of {whole}");
                    // The next one is filled in any case.
                    daemon.api("POST", "/containers/create", Some(&filling().to_string()));
                    assert_eq!(files(daemon, "filled"), files(daemon, "source"));
                }
                assert!(is_there(daemon, "filled") || !done);
            })
        },
        operation(
            "copy",
            "POST",
            "/berth/volumes/source/clone?name=made",
            &[],
            |daemon, done| match is_there(daemon, "made") {
                true => assert_eq!(files(daemon, "made"), files(daemon, "source")),
                false => assert!(!done),
            },
        ),
        operation(
            "rename",
            "POST",
            "/berth/volumes/old/rename?name=made",
            &["volume create old"],
            |daemon, done| {
                let (old, new) = (is_there(daemon, "old"), is_there(daemon, "made"));
                assert!(old != new && (new || !done), "old {old}, new {new}");
            },
        ),
        operation(
            "remove",
            "DELETE",
            "/volumes/old",
            &["create --name user -v old:/bin busybox", "rm user"],
            |daemon, done| match is_there(daemon, "old") {
                true => {
                    assert!(!done);
                    assert_eq!(files(daemon, "old"), files(daemon, "source"));
                }
                false => assert!(!place(daemon, "old").exists()),
            },
        ),
        operation(
            "prune",
            "POST",
            "/volumes/prune?filters=%7B%22all%22:%5B%22true%22%5D%7D",
            &["volume create one", "volume create two"],
            |daemon, done| {
                let left = ["one", "two"].map(|name| is_there(daemon, name));
                assert!(!done || left == [false, false], "{left:?}");
            },
        ),
    ]
}

fn place(daemon: &Daemon, volume: &str) -> std::path::PathBuf {
    daemon.data.join("volumes").join(volume)
}

fn volumes(daemon: &Daemon) -> BTreeSet<String> {
    let listed = daemon.docker(&["volume", "ls", "-q"]).ok().to_owned();
    listed.lines().map(str::to_owned).collect()
}

fn is_there(daemon: &Daemon, volume: &str) -> bool {
    volumes(daemon).contains(volume)
}

/// The names and sizes in a volume.
fn files(daemon: &Daemon, volume: &str) -> Vec<String> {
    let place = mountpoint(daemon, volume);
    let found = sh(&format!(
        "cd {place}; find . -printf '%p %y %s %m %U\\n' | grep -v ' d ' | sort"
    ));
    found.lines().map(str::to_owned).collect()
}

#[test]
fn a_killed_daemon_leaves_volumes_whole_or_as_they_were() {
    let mut daemon = daemon();
    let mut random = Random::new(SEED);
    // It is in use, so that nothing removes it.
    daemon
        .docker(&["create", "-v", "source:/bin", "busybox"])
        .ok();
    for operation in operations() {
        let mut takes = Duration::ZERO;
        for round in 0..=ROUNDS {
            for line in operation.before {
                daemon.docker(&line.split(' ').collect::<Vec<_>>()).ok();
            }
            let Operation {
                method, path, body, ..
            } = &operation;
            let socket = daemon.socket();
            let (acknowledged, killed) = std::thread::scope(|scope| {
                let began = Instant::now();
                let request = scope.spawn(move || {
                    let answer = http::request(&socket, method, path, Some(body));
                    let is_success = answer.is_ok_and(|answer| answer.is_success());
                    (is_success, began.elapsed())
                });
                let killed = round > 0;
                if killed {
                    let micros = u64::try_from(takes.as_micros()).unwrap() + 1;
                    // The moment is what the test varies.
                    std::thread::sleep(Duration::from_micros(random.below(micros)));
                    daemon.signal(Signal::KILL);
                }
                let (is_success, took) = request.join().unwrap();
                if !killed {
                    takes = took;
                }
                (is_success, killed)
            });
            assert!(acknowledged || killed, "{} fails", operation.name);
            if killed {
                daemon.spawn();
            }
            let told = format!("{}, round {round} of seed {SEED}", operation.name);
            let checked = std::panic::AssertUnwindSafe(|| (operation.check)(&daemon, acknowledged));
            std::panic::catch_unwind(checked).unwrap_or_else(|_| panic!("{told}"));
            nothing_else_is_there(&daemon, &told);
            remove_all(&daemon);
        }
    }
}

/// On the disk is what the daemon knows, and nothing of it is mounted.
#[track_caller]
fn nothing_else_is_there(daemon: &Daemon, told: &str) {
    let known = volumes(daemon);
    let root = daemon.data.join("volumes");
    until(&format!("only volumes are there: {told}"), || {
        let found = std::fs::read_dir(&root).unwrap();
        let found = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        (found.collect::<BTreeSet<_>>() == known).then_some(())
    });
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("{}/", root.display())), "{told}");
}

fn remove_all(daemon: &Daemon) {
    let all = daemon.docker(&["ps", "-aq", "--no-trunc"]).ok().to_owned();
    let others: Vec<&str> = all
        .lines()
        .filter(|id| {
            let form = "{{range .Mounts}}{{.Name}}{{end}}";
            daemon.docker(&["inspect", "-f", form, id]).ok() != "source"
        })
        .collect();
    if !others.is_empty() {
        daemon.docker(&[&["rm", "-f"], &others[..]].concat()).ok();
    }
    for volume in volumes(daemon).iter().filter(|name| *name != "source") {
        daemon.docker(&["volume", "rm", volume]).ok();
        assert!(!Path::new(&place(daemon, volume)).exists());
    }
}
