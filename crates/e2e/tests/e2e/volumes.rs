//! Volumes: the local driver's options, lists and prunings, what is refused, and what a killed daemon
//! leaves.

use std::path::Path;

use berth_testkit::{Daemon, sh, until};
use rustix::process::Signal;

use crate::{CLIENTS, daemon, inspect, run_detached};

/// Whether something is mounted here on the host.
fn is_mounted(place: &str) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(place))
}

pub fn mountpoint(daemon: &Daemon, volume: &str) -> String {
    let form = ["volume", "inspect", "-f", "{{.Mountpoint}}", volume];
    daemon.docker(&form).ok().to_owned()
}

/// A volume of a tmpfs, and where it is mounted.
fn tmpfs_volume(daemon: &Daemon, name: &str) -> String {
    let options = "volume create -d local -o type=tmpfs -o device=tmpfs -o o=size=2m,uid=33";
    let mut words: Vec<&str> = options.split(' ').collect();
    words.push(name);
    daemon.docker(&words).ok();
    mountpoint(daemon, name)
}

#[test]
fn a_file_system_is_mounted_for_the_first_container_until_the_last() {
    let daemon = daemon();
    let place = tmpfs_volume(&daemon, "tt");
    let options = "{{index .Options \"o\"}} {{.Options.type}}";
    let form = ["volume", "inspect", "-f", options, "tt"];
    assert_eq!(daemon.docker(&form).ok(), "size=2m,uid=33 tmpfs");
    assert!(!is_mounted(&place));
    let script = "echo one >/v/f; sleep 1000";
    run_detached(&daemon, "--name aa -v tt:/v --stop-timeout 0", script);
    assert!(is_mounted(&place));
    let df = daemon.docker(&["exec", "aa", "df", "-k", "/v"]);
    assert!(df.ok().contains("2048"), "{}", df.stdout);
    let owner = daemon.docker(&["exec", "aa", "stat", "-c", "%u", "/v"]);
    assert_eq!(owner.ok(), "33");
    run_detached(&daemon, "--name bb -v tt:/v --stop-timeout 0", "sleep 1000");
    until("both see one file", || {
        let seen = daemon.docker(&["exec", "bb", "cat", "/v/f"]);
        (seen.code == 0 && seen.stdout.trim() == "one").then_some(())
    });
    daemon.docker(&["stop", "aa"]).ok();
    assert!(is_mounted(&place), "b has it still");
    daemon
        .docker(&["volume", "rm", "tt"])
        .fails(1, "volume is in use");
    daemon.docker(&["stop", "bb"]).ok();
    until("it is unmounted with the last", || {
        (!is_mounted(&place)).then_some(())
    });
    // A new start is a new file system.
    daemon.docker(&["start", "aa"]).ok();
    assert!(is_mounted(&place));
    daemon.docker(&["rm", "-f", "aa", "bb"]).ok();
    until("it is unmounted", || (!is_mounted(&place)).then_some(()));
    assert_eq!(daemon.docker(&["volume", "rm", "tt"]).ok(), "tt");
    assert!(!Path::new(&place).exists());
}

