//! The daemon itself: flags, configuration, sockets, instances.

use std::process::Command;

use berth_testkit::{Daemon, run, until};
use rustix::process::Signal;

use crate::program;

fn refused(flags: &[&str]) -> String {
    let root = std::env::temp_dir().join(format!(
        "berth-refused-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let mut command = Command::new(program());
    command
        .arg("daemon")
        .arg("--data-root")
        .arg(root.join("d"))
        .arg("--exec-root")
        .arg(root.join("e"));
    let output = run(command.args(flags), b"");
    assert_ne!(output.code, 0);
    assert!(!root.exists(), "something was made");
    output.stderr
}

#[test]
fn unknown_flags_and_keys_are_refused_by_name() {
    assert!(refused(&["--frobnicate"]).contains("unknown flag: --frobnicate"));
    assert!(refused(&["-H", "npipe://x"]).contains("invalid bind address"));
    assert!(refused(&["extra"]).contains("accepts no arguments"));
    let path = std::env::temp_dir().join(format!("berth-typo-{}.json", std::process::id()));
    std::fs::write(&path, r#"{"log-lvl": "info"}"#).unwrap();
    let message = refused(&["--config-file", path.to_str().unwrap()]);
    assert!(
        message.contains("don't match any configuration option: log-lvl"),
        "{message}"
    );
    std::fs::write(&path, r#"{"debug": true}"#).unwrap();
    let message = refused(&["--config-file", path.to_str().unwrap(), "--debug"]);
    assert!(
        message.contains("specified both as a flag and in the configuration file: debug"),
        "{message}"
    );
    std::fs::remove_file(&path).unwrap();
    assert!(refused(&["--config-file", "/nonexistent/x.json"]).contains("/nonexistent/x.json"));
}

#[test]
fn a_second_daemon_on_the_same_roots_is_refused_with_the_holder() {
    let daemon = Daemon::start(program(), &[]);
    let output = run(&mut daemon.command(), b"");
    assert_ne!(output.code, 0);
    assert!(
        output.stderr.contains(&format!(
            "in use by another daemon (process {})",
            daemon.pid()
        )),
        "{}",
        output.stderr
    );
    assert_eq!(daemon.curl(&["/_ping"]).ok(), "OK");
}

#[test]
fn instances_live_side_by_side() {
    let daemons: Vec<Daemon> = (0..3).map(|_| crate::daemon()).collect();
    for daemon in &daemons {
        daemon
            .docker(&["run", "-d", "--name", "same", "busybox", "sleep", "1000"])
            .ok();
    }
    let ids: std::collections::BTreeSet<String> = daemons
        .iter()
        .map(|daemon| daemon.docker(&["ps", "-q"]).ok().to_owned())
        .collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn daemon_json_works_and_sighup_reads_it_again() {
    let directory = std::env::temp_dir().join(format!("berth-json-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("daemon.json");
    std::fs::write(
        &path,
        r#"{"labels": ["a=1"], "log-opts": {"max-size": "1m"}, "init": true}"#,
    )
    .unwrap();
    let daemon = Daemon::start(program(), &["--config-file", path.to_str().unwrap()]);
    let labels = || {
        daemon
            .docker(&["info", "-f", "{{json .Labels}}"])
            .ok()
            .to_owned()
    };
    assert_eq!(labels(), r#"["a=1"]"#);
    daemon.load("busybox");
    daemon.docker(&["create", "--name", "cc", "busybox"]).ok();
    let log = daemon.docker(&["inspect", "-f", "{{json .HostConfig.LogConfig}}", "cc"]);
    assert_eq!(
        log.ok(),
        r#"{"Type":"json-file","Config":{"max-size":"1m"}}"#
    );
    std::fs::write(
        &path,
        r#"{"labels": ["b=2"], "log-opts": {"max-size": "1m"}, "init": true}"#,
    )
    .unwrap();
    daemon.tell(Signal::HUP);
    until("the labels change", || {
        (labels() == r#"["b=2"]"#).then_some(())
    });
    std::fs::write(&path, "{broken").unwrap();
    daemon.tell(Signal::HUP);
    until("the mistake is told", || {
        daemon
            .log()
            .contains("the old one stays in force")
            .then_some(())
    });
    assert_eq!(labels(), r#"["b=2"]"#);
    drop(daemon);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn tcp_and_several_hosts_are_served() {
    let daemon = Daemon::start(program(), &["--host", "tcp://127.0.0.1:23751"]);
    let output = run(
        Command::new("curl").args(["-s", "http://127.0.0.1:23751/version"]),
        b"",
    );
    assert!(output.ok().contains("ApiVersion"));
    let docker = run(
        Command::new(berth_testkit::image::docker()).args([
            "-H",
            "tcp://127.0.0.1:23751",
            "version",
        ]),
        b"",
    );
    docker.ok();
    drop(daemon);
}

#[test]
fn the_socket_is_for_root_and_its_group() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let daemon = Daemon::start(program(), &["--group", "daemon"]);
    let meta = std::fs::metadata(daemon.socket()).unwrap();
    assert_eq!((meta.permissions().mode() & 0o777, meta.gid()), (0o660, 1));
}

#[test]
fn the_names_docker_and_dockerd_select_the_part() {
    let directory = std::env::temp_dir().join(format!("berth-names-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    for name in ["docker", "dockerd"] {
        std::os::unix::fs::symlink(program(), directory.join(name)).unwrap();
    }
    let output = run(Command::new(directory.join("docker")).arg("--version"), b"");
    assert!(
        output.ok().starts_with("Docker version"),
        "{}",
        output.stdout
    );
    let output = run(
        Command::new(directory.join("dockerd")).arg("--nonesuch"),
        b"",
    );
    output
        .fails(1, "unknown flag: --nonesuch")
        .fails(1, "See 'dockerd --help'");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn without_a_daemon_the_command_line_says_how_to_start_one() {
    let mut command = Command::new(program());
    command.args(["-H", "unix:///nonexistent/berth.sock", "ps"]);
    let output = run(&mut command, b"");
    assert_eq!(output.code, 1);
    assert_eq!(
        output.stderr.trim_end().lines().count(),
        1,
        "{}",
        output.stderr
    );
    assert!(
        output
            .stderr
            .contains("Cannot connect to the Docker daemon at unix:///nonexistent/berth.sock")
    );
}

/// What every OCI runtime has to do for a container.
fn check_runtime(daemon: &Daemon, runtime: &str) {
    let run = |words: &[&str]| {
        let mut all = vec!["run", "--rm", "--runtime", runtime, "busybox"];
        all.extend(words);
        daemon.docker(&all)
    };
    assert_eq!(run(&["echo", "hello"]).ok(), "hello");
    assert_eq!(run(&["sh", "-c", "exit 7"]).code, 7);
    assert_ne!(run(&["nonesuch"]).code, 0);
    let words = [
        "run",
        "-d",
        "--runtime",
        runtime,
        "-p",
        "0:80",
        "-m",
        "64m",
        "--name",
        "cc",
    ];
    let server = "mkdir -p /w; echo page >/w/index.html; httpd -p 80 -h /w; exec sleep 1000";
    let id = daemon.docker(&[&words[..], &["busybox", "sh", "-c", server]].concat());
    let id = id.ok().to_owned();
    let port = daemon.docker(&["port", "cc", "80"]);
    let url = format!("http://{}/", port.ok().lines().next().unwrap());
    until("the page comes", || {
        let page = run_curl(&url);
        (page.stdout == "page\n").then_some(())
    });
    assert_eq!(
        daemon.docker(&["exec", "cc", "echo", "inside"]).ok(),
        "inside"
    );
    assert_eq!(daemon.docker(&["exec", "cc", "sh", "-c", "exit 3"]).code, 3);
    let terminal = daemon.docker(&["exec", "-t", "cc", "tty"]);
    assert_eq!(terminal.ok().trim(), "/dev/pts/0");
    daemon.docker(&["pause", "cc"]).ok();
    daemon.docker(&["unpause", "cc"]).ok();
    daemon
        .docker(&["update", "-m", "32m", "--memory-swap", "32m", "cc"])
        .ok();
    // It is the runtime that we think it is.
    let state = daemon
        .root
        .join("exec/containers")
        .join(&id)
        .join("runtime");
    assert!(state.exists(), "{} has no state", state.display());
    daemon.docker(&["restart", "-t", "0", "cc"]).ok();
    daemon.docker(&["kill", "cc"]).ok();
    assert_eq!(daemon.docker(&["wait", "cc"]).ok(), "137");
    daemon.docker(&["rm", "cc"]).ok();
}

fn run_curl(url: &str) -> berth_testkit::Output {
    run(Command::new("curl").args(["-s", "-m", "2", url]), b"")
}

#[test]
fn containers_run_by_runc_when_it_is_added_and_made_the_default() {
    let flags = ["--add-runtime", "other=runc", "--default-runtime", "other"];
    let mut daemon = Daemon::start(program(), &flags);
    daemon.load("busybox");
    check_runtime(&daemon, "other");
    daemon
        .docker(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])
        .ok();
    let runtime = daemon.docker(&["inspect", "-f", "{{.HostConfig.Runtime}}", "cc"]);
    assert_eq!(runtime.ok(), "other");
    let state = |daemon: &Daemon| {
        let format = "{{.State.Pid}} {{.State.Status}}";
        daemon
            .docker(&["inspect", "-f", format, "cc"])
            .ok()
            .to_owned()
    };
    let before = state(&daemon);
    daemon.signal(Signal::KILL);
    daemon.spawn();
    assert_eq!(state(&daemon), before);
    let name = daemon.docker(&["run", "--rm", "busybox", "nonesuch"]);
    name.fails(127, "OCI runtime create failed: runc create failed")
        .fails(
            127,
            "exec: \"nonesuch\": executable file not found in $PATH",
        );
    daemon
        .docker(&["create", "--runtime", "nonesuch", "busybox"])
        .fails(1, "unknown or invalid runtime name: nonesuch");
}

#[test]
fn containers_run_by_crun_where_it_can() {
    let daemon = Daemon::start(program(), &["--add-runtime", "crun=/usr/bin/crun"]);
    daemon.load("busybox");
    // crun refuses cgroup version 1 beside a version 2 that has controllers.
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers");
    if controllers.is_ok_and(|controllers| !controllers.trim().is_empty()) {
        daemon
            .docker(&["run", "--rm", "--runtime", "crun", "busybox", "true"])
            .fails(
                125,
                "OCI runtime create failed: cgroups in hybrid mode not supported",
            );
    } else {
        check_runtime(&daemon, "crun");
    }
    let reserved = refused(&["--add-runtime", "runc=/usr/sbin/runc"]);
    assert!(
        reserved.contains("runtime name 'runc' is reserved"),
        "{reserved}"
    );
    let unknown = refused(&["--default-runtime", "nonesuch"]);
    assert!(unknown.contains("nonesuch"), "{unknown}");
}

#[test]
fn a_daemon_takes_all_descriptors_it_may_have_and_containers_get_what_it_was_given() {
    let daemon = Daemon::start_under(&["prlimit", "--nofile=300:2000"], program(), &[]);
    daemon.load("busybox");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_eq!(words[3..5], ["2000", "2000"], "{limits}");
    let script = "ulimit -Sn; ulimit -Hn";
    let shown = daemon.docker(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert_eq!(shown.ok(), "300\n2000");
}
