//! Hooks and what a process is given beside its namespaces, by the command line.

use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::command_line::{bundle, call, call_within, write};

crate::claims![
    hooks_run_in_order_and_in_their_namespaces,
    a_failed_hook_of_the_creation_leaves_nothing_behind,
    a_failed_poststart_hook_ends_the_container,
    a_create_container_hook_can_add_a_mount,
    a_root_on_a_shared_mount_is_left_alone,
    a_process_is_scheduled_as_asked,
    descriptors_are_passed_on_and_no_others,
    a_container_has_a_keyring_of_its_own,
];

/// A hook of the shell, whose words are separated by one line.
fn hook(script: &str) -> Value {
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
}

fn path(bundle: &Bundle) -> &Path {
    bundle.directory.path()
}

fn text(bundle: &Bundle, file: &str) -> String {
    std::fs::read_to_string(path(bundle).join("host").join(file)).unwrap_or_default()
}

fn run(bundle: &Bundle, id: &str) -> i32 {
    call(bundle, &["run", "-b", path(bundle).to_str().unwrap(), id])
}

fn hooks_run_in_order_and_in_their_namespaces() {
    let mut bundle = bundle("echo process >> /host/order");
    let host = path(&bundle).join("host");
    let (host, uts) = (host.display(), "readlink /proc/self/ns/uts");
    let say = |name: &str, place: &str| {
        hook(&format!(
            "(echo {name}; {uts}) >> {place}/order; cat > {place}/{name}"
        ))
    };
    bundle.spec["annotations"] = json!({"some": "thing"});
    let outside = host.to_string();
    bundle.spec["hooks"] = json!({
        "prestart": say("prestart", &outside),
        "createRuntime": say("createRuntime", &outside),
        "createContainer": say("createContainer", &outside),
        "startContainer": say("startContainer", "/host"),
        // The process may be quicker or slower than this one, so it has its own place.
        "poststart": hook(&format!("cat > {host}/poststart")),
        "poststop": say("poststop", &outside),
    });
    write(&bundle);
    assert_eq!(run(&bundle, "h1"), 0);
    let ours = std::fs::read_link("/proc/self/ns/uts").unwrap();
    let ours = ours.to_str().unwrap();
    let order = text(&bundle, "order");
    let lines: Vec<&str> = order.lines().collect();
    let names: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|l| !l.starts_with("uts:"))
        .collect();
    let expected = [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "process",
        "poststop",
    ];
    assert_eq!(names, expected);
    for pair in lines.windows(2).filter(|pair| pair[1].starts_with("uts:")) {
        let is_inside = ["createContainer", "startContainer"].contains(&pair[0]);
        assert_eq!(pair[1] != ours, is_inside, "{pair:?}");
    }
    for (name, status) in [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ] {
        let state: Value = serde_json::from_str(&text(&bundle, name)).unwrap();
        assert_eq!(state["status"], status);
        assert_eq!(
            (&state["id"], &state["bundle"]),
            (&json!("h1"), &json!(path(&bundle)))
        );
        assert_eq!(state["annotations"]["some"], "thing");
        assert_eq!(state["pid"].is_null(), name == "poststop");
    }
}

fn a_failed_hook_of_the_creation_leaves_nothing_behind() {
    for point in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
    ] {
        let mut bundle = bundle("touch /host/started");
        let host = path(&bundle).join("host");
        bundle.spec["hooks"] = json!({
            point: hook("echo because >&2; exit 9"),
            "poststop": hook(&format!("touch {}/stopped", host.display())),
        });
        write(&bundle);
        let log = path(&bundle).join("log");
        let (log_path, bundle_path) = (log.to_str().unwrap(), path(&bundle).to_str().unwrap());
        let words = ["--log", log_path, "run", "-b", bundle_path, "h2"];
        assert_eq!(call(&bundle, &words), 1, "{point}");
        let said = std::fs::read_to_string(&log).unwrap();
        let sentence = format!("error running {point} hook #0: exit status 9");
        assert!(
            said.contains(&sentence) && said.contains("because"),
            "{said}"
        );
        assert!(!host.join("started").exists(), "{point}");
        assert!(
            host.join("stopped").exists(),
            "{point}: poststop was not run"
        );
        assert!(!path(&bundle).join("state/h2").exists());
    }
}

fn a_failed_poststart_hook_ends_the_container() {
    let mut bundle = bundle("sleep 1000");
    bundle.spec["hooks"] = json!({"poststart": hook("exit 1")});
    write(&bundle);
    assert_eq!(run(&bundle, "h3"), 1);
    assert!(!path(&bundle).join("state/h3").exists());
}

