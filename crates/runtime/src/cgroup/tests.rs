//! Layouts from texts, plans from limits, and writing on directories of plain files.

use super::setting::{Now, Setting};
use super::*;

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn v1(json: &str, now: Now) -> Vec<Setting> {
    v1::plan(&resources(json), &now).unwrap()
}

fn v2(json: &str, now: Now) -> Vec<Setting> {
    v2::plan(&resources(json), &now).unwrap()
}

fn check(plan: &[Setting], expect: &[(&str, &str)]) {
    let written: Vec<(&str, &str)> = plan
        .iter()
        .map(|s| (s.file.as_str(), s.value.as_str()))
        .collect();
    assert_eq!(written, expect);
}

const LIMITS: &str = r#"{"memory":{"limit":67108864,"swap":134217728,"reservation":33554432},
    "cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0-1","mems":"0"},"pids":{"limit":100}}"#;

#[test]
fn limits_have_their_files_in_version_1() {
    check(
        &v1(LIMITS, Now::default()),
        &[
            ("memory.limit_in_bytes", "67108864"),
            ("memory.memsw.limit_in_bytes", "134217728"),
            ("memory.soft_limit_in_bytes", "33554432"),
            ("cpu.shares", "512"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
            ("pids.max", "100"),
        ],
    );
}

#[test]
fn limits_have_their_files_in_version_2() {
    check(
        &v2(LIMITS, Now::default()),
        &[
            ("memory.swap.max", "67108864"),
            ("memory.max", "67108864"),
            ("memory.low", "33554432"),
            ("cpu.weight", "59"),
            ("cpu.max", "50000 100000"),
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
            ("pids.max", "100"),
        ],
    );
}

#[test]
fn unlimited_is_max_in_version_2_and_minus_one_in_version_1() {
    let unlimited = r#"{"memory":{"limit":-1,"swap":-1},"pids":{"limit":-1}}"#;
    check(
        &v2(unlimited, Now::default()),
        &[
            ("memory.swap.max", "max"),
            ("memory.max", "max"),
            ("pids.max", "max"),
        ],
    );
    check(
        &v1(unlimited, Now::default()),
        &[
            ("memory.memsw.limit_in_bytes", "-1"),
            ("memory.limit_in_bytes", "-1"),
            ("pids.max", "max"),
        ],
    );
}

#[test]
fn shares_become_weights_through_minimum_default_and_maximum() {
    for (shares, weight) in [
        (1, 1),
        (2, 1),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (262_144, 10_000),
        (300_000, 10_000),
    ] {
        let json = format!(r#"{{"cpu":{{"shares":{shares}}}}}"#);
        check(
            &v2(&json, Now::default()),
            &[("cpu.weight", &weight.to_string())],
        );
    }
}

#[test]
fn growing_starts_with_the_sum_and_shrinking_with_the_part() {
    let limits = r#"{"memory":{"limit":200,"swap":400}}"#;
    let (part, sum) = (
        ("memory.limit_in_bytes", "200"),
        ("memory.memsw.limit_in_bytes", "400"),
    );
    for (current, expect) in [(100, [sum, part]), (1000, [part, sum])] {
        let now = Now {
            memory_limit: Some(current),
            ..Now::default()
        };
        check(&v1(limits, now), &expect);
    }
}

#[test]
fn a_limit_below_the_usage_is_refused_when_that_is_checked() {
    let limits = resources(r#"{"memory":{"limit":100,"checkBeforeUpdate":true}}"#);
    let now = Now {
        memory_usage: Some(101),
        ..Now::default()
    };
    for error in [v1::plan(&limits, &now), v2::plan(&limits, &now)] {
        let error = error.unwrap_err();
        assert_eq!(error.message, "rejecting memory limit 100 < usage 101");
    }
}

#[test]
fn rare_limits_of_memory_have_their_files_in_version_1() {
    check(
        &v1(
            r#"{"memory":{"kernel":7,"kernelTCP":8,"swappiness":0,"disableOOMKiller":true,"useHierarchy":true}}"#,
            Now::default(),
        ),
        &[
            ("memory.kmem.tcp.limit_in_bytes", "8"),
            ("memory.swappiness", "0"),
            ("memory.oom_control", "1"),
            ("memory.use_hierarchy", "1"),
        ],
    );
    let error = v1::plan(
        &resources(r#"{"memory":{"swappiness":101}}"#),
        &Now::default(),
    );
    assert!(error.unwrap_err().message.contains("range is 0-100"));
}

const CPU: &str = r#"{"cpu":{"quota":1000,"period":2000,"burst":500,"realtimeRuntime":10,"realtimePeriod":100,"idle":1}}"#;

#[test]
fn all_of_the_processor_has_its_files() {
    check(
        &v1(CPU, Now::default()),
        &[
            ("cpu.rt_period_us", "100"),
            ("cpu.rt_runtime_us", "10"),
            ("cpu.cfs_period_us", "2000"),
            ("cpu.cfs_burst_us", "500"),
            ("cpu.cfs_quota_us", "1000"),
            ("cpu.idle", "1"),
        ],
    );
    check(
        &v2(CPU, Now::default()),
        &[
            ("cpu.idle", "1"),
            ("cpu.max.burst", "500"),
            ("cpu.max", "1000 2000"),
        ],
    );
    assert_eq!(v2::lacking(&resources(CPU)), ["real-time CPU time"]);
}

const BLOCK_IO: &str = r#"{"blockIO":{"weight":500,"leafWeight":300,
    "weightDevice":[{"major":8,"minor":0,"weight":100,"leafWeight":50}],
    "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1024}],
    "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":2048}],
    "throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":10}],
    "throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}"#;

