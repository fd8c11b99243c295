//! What the cases stand on: an image of busybox, containers, and the daemon's side of a keeper.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use berth_keeper::framing;
use berth_keeper::keeper;
use berth_keeper::launcher::Launcher;
use berth_keeper::protocol::{
    AttachOptions, Event, ExitRecord, KeeperState, Launch, LogTarget, Message, ReplyBody, Request,
    RequestBody, Rootfs, Target, UserRequest, VERSION,
};
use berth_runtime::defaults;
use oci_spec::runtime::{Process, Spec};
use serde_json::json;

/// Nothing that the cases wait for takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub launcher: Launcher,
    /// A launcher whose daemon may die.
    pub other: std::cell::RefCell<Option<Launcher>>,
    /// The launchers of a daemon and of the next one.
    pub generations: std::cell::RefCell<Option<[Launcher; 2]>>,
    dir: tempfile::TempDir,
    number: AtomicU32,
}

pub fn instance() -> String {
    format!("/keeper-test-{}", std::process::id())
}

/// What must be the same before and after.
pub struct Machine {
    /// Only ours: others may mount meanwhile.
    mounts: Vec<String>,
    cgroups: BTreeSet<PathBuf>,
}

impl Machine {
    pub fn now() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let cgroups = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|fields| fields[2].starts_with("cgroup"))
            .map(|fields| PathBuf::from(format!("{}{}", fields[1], instance())))
            .filter(|path| path.exists())
            .collect();
        let ours = mounts.lines().filter(|line| line.contains("keeper-test-"));
        Self {
            mounts: ours.map(str::to_owned).collect(),
            cgroups,
        }
    }

    pub fn check_unchanged(&self) -> Result<(), String> {
        let left = || {
            let now = Self::now();
            for cgroup in &now.cgroups {
                // The parents of the containers' and keepers' cgroups are the engine's to remove.
                let _ = fs::remove_dir(cgroup);
            }
            let now = Self::now();
            if now.mounts != self.mounts {
                return Some(format!("mounts {:?}", now.mounts));
            }
            if now.cgroups != self.cgroups {
                return Some(format!("cgroups {:?}", now.cgroups));
            }
            let keepers = processes("berth-keeper");
            (!keepers.is_empty()).then(|| format!("keepers {keepers:?}"))
        };
        let deadline = Instant::now() + PATIENCE;
        while let Some(what) = left() {
            if Instant::now() > deadline {
                return Err(what);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// The live descendants of this test's launchers with this name, told by their cgroup.
fn processes(name: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            read("comm").trim_end() == name && read("cgroup").contains(&instance())
        })
        .collect()
}

impl World {
    pub fn new([launcher, other]: [Launcher; 2], generations: [Launcher; 2]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("keeper-test-")
            .tempdir()
            .unwrap();
        make_image(&dir.path().join("image"));
        Self {
            launcher,
            other: Some(other).into(),
            generations: Some(generations).into(),
            dir,
            number: AtomicU32::new(1),
        }
    }

    /// A container that runs `script` in a shell.
    pub fn shell(&self, script: &str) -> Container {
        self.container(&["/bin/sh", "-c", script], false)
    }

    pub fn container(&self, args: &[&str], terminal: bool) -> Container {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let id = format!(
            "{:064x}",
            u64::from(std::process::id()) << 32 | u64::from(number)
        );
        let dir = self.dir.path().join("containers").join(&id);
        let [upper, work] = ["upper", "work"].map(|name| dir.join(name));
        for path in [&upper, &work] {
            fs::create_dir_all(path).unwrap();
        }
        let launch = Launch {
            version: VERSION,
            id: id.clone(),
            dir: dir.join("run"),
            spec: Box::new(spec(args, terminal)),
            default_seccomp: false,
            user: UserRequest::default(),
            rootfs: Rootfs::Overlay {
                lower: vec![self.dir.path().join("image")],
                upper,
                work,
                volatile: false,
            },
            cgroup: format!("{}/{id}", instance()),
            has_netns: false,
            gated: false,
            open_stdin: false,
            stdin_once: false,
            console_size: None,
            init: false,
            log: LogTarget::JsonFile {
                path: dir.join("log"),
                max_size_bytes: None,
                max_files: 1,
                compress: false,
                attrs: Default::default(),
            },
            attach: Vec::new(),
            oci_runtime: None,
            oci_runtime_args: Vec::new(),
            beneath: Vec::new(),
        };
        Container {
            launch,
            log: dir.join("log"),
            attach: Vec::new(),
        }
    }
}

/// A container to be started, as plain data.
pub struct Container {
    pub launch: Launch,
    pub log: PathBuf,
    attach: Vec<UnixStream>,
}

impl Container {
    /// Attaches before the start; returns the client's end.
    pub fn attach(&mut self, options: AttachOptions) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        self.launch.attach.push(options);
        self.attach.push(theirs);
        ours
    }

    /// Launches it; returns the control connection and the keeper's process id.
    pub fn launch(self, launcher: &Launcher) -> (Control, i32) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let attach: Vec<_> = self.attach.iter().map(AsFd::as_fd).collect();
        let dir = self.launch.dir.clone();
        let pid = launcher
            .launch(self.launch, theirs.as_fd(), None, &attach)
            .unwrap();
        (Control::new(ours, dir), pid.unwrap())
    }

    /// Launches it and waits until it runs.
    pub fn start(self, launcher: &Launcher) -> Control {
        let (mut control, _) = self.launch(launcher);
        control.started();
        control
    }
}

/// The daemon's side of a keeper.
pub struct Control {
    socket: UnixStream,
    pub dir: PathBuf,
    seq: u64,
    events: VecDeque<Event>,
}

