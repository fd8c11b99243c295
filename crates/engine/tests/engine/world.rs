//! An engine on directories of its own, with one image of busybox.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_docker::container::{Config as ContainerConfig, CreateRequest, HostConfig};
use berth_engine::{
    AttachOptions, Condition, Config, Engine, Error, LogOptions, Parts, RemoveOptions, StartOptions,
};
use berth_image::{Images, Import};
use berth_keeper::launcher::Launcher;
use berth_net::Net;
use berth_store::Store;
use berth_tasks::Scope;
use tokio::runtime::Runtime;

pub const BUSYBOX: &str = "/bin/busybox";
pub const IMAGE: &str = "engine-test:latest";
/// No case takes longer, unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub directory: tempfile::TempDir,
    pub runtime: Runtime,
    launcher: Arc<Launcher>,
    engine: Mutex<Option<Engine>>,
    net: Mutex<Option<Arc<Net>>>,
}

impl World {
    pub fn new(launcher: Arc<Launcher>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let directory = tempfile::Builder::new()
            .prefix("engine-test-")
            .tempdir()
            .unwrap();
        let world = Self {
            directory,
            runtime,
            launcher,
            engine: Mutex::new(None),
            net: Mutex::new(None),
        };
        world.open();
        let import = Import {
            name: Some(IMAGE.parse().unwrap()),
            ..Import::default()
        };
        world
            .engine()
            .images()
            .import(archive().as_slice(), &import)
            .unwrap();
        world
    }

    /// Opens an engine on the directories: the first, or another one after [`World::kill`].
    pub fn open(&self) {
        self.open_with(true, None);
    }

    /// The same on a bridge of its own.
    pub fn open_on_bridge(&self) {
        let name = self.instance();
        let suffix = name.rsplit('-').next().unwrap();
        let exec_root = self.directory.path().join("exec");
        std::fs::create_dir_all(&exec_root).unwrap();
        let config = berth_net::Config::new(&name, &format!("engt-{suffix}"), exec_root);
        let launcher = self.launcher.clone();
        let net = Net::open(config, move |listener| {
            let listener = [listener.as_fd()];
            let started = launcher.service("relay", serde_json::Value::Null, &listener);
            started.map(|_| ()).map_err(std::io::Error::other)
        });
        let net = Arc::new(net.unwrap());
        *self.net.lock().unwrap() = Some(net.clone());
        self.open_with(true, Some(net));
    }

    /// Ends the engine and opens one that stops its containers when it ends; then ends that.
    pub fn stop_all_and_leave(&self) {
        self.leave();
        self.open_with(false, None);
        self.leave();
    }

    fn open_with(&self, live_restore: bool, net: Option<Arc<Net>>) {
        let _guard = self.runtime.enter();
        let root = self.directory.path();
        let store = Store::open(&root.join("data/store"), berth_store::Options::default())
            .or_else(|_| {
                std::fs::create_dir_all(root.join("data/store")).unwrap();
                Store::open(&root.join("data/store"), berth_store::Options::default())
            })
            .unwrap();
        let images = Images::open(&root.join("data"), store.clone()).unwrap();
        let instance = self.instance();
        let mut config = Config::new(&instance, root.join("data"), root.join("exec"));
        config.live.live_restore = live_restore;
        let parts = Parts {
            scope: Scope::new(),
            store,
            images,
            net,
            launcher: self.launcher.clone(),
        };
        let engine = self.run(Engine::open(config, parts)).unwrap();
        *self.engine.lock().unwrap() = Some(engine);
    }

    fn instance(&self) -> String {
        let name = self.directory.path().file_name().unwrap();
        name.to_string_lossy().into_owned()
    }

    pub fn engine(&self) -> Engine {
        self.engine.lock().unwrap().clone().unwrap()
    }

