//! The machine runs out of something: the daemon says so, loses nothing, and goes on when there
//! is more again.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use berth_testkit::registry::free_port;
use berth_testkit::{Daemon, Registry, http, sh, until};
use rustix::process::Signal;

use crate::disk::Disk;
use crate::{program, run_detached};

impl Disk {
    /// Takes all room but so many KiB, and as much as nobody can use.
    fn fill(&self, leave_kib: u64) {
        let filler = self.path.join("filler");
        sh(&format!(
            "free=$(df --output=avail -k {0} | tail -1); \
             dd if=/dev/zero of={1} bs=1k count=$((free - {leave_kib})) status=none || true; sync -f {0}",
            self.path.display(),
            filler.display()
        ));
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path.join("filler")).unwrap();
    }
}

#[test]
fn on_a_full_disk_requests_fail_clearly_and_what_was_there_stays() {
    let disk = Disk::new("full", 48, "mkfs.ext4 -q -m 0");
    let registry = Registry::start(free_port(), "");
    registry.push("busybox", "full/busybox:1", "--dest-tls-verify=false");
    let image = format!("{}/full/busybox:1", registry.host);
    let mut daemon = disk.daemon();
    daemon.load("busybox");
    daemon
        .docker(&["run", "-d", "--name", "lives", "busybox", "sleep", "1000"])
        .ok();
    daemon
        .docker(&["create", "--name", "waits", "busybox", "sleep", "1000"])
        .ok();
    disk.fill(0);

    let words = "no space left on device";
    let fails = |output: berth_testkit::Output| {
        assert_ne!(output.code, 0, "{output:?}");
        let told = output.stderr.to_ascii_lowercase();
        assert!(told.contains(words), "{told}");
    };
    fails(daemon.docker(&["pull", "-q", &image]));
    // What is small may still find room in a file that is there.
    let mut created = Vec::new();
    let refused = (0..500).find_map(|number| {
        let name = format!("more{number}");
        let output = daemon.docker(&["create", "--name", &name, "busybox", "true"]);
        if output.code == 0 {
            created.push(name);
            return None;
        }
        Some(output)
    });
    fails(refused.expect("a full disk refuses"));
    let started = daemon.docker(&["start", "waits"]);
    if started.code != 0 {
        fails(started.clone());
    }

    daemon.signal(Signal::KILL);
    daemon.spawn();
    let state = |name: &str| {
        let form = "{{.State.Running}}";
        daemon
            .docker(&["inspect", "-f", form, name])
            .ok()
            .to_owned()
    };
    assert_eq!(state("lives"), "true");
    assert_eq!(state("waits"), (started.code == 0).to_string());
    for name in &created {
        assert_eq!(state(name), "false");
    }
    disk.make_room();
    daemon.docker(&["pull", "-q", &image]).ok();
    daemon.docker(&["run", "--rm", &image, "true"]).ok();
    daemon.docker(&["start", "waits"]).ok();
    drop(daemon);
}

#[test]
fn a_log_on_a_full_disk_drops_whole_records_and_says_how_many() {
    let disk = Disk::new("log", 48, "mkfs.ext4 -q -m 0");
    let daemon = disk.daemon();
    daemon.load("busybox");
    let script = "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo line $i; usleep 2000; done; \
                  echo $i >/dev/shm/count; sleep 1000";
    run_detached(&daemon, "--name talks", script);
    let logged = || -> Vec<usize> {
        let logs = daemon.docker(&["logs", "talks"]);
        let numbers = logs.ok().lines().map(|line| {
            let number = line.strip_prefix("line ").expect("whole records only");
            number.parse().unwrap()
        });
        numbers.collect()
    };
    until("it is logged", || (logged().len() > 10).then_some(()));
    disk.fill(0);
    until("the log cannot be written", || {
        daemon.log().contains("records are dropped").then_some(())
    });
    let full = logged();
    assert!(full.iter().copied().eq(1..=full.len()), "a gap before");
    // The container goes on, and everybody is answered.
    daemon.docker(&["exec", "talks", "true"]).ok();
    disk.make_room();
    let dropped = until("the number of dropped records is told", || {
        let log = daemon.log();
        let (before, _) = log.split_once(" records of the container's log were dropped")?;
        let number: String = before
            .chars()
            .rev()
            .take_while(char::is_ascii_digit)
            .collect();
        number
            .chars()
            .rev()
            .collect::<String>()
            .parse::<usize>()
            .ok()
    });
    daemon.docker(&["exec", "talks", "touch", "/stop"]).ok();
    let count = until("it has stopped talking", || {
        let count = daemon.docker(&["exec", "talks", "cat", "/dev/shm/count"]);
        count.stdout.trim().parse::<usize>().ok()
    });
    let all = until("the rest is logged", || {
        let all = logged();
        (all.last() == Some(&count)).then_some(all)
    });
    assert_eq!(all.len() + dropped, count);
}

