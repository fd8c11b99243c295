//! Layouts from texts, plans from limits, and writing on directories of plain files.

use super::*;

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
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
        &v1::plan(&resources(LIMITS)),
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
        &v2::plan(&resources(LIMITS)).unwrap(),
        &[
            ("memory.swap.max", "67108864"),
            ("memory.max", "67108864"),
            ("memory.low", "33554432"),
            ("cpu.weight", "20"),
            ("cpu.max", "50000 100000"),
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
            ("pids.max", "100"),
        ],
    );
}

#[test]
fn unlimited_is_max_in_version_2_and_minus_one_in_version_1() {
    let unlimited = resources(r#"{"memory":{"limit":-1,"swap":-1},"pids":{"limit":-1}}"#);
    check(
        &v2::plan(&unlimited).unwrap(),
        &[
            ("memory.swap.max", "max"),
            ("memory.max", "max"),
            ("pids.max", "max"),
        ],
    );
    check(
        &v1::plan(&unlimited),
        &[
            ("memory.memsw.limit_in_bytes", "-1"),
            ("memory.limit_in_bytes", "-1"),
            ("pids.max", "max"),
        ],
    );
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
fn oom_kills_are_counted() {
    assert_eq!(flat_key("low 0\noom 3\noom_kill 2\n", "oom_kill"), Some(2));
    assert_eq!(
        flat_key("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", "oom_kill"),
        Some(1)
    );
}
