//! What is done to containers beside starting and stopping them, compared with what dockerd 28.5
//! answers, through both clients.

use berth_testkit::{Daemon, sh, until};

use crate::{CLIENTS, daemon, run_detached};

/// A container that tells of its signals and ends by none of them but KILL.
const LISTENER: &str =
    "trap 'echo usr1' USR1; trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done";

fn run_listener(daemon: &Daemon) {
    run_detached(daemon, "--name cc", LISTENER);
    until("it is ready", || {
        (daemon.docker(&["logs", "cc"]).ok() == "ready").then_some(())
    });
}

#[test]
fn signals_are_known_by_name_and_number() {
    let daemon = daemon();
    run_listener(&daemon);
    let mut heard = 0;
    for client in CLIENTS {
        for signal in ["USR1", "SIGUSR1", "10", "HUP"] {
            client(&daemon, &["kill", "-s", signal, "cc"]).ok();
            heard += 1;
            // One at a time: pending signals of one kind are one.
            until("the signal was heard", || {
                (daemon.docker(&["logs", "cc"]).ok().lines().count() == heard + 1).then_some(())
            });
        }
        client(&daemon, &["kill", "-s", "FOO", "cc"]).fails(1, "invalid signal: FOO");
        client(&daemon, &["kill", "-s", "99", "cc"]).fails(1, "invalid signal: 99");
    }
}

#[test]
fn pause_stops_all_processes_and_unpause_goes_on() {
    let daemon = daemon();
    run_listener(&daemon);
    for client in CLIENTS {
        client(&daemon, &["pause", "cc"]).ok();
        let status = client(&daemon, &["ps", "--format", "{{.Status}}"]);
        assert!(status.ok().ends_with("(Paused)"), "{}", status.stdout);
        client(&daemon, &["pause", "cc"]).fails(1, "is already paused");
        client(&daemon, &["exec", "cc", "true"]).fails(1, "unpause the container before exec");
        client(&daemon, &["unpause", "cc"]).ok();
        client(&daemon, &["unpause", "cc"]).fails(1, "is not paused");
        client(&daemon, &["exec", "cc", "true"]).ok();
    }
}

