//! A container's files from outside: what a comparison of clients does not show.

use std::path::Path;
use std::process::Command;

use berth_testkit::{Daemon, image, run, sh};

use crate::{CLIENTS, daemon, run_detached};

/// A line for a shell in which `$D` is docker's client.
fn shell(daemon: &Daemon, line: &str) -> String {
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("set -eo pipefail; {line}")])
        .current_dir(&daemon.root)
        .env("D", image::docker())
        .env("DOCKER_HOST", daemon.host());
    run(&mut bash, b"").ok().to_owned()
}

/// All that an archive keeps of a tree, a line for each name; times to the second.
fn listing(root: &Path) -> String {
    let form = "-printf '%P %y %m %U %G %Ts %n %l\\n'";
    let names = sh(&format!("cd {} && find . {form} | sort", root.display()));
    let sums = sh(&format!(
        "cd {} && find . -type f -exec sha256sum {{}} + | sort",
        root.display()
    ));
    names + &sums
}

#[test]
fn a_tree_goes_in_and_comes_out_as_it_was() {
    let daemon = daemon();
    run_detached(&daemon, "--name on", "sleep 1000");
    let create = ["create", "--name", "off", "busybox", "true"];
    daemon.docker(&create).ok();
    let tree = daemon.root.join("tree");
    sh(&format!(
        "mkdir -p {0}/a/empty; cd {0}; echo x >a/file; ln a/file a/same; ln -s ../nowhere a/link
         mkfifo a/pipe; chown 12:34 a a/file; chmod 4751 a/file; head -c 3000000 /dev/urandom >big
         truncate -s 200000 big; touch $(printf 'n%.0s' $(seq 200)); touch -d 2001-02-03 a/empty",
        tree.display()
    ));
    let expect = listing(&tree);
    for (number, client) in CLIENTS.into_iter().enumerate() {
        for container in ["on", "off"] {
            let to = format!("{container}:/put{number}");
            client(&daemon, &["cp", tree.to_str().unwrap(), &to]).ok();
            shell(
                &daemon,
                &format!("rm -rf back; mkdir back; $D cp {to} - | tar x -p -C back"),
            );
            let back = daemon.root.join(format!("back/put{number}"));
            assert_eq!(listing(&back), expect, "{to}");
        }
    }
    let seen = daemon.docker(&[
        "exec",
        "on",
        "sh",
        "-c",
        "cd /put0/a; cat same; readlink link",
    ]);
    assert_eq!(seen.ok(), "x\n../nowhere");
}

#[test]
fn what_a_container_mounts_is_there_although_it_does_not_run() {
    let daemon = daemon();
    std::fs::write(daemon.root.join("f"), "into the volume").unwrap();
    let host = daemon.root.join("served");
    std::fs::create_dir(&host).unwrap();
    for (number, client) in CLIENTS.into_iter().enumerate() {
        let (name, volume) = (format!("c{number}"), format!("v{number}:/not/in/the/image"));
        let bind = format!("{}:/served:ro", host.display());
        let create = [
            "create", "--name", &name, "-v", &volume, "-v", &bind, "busybox", "true",
        ];
        client(&daemon, &create).ok();
        let file = daemon.root.join("f");
        let file = file.to_str().unwrap();
        client(
            &daemon,
            &["cp", file, &format!("{name}:/not/in/the/image/")],
        )
        .ok();
        let from = format!("{name}:/not/in/the/image/f");
        let copy = format!("copy{number}");
        let copy = daemon.root.join(copy);
        client(&daemon, &["cp", &from, copy.to_str().unwrap()]).ok();
        assert_eq!(std::fs::read_to_string(copy).unwrap(), "into the volume");
        let cat = format!("run --rm -v v{number}:/v busybox cat /v/f");
        let words: Vec<&str> = cat.split(' ').collect();
        assert_eq!(daemon.docker(&words).ok(), "into the volume");
        let to = format!("{name}:/served");
        let words = "mounted volume is marked read-only";
        client(&daemon, &["cp", file, &to]).fails(1, words);
        // What is not the volume's is in the container.
        client(&daemon, &["cp", file, &format!("{name}:/etc/mine")]).ok();
        let diff = client(&daemon, &["diff", &name]);
        assert!(diff.ok().contains("A /etc/mine"), "{}", diff.stdout);
        assert!(!diff.stdout.contains("/f"), "{}", diff.stdout);
    }
    assert!(std::fs::read_dir(&host).unwrap().next().is_none());
    // As Compose does it: nobody has looked before.
    let create = "create --name put -v vp:/also/not/there -v vp:/nor/this busybox true";
    daemon.docker(&create.split(' ').collect::<Vec<_>>()).ok();
    let put = "tar c f | curl -sf --unix-socket sock -T - -H 'Content-Type: application/x-tar' \
               'http://d/containers/put/archive?path=/also/not/there'; $D cp put:/also/not/there/f -";
    assert!(shell(&daemon, put).contains("into the volume"));
    let create = ["create", "--name", "ro", "--read-only", "busybox", "true"];
    daemon.docker(&create).ok();
    let file = daemon.root.join("f");
    let refused = daemon.docker(&["cp", file.to_str().unwrap(), "ro:/etc"]);
    refused.fails(1, "container rootfs is marked read-only");
}

