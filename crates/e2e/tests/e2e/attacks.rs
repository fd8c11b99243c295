//! Known ways out of a container, tried: each has to fail, and nothing of the host may change.
//!
//! What a script tries, it does with perl, which calls the kernel without a compiler. The numbers
//! of calls are those of x86-64.

use std::path::Path;

use berth_testkit::{Daemon, sh};

use crate::{daemon, inspect, program, run_detached};

/// One daemon for all of them, since the image is large.
#[test]
fn scripts_in_a_container_gain_nothing() {
    let daemon = Daemon::start(program(), &[]);
    daemon.load("debian");
    the_binary_cannot_be_written_through_a_process_that_enters(&daemon);
    a_user_gains_nothing_by_setuid_with_no_new_privileges(&daemon);
    a_neighbours_address_is_not_used_without_raw_sockets(&daemon);
    #[cfg(target_arch = "x86_64")]
    {
        calls_that_reach_the_kernel_too_deep_are_refused(&daemon);
        keys_of_one_container_are_not_found_by_another(&daemon);
        what_is_pushed_into_a_terminal_stays_in_the_container(&daemon);
    }
}

/// CVE-2019-5736, and its relatives: whoever enters a container is looked at from inside.
fn the_binary_cannot_be_written_through_a_process_that_enters(daemon: &Daemon) {
    let before = sh(&format!("sha256sum < {}", daemon.program().display()));
    // Opens whatever executes something else than the image's programs, and its descriptors (but
    // what the image's own loader opens for a moment).
    let watch = r#"
        open(my $log, ">", "/tmp/log"); $log->autoflush; require IO::Handle;
        while (1) {
            for my $p (glob "/proc/[0-9]*") {
                my $exe = readlink("$p/exe"); my $dir = "$p/fd";
                if (defined $exe && $exe !~ m{^/usr/}) {
                    print $log "saw $exe\n";
                    print $log "OPENED\n" if sysopen(my $f, "$p/exe", 1);
                }
                for my $fd (glob "$p/fd/*") {
                    my $to = readlink $fd or next;
                    next if $to =~ m{^(pipe|socket|anon_inode|/dev/null|/tmp/log|/usr|/proc|/etc/ld\.so\.cache$|/$)};
                    print $log "LEAKED $to\n";
                }
            }
        }"#;
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "watch",
            "debian",
            "perl",
            "-MIO::Handle",
            "-e",
            watch,
        ])
        .ok();
    for _ in 0..15 {
        daemon.docker(&["exec", "watch", "true"]).ok();
    }
    // Our own program, executed in the container, is one that cannot be written to.
    for words in [
        &["exec", "watch", "/proc/self/exe", "version"][..],
        &[
            "run",
            "--rm",
            "--entrypoint",
            "/proc/self/exe",
            "debian",
            "sleep",
            "1",
        ],
        &[
            "run",
            "--rm",
            "--privileged",
            "--entrypoint",
            "/proc/self/exe",
            "debian",
            "ps",
        ],
    ] {
        daemon.docker(words);
    }
    let log = daemon
        .docker(&["exec", "watch", "cat", "/tmp/log"])
        .ok()
        .to_owned();
    assert!(!log.contains("OPENED") && !log.contains("LEAKED"), "{log}");
    let after = sh(&format!("sha256sum < {}", daemon.program().display()));
    assert_eq!(before, after);
}

/// CVE-2024-21626.
#[test]
fn no_descriptor_of_the_host_is_a_directory_to_enter() {
    let daemon = daemon();
    daemon
        .docker(&["run", "-d", "--name", "cwd", "busybox", "sleep", "1000"])
        .ok();
    for fd in 3..12 {
        let cwd = format!("/proc/self/fd/{fd}");
        let run = daemon.docker(&[
            "run",
            "--rm",
            "-w",
            &cwd,
            "busybox",
            "cat",
            "../../etc/hostname",
        ]);
        assert_ne!((run.code, run.stdout.as_str()), (0, ""), "{cwd}");
        assert!(run.stderr.contains("chdir to cwd"), "{}", run.stderr);
        let exec = daemon.docker(&["exec", "-w", &cwd, "cwd", "pwd"]);
        assert_ne!(exec.code, 0, "{}", exec.stdout);
        // The image's author may ask for it, too.
        let link = format!("rm -rf /cwd; ln -s {cwd} /cwd");
        daemon.docker(&["exec", "cwd", "sh", "-c", &link]).ok();
        assert_ne!(daemon.docker(&["exec", "-w", "/cwd", "cwd", "pwd"]).code, 0);
    }
}

