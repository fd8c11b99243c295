//! The life of containers, through the real client and ours.

use berth_testkit::{Daemon, until};

use crate::{CLIENTS, Client, daemon};

#[test]
fn run_prints_what_the_command_prints_and_returns_its_code() {
    let daemon = daemon();
    for client in CLIENTS {
        assert_eq!(
            client(&daemon, &["run", "--rm", "busybox", "echo", "hello"]).ok(),
            "hello"
        );
        let output = client(
            &daemon,
            &[
                "run",
                "--rm",
                "busybox",
                "sh",
                "-c",
                "echo out; echo err >&2; exit 7",
            ],
        );
        assert_eq!(
            (output.code, &*output.stdout, &*output.stderr),
            (7, "out\n", "err\n")
        );
        let output = client(
            &daemon,
            &[
                "run",
                "--rm",
                "busybox",
                "sh",
                "-c",
                "sh -c 'kill -9 $$'; exit $?",
            ],
        );
        assert_eq!(output.code, 137);
    }
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn create_start_stop_wait_remove() {
    let daemon = daemon();
    for client in CLIENTS {
        let id = client(
            &daemon,
            &["create", "--name", "cc", "busybox", "sleep", "1000"],
        )
        .ok()
        .to_owned();
        assert_eq!(id.len(), 64);
        assert_eq!(client(&daemon, &["ps", "-aq", "--no-trunc"]).ok(), id);
        assert_eq!(
            client(&daemon, &["inspect", "-f", "{{.State.Status}}", "cc"]).ok(),
            "created"
        );
        assert_eq!(client(&daemon, &["start", "cc"]).ok(), "cc");
        assert_eq!(
            client(
                &daemon,
                &[
                    "inspect",
                    "-f",
                    "{{.State.Running}} {{.State.ExitCode}}",
                    &id[..12]
                ]
            )
            .ok(),
            "true 0"
        );
        assert_eq!(client(&daemon, &["kill", "-s", "TERM", "cc"]).ok(), "cc");
        // Process 1 ignores signals without a handler, so it is still there.
        assert_eq!(
            client(&daemon, &["inspect", "-f", "{{.State.Running}}", "cc"]).ok(),
            "true"
        );
        assert_eq!(client(&daemon, &["stop", "-t", "0", "cc"]).ok(), "cc");
        assert_eq!(client(&daemon, &["wait", "cc"]).ok(), "137");
        assert_eq!(client(&daemon, &["restart", "-t", "0", "cc"]).ok(), "cc");
        client(&daemon, &["rm", "cc"]).fails(1, "cannot remove container");
        assert_eq!(client(&daemon, &["rm", "-f", "cc"]).ok(), "cc");
    }
}

#[test]
fn stop_gives_the_command_its_time_and_its_signal() {
    let daemon = daemon();
    let script = "trap 'echo bye; exit 3' USR1; echo ready; while :; do sleep 0.05; done";
    for client in CLIENTS {
        client(
            &daemon,
            &[
                "run",
                "-d",
                "--name",
                "tt",
                "--stop-signal",
                "SIGUSR1",
                "busybox",
                "sh",
                "-c",
                script,
            ],
        )
        .ok();
        until("it is ready", || {
            client(&daemon, &["logs", "tt"])
                .stdout
                .contains("ready")
                .then_some(())
        });
        client(&daemon, &["stop", "tt"]).ok();
        assert_eq!(client(&daemon, &["wait", "tt"]).ok(), "3");
        assert_eq!(client(&daemon, &["logs", "tt"]).ok(), "ready\nbye");
        client(&daemon, &["rm", "tt"]).ok();
    }
}

#[test]
fn exec_runs_beside_the_command() {
    let daemon = daemon();
    daemon
        .docker(&[
            "run", "-d", "--name", "cc", "-e", "A=1", "busybox", "sleep", "1000",
        ])
        .ok();
    for client in CLIENTS {
        assert_eq!(client(&daemon, &["exec", "cc", "echo", "hi"]).ok(), "hi");
        assert_eq!(
            client(
                &daemon,
                &[
                    "exec",
                    "-e",
                    "B=2",
                    "-w",
                    "/tmp",
                    "cc",
                    "sh",
                    "-c",
                    "echo $A $B $PWD"
                ]
            )
            .ok(),
            "1 2 /tmp"
        );
        assert_eq!(
            client(&daemon, &["exec", "-u", "www", "cc", "id"]).ok(),
            "uid=33(www) gid=33(www) groups=29(audio),33(www)"
        );
        assert_eq!(
            client(&daemon, &["exec", "cc", "sh", "-c", "exit 5"]).code,
            5
        );
        client(&daemon, &["exec", "cc", "nonesuch"])
            .fails(127, "executable file not found in $PATH");
        client(&daemon, &["exec", "cc", "/etc/passwd"]).fails(126, "permission denied");
        assert_eq!(
            client(&daemon, &["exec", "-d", "cc", "touch", "/tmp/detached"]).ok(),
            ""
        );
        until("the detached exec has run", || {
            (client(&daemon, &["exec", "cc", "rm", "/tmp/detached"]).code == 0).then_some(())
        });
    }
    let output = daemon.docker_with(&["exec", "-i", "cc", "cat"], b"through");
    assert_eq!(output.ok(), "through");
    daemon.docker(&["stop", "-t", "0", "cc"]).ok();
    daemon
        .docker(&["exec", "cc", "true"])
        .fails(1, "is not running");
}

#[test]
fn ps_filters_and_formats() {
    let daemon = daemon();
    daemon
        .docker(&[
            "run", "-d", "--name", "up", "-l", "tier=web", "busybox", "sleep", "1000",
        ])
        .ok();
    daemon
        .docker(&[
            "run", "--name", "down", "-l", "tier=db", "busybox", "sh", "-c", "exit 3",
        ])
        .fails(3, "");
    for client in CLIENTS {
        let names = |words: &[&str]| {
            let mut all = vec!["ps", "--format", "{{.Names}}"];
            all.extend(words);
            client(&daemon, &all).ok().to_owned()
        };
        assert_eq!(names(&[]), "up");
        assert_eq!(names(&["-a"]), "down\nup");
        assert_eq!(names(&["-a", "-f", "status=exited"]), "down");
        assert_eq!(names(&["-a", "-f", "exited=3"]), "down");
        assert_eq!(names(&["-a", "-f", "label=tier=web"]), "up");
        assert_eq!(names(&["-a", "-f", "name=^/down$"]), "down");
        assert_eq!(names(&["-a", "-f", "ancestor=busybox"]), "down\nup");
        assert_eq!(names(&["-a", "-f", "before=down"]), "up");
        assert_eq!(names(&["-l"]), "down");
        client(&daemon, &["ps", "-f", "color=red"]).fails(1, "invalid filter 'color'");
    }
    let table = |client: Client| client(&daemon, &["ps", "-a"]).ok().to_owned();
    assert_eq!(table(Daemon::docker), table(Daemon::berth));
}

#[test]
fn restart_policies_bring_containers_back() {
    let daemon = daemon();
    let count = |name: &str| -> u32 {
        daemon
            .docker(&["inspect", "-f", "{{.RestartCount}}", name])
            .ok()
            .parse()
            .unwrap()
    };
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "often",
            "--restart",
            "always",
            "busybox",
            "true",
        ])
        .ok();
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "twice",
            "--restart",
            "on-failure:2",
            "busybox",
            "false",
        ])
        .ok();
    until("it was restarted", || (count("often") >= 2).then_some(()));
    until("it gave up", || {
        let state = daemon.docker(&[
            "inspect",
            "-f",
            "{{.State.Status}} {{.State.ExitCode}}",
            "twice",
        ]);
        (state.ok() == "exited 1").then_some(())
    });
    assert_eq!(count("twice"), 2);
    daemon.docker(&["stop", "often"]).ok();
    let before = count("often");
    assert_eq!(
        daemon
            .docker(&["inspect", "-f", "{{.State.Status}}", "often"])
            .ok(),
        "exited"
    );
    assert_eq!(count("often"), before);
}

#[test]
fn events_tell_the_story_of_a_container() {
    let daemon = daemon();
    daemon
        .docker(&["run", "--rm", "--name", "story", "busybox", "true"])
        .ok();
    // The clients send whole seconds: an end of now would leave out this very second.
    let until = berth_testkit::sh("date -d '+2 seconds' +%s");
    for client in CLIENTS {
        let words = [
            "events",
            "--since",
            "10m",
            "--until",
            &until,
            "--format",
            "{{.Action}}",
            "-f",
            "container=story",
        ];
        let told: Vec<String> = client(&daemon, &words)
            .ok()
            .lines()
            .map(str::to_owned)
            .collect();
        for action in ["create", "attach", "start", "die", "destroy"] {
            assert!(
                told.iter().any(|line| line == action),
                "{action} is not in {told:?}"
            );
        }
    }
}