fn a_create_container_hook_can_add_a_mount() {
    let mut bundle = bundle("cat /tmp/added > /host/seen");
    let lower = bundle.lower();
    std::fs::write(path(&bundle).join("host/source"), "added").unwrap();
    let script = format!(
        "touch tmp/added && mount --bind {}/host/source {}/tmp/added",
        path(&bundle).display(),
        lower.display()
    );
    bundle.spec["hooks"] = json!({"createContainer": hook(&script)});
    write(&bundle);
    assert_eq!(run(&bundle, "h4"), 0);
    assert_eq!(text(&bundle, "seen"), "added");
}

fn a_root_on_a_shared_mount_is_left_alone() {
    let mut bundle = bundle("test -e /tmp/inside");
    bundle.spec["hooks"] = json!({
        "createContainer": hook("mount -t tmpfs none tmp && touch tmp/inside"),
    });
    write(&bundle);
    let lower = bundle.lower();
    rustix::mount::mount_bind(&lower, &lower).unwrap();
    let shared = rustix::mount::MountPropagationFlags::SHARED;
    rustix::mount::mount_change(&lower, shared).unwrap();
    let code = run(&bundle, "h9");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let seen = mounts.contains(&format!("{}/tmp", lower.display()));
    rustix::mount::unmount(&lower, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(code, 0);
    assert!(lower.join("bin").exists() && !seen);
}

fn a_process_is_scheduled_as_asked() {
    let mut bundle = bundle(
        "cat /proc/self/stat > /host/stat; uname -m > /host/machine; umask > /host/umask; cat /proc/self/oom_score_adj > /host/oom",
    );
    bundle.spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
    bundle.spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    bundle.spec["linux"]["personality"] = json!({"domain": "LINUX32"});
    bundle.spec["process"]["oomScoreAdj"] = json!(500);
    bundle.spec["process"]["user"]["umask"] = json!(0o77);
    write(&bundle);
    assert_eq!(run(&bundle, "h5"), 0);
    let stat = text(&bundle, "stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // proc(5): nice is field 19, policy field 41, counted from 1; these begin at field 3.
    assert_eq!((fields[16], fields[38]), ("7", "3"));
    let machine = if cfg!(target_arch = "x86_64") {
        "i686"
    } else {
        "armv8l"
    };
    assert_eq!(text(&bundle, "machine").trim(), machine);
    assert_eq!(text(&bundle, "umask").trim(), "0077");
    assert_eq!(text(&bundle, "oom").trim(), "500");
    bundle.spec["linux"]["intelRdt"] = json!({"closID": "x"});
    write(&bundle);
    assert_eq!(run(&bundle, "h5"), 1, "Intel RDT is refused");
}

fn descriptors_are_passed_on_and_no_others() {
    let bundle = bundle(
        "ls /proc/self/fd > /host/fds; cat <&3 > /host/three; echo $LISTEN_FDS $LISTEN_PID > /host/env",
    );
    std::fs::write(path(&bundle).join("three"), "for the container").unwrap();
    let open = format!(
        "exec 3<{0}/three 4</dev/null 5</dev/null",
        path(&bundle).display()
    );
    let bundle_path = path(&bundle).to_str().unwrap();
    let words = ["run", "--preserve-fds", "1", "-b", bundle_path, "h6"];
    assert_eq!(call_within(&bundle, &open, 0, &words), 0);
    assert_eq!(text(&bundle, "three"), "for the container");
    // The fourth is ls's own.
    assert_eq!(text(&bundle, "fds"), "0\n1\n2\n3\n4\n");
    assert_eq!(text(&bundle, "env").trim(), "");
    let words = ["run", "--preserve-fds", "1", "-b", bundle_path, "h6"];
    assert_eq!(call_within(&bundle, &open, 1, &words), 0);
    assert_eq!(text(&bundle, "fds"), "0\n1\n2\n3\n4\n5\n");
    assert_eq!(text(&bundle, "env").trim(), "1 1");
}

fn a_container_has_a_keyring_of_its_own() {
    let mut bundle = bundle("cat /proc/keys > /host/keys");
    bundle.spec["linux"]["maskedPaths"] = json!([]);
    write(&bundle);
    let bundle_path = path(&bundle).to_str().unwrap().to_owned();
    assert_eq!(run(&bundle, "h7"), 0);
    assert!(
        text(&bundle, "keys").contains("_ses.h7"),
        "{}",
        text(&bundle, "keys")
    );
    assert_eq!(
        call(
            &bundle,
            &["run", "--no-new-keyring", "-b", &bundle_path, "h8"]
        ),
        0
    );
    assert!(!text(&bundle, "keys").contains("_ses.h8"));
}
