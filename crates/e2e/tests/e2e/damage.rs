//! Files that are damaged or half-written.

use std::io::Write;
use std::path::PathBuf;

use berth_testkit::{Daemon, sh, until};
use rustix::process::Signal;

use crate::{daemon, inspect, run_detached};

fn append(path: &PathBuf, bytes: &[u8]) {
    let file = std::fs::File::options().append(true).open(path);
    file.unwrap().write_all(bytes).unwrap();
}

#[test]
fn damaged_files_of_a_keeper_cost_no_other_container_anything() {
    let mut daemon = daemon();
    let ends = run_detached(
        &daemon,
        "--name ends",
        "while [ ! -e /stop ]; do sleep 0.01; done; exit 5",
    );
    let lives = run_detached(&daemon, "--name lives", "sleep 1000");
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
    let damaged = run_detached(&daemon, "--name damaged", "echo kept >/file; sleep 1000");
    run_detached(&daemon, "--name lives", "sleep 1000");
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
    let id = run_detached(&daemon, "--name talks", "echo one; echo two");
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