#[test]
fn without_inodes_a_create_fails_clearly_and_leaves_nothing() {
    let disk = Disk::new("inodes", 48, "mkfs.ext4 -q -m 0 -N 1024");
    let daemon = disk.daemon();
    daemon.load("busybox");
    daemon
        .docker(&["run", "-d", "--name", "lives", "busybox", "sleep", "1000"])
        .ok();
    let fillers = disk.path.join("fillers");
    sh(&format!(
        "mkdir {0}; i=0; while touch {0}/$i 2>/dev/null; do i=$((i+1)); done",
        fillers.display()
    ));
    let before = sh(&format!("ls {}/data/snapshots", disk.path.display()));
    let output = daemon.docker(&["create", "--name", "more", "busybox", "true"]);
    assert_ne!(output.code, 0);
    let told = output.stderr.to_ascii_lowercase();
    assert!(told.contains("no space left on device"), "{told}");
    let after = sh(&format!("ls {}/data/snapshots", disk.path.display()));
    assert_eq!(before, after);
    daemon.docker(&["exec", "lives", "true"]).ok();
    std::fs::remove_dir_all(fillers).unwrap();
    daemon
        .docker(&["create", "--name", "more", "busybox", "true"])
        .ok();
}

/// A directory of a cgroup controller.
fn controller(name: &str) -> PathBuf {
    let own = Path::new("/sys/fs/cgroup").join(name);
    if own.exists() {
        own
    } else {
        PathBuf::from("/sys/fs/cgroup")
    }
}

#[test]
fn without_processes_a_start_fails_clearly_and_leaves_nothing() {
    let daemon = crate::daemon();
    daemon
        .docker(&["run", "-d", "--name", "lives", "busybox", "sleep", "1000"])
        .ok();
    daemon
        .docker(&["create", "--name", "waits", "busybox", "sleep", "1000"])
        .ok();
    let keepers = controller("pids").join(daemon.instance()).join("keepers");
    let limit = keepers.join("pids.max");
    let containers = || {
        let parent = keepers.parent().unwrap();
        let entries = std::fs::read_dir(parent).unwrap().flatten();
        entries
            .filter(|entry| entry.file_name().len() == 64)
            .count()
    };
    // Neither a keeper, nor what a keeper forks.
    for more in 0..2 {
        let used: u32 = sh(&format!("cat {}/pids.current", keepers.display()))
            .parse()
            .unwrap();
        std::fs::write(&limit, (used + more).to_string()).unwrap();
        let refused = daemon.docker(&["start", "waits"]);
        std::fs::write(&limit, "max").unwrap();
        if refused.code == 0 {
            // On version 2 what a keeper forks is counted in the container's own cgroup.
            assert_eq!(more, 1, "{refused:?}");
            daemon.docker(&["rm", "-f", "waits"]).ok();
            break;
        }
        let told = refused.stderr.to_ascii_lowercase();
        assert!(told.contains("resource temporarily unavailable"), "{told}");
        until("nothing is left of it", || {
            (containers() == 1).then_some(())
        });
        daemon.docker(&["exec", "lives", "true"]).ok();
    }
    daemon.docker(&["run", "--rm", "busybox", "true"]).ok();
}

