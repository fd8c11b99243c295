//! Mounts: images, binds and volumes with every option of `--mount` and `-v`.

use berth_testkit::sh;

use crate::{CLIENTS, daemon, inspect, run_detached};

#[test]
fn images_are_mounted_read_only() {
    let daemon = daemon();
    for client in CLIENTS {
        let run = |mount: &str, script: &str| {
            let words = [
                "run", "--rm", "--mount", mount, "busybox", "sh", "-c", script,
            ];
            client(&daemon, &words)
        };
        let whole = "type=image,source=busybox,target=/i";
        assert_eq!(run(whole, "cat /i/etc/passwd | head -c4").ok(), "root");
        run(whole, "touch /i/x")
            .fails(1, "Read-only file system")
            .fails(1, "WARNING: Image mount is an experimental feature");
        let part = "type=image,source=busybox,target=/i,image-subpath=etc";
        assert_eq!(run(part, "head -c4 /i/passwd").ok(), "root");
        let out = "type=image,source=busybox,target=/i,image-subpath=../x";
        run(out, "true").fails(125, "subpath must be a relative path within the volume");
        run("type=image,target=/i", "true").fails(125, "field Source must not be empty");
    }
    let mount = "type=image,source=busybox,target=/i";
    let create = [
        "create", "--name", "cc", "--mount", mount, "busybox", "true",
    ];
    daemon.docker(&create).ok();
    let form = "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}";
    assert_eq!(inspect(&daemon, "cc", form), "image busybox /i false");
    // What is mounted stays, whatever becomes of its name.
    daemon.docker(&["tag", "busybox", "other"]).ok();
    daemon.docker(&["rmi", "-f", "busybox"]).ok();
    daemon.docker(&["start", "-a", "cc"]).ok();
}

#[test]
fn how_far_read_only_and_recursion_reach_is_chosen() {
    let daemon = daemon();
    let outer = daemon.root.join("outer");
    std::fs::create_dir_all(outer.join("inner")).unwrap();
    let inner = outer.join("inner");
    sh(&format!(
        "mount -t tmpfs vol-test {0} && echo below >{0}/f",
        inner.display()
    ));
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for client in CLIENTS {
            let run = |options: &str, script: &str| {
                let mount = format!("type=bind,src={},dst=/o{options}", outer.display());
                let words = [
                    "run", "--rm", "--mount", &mount, "busybox", "sh", "-c", script,
                ];
                client(&daemon, &words)
            };
            assert_eq!(run("", "cat /o/inner/f").ok(), "below");
            for apart in [",bind-recursive=disabled", ",bind-nonrecursive"] {
                run(apart, "cat /o/inner/f").fails(1, "No such file");
            }
            run(",readonly", "touch /o/x").fails(1, "Read-only");
            run(",readonly", "touch /o/inner/x").fails(1, "Read-only");
            run(",ro,bind-recursive=writable", "touch /o/x").fails(1, "Read-only");
            run(",ro,bind-recursive=writable", "touch /o/inner/x").ok();
            let whole = ",ro,bind-recursive=readonly,bind-propagation=rprivate";
            run(whole, "touch /o/inner/x").fails(1, "Read-only");
            run(",bind-recursive=writable", "true").fails(
                125,
                "option 'bind-recursive=writable' requires 'readonly' to be specified",
            );
            run(",bind-propagation=odd", "true").fails(
                125,
                "invalid mount config for type \"bind\": invalid propagation mode: odd",
            );
        }
    }));
    sh(&format!("umount {}", inner.display()));
    checked.unwrap();
}

