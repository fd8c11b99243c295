//! What a container is and has.

use std::os::unix::fs::PermissionsExt;

use berth_runtime::container::{self, Exit};
use serde_json::json;

use crate::bundle::{Bundle, check, shell};

crate::claims![
    a_command_runs_and_its_exit_code_is_known,
    the_command_is_process_1_of_its_own_namespaces,
    a_signal_is_told_from_a_code,
    the_default_devices_and_links_are_there,
    binds_are_made_and_can_be_read_only,
    a_read_only_root_cannot_be_written,
    limits_are_in_force,
    rare_limits_are_in_force,
    a_memory_limit_grows_and_shrinks_with_its_swap,
    a_pids_limit_stops_a_fork,
    a_cgroup_namespace_shows_its_root,
    the_reaper_passes_signals_on_and_reaps,
    sysctls_are_set,
    a_dropped_container_leaves_nothing,
    a_user_without_rights_has_none,
];

fn a_command_runs_and_its_exit_code_is_known() {
    let output = shell("echo out; echo err >&2; exit 7").run().unwrap();
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("out\n", "err\n")
    );
    assert_eq!(output.exit, Exit::Code(7));
}

fn the_command_is_process_1_of_its_own_namespaces() {
    check(
        &shell("echo $$; hostname; echo $HOME; ls /sys/class/net"),
        "1\nbox\n/root\nlo\n",
    );
}

fn a_signal_is_told_from_a_code() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    let (container, _pipes) = bundle.start().unwrap();
    container.kill(libc::SIGKILL).unwrap();
    assert_eq!(
        container::wait(container.pidfd()).unwrap(),
        Exit::Signal(libc::SIGKILL)
    );
    container.remove_cgroup().unwrap();
}

fn the_default_devices_and_links_are_there() {
    let script = "for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' /dev/$d; done;
        for l in fd stdin ptmx; do readlink /dev/$l; done; head -c 3 /dev/zero | dd 2>/dev/null | stat -c %F /dev/pts";
    check(
        &shell(script),
        "/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n/dev/urandom 1:9 666\n\
         /dev/tty 5:0 666\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx\ndirectory\n",
    );
}

fn binds_are_made_and_can_be_read_only() {
    let mut bundle = shell(
        "cat /etc/hosts; touch /data/new && echo ok; touch /ro/new 2>/dev/null || echo refused",
    );
    let host = bundle.directory.path().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("hosts"), "127.0.0.1 localhost\n").unwrap();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    let bind = |at: &str, source: &std::path::Path, options: &[&str]| json!({"destination": at, "type": "bind", "source": source, "options": options});
    mounts.push(bind(
        "/etc/hosts",
        &host.join("hosts"),
        &["rbind", "rprivate"],
    ));
    mounts.push(bind("/data", &host, &["rbind", "rprivate"]));
    mounts.push(bind("/ro", &host, &["rbind", "rprivate", "ro"]));
    check(&bundle, "127.0.0.1 localhost\nok\nrefused\n");
    assert!(host.join("new").exists());
}

fn a_read_only_root_cannot_be_written() {
    let mut bundle = shell("touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo ok");
    bundle.spec["root"]["readonly"] = json!(true);
    check(&bundle, "refused\nok\n");
}

fn limits_are_in_force() {
    let mut bundle = shell(
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpuset/cpuset.cpus /sys/fs/cgroup/pids/pids.max",
    );
    bundle.spec["linux"]["resources"]["memory"] = json!({"limit": 67_108_864});
    bundle.spec["linux"]["resources"]["cpu"] =
        json!({"shares": 512, "quota": 50000, "period": 100_000, "cpus": "0"});
    bundle.spec["linux"]["resources"]["pids"] = json!({"limit": 50});
    check(&bundle, "67108864\n512\n50000\n0\n50\n");
}

fn rare_limits_are_in_force() {
    let mut bundle = shell(
        "cd /sys/fs/cgroup; cat memory/memory.soft_limit_in_bytes memory/memory.swappiness cpu/cpu.cfs_burst_us blkio/blkio.throttle.read_bps_device; grep oom_kill_disable memory/memory.oom_control",
    );
    let disk = std::fs::read_dir("/sys/block").unwrap().flatten().next();
    let number = std::fs::read_to_string(disk.unwrap().path().join("dev")).unwrap();
    let (major, minor) = number.trim().split_once(':').unwrap();
    let resources = &mut bundle.spec["linux"]["resources"];
    resources["memory"] = json!({"limit": 67_108_864, "reservation": 33_554_432, "swappiness": 7, "disableOOMKiller": true, "checkBeforeUpdate": true});
    // The burst is above the quota that a new group has, and below the one it gets.
    resources["cpu"] = json!({"quota": 50000, "period": 100_000, "burst": 20000});
    resources["blockIO"] = json!({"throttleReadBpsDevice": [{"major": major.parse::<i64>().unwrap(), "minor": minor.parse::<i64>().unwrap(), "rate": 1_048_576}]});
    check(
        &bundle,
        &format!("33554432\n7\n20000\n{major}:{minor} 1048576\noom_kill_disable 1\n"),
    );
}