    /// Ends the engine as live restore does: containers and keepers go on.
    pub fn leave(&self) {
        let engine = self.engine.lock().unwrap().take().unwrap();
        self.run(engine.shutdown());
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, future)
                .await
                .expect("took longer than patience")
        })
    }

    pub fn create(&self, name: &str, command: &[&str]) -> String {
        self.create_with(name, command, |_, _| {}).unwrap()
    }

    pub fn create_with(
        &self,
        name: &str,
        command: &[&str],
        change: impl FnOnce(&mut ContainerConfig, &mut HostConfig),
    ) -> Result<String, Error> {
        let mut config = ContainerConfig {
            image: IMAGE.to_owned(),
            cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
            ..ContainerConfig::default()
        };
        let mut host = HostConfig {
            network_mode: "none".to_owned(),
            ..HostConfig::default()
        };
        change(&mut config, &mut host);
        let request = CreateRequest {
            config,
            host_config: Some(host),
            networking_config: None,
        };
        let name = Some(name).filter(|name| !name.is_empty());
        self.run(self.engine().create(name, request, None))
            .map(|answer| answer.id)
    }

    pub fn start(&self, id: &str) {
        self.run(self.engine().start(id, StartOptions::default()))
            .unwrap();
    }

    pub fn exit_code(&self, id: &str) -> i64 {
        let waiter = self.engine().wait(id, Condition::NotRunning).unwrap();
        self.run(waiter.done()).exit_code
    }

    pub fn remove(&self, id: &str) {
        let options = RemoveOptions {
            force: true,
            volumes: true,
            link: false,
        };
        self.run(self.engine().remove(id, options)).unwrap();
    }

    /// Waits until an inspection shows what is wanted.
    pub fn until(
        &self,
        id: &str,
        condition: impl Fn(&berth_docker::container::Inspect) -> bool,
    ) -> berth_docker::container::Inspect {
        self.run(async {
            loop {
                let inspect = self.engine().inspect(id, false).await.unwrap();
                if condition(&inspect) {
                    return inspect;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    /// Waits until the container has said that it is.
    pub fn until_ready(&self, id: &str) {
        self.until(id, |_| self.log_now(id).contains("ready"));
    }

    pub fn log_path(&self, id: &str) -> PathBuf {
        let directory = self.directory.path().join("data/containers").join(id);
        directory.join(format!("{id}-json.log"))
    }

    /// The log file as it is.
    fn log_now(&self, id: &str) -> String {
        std::fs::read_to_string(self.log_path(id)).unwrap_or_default()
    }

    /// The log without headers, both streams.
    pub fn logs(&self, id: &str, options: LogOptions) -> String {
        let options = LogOptions {
            stdout: true,
            stderr: true,
            ..options
        };
        let _guard = self.runtime.enter();
        let mut stream = self.engine().logs(id, options).unwrap();
        self.run(async {
            let mut bytes = Vec::new();
            while let Some(piece) = stream.next().await {
                bytes.extend_from_slice(&piece.unwrap());
            }
            payload(&bytes)
        })
    }

    /// Attaches and returns our end of the connection.
    pub fn attach(&self, id: &str, stdin: bool) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let options = AttachOptions {
            stdin,
            stdout: true,
            stderr: true,
            stream: true,
            ..AttachOptions::default()
        };
        self.run(self.engine().attach(id, options, theirs.into()))
            .unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        ours
    }

    /// Removes what the case left, and checks that nothing stays behind.
    pub fn finish(self) {
        for container in self.run(self.engine().list(all())).unwrap() {
            self.remove(&container.id);
        }
        self.leave();
        if let Some(net) = self.net.lock().unwrap().take() {
            Arc::into_inner(net)
                .expect("the engine has ended")
                .close()
                .unwrap();
        }
        for directory in ["data/containers", "data/snapshots", "exec/containers"] {
            let left: Vec<_> = std::fs::read_dir(self.directory.path().join(directory))
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let parent = hierarchy.path().join(self.instance());
            assert!(!parent.exists(), "left behind: {}", parent.display());
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let path = self.directory.path().to_string_lossy().into_owned();
        assert!(!mounts.contains(&path), "a mount is left behind");
    }
}

pub fn all() -> berth_engine::ListOptions {
    berth_engine::ListOptions {
        all: true,
        ..berth_engine::ListOptions::default()
    }
}

/// Takes Docker's 8-byte headers away.
pub fn payload(mut bytes: &[u8]) -> String {
    let mut text = Vec::new();
    while let Some((header, rest)) = bytes.split_at_checked(8) {
        let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
        text.extend_from_slice(&rest[..length]);
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "half a header: {bytes:?}");
    String::from_utf8_lossy(&text).into_owned()
}

pub fn read_to_end(mut stream: UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A root file system of busybox with all its applets as links.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut entry =
        |path: &str, kind: tar::EntryType, mode: u32, data: &[u8], link: Option<&str>| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(data.len() as u64);
            match link {
                Some(link) => tar.append_link(&mut header, path, link).unwrap(),
                None => tar.append_data(&mut header, path, data).unwrap(),
            }
        };
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "data"] {
        entry(directory, tar::EntryType::Directory, 0o755, &[], None);
    }
    entry(
        "data/from-image",
        tar::EntryType::Regular,
        0o644,
        b"image\n",
        None,
    );
    entry(
        "etc/passwd",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
        None,
    );
    entry(
        "etc/group",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:\nuser:x:1000:\n",
        None,
    );
    entry(
        "etc/noexec",
        tar::EntryType::Regular,
        0o644,
        b"text\n",
        None,
    );
    let busybox = std::fs::read(Path::new(BUSYBOX)).unwrap();
    entry(
        "bin/busybox",
        tar::EntryType::Regular,
        0o755,
        &busybox,
        None,
    );
    for applet in [
        "sh", "true", "false", "echo", "sleep", "cat", "ls", "id", "seq", "kill", "hostname", "ps",
        "stty", "tty", "touch", "usleep", "env", "nc", "ip",
    ] {
        entry(
            &format!("bin/{applet}"),
            tar::EntryType::Symlink,
            0o777,
            &[],
            Some("busybox"),
        );
    }
    tar.into_inner().unwrap()
}