#[test]
fn a_bound_directory_and_a_disk_are_volumes_whose_files_stay() {
    let daemon = daemon();
    let directory = daemon.root.join("served");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("kept"), "kept").unwrap();
    let device = format!("device={}", directory.display());
    for client in CLIENTS {
        let words = [
            "volume",
            "create",
            "-o",
            "type=none",
            "-o",
            "o=bind,ro",
            "-o",
        ];
        client(&daemon, &[&words[..], &[&device, "bound"]].concat()).ok();
        let cat = ["run", "--rm", "-v", "bound:/v", "busybox", "cat", "/v/kept"];
        assert_eq!(client(&daemon, &cat).ok(), "kept");
        let touch = ["run", "--rm", "-v", "bound:/v", "busybox", "touch", "/v/x"];
        client(&daemon, &touch).fails(1, "Read-only file system");
        client(&daemon, &["volume", "rm", "bound"]).ok();
        assert!(directory.join("kept").exists(), "only bound");
    }
    let disk = daemon.root.join("disk.ext4");
    let file = std::fs::File::create(&disk).unwrap();
    file.set_len(8 << 20).unwrap();
    sh(&format!("mkfs.ext4 -q {}", disk.display()));
    let device = sh(&format!("losetup --find --show {}", disk.display()));
    let device = device.trim();
    let detach = || sh(&format!("losetup -d {device}"));
    let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mount = format!(
            "type=volume,src=disk,dst=/v,volume-driver=local,volume-opt=type=ext4,\
             volume-opt=device={device},volume-opt=o=noatime,volume-label=kind=disk"
        );
        let run = |script: &str| {
            let words = [
                "run", "--rm", "--mount", &mount, "busybox", "sh", "-c", script,
            ];
            daemon.docker(&words).ok().to_owned()
        };
        run("echo block >/v/f");
        let seen = run("cat /v/f; grep ' /v ' /proc/mounts");
        assert!(seen.starts_with("block\n"), "{seen}");
        assert!(seen.contains("ext4") && seen.contains("noatime"), "{seen}");
        let label = ["volume", "ls", "-q", "--filter", "label=kind=disk"];
        assert_eq!(daemon.docker(&label).ok(), "disk");
        let place = mountpoint(&daemon, "disk");
        until("it is unmounted", || (!is_mounted(&place)).then_some(()));
        daemon.docker(&["volume", "rm", "disk"]).ok();
    }));
    detach();
    written.unwrap();
}

#[test]
fn what_cannot_be_mounted_is_told_and_leaves_nothing() {
    let daemon = daemon();
    let create = |options: &[&str]| {
        let mut words = vec!["volume", "create"];
        words.extend(options.iter().flat_map(|option| ["-o", option]));
        words.push("bad");
        daemon.docker(&words)
    };
    create(&["foo=bar"]).fails(1, "create bad: invalid option: \"foo\"");
    create(&["type=tmpfs"]).fails(1, "create bad: missing required option: \"device\"");
    create(&["size=1g"]).fails(1, "create bad: quota size requested but no quota support");
    let driver = ["volume", "create", "-d", "nonesuch", "bad"];
    daemon.docker(&driver).fails(
        1,
        "create bad: error looking up volume plugin nonesuch: plugin \"nonesuch\" not found",
    );
    daemon.docker(&["volume", "create", "a"]).fails(
        1,
        "create a: volume name is too short, names should be at least two alphanumeric characters",
    );
    assert_eq!(daemon.docker(&["volume", "ls", "-q"]).ok(), "");
    create(&["type=none", "o=bind", "device=/nonesuch"]).ok();
    let place = mountpoint(&daemon, "bad");
    let words = format!(
        "error while mounting volume '{place}': failed to mount local volume: mount \
         /nonesuch:{place}, flags: 0x1000: no such file or directory"
    );
    let run = |destination: &str| {
        let mount = format!("bad:{destination}");
        daemon.docker(&[
            "run", "--rm", "--name", "cc", "-v", &mount, "busybox", "true",
        ])
    };
    run("/v").fails(127, &words);
    // With something in the image to fill it with, it is mounted earlier.
    run("/etc").fails(127, &format!("failed to populate volume: {words}"));
    assert!(!is_mounted(&place));
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
    daemon.docker(&["volume", "rm", "bad"]).ok();
    create(&[
        "type=nfs",
        "device=:/x",
        "o=addr=127.0.0.1,password=hush,vers=4",
    ])
    .ok();
    let refused = run("/v");
    assert!(!refused.stderr.contains("hush"), "{}", refused.stderr);
    refused.fails(125, "failed to mount local volume: mount :/x:");
}

#[test]
fn an_empty_file_system_is_filled_from_the_image() {
    let daemon = daemon();
    let directory = daemon.root.join("filled");
    std::fs::create_dir(&directory).unwrap();
    let device = format!("device={}", directory.display());
    let create = ["volume", "create", "-o", "type=none", "-o", "o=bind", "-o"];
    daemon
        .docker(&[&create[..], &[&device, "vv"]].concat())
        .ok();
    let create = ["create", "-v", "vv:/etc", "busybox", "true"];
    let id = daemon.docker(&create).ok().to_owned();
    assert!(directory.join("passwd").exists());
    assert!(
        !is_mounted(&mountpoint(&daemon, "vv")),
        "only while it is filled"
    );
    daemon.docker(&["rm", &id]).ok();
}