/// CVE-2025-31133, 52565, 52881, CVE-2019-16884 and the like: links and mounts in the way.
#[test]
fn links_in_a_shared_volume_lead_no_mount_out() {
    let daemon = daemon();
    let canary = daemon.root.join("canary");
    std::fs::create_dir(&canary).unwrap();
    std::fs::write(canary.join("file"), "of the host").unwrap();
    let outside = canary.display();
    let plant = format!(
        "ln -s {outside} /v/abs; ln -s ../../../../../../../../{outside} /v/up; ln -s / /v/root; \
         ln -s /proc/self/root{outside} /v/magic; mkdir -p /v/real/part"
    );
    daemon
        .docker(&["run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", &plant])
        .ok();
    let part = |subpath: &str| {
        let mount = format!("type=volume,src=vol,dst=/m,volume-subpath={subpath}");
        daemon.docker(&["run", "--rm", "--mount", &mount, "busybox", "ls", "/m"])
    };
    assert_eq!(part("real").ok(), "part");
    for bad in ["abs", "up", "root", "magic", "root/etc"] {
        part(bad).fails(125, "escapes the base directory");
    }
    // Two directories change places with links all the time, while others are mounted below.
    let race = format!(
        "mkdir -p /v/a/b; cd /v; while :; do mv a c; ln -s {outside} a; rm a; mv c a; \
         mv a/b a/x; ln -s ../../../../../..{outside} a/b; rm a/b; mv a/x a/b; done"
    );
    daemon
        .docker(&[
            "run", "-d", "--name", "race", "-v", "vol:/v", "busybox", "sh", "-c", &race,
        ])
        .ok();
    for _ in 0..8 {
        let inner = "type=tmpfs,dst=/v/a/b/c";
        let words = [
            "run",
            "--rm",
            "-v",
            "vol:/v",
            "--mount",
            inner,
            "-v",
            "/v/a/b/new",
            "busybox",
        ];
        daemon.docker(&[&words[..], &["sh", "-c", "mount | grep -c tmpfs"]].concat());
        part("a/b");
    }
    let found = sh(&format!("cd {outside}; ls; cat file"));
    assert_eq!(found, "file\nof the host");
    // Nothing stands between a program and what the kernel tells it.
    for (destination, words) in [
        ("/proc", "not of type proc"),
        ("/proc/self/attr", "inside /proc"),
        ("/proc/sys/net", "inside /proc"),
    ] {
        let volume = format!("vol:{destination}");
        daemon
            .docker(&["run", "--rm", "-v", &volume, "busybox", "true"])
            .fails(125, words);
    }
}