#[test]
fn block_devices_have_weights_and_throttles() {
    let throttles = [
        ("blkio.throttle.read_bps_device", "8:0 1024"),
        ("blkio.throttle.write_bps_device", "8:0 2048"),
        ("blkio.throttle.read_iops_device", "8:0 10"),
        ("blkio.throttle.write_iops_device", "8:0 0"),
    ];
    let weights = [
        ("blkio.weight", "500"),
        ("blkio.leaf_weight", "300"),
        ("blkio.weight_device", "8:0 100"),
        ("blkio.leaf_weight_device", "8:0 50"),
    ];
    check(
        &v1(BLOCK_IO, Now::default()),
        &[weights.as_slice(), &throttles].concat(),
    );
    let bfq = Now {
        has_bfq: true,
        ..Now::default()
    };
    let weights = [
        ("blkio.bfq.weight", "500"),
        ("blkio.bfq.weight_device", "8:0 100"),
    ];
    check(
        &v1(BLOCK_IO, bfq),
        &[weights.as_slice(), &throttles].concat(),
    );
    let throttles = [
        ("io.max", "8:0 rbps=1024"),
        ("io.max", "8:0 wbps=2048"),
        ("io.max", "8:0 riops=10"),
        ("io.max", "8:0 wiops=max"),
    ];
    let weights = [("io.weight", "4950"), ("io.weight", "8:0 910")];
    check(
        &v2(BLOCK_IO, Now::default()),
        &[weights.as_slice(), &throttles].concat(),
    );
    let weights = [("io.bfq.weight", "500"), ("io.bfq.weight", "8:0 100")];
    check(
        &v2(BLOCK_IO, bfq),
        &[weights.as_slice(), &throttles].concat(),
    );
}

const OTHERS: &str = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}],
    "network":{"classID":65537,"priorities":[{"name":"eth0","priority":5}]},
    "rdma":{"mlx5_1":{"hcaHandles":3},"mlx4_0":{"hcaObjects":9}}}"#;

#[test]
fn huge_pages_network_and_rdma_have_their_files() {
    let rdma = [
        ("rdma.max", "mlx4_0 hca_handles=max hca_objects=9"),
        ("rdma.max", "mlx5_1 hca_handles=3 hca_objects=max"),
    ];
    let rest = [
        ("hugetlb.2MB.limit_in_bytes", "4194304"),
        ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
        ("net_cls.classid", "65537"),
        ("net_prio.ifpriomap", "eth0 5"),
    ];
    check(
        &v1(OTHERS, Now::default()),
        &[rest.as_slice(), &rdma].concat(),
    );
    let rest = [
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
    ];
    check(
        &v2(OTHERS, Now::default()),
        &[rest.as_slice(), &rdma].concat(),
    );
    let lacking = v2::lacking(&resources(OTHERS));
    assert_eq!(lacking, ["network classes and priorities"]);
}

#[test]
fn unified_resources_are_of_version_2_and_come_last() {
    let json = r#"{"pids":{"limit":5},"unified":{"memory.high":"1","io.max":"8:0 rbps=1\n8:16 rbps=2\n","cpuset.cpus":""}}"#;
    check(
        &v2(json, Now::default()),
        &[
            ("pids.max", "5"),
            ("cpuset.cpus", ""),
            ("io.max", "8:0 rbps=1"),
            ("io.max", "8:16 rbps=2"),
            ("memory.high", "1"),
        ],
    );
    let error = v1::plan(&resources(json), &Now::default()).unwrap_err();
    assert!(error.message.contains("cannot use unified"));
    for key in ["a/b.c", "memory"] {
        let mut wrong = LinuxResources::default();
        wrong.set_unified(Some([(key.to_owned(), "1".to_owned())].into()));
        assert!(v2::plan(&wrong, &Now::default()).is_err(), "{key}");
    }
}