#[test]
fn a_killed_daemon_leaves_nothing_mounted_that_nobody_uses() {
    let mut daemon = daemon();
    let (used, unused) = (
        tmpfs_volume(&daemon, "used"),
        tmpfs_volume(&daemon, "unused"),
    );
    let options = "--name goes-on -v used:/v --stop-timeout 0";
    run_detached(&daemon, options, "echo mine >/v/f; sleep 1000");
    let options = "--name ends -v unused:/v --mount type=image,src=busybox,dst=/i";
    run_detached(&daemon, options, "sleep 1000");
    let image = inspect(
        &daemon,
        "ends",
        "{{range .Mounts}}{{if eq .Type \"image\"}}{{.Source}}{{end}}{{end}}",
    );
    assert!(is_mounted(&used) && is_mounted(&unused) && is_mounted(&image));
    let pid = inspect(&daemon, "ends", "{{.State.Pid}}");
    daemon.signal(Signal::KILL);
    sh(&format!("kill -9 {pid}"));
    until("it ends without a daemon", || {
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    daemon.spawn();
    assert!(is_mounted(&used));
    until("what nobody uses is unmounted", || {
        (!is_mounted(&unused) && !is_mounted(&image)).then_some(())
    });
    let seen = daemon.docker(&["exec", "goes-on", "cat", "/v/f"]);
    assert_eq!(seen.ok(), "mine");
    // The holder is known again.
    run_detached(
        &daemon,
        "--name second -v used:/v --stop-timeout 0",
        "sleep 1000",
    );
    daemon.docker(&["stop", "goes-on"]).ok();
    assert!(is_mounted(&used));
    daemon.docker(&["stop", "second"]).ok();
    until("the last is gone", || (!is_mounted(&used)).then_some(()));
}

#[test]
fn volumes_are_filtered_pruned_and_measured() {
    let daemon = daemon();
    for client in CLIENTS {
        for (name, label) in [("keep-me", "k=1"), ("drop-me", "k=2"), ("used-one", "k=3")] {
            client(&daemon, &["volume", "create", "--label", label, name]).ok();
        }
        tmpfs_volume(&daemon, "mounted");
        let script = "head -c 5000 /dev/zero >/v/f; ln /v/f /v/g";
        let words = [
            "run",
            "--name",
            "cc",
            "-v",
            "used-one:/v",
            "-v",
            "/anon",
            "busybox",
        ];
        client(&daemon, &[&words[..], &["sh", "-c", script]].concat()).ok();
        let ls = |filter: &str| {
            let words = ["volume", "ls", "-q", "--filter", filter];
            client(&daemon, &words).ok().to_owned()
        };
        assert_eq!(ls("name=^(keep|drop)-"), "drop-me\nkeep-me");
        assert_eq!(ls("label=k=2"), "drop-me");
        assert_eq!(ls("dangling=true"), "drop-me\nkeep-me\nmounted");
        let df = [
            "system",
            "df",
            "-v",
            "--format",
            "{{range .Volumes}}{{.Name}} {{.Links}} {{.Size}}\n{{end}}",
        ];
        let df = client(&daemon, &df).ok().to_owned();
        let df = df.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(df.contains("used-one 1 5kB"), "{df}");
        assert!(df.contains("keep-me 0 0B"), "{df}");
        assert!(!df.contains("mounted"), "not on the daemon's disk: {df}");
        let prune = |words: &[&str]| {
            let words = [&["volume", "prune", "-f"], words].concat();
            client(&daemon, &words).ok().to_owned()
        };
        assert_eq!(prune(&[]), "Total reclaimed space: 0B");
        let pruned = prune(&["-a", "--filter", "label!=k=1"]);
        assert!(
            pruned.contains("drop-me") && !pruned.contains("keep-me"),
            "{pruned}"
        );
        client(&daemon, &["rm", "cc"]).ok();
        let pruned = prune(&[]);
        assert_eq!(
            pruned.lines().count(),
            4,
            "only the anonymous one: {pruned}"
        );
        let pruned = prune(&["-a", "--filter", "label=k"]);
        assert!(pruned.ends_with("Total reclaimed space: 5kB"), "{pruned}");
        assert_eq!(ls("name=."), "mounted", "not on the daemon's disk either");
        client(&daemon, &["volume", "rm", "mounted"]).ok();
        client(&daemon, &["volume", "create", "vv"]).ok();
        client(&daemon, &["volume", "update", "vv"]).fails(1, "can only update cluster volumes");
        client(&daemon, &["volume", "rm", "vv"]).ok();
    }
    let (status, answer) = daemon.api("PUT", "/volumes/vv", Some("{}"));
    assert_eq!(status, 503);
    assert_eq!(
        answer["message"],
        "volume update only valid for cluster volumes, but swarm is unavailable"
    );
    // Before 1.42 named volumes were pruned, too.
    daemon.docker(&["volume", "create", "old"]).ok();
    let (_, answer) = daemon.api("POST", "/v1.41/volumes/prune", None);
    assert_eq!(answer["VolumesDeleted"][0], "old");
}

#[test]
fn volumes_are_refused_in_dockers_words() {
    let daemon = daemon();
    let file = daemon.root.join("file");
    std::fs::write(&file, "").unwrap();
    for client in CLIENTS {
        let refused = |flag: &str, value: &str, words: &str| {
            client(&daemon, &["create", flag, value, "busybox", "true"]).fails(1, words);
        };
        refused("-v", "/foo:rw", "invalid volume specification: '/foo:rw'");
        refused(
            "-v",
            "rel/x:/v",
            "includes invalid characters for a local volume name",
        );
        refused(
            "-v",
            "vv:/v:rslave",
            "field BindOptions must not be specified",
        );
        refused(
            "-v",
            "/tmp:/v:nocopy",
            "field VolumeOptions must not be specified",
        );
        refused("-v", "vv:/v:default", "invalid mode: default");
        refused(
            "--mount",
            "dst=/v,readonly",
            "must not set ReadOnly mode when using anonymous volumes",
        );
        refused(
            "--mount",
            "dst=/v,volume-subpath=x",
            "must not set Subpath when using anonymous volumes",
        );
        refused(
            "--mount",
            "src=vv,dst=/v,volume-subpath=../x",
            "subpath must be a relative path within the volume",
        );
        refused("--volumes-from", "nonesuch", "No such container: nonesuch");
        let mount = format!("{}:/etc/", file.display());
        let words = ["run", "--rm", "-v", &mount, "busybox", "true"];
        client(&daemon, &words).fails(125, "not a directory");
        let words = [
            "run",
            "--rm",
            "--mount",
            "src=vv,dst=/v,volume-subpath=no/where",
            "busybox",
            "true",
        ];
        client(&daemon, &words).fails(127, "lstat ");
    }
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
    let refused = |mount: &str, status: u16, words: &str| {
        let body = format!(r#"{{"Image":"busybox","HostConfig":{{"Mounts":[{mount}]}}}}"#);
        let (got, answer) = daemon.api("POST", "/containers/create", Some(&body));
        let message = answer["message"].to_string().replace("\\\"", "'");
        assert!(
            got == status && message.contains(words),
            "{mount}: {got} {message}"
        );
    };
    let odd = r#"{"Type":"bind","Source":"/tmp","Target":"/v","VolumeOptions":{}}"#;
    refused(
        odd,
        400,
        "VolumeOptions must not be specified on mount type 'bind'",
    );
    let odd = r#"{"Type":"tmpfs","Target":"/v","TmpfsOptions":{"Options":[["uid","3"]]}}"#;
    refused(
        odd,
        400,
        "invalid mount config for type 'tmpfs': invalid option: uid",
    );
    let image = r#"{"Type":"image","Source":"nonesuch","Target":"/v"}"#;
    refused(image, 404, "No such image: nonesuch");
    let driver = r#"{"Type":"volume","Source":"vx","Target":"/v","VolumeOptions":{"DriverConfig":{"Name":"nonesuch"}}}"#;
    refused(
        driver,
        404,
        "create vx: error looking up volume plugin nonesuch",
    );
    let filters = "/volumes/prune?filters=%7B%22all%22%3A%5B%22maybe%22%5D%7D";
    assert_eq!(daemon.api("POST", filters, None).0, 400);
}