#[test]
fn what_belongs_to_the_host_is_not_written() {
    let daemon = daemon();
    let core = sh("cat /proc/sys/kernel/core_pattern");
    let script = r#"
        try() { name=$1; shift; if ( "$@" ) 2>/dev/null; then echo "DONE $name"; fi; }
        put() { echo "$2" >"$1"; }
        for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/drop_caches \
            /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/uevent_helper \
            /sys/power/state /proc/self/oom_score_adj /proc/1/oom_score_adj; do
            try "$f" put $f -999
        done
        for d in /sys/fs/cgroup /sys/fs/cgroup/*; do
            try "$d/release_agent" put $d/release_agent /cmd
            try "$d/x" mkdir $d/x
            try "$d/devices.allow" put $d/devices.allow a
        done
        for d in /proc/sys /proc/kcore /proc/keys /proc/sysrq-trigger /sys/firmware /sys; do
            try "umount $d" umount $d
            try "remount $d" mount -o remount,rw $d
        done
        for n in "b 8 0" "b 7 0" "b 254 0" "b 259 0" "c 1 1" "c 1 2" "c 10 130" "c 10 200" "c 10 229"; do
            mknod /tmp/n $n
            try "read $n" dd if=/tmp/n of=/dev/null bs=1 count=1
            try "write $n" dd if=/dev/null of=/tmp/n
            rm /tmp/n
        done
        for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do
            [ "$(head -c 10 $f 2>/dev/null | wc -c)" = 0 ] || echo "DONE $f"
        done"#;
    assert_eq!(
        daemon
            .docker(&["run", "--rm", "busybox", "sh", "-c", script])
            .ok(),
        ""
    );
    assert_eq!(core, sh("cat /proc/sys/kernel/core_pattern"));
    let without = [
        "run",
        "--rm",
        "--cap-drop",
        "mknod",
        "busybox",
        "mknod",
        "/n",
        "c",
        "1",
        "3",
    ];
    daemon.docker(&without).fails(1, "Operation not permitted");
}

#[cfg(target_arch = "x86_64")]
fn calls_that_reach_the_kernel_too_deep_are_refused(daemon: &Daemon) {
    let script = r#"
        sub call { my $name = shift; my $r = syscall(shift, @_); printf "%s %s\n", $name, $r < 0 ? $!+0 : "ok"; }
        call("unshare-user", 272, 0x10000000); call("unshare-mount", 272, 0x20000);
        call("clone-user", 56, 0x10000000 | 17, 0, 0, 0, 0); call("clone3", 435, 0, 0);
        call("io_uring_setup", 425, 1, 0); call("userfaultfd", 323, 0); call("bpf", 321, 0, 0, 0);
        call("keyctl", 250, 0, -3, 0); call("add_key", 248, 0, 0, 0, 0, 0);
        call("request_key", 249, 0, 0, 0, 0); call("socket-alg", 41, 38, 5, 0);
        call("socket-vsock", 41, 40, 1, 0); call("open_by_handle_at", 304, -100, 0, 0);
        call("perf_event_open", 298, 0, 0, 0, 0, 0); call("kexec_load", 246, 0, 0, 0, 0);
        call("init_module", 175, 0, 0, 0); call("mount", 165, 0, 0, 0, 0, 0); call("setns", 308, 0, 0);
        call("open_tree", 428, -100, 0, 1); call("fsopen", 430, 0, 0); call("reboot", 169, 0, 0, 0, 0);
        call("settimeofday", 164, 0, 0); call("swapon", 167, 0, 0); call("syslog", 103, 3, 0, 0);
        call("move_pages", 279, 0, 0, 0, 0, 0, 0); call("iopl", 172, 3);"#;
    let run = daemon.docker(&["run", "--rm", "debian", "perl", "-e", script]);
    for line in run.ok().lines() {
        let (name, outcome) = line.split_once(' ').unwrap();
        let expect = if name == "clone3" { "38" } else { "1" };
        assert_eq!(outcome, expect, "{name}");
    }
    assert_eq!(run.stdout.lines().count(), 26);
    // The families beside the two are what programs live on.
    let script = r#"for (1, 2, 10, 16) { syscall(41, $_, 2, 0) >= 0 or print "$_ refused\n" }"#;
    assert_eq!(
        daemon
            .docker(&["run", "--rm", "debian", "perl", "-e", script])
            .ok(),
        ""
    );
}

#[cfg(target_arch = "x86_64")]
fn keys_of_one_container_are_not_found_by_another(daemon: &Daemon) {
    let open = ["--security-opt", "seccomp=unconfined"];
    // KEYCTL_GET_KEYRING_ID and KEYCTL_SEARCH of the session keyring.
    let add = r#"$| = 1; my $k = syscall(248, my $t = "user", my $d = "berth-attack", my $p = "secret", 6, -3); print "$k\n"; sleep 1000"#;
    let search = r#"my $k = syscall(250, 10, -3, my $t = "user", my $d = "berth-attack", 0); print $k < 0 ? $!+0 : "found", " ", syscall(250, 0, -3, 0), "\n""#;
    let words = [
        &["run", "-d", "--name", "one"],
        &open[..],
        &["debian", "perl", "-e", add],
    ];
    daemon.docker(&words.concat()).ok();
    let other = [
        &["run", "--rm"],
        &open[..],
        &["debian", "perl", "-e", search],
    ]
    .concat();
    berth_testkit::until("the key is there", || {
        (!daemon.docker(&["logs", "one"]).stdout.is_empty()).then_some(())
    });
    let other = daemon.docker(&other).ok().to_owned();
    let own = daemon
        .docker(&["exec", "one", "perl", "-e", search])
        .ok()
        .to_owned();
    let (outcome, keyring) = other.split_once(' ').unwrap();
    // ENOKEY, or EAGAIN where no keyring could be searched.
    assert!(["126", "11"].contains(&outcome), "{other}");
    assert!(
        own.starts_with("found "),
        "an exec is in its container's keyring: {own}"
    );
    assert_ne!(own.split_once(' ').unwrap().1, keyring);
}

fn a_user_gains_nothing_by_setuid_with_no_new_privileges(daemon: &Daemon) {
    let plant = "cp /usr/bin/id /v/sid && chmod 4755 /v/sid";
    daemon
        .docker(&["run", "--rm", "-v", "vol:/v", "debian", "sh", "-c", plant])
        .ok();
    let as_user = |more: &[&str]| {
        let words = [
            &["run", "--rm", "-u", "1000", "-v", "vol:/v"],
            more,
            &["debian", "/v/sid", "-u"],
        ];
        daemon.docker(&words.concat()).ok().to_owned()
    };
    assert_eq!(as_user(&[]), "0");
    assert_eq!(as_user(&["--security-opt", "no-new-privileges"]), "1000");
}

/// With them it is, as in Docker. A socket may be bound to an address that is not there
/// (IP_FREEBIND), but nothing is sent from it.
fn a_neighbours_address_is_not_used_without_raw_sockets(daemon: &Daemon) {
    let script = r#"use Socket;
        sub told { print "$_[0] ", $_[1] ? "ok" : $!+0, "\n" }
        told("packet", socket(my $p, 17, 3, 0x0300)); told("raw", socket(my $r, 2, 3, 255));
        socket(my $s, 2, 2, 0);
        told("transparent", setsockopt($s, 0, 19, 1)); told("freebind", setsockopt($s, 0, 15, 1));
        told("bind", bind($s, sockaddr_in(0, inet_aton($ARGV[0]))));
        told("send", send($s, "x", 0, sockaddr_in(9, inet_aton("203.0.113.9"))));"#;
    let address = "{{.NetworkSettings.IPAddress}}";
    let address = daemon
        .docker(&["inspect", "-f", address, "watch"])
        .ok()
        .to_owned();
    let run = |drop: &str| {
        let words = ["run", "--rm", "--cap-drop", drop, "debian"];
        let attack = ["perl", "-e", script, &address];
        daemon
            .docker(&[&words[..], &attack].concat())
            .ok()
            .to_owned()
    };
    assert_eq!(
        run("NET_RAW"),
        "packet 1\nraw 1\ntransparent 1\nfreebind ok\nbind ok\nsend 101"
    );
    assert_eq!(
        run("KILL"),
        "packet ok\nraw ok\ntransparent ok\nfreebind ok\nbind ok\nsend ok"
    );
}

#[test]
fn bombs_do_not_reach_the_daemon_nor_a_neighbour() {
    // Whatever the daemon is worth to the kernel is not for containers to inherit.
    let daemon = Daemon::start_under(&["choom", "-n", "300", "--"], program(), &[]);
    daemon.load("busybox");
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "neighbour",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let score = ["cat", "/proc/self/oom_score_adj"];
    assert_eq!(
        daemon
            .docker(&[&["run", "--rm", "busybox"][..], &score].concat())
            .ok(),
        "0"
    );
    assert_eq!(
        daemon
            .docker(&[&["exec", "neighbour"][..], &score].concat())
            .ok(),
        "0"
    );
    run_detached(
        &daemon,
        "--name forks --pids-limit 60",
        "f() { f | f & }; while :; do f; sleep 0.05; done",
    );
    run_detached(
        &daemon,
        "--name eats -m 16m --memory-swap 16m",
        "while :; do tail /dev/zero; echo again; done",
    );
    let begin = std::time::Instant::now();
    for _ in 0..5 {
        daemon.docker(&["exec", "neighbour", "true"]).ok();
        assert!(daemon.docker(&["ps"]).ok().contains("neighbour"));
    }
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
    // It was killed and goes on; the keeper is not where the killing is.
    berth_testkit::until("the first kill", || {
        daemon
            .docker(&["logs", "eats"])
            .stdout
            .contains("again")
            .then_some(())
    });
    let eats = inspect(&daemon, "eats", "{{.State.Pid}}");
    let keeper = sh(&format!("awk '/^PPid/{{print $2}}' /proc/{eats}/status"));
    let cgroup = |pid: &str| sh(&format!("cat /proc/{pid}/cgroup | grep -E '^0::|:memory:'"));
    assert_ne!(cgroup(&eats), cgroup(&keeper));
    assert_eq!(sh(&format!("cat /proc/{keeper}/oom_score_adj")), "300");
    daemon.docker(&["rm", "-f", "forks", "eats"]).ok();
    daemon.docker(&["exec", "neighbour", "true"]).ok();
}

/// The user's terminal is the client's; a container has one of its own.
#[cfg(target_arch = "x86_64")]
fn what_is_pushed_into_a_terminal_stays_in_the_container(daemon: &Daemon) {
    let push = r#"for (split //, "touch /pwned\n") { syscall(16, 0, 0x5412, my $c = $_) } print readlink("/proc/self/fd/0"), "\n""#;
    let line = format!(
        "{} --host {} run --rm -t debian perl -e '{push}'; echo status $?",
        daemon.program().display(),
        daemon.host()
    );
    let typed = daemon.root.join("typed");
    let said = sh(&format!(
        "script -qec \"$(cat <<'END'\n{line}\nEND\n)\" {}",
        typed.display()
    ));
    assert!(
        said.contains("/dev/pts/0") && said.contains("status 0"),
        "{said}"
    );
    assert!(!Path::new("/pwned").exists());
}

#[test]
fn a_user_of_the_host_reaches_nothing_of_the_daemon() {
    let daemon = daemon();
    let plant = "cp /bin/busybox /v/sid && chmod 4755 /v/sid && chmod 777 /v";
    let words = [
        "run", "-d", "--name", "ccc", "-v", "vol:/v", "busybox", "sh", "-c",
    ];
    let script = format!("{plant}; sleep 1000");
    daemon.docker(&[&words[..], &[&script]].concat()).ok();
    let point = ["volume", "inspect", "-f", "{{.Mountpoint}}", "vol"];
    let file = format!("{}/sid", daemon.docker(&point).ok());
    berth_testkit::until("the program", || Path::new(&file).exists().then_some(()));
    let nobody = |command: &str| {
        sh(&format!(
            "setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '{command}' 2>&1 || true"
        ))
    };
    assert!(nobody(&format!("{file} id -u")).contains("ermission denied"));
    let socket = daemon.socket().display().to_string();
    let refused = nobody(&format!("curl -sS --unix-socket {socket} http://d/_ping"));
    assert!(!refused.contains("OK"), "{refused}");
    let keepers = daemon.root.join("exec/containers");
    assert!(nobody(&format!("ls {}", keepers.display())).contains("ermission denied"));
}
