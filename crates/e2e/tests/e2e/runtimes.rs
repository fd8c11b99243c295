//! Our OCI runtime in runc's place: under Debian's Docker (by containerd), under podman, and as a
//! service. (Other runtimes under our daemon are in `daemon`.)
//!
//! Each caller has a mount namespace in which what it writes to `/etc`, `/opt`, `/run` and `/var`
//! is its own, and no network but the host's.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use berth_testkit::image::{archive, docker};
use berth_testkit::{Output, run, until};
use serde_json::{Value, json};

use crate::place::Place;
use crate::program;

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn docker_runs_our_runtime_in_runcs_place() {
    let place = Place::new("dockerd", |root, name| {
        let root = root.display();
        let line = format!(
            "dockerd --config-file {root}/daemon.json --data-root {root}/data \
             --exec-root {root}/exec --pidfile {root}/pid --host unix://{root}/docker.sock \
             --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
             --cgroup-parent /{name} --add-runtime berth={root}/berth-runtime \
             --default-runtime berth"
        );
        std::fs::write(format!("{root}/daemon.json"), "{}").unwrap();
        words(&line).into_iter().map(str::to_owned).collect()
    });
    let docker = |words: &[&str]| -> Output {
        let host = format!("unix://{}", place.root.join("docker.sock").display());
        run(Command::new(docker()).args(["-H", &host]).args(words), b"")
    };
    until("dockerd answers", || {
        (docker(&["version"]).code == 0).then_some(())
    });
    docker(&["load", "-qi", archive("busybox").to_str().unwrap()]).ok();
    let start = |options: &str, command: &[&str]| {
        let mut all = vec!["run", "--network", "none"];
        all.extend(words(options));
        all.push("busybox");
        all.extend(command);
        docker(&all)
    };
    assert_eq!(start("--rm", &["echo", "hello"]).ok(), "hello");
    assert_eq!(start("--rm", &["sh", "-c", "exit 7"]).code, 7);
    start("--rm", &["nonesuch"]).fails(127, "executable file not found in $PATH");
    assert_eq!(start("--rm -t", &["tty"]).ok().trim(), "/dev/pts/0");
    let confined = "--rm --read-only --cap-drop all --user 33 --security-opt no-new-privileges \
                    --sysctl kernel.msgmax=9000 --ulimit nofile=100:200 --tmpfs /x";
    let script = "id -u; cat /proc/sys/kernel/msgmax; ulimit -n; touch /z 2>/dev/null || echo ro; \
                  grep -E 'NoNew|Seccomp:|CapBnd' /proc/self/status | tr -s '\\t' ' '";
    assert_eq!(
        start(confined, &["sh", "-c", script]).ok(),
        "33\n9000\n100\nro\nCapBnd: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2"
    );
    let server = [
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo out; while :; do sleep 0.1; done",
    ];
    start("-d --name cc --memory 64m --pids-limit 50", &server).ok();
    assert_eq!(
        docker(&["exec", "cc", "sh", "-c", "echo in; exit 3"]).code,
        3
    );
    assert_eq!(
        docker(&["exec", "-t", "cc", "tty"]).ok().trim(),
        "/dev/pts/0"
    );
    let user = docker(&[
        "exec",
        "-u",
        "33",
        "-w",
        "/tmp",
        "cc",
        "sh",
        "-c",
        "id -u; pwd",
    ]);
    assert_eq!(user.ok(), "33\n/tmp");
    // Docker 20 says 126, later ones 127.
    let missing = docker(&["exec", "cc", "nonesuch"]);
    assert!([126, 127].contains(&missing.code), "{}", missing.code);
    let said = missing.stdout + &missing.stderr;
    assert!(
        said.contains("executable file not found in $PATH"),
        "{said}"
    );
    assert!(docker(&["top", "cc"]).ok().contains("sleep"));
    assert_eq!(docker(&["logs", "cc"]).ok(), "out");
    docker(&["pause", "cc"]).ok();
    let status = || {
        docker(&[
            "inspect",
            "-f",
            "{{.State.Status}} {{.State.ExitCode}}",
            "cc",
        ])
    };
    assert_eq!(status().ok(), "paused 0");
    docker(&["unpause", "cc"]).ok();
    docker(&["update", "--memory", "100m", "--memory-swap", "200m", "cc"]).ok();
    let stats = docker(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "cc"]);
    assert!(stats.ok().contains("/ 100MiB"), "{}", stats.stdout);
    docker(&["stop", "-t", "10", "cc"]).ok();
    assert_eq!(status().ok(), "exited 5");
    docker(&["start", "cc"]).ok();
    docker(&["kill", "cc"]).ok();
    assert_eq!(docker(&["wait", "cc"]).ok(), "137");
    docker(&["rm", "cc"]).ok();
}