impl Control {
    fn new(socket: UnixStream, dir: PathBuf) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            dir,
            seq: 0,
            events: VecDeque::new(),
        }
    }

    /// What a new daemon does.
    pub fn connect(dir: &Path) -> (Self, KeeperState) {
        let mut control = Self::new(keeper::connect(dir).unwrap(), dir.to_owned());
        match control.request(RequestBody::Hello { version: VERSION }, &[]) {
            ReplyBody::State(state) => (control, state),
            other => panic!("{other:?}"),
        }
    }

    pub fn request(&mut self, body: RequestBody, fds: &[&UnixStream]) -> ReplyBody {
        self.seq += 1;
        let frame = framing::encode(&Request {
            seq: self.seq,
            body,
        })
        .unwrap();
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        framing::send(&self.socket, &frame, &fds).unwrap();
        loop {
            match self.receive().expect("the keeper is gone") {
                Message::Reply(reply) if reply.seq == self.seq => return reply.body,
                Message::Reply(other) => panic!("{other:?}"),
                Message::Event(event) => self.events.push_back(event),
            }
        }
    }

    pub fn done(&mut self, body: RequestBody, fds: &[&UnixStream]) {
        let reply = self.request(body, fds);
        assert!(matches!(reply, ReplyBody::Done), "{reply:?}");
    }

    /// The first event, also a past one, that `pick` takes.
    pub fn event<T>(&mut self, pick: impl Fn(&Event) -> Option<T>) -> T {
        let mut seen = 0;
        loop {
            while let Some(event) = self.events.get(seen) {
                if let Some(picked) = pick(event) {
                    self.events.remove(seen);
                    return picked;
                }
                seen += 1;
            }
            match self.receive() {
                Some(Message::Event(event)) => self.events.push_back(event),
                other => panic!("no such event before {other:?}; {:?}", self.events),
            }
        }
    }

    /// Opens the gate of a start.
    pub fn go(&mut self) {
        self.socket.write_all(&[1]).unwrap();
    }

    /// Closes the gate of a start for good.
    pub fn call_off(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    pub fn started(&mut self) -> i32 {
        self.event(|event| match event {
            Event::Started { pid, .. } => Some(*pid),
            Event::StartFailed(failure) => panic!("{failure:?}"),
            _ => None,
        })
    }

    pub fn exited(&mut self) -> ExitRecord {
        self.event(|event| match event {
            Event::Exited(record) => Some(record.clone()),
            _ => None,
        })
    }

    /// Kills the container's first process and waits for its end.
    pub fn kill(&mut self) -> ExitRecord {
        let (signal, target) = (9, Target::Init);
        self.done(RequestBody::Signal { signal, target }, &[]);
        self.exited()
    }

    pub fn exec_exited(&mut self, wanted: &str) -> i32 {
        self.event(|event| match event {
            Event::ExecExited { exec, code } if exec == wanted => Some(*code),
            _ => None,
        })
    }

    /// Waits for the keeper's end; returns the events until then.
    pub fn end(mut self) -> Vec<Event> {
        while let Some(Message::Event(event)) = self.receive() {
            self.events.push_back(event);
        }
        self.events.into()
    }

    fn receive(&mut self) -> Option<Message> {
        let (body, _) = framing::recv(&self.socket).unwrap()?;
        Some(framing::decode(&body).unwrap())
    }
}

/// Reads a json-file log: the text of each stream.
pub fn read_log(path: &Path) -> (String, String) {
    let mut streams = (String::new(), String::new());
    let text = fs::read_to_string(path).unwrap();
    // While a batch is written, a reader sees the file grow page by page: what follows the last
    // newline is not a record yet.
    let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
    for line in whole.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = record["log"].as_str().unwrap();
        match record["stream"].as_str().unwrap() {
            "stdout" => streams.0.push_str(text),
            _ => streams.1.push_str(text),
        }
    }
    streams
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

pub fn options(stdin: bool, multiplexed: bool) -> AttachOptions {
    AttachOptions {
        stdin,
        stdout: true,
        stderr: true,
        multiplexed,
        detach_keys: vec![16, 17],
    }
}

/// A process for an exec.
pub fn process(args: &[&str], terminal: bool) -> Box<Process> {
    let capabilities: Vec<_> = defaults::CAPABILITIES.iter().collect();
    let sets = ["bounding", "effective", "permitted"].map(|set| (set, json!(capabilities)));
    let process = json!({
        "terminal": terminal,
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": serde_json::Map::from_iter(sets.map(|(set, list)| (set.to_owned(), list))),
        "noNewPrivileges": false,
    });
    serde_json::from_value(process).unwrap()
}

fn spec(args: &[&str], terminal: bool) -> Spec {
    let namespaces = ["pid", "ipc", "uts", "mount", "network", "cgroup"];
    let spec = json!({
        "ociVersion": "1.2.0",
        "process": process(args, terminal),
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": defaults::mounts(),
        "linux": {
            "namespaces": namespaces.map(|kind| json!({"type": kind})),
            "devices": defaults::devices(),
            "resources": {"devices": defaults::device_rules()},
            "maskedPaths": defaults::masked_paths(),
            "readonlyPaths": defaults::readonly_paths(),
        },
    });
    serde_json::from_value(spec).unwrap()
}

/// Busybox under all its names.
fn make_image(root: &Path) {
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let list = std::process::Command::new("/bin/busybox")
        .arg("--list")
        .output()
        .unwrap();
    for name in String::from_utf8(list.stdout)
        .unwrap()
        .lines()
        .filter(|name| *name != "busybox")
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
}
