//! Volumes that are copied, renamed, archived and brought back.

use std::path::Path;

use berth_testkit::{sh, until};
use rustix::process::Signal;

use crate::disk::Disk;
use crate::volumes::mountpoint;
use crate::{daemon, inspect, run_detached};

/// Fills a volume with what is easily lost.
const RICH: &str = "cd /v; mkdir -p d/e; echo text >d/file; ln d/file d/e/again; ln -s d/file link
    chown 33:34 d/file; chmod 4750 d/file; mkfifo d/fifo; echo x >.wh.name; touch -d @1000000 d
    dd if=/dev/zero of=sparse bs=1 count=1 seek=50000000 2>/dev/null";
/// What is to be the same in a copy.
const LOOK: &str = "cd /v; find . | sort; stat -c '%n %a %u %g %h %Y' d d/file link; cat d/e/again
    readlink link; stat -c '%s' sparse; test $(stat -c %b sparse) -lt 1000 && echo sparse";

#[test]
fn volumes_are_copied_renamed_archived_and_brought_back() {
    let daemon = daemon();
    let run = |volume: &str, script: &str| {
        let mount = format!("{volume}:/v");
        let words = ["run", "--rm", "-v", &mount, "busybox", "sh", "-c", script];
        daemon.docker(&words).ok().to_owned()
    };
    let volume = |words: &[&str]| daemon.berth(&[&["volume"], words].concat());
    volume(&["create", "--label", "app=db", "data"]).ok();
    run("data", RICH);
    let look = run("data", LOOK);
    assert!(
        look.contains("\nd/file 4750 33 34 2 ") && look.ends_with("sparse"),
        "{look}"
    );

    assert_eq!(volume(&["clone", "data", "twin"]).ok(), "twin");
    assert_eq!(run("twin", LOOK), look);
    let snapshot = volume(&["snapshot", "data"]).ok().to_owned();
    assert!(snapshot.starts_with("data-20"), "{snapshot}");
    run("data", "echo later >/v/later");
    assert_eq!(run(&snapshot, LOOK), look);
    let label = [
        "volume",
        "ls",
        "-q",
        "--filter",
        "label=berth.volume.snapshot-of=data",
    ];
    assert_eq!(daemon.docker(&label).ok(), snapshot);
    let label = ["volume", "ls", "-q", "--filter", "label=app=db"];
    assert_eq!(daemon.docker(&label).ok().lines().count(), 3);

    assert_eq!(volume(&["rename", "twin", "other"]).ok(), "other");
    assert_eq!(run("other", LOOK), look);
    daemon
        .docker(&["volume", "inspect", "twin"])
        .fails(1, "no such volume");
    daemon
        .docker(&["create", "--name", "user", "-v", "other:/v", "busybox"])
        .ok();
    volume(&["rename", "other", "third"]).fails(1, "rename other: volume is in use - [");
    daemon.docker(&["rm", "user"]).ok();
    volume(&["rename", "other", "data"]).fails(1, "volume data already exists");
    volume(&["clone", "nonesuch", "third"]).fails(1, "get nonesuch: no such volume");
    volume(&["clone", "data", "../x"]).fails(1, "includes invalid characters");

    let archive = daemon.root.join("other.tar");
    let path = archive.to_str().unwrap();
    volume(&["backup", "-o", path, "other"]).ok();
    let listed = sh(&format!("tar -tf {path}"));
    assert!(
        listed.contains("./\n") && listed.contains("d/e/again"),
        "{listed}"
    );
    assert!(
        archive.metadata().unwrap().len() < 1 << 20,
        "holes are left out"
    );
    assert_eq!(volume(&["restore", "-i", path, "back"]).ok(), "back");
    assert_eq!(run("back", LOOK), look);
    run("back", "rm -rf /v/d; echo new >/v/new");
    volume(&["restore", "-i", path, "back"]).fails(1, "restore back: the volume is not empty");
    volume(&["restore", "--force", "-i", path, "back"]).ok();
    assert_eq!(run("back", LOOK), look);
    std::fs::write(&archive, "no archive at all").unwrap();
    volume(&["restore", "--force", "-i", path, "back"]).fails(1, "restore back: ");
    assert_eq!(run("back", LOOK), look, "a failed one leaves all as it was");
    run_detached(
        &daemon,
        "--name user -v back:/v --stop-timeout 0",
        "sleep 1000",
    );
    volume(&["restore", "--force", "-i", path, "back"]).fails(1, "volume is in use - [");
    let left = std::fs::read_dir(daemon.root.join("data/volumes")).unwrap();
    let aside = |name: &str| name.starts_with('.');
    let names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| aside(name)).count(), 0);
}

