//! A root file system, a specification, and running one with the other.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use berth_runtime::container::{
    self, Container, CreateRequest, Created, Error, Exit, Rootfs, Stdio,
};
use berth_runtime::defaults;
use berth_runtime::rootfs::overlay::{self, Overlay, Upper};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

/// What root of a test's user namespace is on the host.
pub const FIRST_ID: u32 = 100_000;

/// A busybox root in a directory, a fresh overlay for each container, and the specification.
pub struct Bundle {
    pub directory: tempfile::TempDir,
    pub spec: Value,
    pub init: bool,
    id: String,
}

/// What a process wrote, and how it ended.
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    pub exit: Exit,
}

impl Bundle {
    pub fn new(args: &[&str]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("isolate-")
            .tempdir()
            .unwrap();
        let lower = directory.path().join("lower");
        for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
            fs::create_dir_all(lower.join(name)).unwrap();
        }
        for name in ["upper", "work"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::copy("/bin/busybox", lower.join("bin/busybox")).unwrap();
        for name in [
            "sh", "true", "cat", "id", "ls", "sleep", "mount", "echo", "stat", "kill", "env",
            "pwd", "grep", "mknod", "hostname", "unshare", "tty", "touch", "chmod", "readlink",
            "ps", "nc", "dd", "head", "ln", "mkdir", "wc", "sort", "awk", "sync", "umount",
            "uname",
        ] {
            symlink("busybox", lower.join("bin").join(name)).unwrap();
        }
        fs::write(
            lower.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
        )
        .unwrap();
        let id = directory
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        Self {
            directory,
            spec: spec(args),
            init: false,
            id,
        }
    }

    /// Adds a namespace to the specification; with a path it is joined.
    pub fn namespace(&mut self, kind: &str, path: Option<&str>) {
        let list = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != kind);
        list.push(match path {
            Some(path) => json!({"type": kind, "path": path}),
            None => json!({"type": kind}),
        });
    }

    pub fn share(&mut self, kind: &str) {
        let list = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != kind);
    }

    /// A user namespace whose ids are the host's from [`FIRST_ID`] on.
    pub fn user_namespace(&mut self) {
        self.namespace("user", None);
        let maps = json!([{"containerID": 0, "hostID": FIRST_ID, "size": 65536}]);
        self.spec["linux"]["uidMappings"] = maps.clone();
        self.spec["linux"]["gidMappings"] = maps;
    }

    pub fn mount(&mut self, mount: Value) {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
    }

    pub fn lower(&self) -> PathBuf {
        self.directory.path().join("lower")
    }

    pub fn upper(&self) -> PathBuf {
        self.directory.path().join("upper")
    }

    pub fn cgroup(&self) -> String {
        format!("/{}/{}", cgroup_parent(), self.id)
    }

    pub fn create(&self, stdio: Stdio) -> Result<Created, Error> {
        let spec: Spec = serde_json::from_value(self.spec.clone()).unwrap();
        let lower = [self.lower()];
        let (upper, work) = (self.upper(), self.directory.path().join("work"));
        let overlay = Overlay {
            lower: &lower,
            upper: Some(Upper {
                directory: &upper,
                work: &work,
                volatile: true,
            }),
        };
        let root = overlay::mount(&overlay).unwrap();
        container::create(CreateRequest {
            id: &self.id,
            spec: &spec,
            rootfs: Rootfs::Mount(root.as_fd()),
            stdio,
            filter: container::filter(&spec)?.as_ref(),
            netns: None,
            cgroup: &self.cgroup(),
            init: self.init,
            lifetime: container::Lifetime::Caller,
            demands: container::Demands::default(),
        })
    }

    pub fn start(&self) -> Result<(Container, Pipes), Error> {
        let (pipes, stdio) = Pipes::new();
        Ok((self.create(stdio)?.start()?, pipes))
    }

    pub fn run(&self) -> Result<Output, Error> {
        let (container, pipes) = self.start()?;
        let (stdout, stderr) = pipes.read();
        let exit = container::wait(container.pidfd()).unwrap();
        container.remove_cgroup().unwrap();
        Ok(Output {
            stdout,
            stderr,
            exit,
        })
    }
}

/// A container that runs `script` in a shell.
pub fn shell(script: &str) -> Bundle {
    Bundle::new(&["sh", "-c", script])
}

/// What a container writes is `expect`, and nothing else.
pub fn check(bundle: &Bundle, expect: &str) {
    let output = bundle.run().unwrap();
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        (expect, "")
    );
}

/// Our ends of a process's standard descriptors.
pub struct Pipes {
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Pipes {
    pub fn new() -> (Self, Stdio) {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (stdout, out) = pipe();
        let (stderr, err) = pipe();
        let stdin = File::open("/dev/null").unwrap().into();
        (
            Self { stdout, stderr },
            Stdio::Descriptors {
                stdin,
                stdout: out,
                stderr: err,
            },
        )
    }

    pub fn read(self) -> (String, String) {
        let all = |fd: OwnedFd| {
            let mut text = String::new();
            File::from(fd).read_to_string(&mut text).unwrap();
            text
        };
        (all(self.stdout), all(self.stderr))
    }
}

/// Waits until a file on the host side exists.
pub fn wait_for(path: &Path) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !path.exists() {
        assert!(
            std::time::Instant::now() < deadline,
            "{path:?} did not appear"
        );
        std::thread::yield_now();
    }
}

/// A specification as Docker would make it, with a cgroup namespace on demand.
pub fn spec(args: &[&str]) -> Value {
    let capabilities: Vec<String> = defaults::CAPABILITIES
        .iter()
        .map(|c| format!("CAP_{c}"))
        .collect();
    let namespaces: Vec<Value> = ["mount", "pid", "network", "ipc", "uts"]
        .iter()
        .map(|n| json!({"type": n}))
        .collect();
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "hostname": "box",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "cwd": "/",
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "mounts": serde_json::to_value(defaults::mounts()).unwrap(),
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": defaults::masked_paths(),
            "readonlyPaths": defaults::readonly_paths(),
            "resources": {"devices": serde_json::to_value(defaults::device_rules()).unwrap()},
            "seccomp": serde_json::to_value(berth_runtime::seccomp::default_profile(
                &defaults::CAPABILITIES.iter().copied().collect())).unwrap(),
        },
    })
}

/// The parent of all cgroups of this run.
fn cgroup_parent() -> String {
    format!("isolate-{}", std::process::id())
}

/// What must be the same before and after: mounts, cgroups, children, descriptors.
pub fn machine() -> Vec<String> {
    let mut state: Vec<String> = fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    for entry in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let ours = entry.path().join(cgroup_parent());
        if ours.is_dir() {
            for left in fs::read_dir(&ours)
                .unwrap()
                .flatten()
                .filter(|e| e.path().is_dir())
            {
                state.push(left.path().display().to_string());
            }
            // Empty ones of the parent are ours to remove.
            let _ = fs::remove_dir(&ours);
        }
    }
    state.push(format!(
        "{} descriptors",
        fs::read_dir("/proc/self/fd").unwrap().count()
    ));
    state.push(
        fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).unwrap(),
    );
    state
}
