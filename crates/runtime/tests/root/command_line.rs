//! `berth runtime` as a caller of OCI runtimes uses it.

use std::ffi::OsString;
use std::path::Path;

use berth_runtime::cli::{self, Invocation};
use serde_json::json;

use crate::bundle::{Bundle, wait_for};

crate::claims![
    a_container_goes_from_created_to_gone,
    a_run_returns_the_exit_code,
    a_failed_create_frees_the_id,
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
