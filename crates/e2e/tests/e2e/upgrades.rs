//! Another build of the daemon takes over while containers run: a later one, or an earlier one.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use berth_testkit::{Daemon, until};
use rustix::process::Signal;

use crate::{daemon, inspect, program, run_detached};

/// What a build says of itself.
fn version(program: &PathBuf) -> String {
    let output = berth_testkit::run(Command::new(program).arg("--version"), b"");
    output.ok().to_owned()
}

/// Another build, as a file of this test's own. `tests/long/upgrade` gives one of an earlier
/// commit; otherwise it is this one with another commit's hash in it.
fn other_build() -> PathBuf {
    let copy = std::env::temp_dir().join(format!("berth-other-{}", std::process::id()));
    let bytes = match std::env::var_os("BERTH_OLD_BIN") {
        Some(old) => std::fs::read(old).unwrap(),
        None => with_another_hash(std::fs::read(program()).unwrap()),
    };
    std::fs::write(&copy, bytes).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_ne!(version(&copy), version(&program()));
    copy
}

fn with_another_hash(mut program: Vec<u8>) -> Vec<u8> {
    let own = version(&crate::program());
    let hash = own.rsplit(' ').next().unwrap().as_bytes();
    let mut at = 0;
    while let Some(found) = program[at..]
        .windows(hash.len())
        .position(|part| part == hash)
    {
        at += found;
        program[at..at + hash.len()].fill(b'0');
    }
    program
}

/// Containers that are at work while the daemon is another's.
struct Fleet {
    name: &'static str,
    pid: String,
    port: String,
    /// A client of a command that waits for a line.
    client: Child,
}

impl Fleet {
    fn start(daemon: &Daemon, name: &'static str) -> Self {
        let of = |what: &str| format!("{what}-{name}");
        let talks =
            "trap 'echo end; exit 7' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
        run_detached(daemon, &of("--name talks"), talks);
        let serves = "mkdir /w; echo page >/w/index.html; exec httpd -f -p 80 -h /w";
        run_detached(daemon, &of("-p 127.0.0.1::80 --name serves"), serves);
        let again = "while ! rm /again; do sleep 0.01; done 2>/dev/null; exit 1";
        run_detached(daemon, &of("--restart always --name again"), again);
        let script = "echo ready; read line; echo got $line; exit 9";
        let mut client = daemon
            .docker_command()
            .args(["exec", "-i", &of("talks"), "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        let output = client.stdout.as_mut().unwrap();
        output.read_exact(&mut ready).unwrap();
        let fleet = Self {
            name,
            pid: inspect(daemon, &of("talks"), "{{.State.Pid}}"),
            port: daemon.docker(&["port", &of("serves"), "80"]).ok().into(),
            client,
        };
        until("the page comes", || fleet.page().then_some(()));
        fleet
    }

    fn of(&self, what: &str) -> String {
        format!("{what}-{}", self.name)
    }

    fn page(&self) -> bool {
        let url = format!("http://{}/", self.port);
        let mut curl = Command::new("curl");
        let output = berth_testkit::run(curl.args(["-s", "-m", "5", &url]), b"");
        output.stdout == "page\n"
    }

    /// All of it is as it was, and does what it is told.
    fn check(&self, daemon: &Daemon) {
        let talks = self.of("talks");
        assert_eq!(inspect(daemon, &talks, "{{.State.Pid}}"), self.pid);
        let port = daemon.docker(&["port", &self.of("serves"), "80"]);
        assert_eq!(port.ok(), self.port);
        assert!(self.page());
        assert_eq!(daemon.docker(&["exec", &talks, "echo", "hi"]).ok(), "hi");
        assert_eq!(daemon.docker(&["exec", &talks, "false"]).code, 1);
        daemon.docker(&["pause", &talks]).ok();
        assert_eq!(inspect(daemon, &talks, "{{.State.Paused}}"), "true");
        daemon.docker(&["unpause", &talks]).ok();
        let words = ["update", "--memory", "100m", "--memory-swap", "-1"];
        daemon.docker(&[&words[..], &[&talks]].concat()).ok();

        let again = self.of("again");
        let count = || inspect(daemon, &again, "{{.RestartCount}}").parse::<u32>();
        let before = count().unwrap();
        daemon.docker(&["exec", &again, "touch", "/again"]).ok();
        until("the policy brings it back", || {
            let is_back = inspect(daemon, &again, "{{.State.Running}}") == "true";
            (is_back && count().unwrap() > before).then_some(())
        });
    }

    /// Ends it: the client has its answer, and no line of the log is missing.
    fn finish(mut self, daemon: &Daemon) {
        let mut input = self.client.stdin.take().unwrap();
        input.write_all(b"word\n").unwrap();
        drop(input);
        let mut output = String::new();
        let mut stdout = self.client.stdout.take().unwrap();
        stdout.read_to_string(&mut output).unwrap();
        assert_eq!(output, "got word\n");
        assert_eq!(self.client.wait().unwrap().code(), Some(9));

        let talks = self.of("talks");
        daemon.docker(&["stop", &talks]).ok();
        assert_eq!(inspect(daemon, &talks, "{{.State.ExitCode}}"), "7");
        let logs = daemon.docker(&["logs", &talks]);
        let (numbers, last) = logs.ok().rsplit_once('\n').unwrap();
        assert_eq!(last, "end");
        for (index, line) in numbers.lines().enumerate() {
            assert_eq!(line, (index + 1).to_string());
        }
        daemon.docker(&["start", &talks]).ok();
        for what in ["talks", "serves", "again"] {
            daemon.docker(&["rm", "-f", &self.of(what)]).ok();
        }
    }
}

/// Ends the daemon and has another build take over; published ports work in between.
fn hand_over(daemon: &mut Daemon, to: PathBuf, fleets: &[&Fleet]) {
    daemon.signal(Signal::TERM);
    assert!(fleets.iter().all(|fleet| fleet.page()));
    daemon.replace_program(to);
    daemon.spawn();
    for fleet in fleets {
        fleet.check(daemon);
    }
}

#[test]
fn containers_go_on_over_an_upgrade_and_back() {
    let other = other_build();
    let mut daemon = Daemon::start(&other, &[]);
    daemon.load("busybox");
    daemon.docker(&["volume", "create", "kept"]).ok();
    let words = ["create", "--name", "made", "-v", "kept:/v", "busybox"];
    daemon
        .docker(&[&words[..], &["cat", "/v/file"]].concat())
        .ok();
    let first = Fleet::start(&daemon, "first");
    hand_over(&mut daemon, program(), &[&first]);
    let words = ["run", "--rm", "-v", "kept:/v", "busybox", "sh", "-c"];
    daemon
        .docker(&[&words[..], &["echo new >/v/file"]].concat())
        .ok();
    let second = Fleet::start(&daemon, "second");
    hand_over(&mut daemon, other.clone(), &[&first, &second]);
    assert_eq!(daemon.docker(&["start", "-a", "made"]).ok(), "new");
    let third = Fleet::start(&daemon, "third");
    first.finish(&daemon);
    hand_over(&mut daemon, program(), &[&second, &third]);
    // Nothing needs the file of the build that others have started under.
    std::fs::remove_file(&other).unwrap();
    second.finish(&daemon);
    third.finish(&daemon);
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
    let id = run_detached(&daemon, "--name later", "sleep 1000");
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
