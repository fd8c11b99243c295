//! Mounts and devices of all kinds, seen from inside.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::bundle::{Bundle, FIRST_ID, check, shell};

crate::claims![
    an_idmapped_bind_shows_other_owners,
    an_idmap_takes_the_containers_mappings,
    a_tmpfs_gets_a_copy_of_what_it_covers,
    a_tmpfs_has_the_mode_of_what_it_covers,
    a_read_only_tmpfs_takes_the_mounts_below_it,
    recursive_options_reach_the_mounts_below,
    attributes_are_those_of_the_options,
    what_is_mounted_can_be_changed,
    propagation_is_that_of_the_options,
    the_roots_propagation_is_set,
    any_file_system_can_be_mounted,
    devices_of_all_types_are_made,
    devices_are_made_without_a_mount_of_dev,
];

/// A directory of the host for binds.
fn host(bundle: &Bundle) -> PathBuf {
    let host = bundle.directory.path().join("host");
    std::fs::create_dir_all(&host).unwrap();
    host
}

fn bind(source: &Path, at: &str, options: &[&str]) -> Value {
    json!({"destination": at, "type": "bind", "source": source, "options": options})
}

fn an_idmapped_bind_shows_other_owners() {
    let mut bundle = shell("stat -c '%u %g' /plain/file /mapped/file; echo x > /mapped/new");
    let host = host(&bundle);
    std::fs::write(host.join("file"), "").unwrap();
    std::os::unix::fs::chown(host.join("file"), Some(5), Some(6)).unwrap();
    bundle.mount(bind(&host, "/plain", &["rbind"]));
    let mut mapped = bind(&host, "/mapped", &["rbind", "idmap"]);
    mapped["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 100}]);
    mapped["gidMappings"] = json!([{"containerID": 0, "hostID": 2000, "size": 100}]);
    bundle.mount(mapped);
    std::fs::set_permissions(&host, PermissionsExt::from_mode(0o777)).unwrap();
    let output = bundle.run().unwrap();
    // Root, who is not in the mapping, owns nothing that it makes there.
    assert_eq!(output.stdout, "5 6\n1005 2006\n", "{}", output.stderr);
    assert!(
        output.stderr.contains("Value too large"),
        "{}",
        output.stderr
    );
}

fn an_idmap_takes_the_containers_mappings() {
    let mut bundle =
        shell("stat -c %u /mapped /plain; echo x > /mapped/new; stat -c %u /mapped/new");
    let host = host(&bundle);
    bundle.user_namespace();
    bundle.mount(bind(&host, "/plain", &["rbind"]));
    bundle.mount(bind(&host, "/mapped", &["rbind", "ridmap"]));
    for place in ["plain", "mapped"] {
        std::fs::create_dir(bundle.lower().join(place)).unwrap();
    }
    check(&bundle, "0\n65534\n0\n");
    assert_eq!(host.join("new").metadata().unwrap().uid(), 0);
    assert_ne!(FIRST_ID, 0);
}

fn a_tmpfs_gets_a_copy_of_what_it_covers() {
    let mut bundle = shell(
        "cat /data/a/file; stat -c '%a %u %F' /data/a/file /data/link; touch /data/new && grep -c ' /data ' /proc/mounts",
    );
    let data = bundle.lower().join("data");
    std::fs::create_dir_all(data.join("a")).unwrap();
    std::fs::write(data.join("a/file"), "text\n").unwrap();
    std::os::unix::fs::chown(data.join("a/file"), Some(7), None).unwrap();
    std::fs::set_permissions(data.join("a/file"), PermissionsExt::from_mode(0o640)).unwrap();
    symlink("/nowhere", data.join("link")).unwrap();
    bundle.mount(json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nosuid"]}));
    check(
        &bundle,
        "text\n640 7 regular file\n777 0 symbolic link\n1\n",
    );
    assert!(!bundle.upper().join("data/new").exists());
}

fn a_tmpfs_has_the_mode_of_what_it_covers() {
    let mut bundle = shell("stat -c %a /tmp /new /given");
    std::fs::set_permissions(bundle.lower().join("tmp"), PermissionsExt::from_mode(0o750)).unwrap();
    for (at, options) in [
        ("/tmp", json!([])),
        ("/new", json!([])),
        ("/given", json!(["mode=700"])),
    ] {
        bundle.mount(
            json!({"destination": at, "type": "tmpfs", "source": "tmpfs", "options": options}),
        );
    }
    check(&bundle, "750\n1777\n700\n");
}

fn a_read_only_tmpfs_takes_the_mounts_below_it() {
    let mut bundle = shell("touch /ro/x 2>/dev/null || echo refused; touch /ro/below/x && echo ok");
    bundle.mount(
        json!({"destination": "/ro", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}),
    );
    bundle.mount(json!({"destination": "/ro/below", "type": "tmpfs", "source": "tmpfs"}));
    check(&bundle, "refused\nok\n");
}

/// A tmpfs below a directory of the host, for as long as this lives.
struct Below(PathBuf);

impl Below {
    fn new(host: &Path) -> Self {
        let path = host.join("below");
        std::fs::create_dir(&path).unwrap();
        rustix::mount::mount(
            "tmpfs",
            &path,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        Self(path)
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(&self.0, flags).unwrap();
    }
}

fn recursive_options_reach_the_mounts_below() {
    let mut bundle = shell(
        "for d in ro rro; do touch /$d/below/x 2>/dev/null && echo $d ok || echo $d refused; done; ls /single/below | wc -l; \
         grep -c '/rflags[^ ]* [^ ]* [^ ]*nosuid,nodev,noexec,noatime' /proc/mounts",
    );
    let host = host(&bundle);
    let below = Below::new(&host);
    std::fs::write(below.0.join("file"), "").unwrap();
    bundle.mount(bind(&host, "/ro", &["rbind", "ro"]));
    bundle.mount(bind(&host, "/rro", &["rbind", "rro"]));
    bundle.mount(bind(&host, "/single", &["bind"]));
    let flags = ["rbind", "rnosuid", "rnodev", "rnoexec", "rnoatime"];
    bundle.mount(bind(&host, "/rflags", &flags));
    check(&bundle, "ro ok\nrro refused\n0\n2\n");
}

fn attributes_are_those_of_the_options() {
    let mut bundle = shell(
        "awk '$2 ~ \"^/m/\" {print $2, $4}' /proc/mounts | sort; cat /m/links/link 2>/dev/null || echo refused",
    );
    let host = host(&bundle);
    std::fs::write(host.join("file"), "x").unwrap();
    symlink("file", host.join("link")).unwrap();
    for (name, options) in [
        ("a", ["nosuid", "nodev", "noexec", "noatime"].as_slice()),
        ("b", &["nodiratime", "strictatime"]),
        ("c", &["relatime", "sync", "dirsync"]),
        ("d", &["nosuid", "suid", "rw", "lazytime"]),
    ] {
        let mut all = vec!["size=1m"];
        all.extend(options);
        bundle.mount(json!({"destination": format!("/m/{name}"), "type": "tmpfs", "source": "tmpfs", "options": all}));
    }
    bundle.mount(bind(&host, "/m/links", &["rbind", "nosymfollow", "ro"]));
    let output = bundle.run().unwrap();
    let lines: Vec<&str> = output.stdout.lines().collect();
    for (index, words) in [
        "rw,nosuid,nodev,noexec,noatime",
        "rw,nodiratime",
        "rw,sync,dirsync,relatime",
        "rw,lazytime,relatime",
        "ro,nosymfollow",
    ]
    .into_iter()
    .enumerate()
    {
        for word in words.split(',') {
            let found = lines[index].split([' ', ',']).any(|w| w == word);
            assert!(found, "{word} is not in {}", lines[index]);
        }
    }
    assert_eq!(lines[5], "refused");
}

fn what_is_mounted_can_be_changed() {
    let mut bundle = shell("touch /data/x 2>/dev/null || echo refused; touch /tmp/x && echo ok");
    let host = host(&bundle);
    bundle.mount(bind(&host, "/data", &["rbind"]));
    bundle.mount(json!({"destination": "/data", "type": "none", "options": ["remount", "ro"]}));
    check(&bundle, "refused\nok\n");
}

fn propagation_is_that_of_the_options() {
    let mut bundle =
        shell("awk '$5 ~ \"^/p/\" {print $5, $7}' /proc/self/mountinfo | sort | sed 's/:.*//'");
    symlink("busybox", bundle.lower().join("bin/sed")).unwrap();
    let host = host(&bundle);
    // A bind of itself, whose propagation is this test's own.
    rustix::mount::mount_bind(&host, &host).unwrap();
    let shared = rustix::mount::MountPropagationFlags::SHARED;
    rustix::mount::mount_change(&host, shared).unwrap();
    for word in [
        "shared",
        "rshared",
        "slave",
        "rslave",
        "private",
        "rprivate",
        "unbindable",
        "runbindable",
    ] {
        bundle.mount(bind(&host, &format!("/p/{word}"), &["rbind", word]));
    }
    let output = bundle.run();
    rustix::mount::unmount(&host, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(
        output.unwrap().stdout,
        "/p/private -\n/p/rprivate -\n/p/rshared shared\n/p/rslave master\n/p/runbindable unbindable\n\
         /p/shared shared\n/p/slave master\n/p/unbindable unbindable\n"
    );
}

fn the_roots_propagation_is_set() {
    for (word, field) in [
        ("rshared", "shared"),
        ("shared", "shared"),
        ("private", "-"),
        ("runbindable", "unbindable"),
    ] {
        let mut bundle = shell("awk '$5 == \"/\" {print $7}' /proc/self/mountinfo");
        bundle.spec["linux"]["rootfsPropagation"] = json!(word);
        let stdout = bundle.run().unwrap().stdout;
        assert!(stdout.starts_with(field), "{word}: {stdout}");
    }
    let mut bundle = shell("true");
    bundle.spec["linux"]["rootfsPropagation"] = json!("sideways");
    assert!(bundle.run().is_err());
}

fn any_file_system_can_be_mounted() {
    let mut bundle = shell("cat /o/lower /o/other; echo new > /o/new && echo ok; ls /ram");
    let host = host(&bundle);
    // More than a value of fsconfig(2) holds, 255 bytes.
    let deep = host.join("d".repeat(200)).join("e".repeat(200));
    for name in ["upper", "work", "other"] {
        std::fs::create_dir(host.join(name)).unwrap();
    }
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("lower"), "l\n").unwrap();
    std::fs::write(host.join("other/other"), "o\n").unwrap();
    let host = host.display();
    let options = json!([
        format!("lowerdir={}:{host}/other", deep.display()),
        format!("upperdir={host}/upper"),
        format!("workdir={host}/work")
    ]);
    bundle.mount(
        json!({"destination": "/o", "type": "overlay", "source": "overlay", "options": options}),
    );
    bundle.mount(
        json!({"destination": "/ram", "type": "ramfs", "source": "ramfs", "options": ["mode=755"]}),
    );
    check(&bundle, "l\no\nok\n");
}

fn devices_of_all_types_are_made() {
    let mut bundle =
        shell("stat -c '%n %F %t:%T %a %u:%g' /dev/c /dev/u /dev/b /dev/p /srv/deep/c");
    bundle.spec["linux"]["devices"] = json!([
        {"path": "/dev/c", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/u", "type": "u", "major": 1, "minor": 5},
        {"path": "/dev/b", "type": "b", "major": 7, "minor": 1, "fileMode": 0o600},
        {"path": "/dev/p", "type": "p", "fileMode": 0o622, "gid": 7},
        {"path": "/srv/deep/c", "type": "c", "major": 1, "minor": 7, "fileMode": 0o666},
    ]);
    check(
        &bundle,
        "/dev/c character special file 1:3 640 5:6\n/dev/u character special file 1:5 666 0:0\n\
         /dev/b block special file 7:1 600 0:0\n/dev/p fifo 0:0 622 0:7\n/srv/deep/c character special file 1:7 666 0:0\n",
    );
}

fn devices_are_made_without_a_mount_of_dev() {
    let mut bundle = shell("stat -c %t:%T /dev/null");
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    check(&bundle, "1:3\n");
}
