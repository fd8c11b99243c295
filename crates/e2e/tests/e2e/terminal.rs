//! Interactive use, under a pseudo-terminal (`script` makes one).

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use berth_testkit::{Daemon, Output, run, until};

use crate::{daemon, program};

/// Runs a line under a terminal of 40 rows and 100 columns, typing `input`.
fn typed(line: &str, input: &str) -> Output {
    let line = format!("stty rows 40 cols 100; {line}");
    run(
        Command::new("script").args(["-qefc", &line, "/dev/null"]),
        input.as_bytes(),
    )
}

/// Like [`typed`], but types when `prompt` has been written.
fn answered(line: &str, prompt: &str, input: &str) -> Output {
    let mut child = Command::new("timeout")
        .args(["60", "script", "-qefc"])
        .arg(format!("stty rows 40 cols 100; {line}"))
        .arg("/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let mut to_type = Some(input);
    loop {
        let count = stdout.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        seen.extend_from_slice(&buffer[..count]);
        if String::from_utf8_lossy(&seen).contains(prompt)
            && let Some(input) = to_type.take()
        {
            stdin.write_all(input.as_bytes()).unwrap();
        }
    }
    Output {
        code: child.wait().unwrap().code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&seen).into_owned(),
        stderr: String::new(),
    }
}

/// Both clients' beginning of a line.
fn clients(daemon: &Daemon) -> [String; 2] {
    let docker = berth_testkit::image::docker();
    [
        format!("{} -H {}", docker.display(), daemon.host()),
        format!("{} -H {}", program().display(), daemon.host()),
    ]
}

#[test]
fn run_it_gives_a_shell_with_a_terminal_of_the_right_size() {
    let daemon = daemon();
    daemon.load("debian");
    for client in clients(&daemon) {
        let output = typed(
            &format!("{client} run --rm -it debian bash"),
            "tty; stty size; exit 4\n",
        );
        assert_eq!(output.code, 4, "{}", output.stdout);
        assert!(output.stdout.contains("/dev/pts/0"), "{}", output.stdout);
        assert!(output.stdout.contains("40 100"), "{}", output.stdout);
    }
}

#[test]
fn create_it_then_start_ia_then_exit() {
    let daemon = daemon();
    daemon.load("debian");
    for (index, client) in clients(&daemon).iter().enumerate() {
        let name = format!("os{index}");
        daemon
            .docker(&["create", "-it", "--name", &name, "debian"])
            .ok();
        let output = typed(
            &format!("{client} start -ia {name}"),
            "echo hel''lo; exit\n",
        );
        assert_eq!(output.code, 0, "{}", output.stdout);
        assert!(output.stdout.contains("hello"), "{}", output.stdout);
        assert_eq!(daemon.docker(&["wait", &name]).ok(), "0");
    }
}

#[test]
fn detach_keys_leave_the_container_running() {
    let daemon = daemon();
    for (index, client) in clients(&daemon).iter().enumerate() {
        let name = format!("d{index}");
        // Typed once the terminal is raw: before, it would take the second key for itself.
        let output = answered(
            &format!("{client} run -it --name {name} busybox sh"),
            "# ",
            "\u{10}\u{11}",
        );
        assert_eq!(output.code, 0, "{}", output.stdout);
        assert_eq!(
            daemon
                .docker(&["inspect", "-f", "{{.State.Running}}", &name])
                .ok(),
            "true"
        );
        let output = typed(&format!("{client} attach {name}"), "exit 6\n");
        assert_eq!(output.code, 6, "{}", output.stdout);
    }
}

#[test]
fn exec_it_has_its_own_terminal() {
    let daemon = daemon();
    daemon
        .docker(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])
        .ok();
    for client in clients(&daemon) {
        let output = typed(
            &format!("{client} exec -it cc sh"),
            "tty; stty size; exit 2\n",
        );
        assert_eq!(output.code, 2, "{}", output.stdout);
        assert!(
            output.stdout.contains("/dev/pts/") && output.stdout.contains("40 100"),
            "{}",
            output.stdout
        );
    }
}

#[test]
fn a_signal_to_the_client_reaches_the_container() {
    let daemon = daemon();
    let script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    for make in [Daemon::docker_command, Daemon::berth_command] {
        let mut client = make(&daemon)
            .args(["run", "--name", "ss", "busybox", "sh", "-c", script])
            .spawn()
            .unwrap();
        until("it is ready", || {
            daemon
                .docker(&["logs", "ss"])
                .stdout
                .contains("ready")
                .then_some(())
        });
        let pid = rustix::process::Pid::from_child(&client);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = until("the client ends", || client.try_wait().unwrap());
        assert_eq!(status.code(), Some(5));
        daemon.docker(&["rm", "ss"]).ok();
    }
}