#[test]
fn without_descriptors_nobody_is_lost_and_it_recovers() {
    let under = ["prlimit", "--nofile=96:96"];
    let daemon = Daemon::start_under(&under, program(), &[]);
    daemon.load("busybox");
    daemon
        .docker(&["run", "-d", "--name", "lives", "busybox", "sleep", "1000"])
        .ok();
    let idle: Vec<UnixStream> = (0..200)
        .map(|_| UnixStream::connect(daemon.socket()).unwrap())
        .collect();
    until("it has no descriptor left", || {
        daemon.log().contains("accept a connection").then_some(())
    });
    drop(idle);
    until("it answers again", || {
        let answer = http::request(&daemon.socket(), "GET", "/_ping", None);
        answer
            .is_ok_and(|answer| answer.status == 200)
            .then_some(())
    });
    daemon.docker(&["exec", "lives", "true"]).ok();
    daemon.docker(&["run", "--rm", "busybox", "true"]).ok();

    // Containers need descriptors, too: the last ones are refused, the others run.
    let mut running = 1;
    let refused = (0..96).find_map(|_| {
        let output = daemon.docker(&["run", "-d", "busybox", "sleep", "1000"]);
        running += usize::from(output.code == 0);
        (output.code != 0).then_some(output)
    });
    let told = refused.expect("a limit").stderr.to_ascii_lowercase();
    assert!(told.contains("too many open files"), "{told}");
    let listed = until("it answers again", || {
        let listed = daemon.docker(&["ps", "-q"]);
        (listed.code == 0).then_some(listed)
    });
    assert_eq!(listed.ok().lines().count(), running);
    let ids: Vec<&str> = listed.ok().lines().take(20).collect();
    daemon
        .docker(&[&["rm", "-f"], ids.as_slice()].concat())
        .ok();
    daemon.docker(&["run", "--rm", "busybox", "true"]).ok();
}

#[test]
fn a_daemon_that_was_killed_for_its_memory_has_lost_nothing() {
    let group = controller("memory").join(format!("berth-test-memory-{}", std::process::id()));
    std::fs::create_dir(&group).unwrap();
    let mut daemon = crate::daemon();
    daemon
        .docker(&["run", "-d", "--name", "lives", "busybox", "sleep", "1000"])
        .ok();
    let pid = daemon.pid();
    std::fs::write(group.join("cgroup.procs"), pid.to_string()).unwrap();
    let limit = ["memory.limit_in_bytes", "memory.max"].map(|name| group.join(name));
    let limit = limit.iter().find(|path| path.exists()).unwrap();
    // A load needs more than this; what the daemon has is counted where it was allocated.
    std::fs::write(limit, "4M").unwrap();
    let mut created = 0;
    while Path::new(&format!("/proc/{pid}/fd/0")).exists() && created < 2000 {
        let body =
            serde_json::json!({"Image": "busybox", "Labels": {"large": "x".repeat(100_000)}});
        let path = "/containers/create";
        match http::request(&daemon.socket(), "POST", path, Some(&body)) {
            Ok(answer) if answer.status == 201 => created += 1,
            _ => break,
        }
    }
    until("it is killed", || {
        (!Path::new(&format!("/proc/{pid}/fd/0")).exists()).then_some(())
    });
    daemon.reap();
    daemon.spawn();
    let path = "/containers/json?all=1";
    let listed = http::request(&daemon.socket(), "GET", path, None).unwrap();
    let listed = listed.json().as_array().unwrap().len();
    // The one that was not answered may be there.
    assert!(
        (created + 1..=created + 2).contains(&listed),
        "{listed}, {created}"
    );
    daemon.docker(&["exec", "lives", "true"]).ok();
    until("the cgroup is empty", || std::fs::remove_dir(&group).ok());
}
