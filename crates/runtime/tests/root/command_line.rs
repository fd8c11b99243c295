//! `berth runtime` as a caller of OCI runtimes uses it.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;

use berth_runtime::cli::{self, Invocation};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

use crate::bundle::{Bundle, wait_for};

crate::claims![
    a_container_goes_from_created_to_gone,
    a_run_returns_the_exit_code,
    a_failed_create_frees_the_id,
    a_mount_namespace_is_joined_unless_it_is_the_hosts,
    a_container_is_shown_listed_and_counted,
    a_terminal_is_handed_over,
];

/// The bundle with a configuration, a plain directory as root, and somewhere to write.
pub fn bundle(script: &str) -> Bundle {
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    let host = bundle.directory.path().join("host");
    std::fs::create_dir(&host).unwrap();
    bundle.spec["mounts"].as_array_mut().unwrap().push(json!(
        {"destination": "/host", "type": "bind", "source": host, "options": ["rbind"]}
    ));
    bundle.spec["root"]["path"] = json!("lower");
    bundle.spec["linux"]["cgroupsPath"] = json!(bundle.cgroup());
    write(&bundle);
    bundle
}

pub fn write(bundle: &Bundle) {
    std::fs::write(
        bundle.directory.path().join("config.json"),
        bundle.spec.to_string(),
    )
    .unwrap();
}