#[test]
fn update_changes_limits_and_the_restart_policy() {
    let daemon = daemon();
    run_listener(&daemon);
    for (client, policy) in CLIENTS.into_iter().zip(["unless-stopped", "on-failure:5"]) {
        client(&daemon, &["update", "--restart", policy, "cc"]).ok();
        let shown = daemon.docker(&["inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "cc"]);
        assert_eq!(shown.ok(), policy.split(':').next().unwrap());
        client(
            &daemon,
            &[
                "update",
                "--pids-limit",
                "30",
                "-m",
                "64m",
                "--memory-swap",
                "64m",
                "cc",
            ],
        )
        .ok();
        let limits = daemon.docker(&[
            "inspect",
            "-f",
            "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}",
            "cc",
        ]);
        assert_eq!(limits.ok(), "67108864 30");
        client(&daemon, &["update", "--restart", "sometimes", "cc"])
            .fails(1, "unknown policy 'sometimes'");
    }
}

#[test]
fn rename_keeps_the_container() {
    let daemon = daemon();
    let id = daemon
        .docker(&["create", "--name", "a1", "busybox"])
        .ok()
        .to_owned();
    for client in CLIENTS {
        client(&daemon, &["rename", "a1", "b1"]).ok();
        assert_eq!(
            client(&daemon, &["inspect", "-f", "{{.Id}} {{.Name}}", "b1"]).ok(),
            format!("{id} /b1")
        );
        client(&daemon, &["rename", "b1", "bad/name"])
            .fails(1, "Invalid container name (bad/name)");
        client(&daemon, &["rename", "nonesuch", "x"]).fails(1, "No such container: nonesuch");
        client(&daemon, &["rename", "b1", "a1"]).ok();
    }
}

#[test]
fn files_name_environment_and_container() {
    let daemon = daemon();
    let variables = daemon.root.join("variables");
    std::fs::write(&variables, "A=1\n# a comment\nB=x y\n").unwrap();
    for (client, number) in CLIENTS.into_iter().zip(1..) {
        let id_file = daemon.root.join(format!("id{number}"));
        let id_file = id_file.to_str().unwrap();
        let words = [
            "run",
            "--cidfile",
            id_file,
            "--env-file",
            variables.to_str().unwrap(),
            "busybox",
            "sh",
            "-c",
            "echo $A-$B",
        ];
        assert_eq!(client(&daemon, &words).ok(), "1-x y");
        let id = std::fs::read_to_string(id_file).unwrap();
        assert_eq!(client(&daemon, &["inspect", "-f", "{{.Id}}", &id]).ok(), id);
        client(&daemon, &words).fails(125, "container ID file found");
    }
}

#[test]
fn only_the_attached_streams_are_shown() {
    let daemon = daemon();
    for client in CLIENTS {
        let both = "echo out; echo err >&2";
        let output = client(
            &daemon,
            &["run", "--rm", "-a", "stdout", "busybox", "sh", "-c", both],
        );
        assert_eq!((&*output.stdout, &*output.stderr), ("out\n", ""));
        let output = client(
            &daemon,
            &["run", "--rm", "-a", "stderr", "busybox", "sh", "-c", both],
        );
        assert_eq!((&*output.stdout, &*output.stderr), ("", "err\n"));
    }
}

#[test]
fn logs_show_the_details_that_were_asked_for() {
    let daemon = daemon();
    daemon
        .docker(&[
            "run",
            "--name",
            "cc",
            "-l",
            "tier=web",
            "-e",
            "X=2",
            "--log-opt",
            "labels=tier",
            "--log-opt",
            "env=X",
            "busybox",
            "echo",
            "hello",
        ])
        .ok();
    for client in CLIENTS {
        assert_eq!(
            client(&daemon, &["logs", "--details", "cc"]).ok(),
            "X=2,tier=web hello"
        );
    }
}

#[test]
fn a_detached_container_with_rm_goes_by_itself() {
    let daemon = daemon();
    for client in CLIENTS {
        client(&daemon, &["run", "-d", "--rm", "busybox", "true"]).ok();
        until("it is gone", || {
            daemon.docker(&["ps", "-aq"]).ok().is_empty().then_some(())
        });
        client(
            &daemon,
            &["run", "-d", "--rm", "--restart", "always", "busybox"],
        )
        .fails(125, "cannot specify both --restart and --rm");
    }
}

#[test]
fn wait_knows_its_conditions() {
    let daemon = daemon();
    daemon
        .docker(&["create", "--name", "cc", "busybox", "sh", "-c", "exit 4"])
        .ok();
    let wait = |condition: &str| {
        daemon.api(
            "POST",
            &format!("/v1.51/containers/cc/wait?condition={condition}"),
            None,
        )
    };
    let code = |answer: &(u16, serde_json::Value)| (answer.0, answer.1["StatusCode"].as_i64());
    assert_eq!(code(&wait("not-running")), (200, Some(0)));
    assert_eq!(wait("bogus").0, 400);
    std::thread::scope(|scope| {
        let next = scope.spawn(|| wait("next-exit"));
        let removed = scope.spawn(|| wait("removed"));
        // Both have to be waiting before the start: the sockets tell.
        let connections = format!(
            "ss -xH state established src {} | wc -l",
            daemon.socket().display()
        );
        until("both wait", || {
            (sh(&connections).parse::<u32>().unwrap() >= 2).then_some(())
        });
        daemon.docker(&["start", "-a", "cc"]).fails(4, "");
        daemon.docker(&["rm", "cc"]).ok();
        assert_eq!(code(&next.join().unwrap()), (200, Some(4)));
        assert_eq!(code(&removed.join().unwrap()), (200, Some(4)));
    });
}