fn a_memory_limit_grows_and_shrinks_with_its_swap() {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    bundle.spec["linux"]["resources"]["memory"] = json!({"limit": 1 << 26, "swap": 1 << 26});
    let (container, _pipes) = bundle.start().unwrap();
    let directory = container.cgroup().directory("memory").unwrap();
    for (limit, swap) in [
        (1u64 << 27, 1u64 << 28),
        (1 << 25, 1 << 25),
        (1 << 26, 1 << 27),
    ] {
        let resources = serde_json::from_value(json!({"memory": {"limit": limit, "swap": swap}}));
        container.update(&resources.unwrap()).unwrap();
        for (file, value) in [
            ("memory.limit_in_bytes", limit),
            ("memory.memsw.limit_in_bytes", swap),
        ] {
            let text = std::fs::read_to_string(directory.join(file)).unwrap();
            assert_eq!(text.trim(), value.to_string(), "{file}");
        }
    }
    container.kill(libc::SIGKILL).unwrap();
    container::wait(container.pidfd()).unwrap();
    container.remove_cgroup().unwrap();
}

fn a_pids_limit_stops_a_fork() {
    let mut bundle = shell("sleep 0 & sleep 0 & sleep 0 & sleep 0 & sleep 0 & wait");
    bundle.spec["linux"]["resources"]["pids"] = json!({"limit": 3});
    let output = bundle.run().unwrap();
    assert!(output.stderr.contains("can't fork"), "{}", output.stderr);
}

fn a_cgroup_namespace_shows_its_root() {
    let mut bundle = shell(
        "grep -c ':/$' /proc/self/cgroup; grep -v ':/$' /proc/self/cgroup | grep -v '^0:'; ls /sys/fs/cgroup/memory | grep -c limit_in_bytes",
    );
    bundle.spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "cgroup"}));
    let output = bundle.run().unwrap();
    assert!(!output.stdout.contains("isolate"), "{}", output.stdout);
    assert_eq!(output.stderr, "");
}

fn the_reaper_passes_signals_on_and_reaps() {
    let mut bundle =
        shell("trap 'echo got; exit 3' TERM; echo $$; touch /ready; sleep 1000 & wait");
    bundle.init = true;
    let (container, pipes) = bundle.start().unwrap();
    crate::bundle::wait_for(&bundle.upper().join("ready"));
    container.kill(libc::SIGTERM).unwrap();
    let (stdout, _) = pipes.read();
    assert_eq!(stdout, "2\ngot\n");
    assert_eq!(container::wait(container.pidfd()).unwrap(), Exit::Code(3));
    container.remove_cgroup().unwrap();
}

fn sysctls_are_set() {
    let mut bundle = shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    bundle.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "0"});
    check(&bundle, "0\n");
}

fn a_dropped_container_leaves_nothing() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    let (_pipes, stdio) = crate::bundle::Pipes::new();
    drop(bundle.create(stdio).unwrap());
    assert!(
        !std::path::Path::new("/sys/fs/cgroup/memory")
            .join(&bundle.cgroup()[1..])
            .exists()
    );
}

fn a_user_without_rights_has_none() {
    let mut bundle = shell(
        "id -u; id -g; id -G; grep CapEff /proc/self/status; cat /secret 2>/dev/null || echo refused; echo hi > /dev/stdout",
    );
    std::fs::write(bundle.lower().join("secret"), "x").unwrap();
    std::fs::set_permissions(
        bundle.lower().join("secret"),
        std::fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    bundle.spec["process"]["user"] =
        json!({"uid": 1000, "gid": 1000, "additionalGids": [1000, 50]});
    bundle.spec["process"]["capabilities"] =
        json!({"bounding": ["CAP_CHOWN"], "effective": [], "permitted": []});
    check(
        &bundle,
        "1000\n1000\n1000 50\nCapEff:\t0000000000000000\nrefused\nhi\n",
    );
}
