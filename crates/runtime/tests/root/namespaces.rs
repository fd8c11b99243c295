//! Namespaces of every kind, new and joined, seen from inside.

use std::os::fd::AsFd;

use berth_runtime::container::{self, Container, ExecRequest, Stdio, TerminalSize};
use serde_json::json;

use crate::bundle::{Bundle, FIRST_ID, Pipes, check, shell};

crate::claims![
    a_user_namespace_maps_its_ids,
    a_user_namespace_has_devices_and_file_systems,
    a_user_of_a_user_namespace_may_open_its_streams,
    limits_and_parameters_hold_in_a_user_namespace,
    an_exec_is_in_the_user_namespace,
    a_terminal_works_in_a_user_namespace,
    a_user_namespace_is_joined_with_those_it_owns,
    a_user_namespace_goes_with_a_network_of_the_hosts,
    a_user_namespace_works_without_its_own_network_and_cgroups,
    a_time_namespace_has_offsets,
    a_time_namespace_is_joined,
    a_cgroup_namespace_is_joined,
    wrong_namespaces_are_refused,
];

/// Runs a container, and `then` while it runs.
fn with(bundle: &Bundle, then: impl FnOnce(&Container)) {
    let (container, _pipes) = bundle.start().unwrap();
    then(&container);
    container.kill(libc::SIGKILL).unwrap();
    container::wait(container.pidfd()).unwrap();
    container.remove_cgroup().unwrap();
}

fn exec(container: &Container, bundle: &Bundle, script: &str) -> String {
    let mut process = bundle.spec["process"].clone();
    process["args"] = json!(["sh", "-c", script]);
    process["oomScoreAdj"] = json!(500);
    let process = serde_json::from_value(process).unwrap();
    let (pipes, stdio) = Pipes::new();
    let joined = container.exec(ExecRequest::new(&process, stdio)).unwrap();
    let (stdout, stderr) = pipes.read();
    container::wait(joined.pidfd.as_fd()).unwrap();
    assert_eq!(stderr, "");
    stdout
}

fn namespace_of(container: &Container, kind: &str) -> String {
    format!("/proc/{}/ns/{kind}", container.pid().as_raw_nonzero())
}

fn a_user_namespace_maps_its_ids() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.user_namespace();
    with(&bundle, |container| {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", container.pid().as_raw_nonzero()))
                .unwrap();
        assert!(status.contains(&format!("Uid:\t{FIRST_ID}\t")), "{status}");
        assert!(status.contains("Groups:\t \n"), "{status}");
    });
    let mut bundle = shell(
        "id -u; awk '{print $1, $2, $3}' /proc/self/uid_map; stat -c %u /bin/busybox; grep CapEff /proc/self/status; touch /dev/x; stat -c %u /dev/x /proc/1",
    );
    bundle.user_namespace();
    check(
        &bundle,
        "0\n0 100000 65536\n65534\nCapEff:\t00000000a80425fb\n0\n0\n",
    );
}

fn a_user_namespace_has_devices_and_file_systems() {
    let mut bundle = shell(
        "for d in null zero full random urandom tty; do stat -c '%t:%T' /dev/$d; done; head -c 3 /dev/zero | wc -c; echo x > /dev/null; \
         ls /sys/class/net; hostname; head -c 1 /dev/kmsg 2>/dev/null || echo refused; cat /proc/keys /proc/timer_list; \
         echo 1 2>/dev/null >/proc/sys/kernel/panic || echo refused; touch /sys/x 2>/dev/null || echo refused; \
         touch /dev/shm/x /dev/mqueue/x; readlink /dev/ptmx; ls /sys/fs/cgroup/memory | grep -c ^memory.limit_in_bytes",
    );
    bundle.user_namespace();
    bundle.namespace("cgroup", None);
    check(
        &bundle,
        "1:3\n1:5\n1:7\n1:8\n1:9\n5:0\n3\nlo\nbox\nrefused\nrefused\nrefused\npts/ptmx\n1\n",
    );
}

fn a_user_of_a_user_namespace_may_open_its_streams() {
    let mut bundle = shell("id -u; echo out > /dev/stdout; echo again > /proc/self/fd/1");
    bundle.user_namespace();
    bundle.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": [50]});
    check(&bundle, "1000\nout\nagain\n");
}

fn limits_and_parameters_hold_in_a_user_namespace() {
    let mut bundle = shell(
        "ulimit -n; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /sys/fs/cgroup/pids/pids.max",
    );
    bundle.user_namespace();
    bundle.spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10}]);
    bundle.spec["process"]["oomScoreAdj"] = json!(321);
    bundle.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "7"});
    bundle.spec["linux"]["resources"]["pids"] = json!({"limit": 50});
    check(&bundle, "10\n321\n7\n50\n");
}

fn an_exec_is_in_the_user_namespace() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.user_namespace();
    bundle.namespace("cgroup", None);
    with(&bundle, |container| {
        let script = "id -u; for n in user time mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; readlink /proc/1/ns/$n; done; cat /proc/self/oom_score_adj";
        let text = exec(container, &bundle, script);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[17]), ("0", "500"));
        for pair in lines[1..17].chunks(2) {
            assert_eq!(pair[0], pair[1]);
        }
    });
}

