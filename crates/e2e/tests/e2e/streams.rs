//! What containers are told and say: standard input and output, attach, logs.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use berth_testkit::Daemon;

use crate::{CLIENTS, daemon};

#[test]
fn stdin_reaches_the_command_and_its_end_too() {
    let daemon = daemon();
    let big: Vec<u8> = (0..1_000_000u32)
        .flat_map(|n| format!("{n}\n").into_bytes())
        .collect();
    let words = ["run", "--rm", "-i", "busybox", "md5sum"];
    let expected = berth_testkit::run(&mut std::process::Command::new("md5sum"), &big);
    assert_eq!(daemon.docker_with(&words, &big).ok(), expected.ok());
    assert_eq!(daemon.berth_with(&words, &big).ok(), expected.ok());
}

#[test]
fn large_output_is_complete_and_in_order() {
    let daemon = daemon();
    for client in CLIENTS {
        let output = client(
            &daemon,
            &["run", "--name", "seq", "busybox", "seq", "1", "300000"],
        );
        let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
        assert!(output.ok().len() + 1 == expected.len() && output.stdout == expected);
        assert!(client(&daemon, &["logs", "seq"]).stdout == expected);
        assert_eq!(
            client(&daemon, &["logs", "--tail", "2", "seq"]).ok(),
            "299999\n300000"
        );
        client(&daemon, &["rm", "seq"]).ok();
    }
}

#[test]
fn logs_follow_until_the_end_and_filter_by_time() {
    let daemon = daemon();
    for client in CLIENTS {
        client(
            &daemon,
            &[
                "run",
                "-d",
                "--name",
                "ll",
                "busybox",
                "sh",
                "-c",
                "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done",
            ],
        )
        .ok();
        assert_eq!(client(&daemon, &["logs", "-f", "ll"]).ok(), "1\n2\n3\n4\n5");
        let stamped = client(&daemon, &["logs", "-t", "ll"]);
        let third = stamped
            .ok()
            .lines()
            .nth(2)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .to_owned();
        assert_eq!(
            client(&daemon, &["logs", "--since", &third, "ll"]).ok(),
            "3\n4\n5"
        );
        assert_eq!(
            client(&daemon, &["logs", "--until", &third, "ll"]).ok(),
            "1\n2\n3"
        );
        assert_eq!(client(&daemon, &["logs", "-n", "0", "ll"]).ok(), "");
        client(&daemon, &["rm", "ll"]).ok();
    }
}

#[test]
fn attach_joins_a_running_container() {
    let daemon = daemon();
    daemon
        .docker(&["run", "-di", "--name", "aa", "busybox", "cat"])
        .ok();
    for make in [Daemon::docker_command, Daemon::berth_command] {
        let mut client = make(&daemon)
            .args(["attach", "aa"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = client.stdin.take().unwrap();
        writeln!(stdin, "hello").unwrap();
        let mut line = String::new();
        BufReader::new(client.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "hello\n");
        client.kill().unwrap();
        client.wait().unwrap();
    }
    assert_eq!(
        daemon
            .docker(&["inspect", "-f", "{{.State.Running}}", "aa"])
            .ok(),
        "true"
    );
}
