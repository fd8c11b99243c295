//! The daemon is killed at any moment of what it does with volumes: afterwards each is whole, or as
//! it was, or not there.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_testkit::{Daemon, Random, run, sh, until};
use rustix::process::Signal;

use crate::daemon;
use crate::volumes::mountpoint;

/// For each operation.
const ROUNDS: u64 = 6;
const SEED: u64 = 4;

/// One operation on volumes, and what is to be the case after it was interrupted.
struct Operation {
    line: &'static str,
    /// What it needs before each time.
    before: &'static [&'static str],
    check: fn(&Daemon, acknowledged: bool),
}

/// The volume is at `/bin`, where the image has hundreds of files, as `source` has.
const FILL: &str = "create -v filled:/bin busybox";

const OPERATIONS: [Operation; 7] = [
    Operation {
        line: "volume create --label a=b made",
        before: &[],
        check: |daemon, done| assert!(is_there(daemon, "made") || !done),
    },
    Operation {
        line: FILL,
        before: &[],
        check: |daemon, done| {
            if is_there(daemon, "filled") {
                let count = files(daemon, "filled").len();
                let whole = files(daemon, "source").len();
                assert!(count == whole || count == 0 && !done, "{count} of {whole}");
                // The next one is filled in any case.
                ours(daemon, FILL);
                assert_eq!(files(daemon, "filled"), files(daemon, "source"));
            }
            assert!(is_there(daemon, "filled") || !done);
        },
    },
    Operation {
        line: "volume snapshot source made",
        before: &[],
        check: |daemon, done| match is_there(daemon, "made") {
            true => assert_eq!(files(daemon, "made"), files(daemon, "source")),
            false => assert!(!done),
        },
    },
    Operation {
        line: "volume restore --force -i archive.tar old",
        before: &["run --rm -v old:/v busybox touch /v/before"],
        check: |daemon, done| {
            let found = files(daemon, "old");
            match found.len() {
                1 => assert!(found[0].starts_with("./before ") && !done, "{found:?}"),
                _ => assert_eq!(found, files(daemon, "source")),
            }
        },
    },
    Operation {
        line: "volume rename old made",
        before: &["volume create old"],
        check: |daemon, done| {
            let (old, new) = (is_there(daemon, "old"), is_there(daemon, "made"));
            assert!(old != new && (new || !done), "old {old}, new {new}");
        },
    },
    Operation {
        line: "volume rm old",
        before: &["create --name user -v old:/bin busybox", "rm user"],
        check: |daemon, done| match is_there(daemon, "old") {
            true => {
                assert!(!done);
                assert_eq!(files(daemon, "old"), files(daemon, "source"));
            }
            false => assert!(!place(daemon, "old").exists()),
        },
    },
    Operation {
        line: "volume prune -af",
        before: &["volume create one", "volume create two"],
        check: |daemon, done| {
            let left = ["one", "two"].map(|name| is_there(daemon, name));
            assert!(!done || left == [false, false], "{left:?}");
        },
    },
];

/// Our command line; whether it was told that it is done.
fn ours(daemon: &Daemon, line: &str) -> bool {
    let mut command = daemon.berth_command();
    command.args(line.split(' ')).current_dir(&daemon.root);
    run(&mut command, b"").code == 0
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
    assert!(ours(&daemon, "create -v source:/bin busybox"));
    assert!(ours(&daemon, "volume backup -o archive.tar source"));
    for Operation {
        line,
        before,
        check,
    } in OPERATIONS
    {
        let mut takes = Duration::ZERO;
        for round in 0..=ROUNDS {
            for line in before {
                assert!(ours(&daemon, line), "{line}");
            }
            let began = Instant::now();
            let acknowledged = if round == 0 {
                let is_done = ours(&daemon, line);
                takes = began.elapsed();
                assert!(is_done, "{line} fails");
                is_done
            } else {
                let mut command = daemon.berth_command();
                command.args(line.split(' ')).current_dir(&daemon.root);
                std::thread::scope(|scope| {
                    let told = scope.spawn(move || run(&mut command, b"").code == 0);
                    let micros = u64::try_from(takes.as_micros()).unwrap() + 1;
                    // The moment is what the test varies.
                    std::thread::sleep(Duration::from_micros(random.below(micros)));
                    daemon.signal(Signal::KILL);
                    told.join().unwrap()
                })
            };
            if round > 0 {
                daemon.spawn();
            }
            let told = format!("{line}, round {round} of seed {SEED}");
            let checked = std::panic::AssertUnwindSafe(|| check(&daemon, acknowledged));
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