#[test]
fn mounts_pass_between_host_and_container_as_propagation_says() {
    let daemon = daemon();
    let shared = daemon.root.join("shared");
    std::fs::create_dir(&shared).unwrap();
    let directory = shared.display();
    sh(&format!(
        "mount -t tmpfs propagates {directory} && mount --make-private {directory}
         mkdir {directory}/host {directory}/inner"
    ));
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for (mode, wanted) in [("shared", "a shared"), ("slave", "a shared or slave")] {
            let mount = format!("{directory}:/x:{mode}");
            let words = ["run", "--rm", "-v", &mount, "busybox", "true"];
            let told = format!("is mounted on {directory} but it is not {wanted} mount");
            daemon.docker(&words).fails(125, &told);
        }
        sh(&format!("mount --make-shared {directory}"));
        let modes = ["rprivate", "rslave", "rshared"];
        for mode in modes {
            let options = format!("--name {mode} --privileged -v {directory}:/x:{mode}");
            run_detached(&daemon, &options, "sleep 1000");
        }
        sh(&format!(
            "mount -t tmpfs propagates {directory}/host && touch {directory}/host/seen"
        ));
        let inside = |name: &str, words: &[&str]| {
            let output = daemon.docker(&[&["exec", name], words].concat());
            output.code == 0
        };
        let seen = modes.map(|mode| inside(mode, &["test", "-e", "/x/host/seen"]));
        assert_eq!(seen, [false, true, true]);
        let below = shared.join("inner/made");
        let made = modes.map(|mode| {
            let script = "mount -t tmpfs t /x/inner && touch /x/inner/made";
            assert!(inside(mode, &["sh", "-c", script]));
            below.exists()
        });
        assert_eq!(made, [false, false, true]);
        daemon.docker(&[&["rm", "-f"], &modes[..]].concat()).ok();
    }));
    sh(&format!("umount -R {directory}"));
    checked.unwrap();
}

#[test]
fn what_cannot_be_mounted_upon_each_other_is_told_in_dockers_words() {
    let daemon = daemon();
    let file = daemon.root.join("file");
    std::fs::write(&file, "").unwrap();
    let hint = "not a directory: unknown: Are you trying to mount a directory onto a file (or \
                vice-versa)? Check if the specified host path exists and is the expected type";
    for (source, destination) in [(&file, "/etc"), (&daemon.root, "/etc/passwd")] {
        let mount = format!("{}:{destination}", source.display());
        let words = ["run", "--name", "odd", "-v", &mount, "busybox", "true"];
        daemon.docker(&words).fails(125, hint);
        let state = inspect(&daemon, "odd", "{{.State.ExitCode}} {{.State.Status}}");
        assert_eq!(state, "127 created");
        daemon.docker(&["rm", "odd"]).ok();
    }
    let mount = format!("{}/below/it:/x", file.display());
    let words = ["run", "--rm", "-v", &mount, "busybox", "true"];
    let told = format!("mkdir {}: not a directory", file.display());
    daemon
        .docker(&words)
        .fails(125, "error while creating mount source path")
        .fails(125, &told);
}

#[test]
fn a_bind_around_the_data_root_follows_the_host() {
    let daemon = daemon();
    let root = format!("{}:/host", daemon.root.display());
    let create = ["create", "--name", "cc", "-v", &root, "busybox", "true"];
    daemon.docker(&create).ok();
    let propagation = inspect(&daemon, "cc", "{{(index .Mounts 0).Propagation}}");
    assert_eq!(propagation, "rslave");
    let mount = format!(
        "type=bind,src={},dst=/host,bind-propagation=private",
        daemon.root.display()
    );
    let words = ["create", "--mount", &mount, "busybox", "true"];
    daemon.docker(&words).fails(
        1,
        "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when \
         mount source is within the daemon root",
    );
}

#[test]
fn modes_consistency_and_labels_are_taken() {
    let daemon = daemon();
    let directory = daemon.root.join("shared-dir");
    std::fs::create_dir(&directory).unwrap();
    for client in CLIENTS {
        let path = directory.display();
        for mount in [format!("{path}:/v:z"), format!("{path}:/v:Z,cached")] {
            client(&daemon, &["run", "--rm", "-v", &mount, "busybox", "true"]).ok();
        }
        let mount = format!("type=bind,src={path},dst=/v,consistency=delegated");
        client(
            &daemon,
            &["run", "--rm", "--mount", &mount, "busybox", "true"],
        )
        .ok();
        let tmpfs = "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770";
        let script = "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'";
        let words = [
            "run", "--rm", "--mount", tmpfs, "busybox", "sh", "-c", script,
        ];
        assert_eq!(client(&daemon, &words).ok(), "1770\n1024");
        let labelled = "src=labelled,dst=/v,volume-label=a=b,volume-nocopy";
        client(
            &daemon,
            &["run", "--rm", "--mount", labelled, "busybox", "true"],
        )
        .ok();
        let form = ["volume", "inspect", "-f", "{{.Labels.a}}", "labelled"];
        assert_eq!(client(&daemon, &form).ok(), "b");
        client(&daemon, &["volume", "rm", "labelled"]).ok();
    }
}
