//! Images: load, save, import, tag, list, inspect, history, remove.

use berth_testkit::{Daemon, image, sh};

use crate::{daemon, program};

#[test]
fn archives_load_in_every_form() {
    let daemon = Daemon::start(program(), &[]);
    let directory = daemon.root.join("archives");
    sh(&format!(
        "mkdir {d}; cd {d}; gzip -k <{a} >a.gz; zstd -q <{a} >a.zst
         skopeo copy -q oci:{l}:busybox oci-archive:{d}/o.tar:oci:1",
        d = directory.display(),
        a = image::archive("busybox").display(),
        l = image::layout().display()
    ));
    for name in ["a.gz", "a.zst"] {
        let path = directory.join(name);
        let output = daemon.docker(&["load", "-i", path.to_str().unwrap()]);
        assert_eq!(
            output.ok().lines().last(),
            Some("Loaded image: busybox:latest")
        );
        assert_eq!(
            daemon
                .docker(&["run", "--rm", "busybox", "echo", name])
                .ok(),
            name
        );
        daemon.docker(&["rmi", "busybox"]).ok();
    }
    daemon
        .docker(&["load", "-i", directory.join("o.tar").to_str().unwrap()])
        .ok();
    assert!(!daemon.docker(&["images", "-q"]).ok().is_empty());
}

#[test]
fn save_and_load_keep_the_image_and_its_id() {
    let daemon = daemon();
    daemon.docker(&["tag", "busybox", "team/box:1"]).ok();
    let id = daemon
        .docker(&["images", "-q", "--no-trunc", "busybox"])
        .ok()
        .to_owned();
    let path = daemon.root.join("saved.tar");
    for save in [Daemon::docker, Daemon::berth] {
        save(
            &daemon,
            &[
                "save",
                "-o",
                path.to_str().unwrap(),
                "busybox",
                "team/box:1",
            ],
        )
        .ok();
        daemon.docker(&["rmi", "busybox", "team/box:1"]).ok();
        assert_eq!(daemon.docker(&["images", "-q"]).ok(), "");
        daemon.berth(&["load", "-i", path.to_str().unwrap()]).ok();
        assert_eq!(
            daemon
                .docker(&["images", "-q", "--no-trunc", "busybox"])
                .ok(),
            id
        );
        assert_eq!(
            daemon
                .docker(&["images", "-q", "--no-trunc", "team/box"])
                .ok(),
            id
        );
    }
    // Other tools read it too.
    sh(&format!(
        "skopeo inspect docker-archive:{}:busybox:latest >/dev/null",
        path.display()
    ));
}

#[test]
fn import_makes_an_image_of_a_root_file_system() {
    let daemon = Daemon::start(program(), &[]);
    let archive = sh(
        "d=$(mktemp -d); mkdir $d/bin; cp /bin/busybox $d/bin/sh; tar -C $d -cf $d.tar .; rm -r $d; echo $d.tar",
    );
    for (index, client) in [Daemon::docker, Daemon::berth].into_iter().enumerate() {
        let name = format!("tiny:{index}");
        let words = [
            "import",
            "-c",
            "CMD [\"sh\",\"-c\",\"echo $X\"]",
            "-c",
            "ENV X=imported",
            &archive,
            &name,
        ];
        assert!(client(&daemon, &words).ok().starts_with("sha256:"));
        assert_eq!(client(&daemon, &["run", "--rm", &name]).ok(), "imported");
    }
    std::fs::remove_file(archive).unwrap();
}