#[test]
fn podman_runs_our_runtime_in_runcs_place() {
    let place = Place::new("podman", |_, _| vec!["cat".to_owned()]);
    // Its own defaults are above what root of a container may set.
    let conf = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
                [engine]\nruntime_supports_json = [\"berth-runtime\"]\n";
    std::fs::write(place.root.join("containers.conf"), conf).unwrap();
    let podman_with = |words: &[&str], input: &[u8]| -> Output {
        let at = |name: &str| place.root.join(name).to_string_lossy().into_owned();
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &place.holder.id().to_string(),
                "--mount",
                "podman",
            ])
            .args([
                "--root",
                &at("root"),
                "--runroot",
                &at("run"),
                "--tmpdir",
                &at("tmp"),
            ])
            .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"])
            .args(["--runtime", &at("berth-runtime")])
            .args(words)
            .env("CONTAINERS_CONF", at("containers.conf"));
        run(&mut command, input)
    };
    let podman = |words: &[&str]| podman_with(words, b"");
    until("the mounts are made", || {
        let mounts = format!("/proc/{}/mountinfo", place.holder.id());
        let mounts = std::fs::read_to_string(mounts).unwrap();
        mounts
            .contains(" /run rw,relatime - tmpfs none")
            .then_some(())
    });
    podman(&["load", "-qi", archive("busybox").to_str().unwrap()]).ok();
    let start = |options: &str, command: &[&str]| {
        let parent = format!("/{}", place.name);
        let mut all = vec!["run", "--network", "none", "--cgroup-parent", &parent];
        all.extend(words(options));
        all.push("busybox");
        all.extend(command);
        podman_with(&all, b"input")
    };
    assert_eq!(start("--rm", &["echo", "hello"]).ok(), "hello");
    assert_eq!(start("--rm", &["sh", "-c", "exit 7"]).code, 7);
    start("--rm", &["nonesuch"]).fails(127, "executable file not found in $PATH");
    assert_eq!(start("--rm -i", &["cat"]).ok(), "input");
    assert_eq!(start("--rm -t", &["tty"]).ok().trim(), "/dev/pts/0");
    let confined = "--rm --memory 64m --user 33 --cap-drop all --cap-add net_raw --read-only \
                    --hostname box";
    let script = "id -u; hostname; grep CapBnd /proc/self/status | tr -s '\\t' ' '";
    assert_eq!(
        start(confined, &["sh", "-c", script]).ok(),
        "33\nbox\nCapBnd: 0000000000002000"
    );
    let server = [
        "sh",
        "-c",
        "trap 'exit 5' TERM; echo out; while :; do sleep 0.1; done",
    ];
    start("-d --name cc", &server).ok();
    let inspect = |format: &str| {
        podman(&["inspect", "--format", format, "cc"])
            .ok()
            .to_owned()
    };
    assert!(inspect("{{.OCIRuntime}}").ends_with("/berth-runtime"));
    assert_eq!(
        podman(&["exec", "cc", "sh", "-c", "echo in; exit 3"]).code,
        3
    );
    assert_eq!(
        podman(&["exec", "-t", "cc", "tty"]).ok().trim(),
        "/dev/pts/0"
    );
    assert!(podman(&["top", "cc"]).ok().contains("sleep"));
    assert_eq!(podman(&["ps", "-q"]).ok().lines().count(), 1);
    assert_eq!(podman(&["logs", "cc"]).ok(), "out");
    podman(&["pause", "cc"]).ok();
    assert_eq!(inspect("{{.State.Status}}"), "paused");
    podman(&["unpause", "cc"]).ok();
    podman(&["stop", "-t", "10", "cc"]).ok();
    assert_eq!(inspect("{{.State.Status}} {{.State.ExitCode}}"), "exited 5");
    podman(&["start", "cc"]).ok();
    podman(&["kill", "cc"]).ok();
    podman(&["rm", "-f", "-t", "0", "cc"]).ok();
    podman(&["rmi", "-f", "busybox"]).ok();
}

