//! Files that are damaged or half-written, and daemons of another version.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use berth_testkit::{Daemon, sh, until};
use rustix::process::Signal;

use crate::{daemon, program};

fn inspect(daemon: &Daemon, name: &str, form: &str) -> String {
    daemon
        .docker(&["inspect", "-f", form, name])
        .ok()
        .to_owned()
}

fn run(daemon: &Daemon, name: &str, script: &str) -> String {
    daemon
        .docker(&["run", "-d", "--name", name, "busybox", "sh", "-c", script])
        .ok()
        .to_owned()
}

fn append(path: &PathBuf, bytes: &[u8]) {
    let file = std::fs::File::options().append(true).open(path);
    file.unwrap().write_all(bytes).unwrap();
}

#[test]
fn damaged_files_of_a_keeper_cost_no_other_container_anything() {
    let mut daemon = daemon();
    let ends = run(
        &daemon,
        "ends",
        "while [ ! -e /stop ]; do sleep 0.01; done; exit 5",
    );
    let lives = run(&daemon, "lives", "sleep 1000");
    let runtime = |id: &str| daemon.root.join("exec/containers").join(id);
    let (ends, lives) = (runtime(&ends), runtime(&lives));
    let pid = inspect(&daemon, "ends", "{{.State.Pid}}");
    let living = inspect(&daemon, "lives", "{{.State.Pid}}");
    daemon.signal(Signal::KILL);
    sh(&format!("touch /proc/{pid}/root/stop"));
    until("it has ended", || {
        ends.join("exit.json").exists().then_some(())
    });
    std::fs::write(ends.join("exit.json"), "{\"code\":").unwrap();
    std::fs::write(lives.join("keeper.json"), "\0\0\0").unwrap();
    daemon.spawn();
    // How it ended is lost, and that is how a container ends whose keeper was lost.
    let state = "{{.State.Status}} {{.State.ExitCode}}";
    assert_eq!(inspect(&daemon, "ends", state), "exited 137");
    assert_eq!(inspect(&daemon, "lives", "{{.State.Pid}}"), living);
    daemon.docker(&["start", "ends"]).ok();
}

#[test]
fn a_torn_end_of_the_store_s_journal_loses_nothing_before_it() {
    let mut daemon = daemon();
    let journal = daemon.data.join("store/store.db-wal");
    for round in 0..6_u8 {
        let name = format!("c{round}");
        daemon
            .docker(&["create", "--name", &name, "busybox", "true"])
            .ok();
        daemon.signal(Signal::KILL);
        // A frame that the machine did not finish: some of its header, or of its page.
        let length = 10 + 1000 * usize::from(round);
        append(&journal, &vec![round; length]);
        daemon.spawn();
        let listed = daemon.docker(&["ps", "-aq"]);
        assert_eq!(listed.ok().lines().count(), usize::from(round) + 1);
    }
}

#[test]
fn a_damaged_store_is_named_with_the_remedy() {
    let mut daemon = daemon();
    daemon
        .docker(&["create", "--name", "kept", "busybox", "true"])
        .ok();
    daemon.signal(Signal::TERM);
    let store = daemon.data.join("store/store.db");
    let whole = std::fs::read(&store).unwrap();
    std::fs::write(&store, vec![b'x'; 8192]).unwrap();
    let output = berth_testkit::run(&mut daemon.command(), b"");
    output.fails(1, "it is damaged; move it away to start with an empty one");
    std::fs::write(&store, whole).unwrap();
    daemon.spawn();
    assert_eq!(inspect(&daemon, "kept", "{{.Name}}"), "/kept");
}

/// Gives a container's record this value, an expression over `old`.
fn change(daemon: &Daemon, id: &str, value: &str) {
    sh(&format!(
        "python3 - {} {id} <<'END'
import sqlite3, sys
store = sqlite3.connect(sys.argv[1])
key = 'containers/' + sys.argv[2]
where = 'WHERE rev = (SELECT rev FROM current WHERE key = ?)'
old = store.execute('SELECT value FROM log ' + where, (key,)).fetchone()[0]
store.execute('UPDATE log SET value = ? ' + where, ({value}, key))
store.commit()
END",
        daemon.data.join("store/store.db").display()
    ));
}