#[test]
fn links_that_are_swapped_meanwhile_lead_nothing_out() {
    let daemon = daemon();
    let outside = daemon.root.join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "of the host").unwrap();
    // A directory on the host that the container names; in the container it does not exist.
    let script = format!(
        "mkdir -p /w; while :; do mkdir /w/x 2>/dev/null; mv /w/x /w/y; ln -s {} /w/x; rm /w/x; mv /w/y /w/x; done",
        outside.display()
    );
    run_detached(&daemon, "--name swap", &script);
    let tree = daemon.root.join("x");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("planted"), "").unwrap();
    let (tree, stolen) = (tree.to_str().unwrap(), daemon.root.join("stolen"));
    let mut done = 0;
    for client in CLIENTS {
        for _ in 0..60 {
            // Disturbed, it may fail.
            done += u32::from(client(&daemon, &["cp", tree, "swap:/w"]).code == 0);
            client(
                &daemon,
                &["cp", "swap:/w/x/secret", stolen.to_str().unwrap()],
            );
        }
    }
    assert!(done > 0, "no copy got through");
    assert!(!stolen.exists(), "it was read");
    assert_eq!(
        std::fs::read_dir(&outside).unwrap().count(),
        1,
        "it was written to"
    );
}

#[test]
fn an_export_is_the_root_without_its_mounts_and_a_commit_runs_again() {
    let daemon = daemon();
    run_detached(
        &daemon,
        "--name on -v vv:/v",
        "echo n >/new; echo v >/v/f; sleep 1000",
    );
    shell(&daemon, "until $D exec on test -e /v/f; do sleep 0.1; done");
    let names = shell(&daemon, "$D export on | tar t");
    assert!(names.lines().any(|name| name == "new"), "{names}");
    assert!(names.lines().any(|name| name == "v/"), "{names}");
    assert!(!names.lines().any(|name| name == "v/f"), "{names}");
    for (number, client) in CLIENTS.into_iter().enumerate() {
        let image = format!("kept:{number}");
        client(&daemon, &["commit", "-c", "CMD cat /new", "on", &image]).ok();
        assert_eq!(client(&daemon, &["run", "--rm", &image]).ok(), "n");
        let state = ["inspect", "-f", "{{.State.Status}}", "on"];
        assert_eq!(daemon.docker(&state).ok(), "running", "it goes on");
        let mounts = ["run", "--rm", &image, "ls", "/v"];
        assert_eq!(client(&daemon, &mounts).ok(), "", "the volume is not in it");
    }
}

#[test]
fn a_container_has_docker_s_marks_and_its_own_changes_only() {
    let daemon = daemon();
    let script = "ls -d /.dockerenv; readlink /etc/mtab; stat -c %a /etc";
    let run = ["run", "--name", "cc", "busybox", "sh", "-c", script];
    assert_eq!(daemon.docker(&run).ok(), "/.dockerenv\n/proc/mounts\n755");
    assert_eq!(daemon.docker(&["diff", "cc"]).ok(), "");
    let names = shell(&daemon, "$D export cc | tar t");
    for place in [
        ".dockerenv",
        "dev/console",
        "dev/pts/",
        "etc/hosts",
        "etc/mtab",
    ] {
        assert!(names.lines().any(|name| name == place), "{place}: {names}");
    }
}