/// A bundle whose root has this machine's programs, and the socket of a service manager.
struct Service {
    root: PathBuf,
    manager: UnixDatagram,
}

impl Service {
    fn new(script: &str) -> Self {
        let root = std::env::temp_dir().join(format!("berth-notify-{}", std::process::id()));
        std::fs::create_dir_all(root.join("rootfs")).unwrap();
        run(
            Command::new(program())
                .args(["runtime", "spec"])
                .current_dir(&root),
            b"",
        )
        .ok();
        let file = root.join("config.json");
        let mut spec: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["perl", "-e", script]);
        // As runc 1.1 writes it, with nothing inheritable.
        spec["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"]);
        spec["root"]["readonly"] = json!(false);
        for directory in ["/usr", "/bin", "/lib", "/lib64"] {
            if Path::new(directory).exists() {
                spec["mounts"].as_array_mut().unwrap().push(json!({
                    "destination": directory, "type": "bind", "source": directory,
                    "options": ["rbind", "ro"],
                }));
            }
        }
        std::fs::write(&file, spec.to_string()).unwrap();
        let manager = UnixDatagram::bind(root.join("manager")).unwrap();
        let patience = std::time::Duration::from_secs(60);
        manager.set_read_timeout(Some(patience)).unwrap();
        Self { root, manager }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(["runtime", "--root"])
            .arg(self.root.join("state"))
            .args(words)
            .current_dir(&self.root)
            .env("NOTIFY_SOCKET", self.root.join("manager"));
        command
    }

    /// Not by pipes, which a container that goes on would hold open.
    fn call(&self, words: &[&str]) {
        let mut command = self.command(words);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        assert!(command.status().unwrap().success(), "{words:?}");
    }

    fn told(&self) -> String {
        let mut message = [0; 4096];
        let length = self.manager.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    fn pid(&self) -> u64 {
        let state = run(&mut self.command(&["state", "service"]), b"");
        serde_json::from_str::<Value>(state.ok()).unwrap()["pid"]
            .as_u64()
            .unwrap()
    }
}

#[test]
fn a_container_s_readiness_is_told_to_the_service_manager() {
    let script = r#"
        use Socket; socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or die $!;
        for ("STATUS=begins", "STATUS=up\nREADY=1\n", "STOPPING=1") {
            send($s, $_, 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})); select(undef, undef, undef, 0.1);
        }
        sleep(1000) if -e "/long";"#;
    let service = Service::new(script);
    std::fs::write(service.root.join("rootfs/long"), "").unwrap();
    service.call(&["run", "-d", "service"]);
    assert_eq!(
        service.told(),
        format!("MAINPID={}\nREADY=1\n", service.pid())
    );
    service.call(&["delete", "-f", "service"]);

    service.call(&["create", "service"]);
    service.call(&["start", "service"]);
    assert_eq!(
        service.told(),
        format!("MAINPID={}\nREADY=1\n", service.pid())
    );
    service.call(&["delete", "-f", "service"]);

    // Whoever waits for the container is the service.
    std::fs::remove_file(service.root.join("rootfs/long")).unwrap();
    let mut command = service.command(&["run", "service"]);
    let mut client = command.stdin(Stdio::null()).spawn().unwrap();
    assert_eq!(
        service.told(),
        format!("MAINPID={}\nREADY=1\n", client.id())
    );
    assert!(client.wait().unwrap().success());
    std::fs::remove_dir_all(&service.root).unwrap();
}
