//! What a container is kept from, and what it gets.

use berth_testkit::sh;

use crate::{daemon, run_detached};

#[test]
fn every_namespace_is_the_containers_own() {
    let daemon = daemon();
    for kind in ["mnt", "pid", "net", "ipc", "uts"] {
        let path = format!("/proc/self/ns/{kind}");
        let inside = daemon
            .docker(&["run", "--rm", "busybox", "readlink", &path])
            .ok()
            .to_owned();
        assert_ne!(inside, sh(&format!("readlink {path}")), "{kind}");
    }
    let own = daemon.docker(&[
        "run",
        "--rm",
        "--cgroupns",
        "private",
        "busybox",
        "readlink",
        "/proc/self/ns/cgroup",
    ]);
    assert_ne!(own.ok(), sh("readlink /proc/self/ns/cgroup"));
    assert_eq!(
        daemon
            .docker(&["run", "--rm", "busybox", "sh", "-c", "echo $$"])
            .ok(),
        "1"
    );
}

#[test]
fn limits_are_in_force() {
    let daemon = daemon();
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "ll",
            "-m",
            "32m",
            "--cpus",
            "0.5",
            "--cpuset-cpus",
            "0",
            "--pids-limit",
            "20",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let pid = daemon
        .docker(&["inspect", "-f", "{{.State.Pid}}", "ll"])
        .ok()
        .to_owned();
    let value = |controller: &str, file: &str| {
        sh(&format!(
            "p=$(awk -F: '$2==\"{controller}\"{{print $3}}' /proc/{pid}/cgroup); \
             if [ -n \"$p\" ]; then cat /sys/fs/cgroup/{controller}$p/{file}; else echo v2; fi"
        ))
    };
    for (controller, file, expected) in [
        ("memory", "memory.limit_in_bytes", "33554432"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "20"),
    ] {
        assert_eq!(value(controller, file), expected, "{controller}");
    }
    let bomb = daemon.docker(&[
        "exec",
        "ll",
        "sh",
        "-c",
        "for i in $(seq 50); do sleep 5 & done; wait",
    ]);
    assert!(bomb.stderr.contains("can't fork"), "{}", bomb.stderr);
    let eater = daemon.docker(&[
        "run",
        "--name",
        "oom",
        "-m",
        "16m",
        "--memory-swap",
        "16m",
        "busybox",
        "sh",
        "-c",
        "tail /dev/zero",
    ]);
    assert_eq!(eater.code, 137);
    assert_eq!(
        daemon
            .docker(&["inspect", "-f", "{{.State.OOMKilled}}", "oom"])
            .ok(),
        "true"
    );
}

#[test]
fn the_kernel_is_kept_from_the_container() {
    let daemon = daemon();
    let run = |words: &[&str]| {
        let mut all = vec!["run", "--rm"];
        all.extend(words);
        daemon.docker(&all)
    };
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/sys/kernel/mm/ksm/run",
    ] {
        let line = format!("echo 1 >{path}");
        assert_ne!(run(&["busybox", "sh", "-c", &line]).code, 0, "{path}");
    }
    assert_eq!(run(&["busybox", "cat", "/proc/kcore"]).stdout, "");
    assert_eq!(
        run(&["busybox", "sh", "-c", "ls /sys/firmware | wc -l"]).ok(),
        "0"
    );
    assert_ne!(
        run(&["busybox", "mount", "-t", "tmpfs", "tt", "/tmp"]).code,
        0
    );
    assert_ne!(run(&["busybox", "unshare", "-m", "true"]).code, 0);
    assert_ne!(
        run(&["busybox", "sh", "-c", "mknod /d b 8 0 && cat /d"]).code,
        0
    );
    assert_eq!(
        run(&["busybox", "sh", "-c", "ls /proc/self/fd | wc -l"]).ok(),
        "4"
    );
    let status = run(&["busybox", "cat", "/proc/self/status"])
        .ok()
        .to_owned();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!(field("CapEff:"), "00000000a80425fb");
    assert_eq!(field("CapBnd:"), "00000000a80425fb");
    assert_eq!(field("CapInh:"), "0000000000000000");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(
        run(&[
            "--cap-drop",
            "ALL",
            "busybox",
            "grep",
            "CapEff",
            "/proc/self/status"
        ])
        .ok(),
        "CapEff:\t0000000000000000"
    );
    assert_eq!(
        run(&[
            "--security-opt",
            "no-new-privileges",
            "busybox",
            "grep",
            "NoNewPrivs",
            "/proc/self/status"
        ])
        .ok(),
        "NoNewPrivs:\t1"
    );
}