/// The same in a process of its own, which a line of the shell has prepared: descriptors of this
/// test are not for its containers.
pub fn call_within(bundle: &Bundle, prepared: &str, listen_fds: u32, args: &[&str]) -> i32 {
    let status = std::process::Command::new("sh")
        .args(["-c", &format!("{prepared}; exec \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([CALL, &listen_fds.to_string()])
        .arg(bundle.directory.path().join("state"))
        .args(args)
        .status()
        .unwrap();
    status.code().unwrap()
}

/// The first word of a call of [`call_within`], which `main` passes to [`called`].
pub const CALL: &str = "--call-runtime";

pub fn called(words: &[String]) -> i32 {
    let args: Vec<OsString> = words[2..].iter().map(OsString::from).collect();
    cli::main(&Invocation {
        program: "berth runtime",
        args: &args,
        default_root: Path::new(&words[1]),
        listen_fds: words[0].parse().unwrap(),
        notify_socket: None,
    })
}

pub fn call(bundle: &Bundle, args: &[&str]) -> i32 {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    let root = bundle.directory.path().join("state");
    cli::main(&Invocation {
        program: "berth runtime",
        args: &args,
        default_root: &root,
        listen_fds: 0,
        notify_socket: None,
    })
}

fn state(bundle: &Bundle, id: &str) -> String {
    std::fs::read_to_string(
        bundle
            .directory
            .path()
            .join("state")
            .join(id)
            .join("state.json"),
    )
    .unwrap()
}

fn a_container_goes_from_created_to_gone() {
    let bundle = bundle("echo started > /host/started; sleep 1000");
    let path = bundle.directory.path();
    let pid_file = path.join("pid");
    let create = [
        "create",
        "--bundle",
        path.to_str().unwrap(),
        "--pid-file",
        pid_file.to_str().unwrap(),
        "c1",
    ];
    assert_eq!(call(&bundle, &create), 0);
    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert!(state(&bundle, "c1").contains(&format!("\"pid\":{pid}")));
    assert!(!path.join("host/started").exists());
    assert_eq!(call(&bundle, &create), 1, "the id is taken");
    assert_eq!(call(&bundle, &["start", "c1"]), 0);
    wait_for(&path.join("host/started"));
    assert_eq!(call(&bundle, &["start", "c1"]), 1, "it runs already");
    assert_eq!(call(&bundle, &["exec", "c1", "sh", "-c", "exit 5"]), 5);
    assert_eq!(call(&bundle, &["exec", "c1", "nothing"]), 255);
    assert_eq!(call(&bundle, &["pause", "c1"]), 0);
    assert_eq!(call(&bundle, &["resume", "c1"]), 0);
    assert_eq!(call(&bundle, &["delete", "c1"]), 1, "it runs");
    assert_eq!(call(&bundle, &["kill", "c1", "KILL"]), 0);
    // This test is the creator, so the zombie is its to reap; a real creator is gone by then.
    let pid = rustix::process::Pid::from_raw(pid);
    rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
    assert_eq!(call(&bundle, &["delete", "c1"]), 0);
    assert_eq!(call(&bundle, &["state", "c1"]), 1, "it is gone");
}

fn a_run_returns_the_exit_code() {
    let bundle = bundle("exit 42");
    let path = bundle.directory.path().to_str().unwrap();
    assert_eq!(call(&bundle, &["run", "-b", path, "c2"]), 42);
    assert!(!Path::new(path).join("state/c2").exists());
}

fn a_mount_namespace_is_joined_unless_it_is_the_hosts() {
    let mut bundle = bundle("exit 5");
    let path = bundle.directory.path().to_str().unwrap().to_owned();
    let mut holder = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!("touch {path}/unshared; exec sleep 1000"))
        .spawn()
        .unwrap();
    wait_for(&bundle.directory.path().join("unshared"));
    for (pid, code) in [(holder.id(), 5), (std::process::id(), 1)] {
        let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
        let mount = namespaces
            .iter_mut()
            .find(|n| n["type"] == "mount")
            .unwrap();
        mount["path"] = json!(format!("/proc/{pid}/ns/mnt"));
        write(&bundle);
        assert_eq!(call(&bundle, &["run", "-b", &path, "c4"]), code);
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
}

/// What a command prints.
fn said(bundle: &Bundle, words: &[&str]) -> String {
    let out = bundle.directory.path().join("out");
    let prepared = format!("exec > {}", out.display());
    assert_eq!(call_within(bundle, &prepared, 0, words), 0, "{words:?}");
    std::fs::read_to_string(out).unwrap()
}

fn json_of(bundle: &Bundle, words: &[&str]) -> serde_json::Value {
    serde_json::from_str(&said(bundle, words)).unwrap()
}

fn a_container_is_shown_listed_and_counted() {
    let mut bundle = bundle("sleep 1000");
    bundle.spec["annotations"] = json!({"a": "b"});
    write(&bundle);
    let path = bundle.directory.path().to_str().unwrap().to_owned();
    let log = format!("{path}/log");
    assert_eq!(
        call_within(
            &bundle,
            "exec >/dev/null",
            0,
            &["run", "-d", "-b", &path, "c5"]
        ),
        0
    );
    let state = json_of(&bundle, &["state", "c5"]);
    assert_eq!(state["ociVersion"], bundle.spec["ociVersion"]);
    assert_eq!(
        (&state["id"], &state["status"]),
        (&json!("c5"), &json!("running"))
    );
    assert_eq!(
        (&state["bundle"], &state["annotations"]["a"]),
        (&json!(path), &json!("b"))
    );
    let pid = &state["pid"];
    let list = json_of(&bundle, &["list", "--format", "json"]);
    assert_eq!((&list[0]["pid"], &list[0]["owner"]), (pid, &json!("root")));
    assert_eq!(said(&bundle, &["list", "-q"]), "c5\n");
    let table = said(&bundle, &["list"]);
    assert!(table.contains(&format!("c5          {pid}")), "{table}");
    assert_eq!(json_of(&bundle, &["ps", "-f", "json", "c5"]), json!([pid]));
    let table = said(&bundle, &["ps", "c5", "-o", "pid,args"]);
    assert!(table.ends_with("sleep 1000\n"), "{table}");
    let update = ["update", "--memory", "64m", "--pids-limit", "33", "c5"];
    assert_eq!(call(&bundle, &update), 0);
    let stats = json_of(&bundle, &["events", "--stats", "c5"]);
    assert_eq!(
        (&stats["type"], &stats["id"]),
        (&json!("stats"), &json!("c5"))
    );
    assert_eq!(stats["data"]["pids"], json!({"current": 1, "limit": 33}));
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 64 << 20);
    assert_eq!(call(&bundle, &["pause", "c5"]), 0);
    assert_eq!(json_of(&bundle, &["state", "c5"])["status"], "paused");
    let words = ["--log", &log, "--log-format", "json", "exec", "c5", "true"];
    assert_eq!(call(&bundle, &words), 255, "it is paused");
    let line = std::fs::read_to_string(&log).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(
        line["msg"],
        "exec failed: cannot exec in a paused container (use --ignore-paused to override)"
    );
    // Events end with the container, which a signal ends although it is frozen.
    let events = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            CALL,
            "0",
            &format!("{path}/state"),
            "events",
            "--interval",
            "10ms",
            "c5",
        ])
        .stdout(std::fs::File::create(format!("{path}/events")).unwrap())
        .spawn();
    let mut events = events.unwrap();
    let lines = || std::fs::read_to_string(format!("{path}/events")).unwrap();
    while lines().lines().count() < 2 {
        std::thread::yield_now();
    }
    assert_eq!(call(&bundle, &["kill", "c5", "KILL"]), 0);
    assert!(events.wait().unwrap().success());
    assert_eq!(call(&bundle, &["delete", "--force", "c5"]), 0);
    assert_eq!(
        call(&bundle, &["delete", "--force", "c5"]),
        0,
        "it need not exist"
    );
    assert_eq!(said(&bundle, &["list", "-q"]), "");
}

