//! Our command line beside docker's own, against the same daemon: what both print and how they
//! end has to be equal, byte by byte.
//!
//! The command lines are those of `parity.txt`, one a line, for a shell in which `$D` is the
//! client. They are run one after the other by both, so each has to leave things as it found them.
//! Not compared are help, which is in our own words, and what our client says with purpose
//! otherwise (with no daemon, it is one line).

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_testkit::{Daemon, Output, image, run, sh};

use crate::daemon;

/// How often a line is compared before a difference counts: between the two clients a second may
/// begin, and `Up 2 seconds` become `Up 3 seconds`.
const ATTEMPTS: usize = 3;

const LINES: &str = include_str!("parity.txt");

/// A directory in which our binary has docker's name, so that it speaks of itself like docker.
fn ours(daemon: &Daemon) -> PathBuf {
    let path = daemon.root.join("parity/docker");
    std::fs::create_dir_all(daemon.root.join("parity/config")).unwrap();
    symlink(daemon.program().canonicalize().unwrap(), &path).unwrap();
    path
}

fn ask(daemon: &Daemon, client: &Path, line: &str) -> Output {
    let mut bash = Command::new("bash");
    bash.args(["-c", line])
        .current_dir(daemon.root.join("parity"))
        .env("D", client)
        .env("DOCKER_HOST", daemon.host())
        .env("DOCKER_CONFIG", daemon.root.join("parity/config"));
    run(&mut bash, b"")
}

#[test]
fn both_clients_print_the_same_and_end_the_same() {
    let daemon = daemon();
    let ours = ours(&daemon);
    sh(&format!(
        "export DOCKER_HOST={}; D={}; $D tag busybox bb
         $D run -d --name c1 -p 127.0.0.1:0:80 -l x=y bb sleep 10000
         $D run --name c2 --network none bb sh -c 'echo a; echo b >&2; echo c'
         $D create --name c3 bb true
         $D run --name c4 bb sh -c 'exit 4' || true",
        daemon.host(),
        image::docker().display()
    ));
    let mut differ = Vec::new();
    for line in LINES.lines().filter(|line| !line.is_empty()) {
        for attempt in 1..=ATTEMPTS {
            let expect = ask(&daemon, &image::docker(), line);
            let got = ask(&daemon, &ours, line);
            if expect == got {
                break;
            }
            if attempt == ATTEMPTS {
                differ.push(format!("{line}\n  docker: {expect:?}\n  ours:   {got:?}"));
            }
        }
    }
    assert!(
        differ.is_empty(),
        "{} lines differ:\n{}",
        differ.len(),
        differ.join("\n")
    );
}

#[test]
fn bash_and_fish_complete_flags_and_names() {
    let daemon = daemon();
    daemon
        .docker(&[
            "run", "-d", "--name", "longname", "busybox", "sleep", "1000",
        ])
        .ok();
    let bin = daemon.root.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    symlink(daemon.program().canonicalize().unwrap(), bin.join("berth")).unwrap();
    let shell = |program: &str, script: String| {
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(program);
        command
            .args(["-c", &script])
            .env("PATH", path)
            .env("HOME", &daemon.root)
            .env("DOCKER_HOST", daemon.host());
        run(&mut command, b"").ok().to_owned()
    };
    // Words as bash breaks them, and what it has to put in place of the last.
    let bash = |words: &str, line: &str| {
        shell(
            "bash",
            format!(
                "source <(berth completion bash); COMP_WORDS=({words}); COMP_LINE='{line}'
                 COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_POINT=${{#COMP_LINE}}
                 _berth_complete; echo \"${{COMPREPLY[*]}}\""
            ),
        )
    };
    let fish = |line: &str| {
        shell(
            "fish",
            format!("berth completion fish | source; complete -C '{line}' | cut -f1"),
        )
    };
    let memory = "--memory --memory-reservation --memory-swap --memory-swappiness";
    assert_eq!(bash("berth run --me", "berth run --me"), memory);
    assert_eq!(fish("berth run --me").replace('\n', " "), memory);
    assert_eq!(bash("berth stop lon", "berth stop lon"), "longname");
    assert_eq!(fish("berth stop lon"), "longname");
    assert_eq!(
        bash("berth rmi busybox : la", "berth rmi busybox:la"),
        "latest"
    );
    assert_eq!(fish("berth rmi busybox:la"), "busybox:latest");
    assert_eq!(
        bash("berth run --restart = al", "berth run --restart=al"),
        "always"
    );
    assert_eq!(fish("berth run --restart=al"), "--restart=always");
}