#[test]
fn lists_inspections_and_histories_agree_between_the_clients() {
    let daemon = daemon();
    daemon.docker(&["tag", "busybox", "copy:1"]).ok();
    for words in [
        &["images"][..],
        &["images", "--no-trunc"],
        &["images", "--digests"],
        &["images", "-f", "reference=copy"],
        &["image", "ls", "--format", "{{json .}}"],
        &["history", "busybox"],
        &["history", "--no-trunc", "-q", "busybox"],
        &["inspect", "busybox"],
        &[
            "image",
            "inspect",
            "-f",
            "{{.Id}} {{.Architecture}}",
            "copy:1",
        ],
    ] {
        // Of one image's repositories, docker shows now this one first and now that one.
        let sorted = |output: berth_testkit::Output| -> Vec<String> {
            let mut lines: Vec<String> = output.ok().lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(
            sorted(daemon.berth(words)),
            sorted(daemon.docker(words)),
            "{words:?}"
        );
    }
}

#[test]
fn removal_follows_dockers_rules() {
    let daemon = daemon();
    daemon.docker(&["tag", "busybox", "copy:1"]).ok();
    assert_eq!(daemon.docker(&["rmi", "copy:1"]).ok(), "Untagged: copy:1");
    daemon.docker(&["create", "--name", "user", "busybox"]).ok();
    // The words of dockerd with its containerd image store.
    daemon.docker(&["rmi", "busybox"]).fails(
        1,
        "conflict: unable to delete busybox:latest (must be forced) - container",
    );
    daemon.docker(&["rm", "user"]).ok();
    let output = daemon.docker(&["rmi", "busybox"]);
    assert!(
        output
            .ok()
            .starts_with("Untagged: busybox:latest\nDeleted: sha256:"),
        "{}",
        output.stdout
    );
    let layers = std::fs::read_dir(daemon.root.join("data/layers"))
        .unwrap()
        .count();
    assert_eq!(layers, 0, "layers stay");
}

#[test]
fn broken_archives_are_refused_and_leave_nothing() {
    let daemon = Daemon::start(program(), &[]);
    let directory = daemon.root.join("broken");
    let archive = image::archive("busybox");
    sh(&format!(
        "mkdir {d}; cd {d}; head -c 1000000 {a} >truncated.tar; echo nonsense >text.tar
         mkdir x; tar -C x -xf {a}; layer=$(ls x/*.tar x/*/layer.tar 2>/dev/null | head -1)
         printf 'garbage' | dd of=$layer bs=1 seek=5000 conv=notrunc status=none; tar -C x -cf digest.tar .",
        d = directory.display(),
        a = archive.display()
    ));
    for name in ["truncated.tar", "text.tar", "digest.tar"] {
        let output = daemon.docker(&["load", "-i", directory.join(name).to_str().unwrap()]);
        assert_ne!(output.code, 0, "{name}: {}", output.stdout);
    }
    assert_eq!(daemon.docker(&["images", "-aq"]).ok(), "");
    for left in ["blobs/sha256", "layers", "ingest"] {
        let path = daemon.root.join("data").join(left);
        let count = std::fs::read_dir(&path).map_or(0, Iterator::count);
        assert_eq!(count, 0, "{} is not empty", path.display());
    }
}

/// `security.capability` of a file that is executed with CAP_NET_RAW (vfs_cap_data of
/// include/uapi/linux/capability.h, revision 2).
const NET_RAW: &str = "0100000200200000000000000000000000000000";

#[test]
fn layers_keep_every_kind_of_file() {
    let daemon = Daemon::start(program(), &[]);
    let script = r#"
        d=$(mktemp -d -p /var/tmp); cd $d; mkdir -p bin dev sub
        cp /bin/busybox bin/busybox; for a in sh sleep stat; do ln -s busybox bin/$a; done
        ln bin/busybox sub/hard; chmod 4755 sub/hard; mkfifo sub/fifo; mknod sub/null c 1 3
        truncate -s 50M sub/sparse; printf end >>sub/sparse
        echo x >sub/owned; chown 12345:54321 sub/owned; touch -d '2001-02-03 04:05:06.789' sub/owned
        python3 -c 'import os; os.setxattr("sub/owned", "user.colour", b"blue")
os.setxattr("sub/hard", "security.capability", bytes.fromhex("$0"))'
        tar --xattrs --xattrs-include='*' --sparse -cf $d.tar .; rm -rf $d; echo $d.tar"#;
    let archive = sh(&script.replace("$0", NET_RAW));
    daemon.docker(&["import", &archive, "kinds"]).ok();
    let stat = |path: &str, format: &str| {
        daemon
            .docker(&["run", "--rm", "kinds", "/bin/stat", "-c", format, path])
            .ok()
            .to_owned()
    };
    assert_eq!(stat("/sub/hard", "%a %h"), "4755 2");
    assert_eq!(stat("/sub/fifo", "%F"), "fifo");
    assert_eq!(stat("/sub/null", "%F %t %T"), "character special file 1 3");
    assert_eq!(
        stat("/sub/owned", "%u %g %y"),
        "12345 54321 2001-02-03 04:05:06.789000000 +0000"
    );
    let blocks: u64 = stat("/sub/sparse", "%b").parse().unwrap();
    assert!(blocks < 200, "the sparse file has {blocks} blocks");
    let words = ["run", "-d", "--name", "cc", "kinds", "/bin/sleep", "1000"];
    daemon.docker(&words).ok();
    let attributes = sh(&format!(
        r#"python3 -c 'import os
for file, name in (("owned", "user.colour"), ("hard", "security.capability")):
    print(os.getxattr("/proc/{}/root/sub/" + file, name).hex())'"#,
        crate::inspect(&daemon, "cc", "{{.State.Pid}}")
    ));
    assert_eq!(attributes, format!("626c7565\n{NET_RAW}"));
    std::fs::remove_file(archive).unwrap();
}

#[test]
fn whiteouts_and_opaque_directories_hide_what_lies_below() {
    let daemon = Daemon::start(program(), &[]);
    let directory = daemon.root.join("layers");
    sh(&format!(
        "mkdir -p {d}/bundle; cd {d}; cp -r {l} oci; umoci unpack --image oci:busybox bundle/b
         mkdir -p bundle/b/rootfs/old bundle/b/rootfs/gone; touch bundle/b/rootfs/old/below bundle/b/rootfs/file
         umoci repack --refresh-bundle --image oci:two bundle/b
         rm -r bundle/b/rootfs/old bundle/b/rootfs/gone bundle/b/rootfs/file; mkdir bundle/b/rootfs/old; touch bundle/b/rootfs/old/above
         umoci repack --image oci:three bundle/b; skopeo copy -q oci:oci:three docker-archive:three.tar:three:latest",
        d = directory.display(),
        l = image::layout().display()
    ));
    daemon
        .docker(&["load", "-i", directory.join("three.tar").to_str().unwrap()])
        .ok();
    assert_eq!(
        daemon.docker(&["run", "--rm", "three", "ls", "/old"]).ok(),
        "above"
    );
    let output = daemon.docker(&["run", "--rm", "three", "ls", "/gone", "/file"]);
    assert_eq!(output.code, 1, "{}", output.stdout);
}