#[test]
fn swap_of_version_2_is_what_is_above_the_memory() {
    let plan = |json: &str| v2::plan(&resources(json), &Now::default());
    for (memory, expect) in [
        (r#"{"limit":100,"swap":100}"#, "0"),
        (r#"{"limit":100,"swap":150}"#, "50"),
        (r#"{"limit":-1}"#, "max"),
        (r#"{"limit":100,"swap":-1}"#, "max"),
    ] {
        let settings = plan(&format!(r#"{{"memory":{memory}}}"#)).unwrap();
        let swap = settings.first().unwrap();
        assert_eq!(
            (swap.file.as_str(), swap.value.as_str()),
            ("memory.swap.max", expect)
        );
        assert_eq!(swap.optional, expect != "50");
    }
    for memory in [r#"{"limit":100,"swap":50}"#, r#"{"swap":50}"#] {
        assert!(
            plan(&format!(r#"{{"memory":{memory}}}"#)).is_err(),
            "{memory}"
        );
    }
}

#[test]
fn device_rules_are_written_one_by_one() {
    check(
        &v1::device_rules(&crate::defaults::device_rules()[..3]),
        &[
            ("devices.deny", "a"),
            ("devices.allow", "c *:* m"),
            ("devices.allow", "b *:* m"),
        ],
    );
}

#[test]
fn a_pure_version_2_host_is_recognised() {
    let text = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    assert_eq!(
        Layout::parse(text),
        Some(Layout::V2 {
            mount: "/sys/fs/cgroup".into()
        })
    );
}

#[test]
fn a_hybrid_host_is_version_1() {
    let text = "\
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
35 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
    let hierarchy = |mount: &str, controllers: &[&str]| Hierarchy {
        mount: mount.into(),
        controllers: controllers.iter().map(|&c| c.to_owned()).collect(),
    };
    assert_eq!(
        Layout::parse(text),
        Some(Layout::V1(vec![
            hierarchy("/sys/fs/cgroup/systemd", &["name=systemd"]),
            hierarchy("/sys/fs/cgroup/cpu,cpuacct", &["cpu", "cpuacct"]),
        ]))
    );
}

#[test]
fn systemd_alone_does_not_make_a_hybrid_host_version_1() {
    let text = "\
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
    assert_eq!(
        Layout::parse(text),
        Some(Layout::V2 {
            mount: "/sys/fs/cgroup/unified".into()
        })
    );
}

#[test]
fn paths_cannot_climb() {
    for path in ["", "/", "/a/../b", ".."] {
        assert!(Cgroup::new(path).is_err(), "{path:?}");
    }
}

#[test]
fn limits_land_in_the_files_of_version_2() {
    let mount = tempfile::tempdir().unwrap();
    let offered = "cpuset cpu io memory pids";
    for file in ["cgroup.controllers", "cgroup.subtree_control"] {
        fs::write(mount.path().join(file), offered).unwrap();
    }
    let cgroup = Cgroup::at(
        Layout::V2 {
            mount: mount.path().to_owned(),
        },
        "c1",
    );
    cgroup.make().unwrap();
    cgroup.set(&resources(r#"{"pids":{"limit":7}}"#)).unwrap();
    assert_eq!(
        fs::read_to_string(mount.path().join("c1/pids.max")).unwrap(),
        "7"
    );
}

#[test]
fn a_delegated_cgroup_is_its_users_but_its_limits_are_not() {
    use std::os::unix::fs::MetadataExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for file in ["cgroup.procs", "memory.max"] {
        fs::write(directory.path().join(file), "").unwrap();
    }
    v2::delegate(directory.path(), 1000, "cgroup.procs\nmemory.reclaim\n").unwrap();
    let owner = |file: &str| directory.path().join(file).metadata().unwrap().uid();
    assert_eq!(
        (owner("."), owner("cgroup.procs"), owner("memory.max")),
        (1000, 1000, 0)
    );
}

#[test]
fn oom_kills_are_counted() {
    assert_eq!(flat_key("low 0\noom 3\noom_kill 2\n", "oom_kill"), Some(2));
    assert_eq!(
        flat_key("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", "oom_kill"),
        Some(1)
    );
}