#[test]
fn copies_share_blocks_where_the_file_system_can() {
    for (name, mkfs) in [("xfs", "mkfs.xfs -q"), ("btrfs", "mkfs.btrfs -q")] {
        let disk = Disk::new(name, 320, mkfs);
        let daemon = disk.daemon();
        daemon.load("busybox");
        let run = |volume: &str, script: &str| {
            let mount = format!("{volume}:/v");
            let words = ["run", "--rm", "-v", &mount, "busybox", "sh", "-c", script];
            daemon.docker(&words).ok().to_owned()
        };
        let used_mib = || {
            let path = disk.path.display();
            let text = sh(&format!(
                "sync -f {path}; df --output=used -BM {path} | tail -1"
            ));
            text.trim().trim_end_matches('M').parse::<i64>().unwrap()
        };
        run("data", RICH);
        run("data", "head -c 60000000 /dev/urandom >/v/big");
        let look = run("data", LOOK);
        let before = used_mib();
        let copy = |operation: &str, name: &str| {
            let path = format!("/berth/volumes/data/{operation}?name={name}");
            let (status, copied) = daemon.api("POST", &path, None);
            assert_eq!(
                (status, &copied["Method"]),
                (201, &"reflink".into()),
                "{copied}"
            );
        };
        copy("clone", "twin");
        copy("snapshot", "moment");
        let added = used_mib() - before;
        assert!(
            added < 20,
            "two copies of 60 MB added {added} MiB on {name}"
        );
        let (data, twin) = (mountpoint(&daemon, "data"), mountpoint(&daemon, "twin"));
        sh(&format!("cmp {data}/big {twin}/big"));
        assert_eq!(run("twin", LOOK), look);
        // A copy is nobody else's.
        run("twin", "echo other | dd of=/v/big conv=notrunc 2>/dev/null");
        sh(&format!(
            "cmp {data}/big {}/big",
            mountpoint(&daemon, "moment")
        ));
        assert_eq!(sh(&format!("head -c 5 {twin}/big")), "other");
    }
}

#[test]
fn a_copy_is_of_one_moment_while_containers_write() {
    let daemon = daemon();
    let script = "i=0; while :; do i=$((i+1)); echo $i >/v/.n; mv /v/.n /v/first
        echo $i >/v/.n; mv /v/.n /v/second; done";
    run_detached(&daemon, "--name writer -v vv:/v --stop-timeout 0", script);
    let read = |volume: &str, file: &str| -> i64 {
        let path = Path::new(&mountpoint(&daemon, volume)).join(file);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    until("it writes", || (read("vv", "second") > 0).then_some(()));
    for number in 0..5 {
        let name = format!("copy{number}");
        let copied = daemon.berth(&["volume", "clone", "vv", &name]);
        assert_eq!((copied.ok(), copied.stderr.as_str()), (name.as_str(), ""));
        let (first, second) = (read(&name, "first"), read(&name, "second"));
        assert!(
            first - second == 0 || first - second == 1,
            "{first} {second}"
        );
        assert_eq!(inspect(&daemon, "writer", "{{.State.Status}}"), "running");
    }
    let archive = daemon.root.join("vv.tar");
    daemon
        .berth(&["volume", "backup", "-o", archive.to_str().unwrap(), "vv"])
        .ok();
    let loose = daemon.berth(&["volume", "clone", "--pause=false", "vv", "loose"]);
    assert_eq!(loose.ok(), "loose");
    assert!(loose.stderr.contains("was running"), "{}", loose.stderr);
}

#[test]
fn a_kill_during_a_copy_leaves_a_whole_one_or_none() {
    let mut daemon = daemon();
    let script = "head -c 60000000 /dev/urandom >/v/big; touch /v/done; sleep 1000";
    run_detached(&daemon, "--name writer -v vv:/v --stop-timeout 0", script);
    let source = mountpoint(&daemon, "vv");
    until("it has written", || {
        Path::new(&source).join("done").exists().then_some(())
    });
    for round in 0..3u64 {
        let name = format!("copy{round}");
        let mut copying = daemon.berth_command();
        copying.args(["volume", "clone", "vv", &name]);
        let mut copying = copying.spawn().unwrap();
        let aside = daemon.root.join(format!("data/volumes/.{name}/_data/big"));
        let whole = daemon.root.join(format!("data/volumes/{name}/_data"));
        until("the copy begins", || {
            (aside.exists() || whole.exists()).then_some(())
        });
        daemon.signal(Signal::KILL);
        copying.wait().unwrap();
        daemon.spawn();
        let listed = daemon.docker(&["volume", "ls", "-q"]).ok().to_owned();
        let is_there = listed.lines().any(|line| line == name);
        assert_eq!(is_there, whole.exists());
        if is_there {
            let place = mountpoint(&daemon, &name);
            sh(&format!("cmp {source}/big {place}/big"));
        }
        until("nothing lies aside", || {
            (!aside.parent().unwrap().exists()).then_some(())
        });
        assert_eq!(inspect(&daemon, "writer", "{{.State.Status}}"), "running");
    }
}
