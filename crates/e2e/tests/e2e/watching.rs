//! Clients that watch: the signals that they get, what they are told and what they are not.

use std::process::{Command, Stdio};
use std::time::Duration;

use berth_testkit::{Daemon, image, run, until};
use rustix::process::{Pid, Signal, kill_process};

use crate::daemon;

const CLIENTS: [fn(&Daemon) -> Command; 2] = [Daemon::docker_command, Daemon::berth_command];

/// Until the daemon has its request, a client dies of a signal as every program does.
const SETTLED: Duration = Duration::from_millis(700);

#[test]
fn a_signal_ends_a_client_that_waits_with_docker_s_exit_code() {
    let daemon = daemon();
    daemon
        .docker(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])
        .ok();
    let mut children = Vec::new();
    for make in CLIENTS {
        for words in [&["logs", "-f", "cc"][..], &["wait", "cc"], &["events"]] {
            for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
                let mut command = make(&daemon);
                let child = command
                    .args(words)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap();
                children.push((child, words, signal, code));
            }
        }
    }
    std::thread::sleep(SETTLED * 3);
    for (child, _, signal, _) in &children {
        kill_process(Pid::from_child(child), *signal).unwrap();
    }
    for (child, words, _, code) in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
    }
}

#[test]
fn without_sig_proxy_signals_are_not_the_container_s() {
    let daemon = daemon();
    let script = "trap 'echo caught; exit 5' TERM INT; echo ready; while :; do sleep 0.05; done";
    for (index, make) in CLIENTS.iter().enumerate() {
        let name = format!("np{index}");
        let mut client = make(&daemon);
        client.args(["run", "--sig-proxy=false", "--name", &name, "busybox"]);
        let mut client = client.args(["sh", "-c", script]).spawn().unwrap();
        let logs = || daemon.docker(&["logs", &name]).stdout;
        until("it is ready", || logs().contains("ready").then_some(()));
        let pid = Pid::from_child(&client);
        // The third time, the client goes.
        for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
            std::thread::sleep(SETTLED);
            assert!(client.try_wait().unwrap().is_none());
            kill_process(pid, signal).unwrap();
        }
        let status = until("the client ends", || client.try_wait().unwrap());
        assert_eq!(status.code(), Some(1));
        let format = ["inspect", "-f", "{{.State.Running}}", &name];
        assert_eq!(daemon.docker(&format).ok(), "true");
        assert_eq!(logs(), "ready\n");
    }
}

const RESIZED: &str = r#"
import docker, sys
client = docker.DockerClient(base_url=sys.argv[1])
c = client.containers.run("busybox", ["sleep", "1000"], detach=True)
e = client.api.exec_create(c.id, ["sh", "-c", "while :; do stty size; sleep 0.05; done"], tty=True)
sock = client.api.exec_start(e, tty=True, socket=True)._sock
def read_until(words):
    text = b""
    while words not in text:
        piece = sock.recv(4096)
        assert piece, text
        text += piece
read_until(b"\n")
for size in ((33, 77), (50, 132)):
    client.api.exec_resize(e, *size)
    read_until(b"%d %d" % size)
c.remove(force=True)
print("done")
"#;

#[test]
fn an_exec_is_resized_after_its_start() {
    let daemon = daemon();
    let mut python = Command::new("timeout");
    python.arg("60").arg(image::python());
    python.args(["-c", RESIZED, &daemon.host()]);
    assert_eq!(run(&mut python, b"").ok(), "done");
}

#[test]
fn events_are_chosen_by_every_filter_of_docker() {
    let daemon = daemon();
    daemon.docker(&["volume", "create", "vol-one"]).ok();
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "web-1",
            "-l",
            "tier=front",
            "-v",
            "vol-one:/v",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    daemon.docker(&["exec", "web-1", "true"]).ok();
    daemon.docker(&["tag", "busybox", "other:1"]).ok();
    daemon.docker(&["rm", "-f", "web-1"]).ok();
    let id = daemon
        .docker(&["images", "-q", "--no-trunc", "busybox"])
        .ok()
        .to_owned();
    let image = format!("image={id}");
    // The clients send whole seconds: an end of now would leave out this very second.
    let until = berth_testkit::sh("date -d '+2 seconds' +%s");
    for client in CLIENTS {
        let check = |filters: &[&str], expect: &[&str]| {
            let mut command = client(&daemon);
            command.args(["events", "--since", "10m", "--until", &until]);
            command.args(["--format", "{{.Type}} {{.Action}}"]);
            for filter in filters {
                command.args(["--filter", filter]);
            }
            let output = run(&mut command, b"");
            let mut seen: Vec<&str> = output.ok().lines().collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen, expect, "{filters:?}");
        };
        let container = [
            "container create",
            "container destroy",
            "container die",
            "container exec_create: true",
            "container exec_die",
            "container exec_start: true",
            "container kill",
            "container start",
        ];
        check(&["type=container"], &container);
        check(
            &["type=volume"],
            &["volume create", "volume mount", "volume unmount"],
        );
        check(
            &["type=network"],
            &["network connect", "network disconnect"],
        );
        check(&["type=image", "event=tag"], &["image tag"]);
        for kind in ["daemon", "plugin", "node", "service", "secret", "config"] {
            check(&[&format!("type={kind}")], &[]);
            check(&[&format!("{kind}=nonesuch")], &[]);
        }
        check(&["container=web-1"], &container);
        check(&["container=web"], &container);
        check(&["container=eb-1"], &[]);
        check(
            &["container=web-1", "container=x", "event=start"],
            &["container start"],
        );
        check(&["event=exec_start"], &["container exec_start: true"]);
        check(
            &["event=start", "event=die"],
            &["container die", "container start"],
        );
        check(
            &["volume=vol"],
            &["volume create", "volume mount", "volume unmount"],
        );
        check(&["network=bridge", "event=connect"], &["network connect"]);
        check(&["label=tier=front"], &container);
        check(&["label=tier", "event=kill"], &["container kill"]);
        check(&["label=tier=back"], &[]);
        check(&["image=busybox", "type=container"], &container);
        check(&["image=busybox:latest", "event=create"], &[]);
        check(&[&image, "event=tag"], &["image tag"]);
        check(&["scope=local", "event=tag"], &["image tag"]);
        check(&["scope=swarm"], &[]);
    }
}