#[test]
fn a_seccomp_profile_of_the_users_is_in_force() {
    let daemon = daemon();
    let file = daemon.root.join("profile.json");
    let profile = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28,
             "comment": "no space", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["sync"], "action": "SCMP_ACT_KILL_PROCESS", "includes": {"minKernel": "3.0"}}
        ]}"#;
    std::fs::write(&file, profile).unwrap();
    let option = format!("seccomp={}", file.display());
    let run = |words: &[&str]| {
        let mut all = vec!["run", "--rm", "--security-opt", &option];
        all.extend(words);
        daemon.docker(&all)
    };
    run(&["busybox", "mkdir", "/x"]).fails(1, "No space left");
    assert_eq!(run(&["busybox", "sync"]).code, 159, "SIGSYS");
    run(&["--cap-add", "SYS_ADMIN", "busybox", "mkdir", "/x"]).ok();
    // Also a privileged container is filtered when a profile is named.
    assert_eq!(run(&["--privileged", "busybox", "sync"]).code, 159);
    std::fs::write(&file, r#"{"defaultAction": "SCMP_ACT_FLY"}"#).unwrap();
    run(&["busybox", "true"]).fails(125, "Decoding seccomp profile failed");
}

#[test]
fn options_of_the_process_are_applied() {
    let daemon = daemon();
    let run = |words: &[&str]| {
        let mut all = vec!["run", "--rm"];
        all.extend(words);
        daemon.docker(&all).ok().to_owned()
    };
    assert_eq!(
        run(&[
            "--ulimit",
            "nofile=100:200",
            "busybox",
            "sh",
            "-c",
            "ulimit -Sn; ulimit -Hn"
        ]),
        "100\n200"
    );
    assert_eq!(
        run(&[
            "--sysctl",
            "net.core.somaxconn=77",
            "busybox",
            "cat",
            "/proc/sys/net/core/somaxconn"
        ]),
        "77"
    );
    assert_eq!(
        run(&[
            "--read-only",
            "busybox",
            "sh",
            "-c",
            "touch /x 2>&1 || true"
        ]),
        "touch: /x: Read-only file system"
    );
    assert_eq!(
        run(&[
            "--group-add",
            "audio",
            "--group-add",
            "777",
            "busybox",
            "id",
            "-G"
        ]),
        "0 10 29 777"
    );
    assert!(run(&["--shm-size", "1m", "busybox", "df", "/dev/shm"]).contains("1024"));
    assert!(
        run(&[
            "--device",
            "/dev/null:/dev/mine",
            "busybox",
            "ls",
            "-l",
            "/dev/mine"
        ])
        .contains("1,   3")
    );
    assert!(
        run(&[
            "--privileged",
            "busybox",
            "sh",
            "-c",
            "mount -t tmpfs t /tmp && echo mounted"
        ])
        .contains("mounted")
    );
}

#[test]
fn two_containers_do_not_see_each_other() {
    let daemon = daemon();
    run_detached(
        &daemon,
        "--name one",
        "echo secret >/tmp/s; exec sleep 4242",
    );
    let seen = daemon.docker(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "ps; cat /tmp/s 2>&1; hostname",
    ]);
    assert!(
        !seen.stdout.contains("4242") && !seen.stdout.contains("secret"),
        "{}",
        seen.stdout
    );
}