fn a_terminal_works_in_a_user_namespace() {
    let mut bundle = shell("tty; stat -c '%t:%T %u' /dev/console; echo y > /dev/console");
    bundle.user_namespace();
    bundle.spec["process"]["terminal"] = json!(true);
    bundle.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let size = Some(TerminalSize {
        rows: 3,
        columns: 4,
    });
    let mut created = bundle.create(Stdio::Terminal { size }).unwrap();
    let master = created.console.take().unwrap();
    let container = created.start().unwrap();
    let mut text = Vec::new();
    // A terminal whose slaves are all closed reads as EIO.
    let _ = std::io::Read::read_to_end(&mut std::fs::File::from(master), &mut text);
    container::wait(container.pidfd()).unwrap();
    container.remove_cgroup().unwrap();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "/dev/pts/0\r\n88:0 1000\r\ny\r\n"
    );
}

fn a_user_namespace_is_joined_with_those_it_owns() {
    let mut first = Bundle::new(&["sleep", "1000"]);
    first.user_namespace();
    with(&first, |container| {
        let mut second = shell(
            "id -u; ls /sys/class/net; touch /dev/x; stat -c %u /dev/x; echo $$; for n in user net ipc pid uts; do readlink /proc/self/ns/$n; done",
        );
        for (kind, name) in [("user", "user"), ("network", "net"), ("ipc", "ipc")] {
            second.namespace(kind, Some(&namespace_of(container, name)));
        }
        let output = second.run().unwrap();
        assert_eq!(output.stderr, "");
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert_eq!(lines[..4], ["0", "lo", "0", "1"]);
        for (index, name) in ["user", "net", "ipc", "pid", "uts"].into_iter().enumerate() {
            let theirs = std::fs::read_link(namespace_of(container, name)).unwrap();
            let same = theirs.to_str() == Some(lines[4 + index]);
            assert_eq!(same, index < 3, "{name}");
        }
        // Also its pid namespace.
        let mut third = shell("ps | grep -c 'sleep 100[0]'; id -u");
        for (kind, name) in [("user", "user"), ("pid", "pid")] {
            third.namespace(kind, Some(&namespace_of(container, name)));
        }
        check(&third, "1\n0\n");
    });
}

fn a_user_namespace_goes_with_a_network_of_the_hosts() {
    let plain = Bundle::new(&["sleep", "1000"]);
    with(&plain, |container| {
        let mut bundle = shell(
            "readlink /proc/self/ns/net; ls /sys/class/net; touch /sys/x 2>/dev/null || echo refused",
        );
        bundle.user_namespace();
        bundle.namespace("network", Some(&namespace_of(container, "net")));
        let theirs = std::fs::read_link(namespace_of(container, "net")).unwrap();
        let output = bundle.run().unwrap();
        assert_eq!(output.stderr, "");
        assert!(output.stdout.starts_with(theirs.to_str().unwrap()));
        assert!(output.stdout.ends_with("refused\n"), "{}", output.stdout);
    });
}

fn a_user_namespace_works_without_its_own_network_and_cgroups() {
    let mut bundle = shell(
        "ls /sys/class/net | grep -c lo; ls /sys/fs/cgroup/memory | grep -c ^memory.limit_in_bytes; touch /dev/mqueue/x",
    );
    bundle.user_namespace();
    bundle.share("network");
    check(&bundle, "1\n1\n");
}

fn a_time_namespace_has_offsets() {
    for user in [false, true] {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        bundle.namespace("time", None);
        bundle.spec["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 86400, "nanosecs": 5}, "boottime": {"secs": 1_000_000_000}});
        if user {
            bundle.user_namespace();
        }
        with(&bundle, |container| {
            let script = "awk '{print $1, $2, $3}' /proc/self/timens_offsets; awk '{print ($1 > 1000000000)}' /proc/uptime; readlink /proc/self/ns/time; readlink /proc/1/ns/time";
            let text = exec(container, &bundle, script);
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(
                lines[..3],
                ["monotonic 86400 5", "boottime 1000000000 0", "1"]
            );
            assert_eq!(lines[3], lines[4]);
            let ours = std::fs::read_link("/proc/self/ns/time").unwrap();
            assert_ne!(ours.to_str(), Some(lines[3]));
        });
    }
}

fn a_time_namespace_is_joined() {
    let mut first = Bundle::new(&["sleep", "1000"]);
    first.namespace("time", None);
    first.spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
    with(&first, |container| {
        let mut second = shell("awk '{print ($1 > 1000000000)}' /proc/uptime");
        second.namespace("time", Some(&namespace_of(container, "time")));
        check(&second, "1\n");
    });
}

fn a_cgroup_namespace_is_joined() {
    let mut first = Bundle::new(&["sleep", "1000"]);
    first.namespace("cgroup", None);
    with(&first, |container| {
        let mut second = shell("readlink /proc/self/ns/cgroup");
        let path = namespace_of(container, "cgroup");
        second.namespace("cgroup", Some(&path));
        let theirs = std::fs::read_link(path).unwrap();
        check(&second, &format!("{}\n", theirs.display()));
    });
}

fn wrong_namespaces_are_refused() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.user_namespace();
    bundle.namespace("network", Some("/dev/null"));
    assert!(bundle.run().is_err(), "no namespace");
    // One of another kind.
    bundle.namespace("network", Some("/proc/self/ns/uts"));
    assert!(bundle.run().is_err(), "another kind");
    let mut bundle = Bundle::new(&["true"]);
    bundle.user_namespace();
    bundle.spec["process"]["user"] = json!({"uid": 70000, "gid": 0});
    let error = bundle.run().err().unwrap();
    assert!(error.message.contains("setuid"), "{}", error.message);
}
