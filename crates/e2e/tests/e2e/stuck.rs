//! A container that hangs blocks nobody else.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_testkit::{Daemon, run, sh, until};
use rustix::process::Signal;

use crate::daemon;

/// A file system whose one file, `file`, is never read to the end.
struct Hung {
    server: Child,
    path: PathBuf,
}

impl Hung {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("berth-hung-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let server = Command::new("python3")
            .args(["-c", SERVER])
            .arg(&path)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        until("it is mounted", || {
            let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
            mounts.contains(path.to_str().unwrap()).then_some(())
        });
        Self { server, path }
    }

    /// Every read ends with an error.
    fn end(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // It has ended before, if all went well.
        let _ = self.server.kill();
        let _ = self.server.wait();
        sh(&format!("umount -l {0}; rmdir {0}", self.path.display()));
    }
}

/// A FUSE server (fuse(4), `linux/fuse.h`) that does not answer READ.
const SERVER: &str = r#"
import ctypes, os, struct, sys
fd = os.open('/dev/fuse', os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f'fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other'.encode()
if libc.mount(b'hung', sys.argv[1].encode(), b'fuse', 0, options) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, OPENDIR, RELEASEDIR, INTERRUPT, BATCH = \
    1, 2, 3, 14, 15, 18, 25, 26, 27, 29, 36, 42
def attributes(node):
    mode, size = (0o40755, 0) if node == 1 else (0o100644, 4096)
    return struct.pack('<6Q10I', node, size, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)
while True:
    request = os.read(fd, 1 << 20)
    length, code, unique, node = struct.unpack_from('<IIQQ', request)
    error, answer = 0, b''
    if code in (FORGET, BATCH, INTERRUPT, READ):
        continue
    elif code == INIT:
        answer = struct.pack('<4I2H2I2H8I', 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, *[0] * 8)
    elif code == GETATTR:
        answer = struct.pack('<QII', 60, 0, 0) + attributes(node)
    elif code == LOOKUP:
        answer = struct.pack('<4Q2I', 2, 0, 60, 60, 0, 0) + attributes(2)
    elif code in (OPEN, OPENDIR):
        answer = struct.pack('<QII', 1, 1, 0)
    elif code not in (FLUSH, RELEASE, RELEASEDIR):
        error = -38
    os.write(fd, struct.pack('<IiQ', 16 + len(answer), error, unique) + answer)
"#;

fn start(daemon: &Daemon, name: &str, words: &[&str]) -> String {
    let head = ["run", "-d", "--name", name];
    daemon.docker(&[&head, words].concat()).ok().to_owned()
}

/// Whatever is asked of the others is answered, and what is only read of the stuck one, too.
fn others_are_served(daemon: &Daemon, stuck: &str) {
    assert!(daemon.docker(&["ps"]).ok().contains(stuck));
    for name in [stuck, "free"] {
        let form = "{{.State.Running}}";
        assert_eq!(daemon.docker(&["inspect", "-f", form, name]).ok(), "true");
        daemon.docker(&["logs", name]).ok();
        daemon.docker(&["top", name]).ok();
    }
    daemon.docker(&["exec", "free", "true"]).ok();
    daemon.docker(&["run", "--rm", "busybox", "true"]).ok();
}

#[test]
fn a_container_that_hangs_in_a_file_system_blocks_nobody_else() {
    let mut hung = Hung::new();
    let mut daemon = daemon();
    start(&daemon, "free", &["busybox", "sleep", "1000"]);
    let volume = format!("{}:/hung", hung.path.display());
    start(
        &daemon,
        "stuck",
        &[
            "-v",
            &volume,
            "busybox",
            "sh",
            "-c",
            "echo reads; exec cat /hung/file",
        ],
    );
    let pid = daemon
        .docker(&["inspect", "-f", "{{.State.Pid}}", "stuck"])
        .ok()
        .to_owned();
    until("it hangs", || {
        let stack = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap();
        (stack.contains("fuse") || stack.contains("folio") || stack.contains("request"))
            .then_some(())
    });
    others_are_served(&daemon, "stuck");
    let mut stop = daemon.docker_command();
    let mut stop = stop
        .args(["stop", "-t", "1", "stuck"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    others_are_served(&daemon, "stuck");
    daemon.signal(Signal::KILL);
    let _ = stop.wait();
    daemon.spawn();
    others_are_served(&daemon, "stuck");
    let removal = daemon.docker(&["rm", "-f", "stuck"]);
    removal.fails(1, "could not kill container");
    hung.end();
    assert_eq!(daemon.docker(&["wait", "stuck"]).ok(), "137");
    daemon.docker(&["rm", "-f", "stuck"]).ok();
}

#[test]
fn a_container_that_others_have_frozen_blocks_nobody_else_and_can_be_removed() {
    let daemon = daemon();
    start(&daemon, "free", &["busybox", "sleep", "1000"]);
    let id = start(&daemon, "stuck", &["busybox", "sleep", "1000"]);
    let freezer = Path::new("/sys/fs/cgroup/freezer");
    let (file, frozen) = if freezer.exists() {
        (
            freezer
                .join(daemon.instance())
                .join(&id)
                .join("freezer.state"),
            "FROZEN",
        )
    } else {
        let group = Path::new("/sys/fs/cgroup")
            .join(daemon.instance())
            .join(&id);
        (group.join("cgroup.freeze"), "1")
    };
    std::fs::write(&file, frozen).unwrap();
    // The keeper waits for a command that cannot begin.
    let mut exec = daemon.docker_command();
    let mut exec = exec
        .args(["exec", "stuck", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let procs = file.with_file_name("cgroup.procs");
    until("the command is in there", || {
        let procs = std::fs::read_to_string(&procs).unwrap();
        (procs.lines().count() == 2).then_some(())
    });
    others_are_served(&daemon, "stuck");
    let output = run(daemon.docker_command().args(["rm", "-f", "stuck"]), b"");
    output.ok();
    exec.wait().unwrap();
    others_are_served_alone(&daemon);
}

fn others_are_served_alone(daemon: &Daemon) {
    daemon.docker(&["exec", "free", "true"]).ok();
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok().lines().count(), 1);
}