#[test]
fn a_record_that_cannot_be_read_is_left_alone_with_its_container_s_files() {
    let mut daemon = daemon();
    let damaged = run(&daemon, "damaged", "echo kept >/file; sleep 1000");
    run(&daemon, "lives", "sleep 1000");
    daemon.docker(&["exec", "damaged", "true"]).ok();
    daemon.docker(&["stop", "-t", "0", "damaged"]).ok();
    daemon.signal(Signal::TERM);
    change(&daemon, &damaged, "b'{' + old");
    daemon.spawn();
    assert_eq!(inspect(&daemon, "lives", "{{.State.Running}}"), "true");
    daemon.docker(&["inspect", "damaged"]).fails(1, "No such");
    daemon.signal(Signal::TERM);
    change(&daemon, &damaged, "old[1:]");
    daemon.spawn();
    daemon.docker(&["start", "damaged"]).ok();
    assert_eq!(
        daemon.docker(&["exec", "damaged", "cat", "/file"]).ok(),
        "kept"
    );
}

#[test]
fn a_torn_record_in_a_log_hides_no_other() {
    let daemon = daemon();
    let id = run(&daemon, "talks", "echo one; echo two");
    daemon.docker(&["wait", "talks"]).ok();
    let log = daemon.data.join(format!("containers/{id}/{id}-json.log"));
    append(&log, b"{\"log\":\"thr");
    assert_eq!(daemon.docker(&["logs", "talks"]).ok(), "one\ntwo");
    daemon.docker(&["start", "-a", "talks"]).ok();
    assert_eq!(daemon.docker(&["logs", "talks"]).ok(), "one\ntwo\none\ntwo");
}

#[test]
fn a_truncated_blob_is_never_passed_on_and_a_load_mends_it() {
    let mut daemon = daemon();
    let blobs = sh(&format!(
        "find {}/blobs -type f -size +0",
        daemon.data.display()
    ));
    let blobs: Vec<PathBuf> = blobs.lines().map(PathBuf::from).collect();
    let mut needed = 0;
    for blob in &blobs {
        daemon.signal(Signal::TERM);
        let whole = std::fs::read(blob).unwrap();
        std::fs::write(blob, &whole[..whole.len() / 2]).unwrap();
        daemon.spawn();
        let digest = blob.file_name().unwrap().to_string_lossy().into_owned();
        let saved = daemon.root.join("saved.tar");
        let save = daemon.docker(&["save", "-o", saved.to_str().unwrap(), "busybox"]);
        if save.code == 0 {
            // The archive does without it: it is not of the image, or the image cannot be told
            // from one that was pulled in part.
            let listed = sh(&format!("tar tf {}", saved.display()));
            assert!(!listed.contains(&digest), "{digest} was saved damaged");
        } else {
            needed += 1;
            // The answer has begun by then; only its end can tell the client.
            let told = save.stderr + &daemon.log();
            assert!(told.contains(&digest), "{told} does not name {digest}");
        }
        daemon.load("busybox");
        assert_eq!(std::fs::read(blob).unwrap(), whole);
        daemon.docker(&["run", "--rm", "busybox", "true"]).ok();
    }
    assert!(needed > 0, "no blob of {blobs:?} is needed");
}