fn a_terminal_is_handed_over() {
    let mut bundle = bundle("test -t 0 && exec sleep 1000");
    bundle.spec["process"]["terminal"] = json!(true);
    write(&bundle);
    let path = bundle.directory.path();
    let (socket, pidfds) = (path.join("socket"), path.join("pidfds"));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let pidfd_listener = std::os::unix::net::UnixListener::bind(&pidfds).unwrap();
    let (socket, pidfds) = (socket.to_str().unwrap(), pidfds.to_str().unwrap());
    let path = path.to_str().unwrap();
    assert_eq!(
        call(&bundle, &["create", "-b", path, "c6"]),
        1,
        "nobody takes the terminal"
    );
    let words = [
        "create",
        "-b",
        path,
        "--console-socket",
        socket,
        "--pidfd-socket",
        pidfds,
        "c6",
    ];
    assert_eq!(call_within(&bundle, ":", 0, &words), 0);
    let master = received(&listener);
    assert!(rustix::termios::isatty(&master));
    let pidfd = received(&pidfd_listener);
    assert_eq!(call(&bundle, &["start", "c6"]), 0);
    assert_eq!(json_of(&bundle, &["state", "c6"])["status"], "running");
    assert!(!has_ended(&pidfd));
    assert_eq!(call(&bundle, &["delete", "-f", "c6"]), 0);
    assert!(has_ended(&pidfd));
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut polled, Some(&at_once)).unwrap() == 1
}

/// The descriptor that the next caller sends.
fn received(listener: &std::os::unix::net::UnixListener) -> OwnedFd {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let (socket, _) = listener.accept().unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0; 64];
    let mut parts = [std::io::IoSliceMut::new(&mut word)];
    recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let descriptors = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.unwrap().next().unwrap()
}

fn a_failed_create_frees_the_id() {
    let mut bundle = bundle("true");
    bundle.spec["process"]["args"] = json!(["nothing"]);
    write(&bundle);
    let path = bundle.directory.path().to_str().unwrap();
    let log = bundle.directory.path().join("log");
    let create = [
        "--log",
        log.to_str().unwrap(),
        "--log-format",
        "json",
        "create",
        "-b",
        path,
        "c3",
    ];
    assert_eq!(call(&bundle, &create), 1);
    assert!(!Path::new(path).join("state/c3").exists());
    let line: serde_json::Value = serde_json::from_slice(&std::fs::read(log).unwrap()).unwrap();
    assert!(
        line["msg"]
            .as_str()
            .unwrap()
            .ends_with("executable file not found in $PATH")
    );
}