#[test]
fn containers_go_on_over_an_upgrade() {
    // `tests/long/upgrade` gives a binary of an earlier commit; otherwise it is a copy.
    let old = std::env::var_os("BERTH_OLD_BIN").map_or_else(program, PathBuf::from);
    let copy = std::env::temp_dir().join(format!("berth-old-{}", std::process::id()));
    std::fs::copy(old, &copy).unwrap();
    let mut daemon = Daemon::start(&copy, &[]);
    daemon.load("busybox");
    let script =
        "trap 'echo end; exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    run(&daemon, "lives", script);
    daemon
        .docker(&[
            "run",
            "-d",
            "-p",
            "127.0.0.1::80",
            "--name",
            "serves",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let pid = inspect(&daemon, "lives", "{{.State.Pid}}");
    let port = daemon.docker(&["port", "serves", "80"]).ok().to_owned();
    daemon.signal(Signal::TERM);
    std::fs::remove_file(&copy).unwrap();
    daemon.replace_program(program());
    daemon.spawn();
    assert_eq!(inspect(&daemon, "lives", "{{.State.Pid}}"), pid);
    assert_eq!(daemon.docker(&["port", "serves", "80"]).ok(), port);
    assert_eq!(daemon.docker(&["exec", "lives", "echo", "hi"]).ok(), "hi");
    daemon.docker(&["pause", "lives"]).ok();
    daemon.docker(&["unpause", "lives"]).ok();
    daemon
        .docker(&["update", "--memory", "100m", "--memory-swap", "-1", "lives"])
        .ok();
    daemon.docker(&["stop", "lives"]).ok();
    assert_eq!(inspect(&daemon, "lives", "{{.State.ExitCode}}"), "7");
    let logs = daemon.docker(&["logs", "lives"]);
    let (numbers, last) = logs.ok().rsplit_once('\n').unwrap();
    assert_eq!(last, "end");
    assert!(
        numbers
            .lines()
            .enumerate()
            .all(|(index, line)| line == (index + 1).to_string())
    );
    daemon.docker(&["start", "lives"]).ok();
    daemon.docker(&["rm", "-f", "lives", "serves"]).ok();
}

/// One frame of the keepers' protocol.
fn frame(message: &serde_json::Value) -> Vec<u8> {
    let body = message.to_string().into_bytes();
    let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    frame.extend(body);
    frame
}

#[test]
fn a_keeper_of_a_later_version_is_adopted_as_far_as_it_is_understood() {
    let mut daemon = daemon();
    let id = run(&daemon, "later", "sleep 1000");
    let pid: i32 = inspect(&daemon, "later", "{{.State.Pid}}").parse().unwrap();
    daemon.signal(Signal::KILL);
    // In the place of its keeper, which lives on, answers one of the next version.
    let runtime = daemon.root.join("exec/containers").join(&id);
    let own = runtime.join("keeper.sock");
    let moved = runtime.join("moved.sock");
    std::fs::rename(&own, &moved).unwrap();
    // A socket's address holds 108 bytes.
    let directory = std::fs::File::open(&runtime).unwrap();
    let short = format!("/proc/self/fd/{}/keeper.sock", directory.as_raw_fd());
    let listener = UnixListener::bind(short).unwrap();
    let keeper = std::thread::spawn(move || {
        let (mut daemon, _) = listener.accept().unwrap();
        let mut header = [0; 4];
        daemon.read_exact(&mut header).unwrap();
        let mut hello = vec![0; usize::try_from(u32::from_le_bytes(header)).unwrap()];
        daemon.read_exact(&mut hello).unwrap();
        let hello: serde_json::Value = serde_json::from_slice(&hello).unwrap();
        assert_eq!(hello["op"], "hello");
        let news = serde_json::json!({"type": "event", "event": "sang", "song": "x"});
        let state = serde_json::json!({
            "type": "reply", "seq": hello["seq"], "result": "state", "version": 2, "id": id,
            "keeper_pid": 1, "init_pid": pid, "init_start_ticks": 0, "started_at_ns": 1,
            "paused": false, "execs": [], "exited": null, "mood": "good",
        });
        let exited = serde_json::json!({
            "type": "event", "event": "exited", "code": 3, "signal": null, "oom_killed": false,
            "finished_at_ns": 2, "regrets": 0,
        });
        for message in [&news, &state, &news] {
            daemon.write_all(&frame(message)).unwrap();
        }
        move || daemon.write_all(&frame(&exited)).unwrap()
    });
    daemon.spawn();
    let mut end = keeper.join().unwrap();
    assert_eq!(inspect(&daemon, "later", "{{.State.Pid}}"), pid.to_string());
    end();
    assert_eq!(daemon.docker(&["wait", "later"]).ok(), "3");
    // The real one has not heard of that.
    daemon.signal(Signal::KILL);
    std::fs::rename(&moved, &own).unwrap();
    daemon.spawn();
}
