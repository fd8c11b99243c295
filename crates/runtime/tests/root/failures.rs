//! What goes wrong is told in the words that Docker's clients know, and leaves nothing behind
//! (which the runner checks at the end).

use std::path::Path;

use berth_runtime::container::{self, ErrorKind, ExecRequest, Exit};
use serde_json::json;

use crate::bundle::{Bundle, Pipes};

crate::claims![
    commands_that_cannot_run_are_told_apart,
    a_bad_working_directory_is_named,
    a_bad_mount_is_named,
    a_script_without_an_interpreter_starts_and_ends_with_255,
    a_limit_beyond_the_hosts_is_refused,
    sysctls_of_the_host_are_refused,
    labels_that_nothing_enforces_are_refused,
];

const PREFIX: &str = "runc create failed: unable to start container process: ";

fn check(bundle: &Bundle, kind: ErrorKind, message: &str) {
    let error = bundle.run().err().expect("the container must not start");
    assert_eq!(error.message, format!("{PREFIX}{message}"));
    assert_eq!(error.kind, kind);
}

fn commands_that_cannot_run_are_told_apart() {
    let init = "error during container init: ";
    for (command, kind, message) in [
        (
            "x",
            ErrorKind::CommandNotFound,
            "exec: \"x\": executable file not found in $PATH",
        ),
        (
            "/x",
            ErrorKind::CommandNotFound,
            "exec: \"/x\": stat /x: no such file or directory",
        ),
        (
            "/etc/passwd",
            ErrorKind::CommandNotExecutable,
            "exec: \"/etc/passwd\": permission denied",
        ),
        (
            "/tmp",
            ErrorKind::CommandNotExecutable,
            "exec: \"/tmp\": is a directory",
        ),
        (
            "",
            ErrorKind::CommandNotFound,
            "exec: \"\": executable file not found in $PATH",
        ),
    ] {
        check(&Bundle::new(&[command]), kind, &format!("{init}{message}"));
    }
}

fn a_bad_working_directory_is_named() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.spec["process"]["cwd"] = json!("/etc/passwd");
    check(
        &bundle,
        ErrorKind::CommandNotExecutable,
        "error during container init: chdir to cwd (\"/etc/passwd\") set in config.json failed: not a directory",
    );
}

fn a_bad_mount_is_named() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.spec["mounts"].as_array_mut().unwrap().push(json!(
        {"destination": "/etc/passwd", "type": "bind", "source": "/tmp", "options": ["rbind"]}
    ));
    let error = bundle.run().err().unwrap();
    let start = format!(
        "{PREFIX}error during container init: error mounting \"/tmp\" to rootfs at \"/etc/passwd\": "
    );
    assert!(error.message.starts_with(&start), "{}", error.message);
    assert!(
        error.message.ends_with(": not a directory"),
        "{}",
        error.message
    );
}

fn a_script_without_an_interpreter_starts_and_ends_with_255() {
    let bundle = Bundle::new(&["/bad"]);
    std::fs::write(bundle.lower().join("bad"), "no program").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bundle.lower().join("bad"), mode).unwrap();
    let output = bundle.run().unwrap();
    assert_eq!(
        (output.stderr.as_str(), output.exit),
        ("exec /bad: exec format error\n", Exit::Code(255))
    );
}

fn a_limit_beyond_the_hosts_is_refused() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.spec["process"]["rlimits"] =
        json!([{"type": "RLIMIT_NOFILE", "soft": 2_000_000_000, "hard": 2_000_000_000}]);
    check(
        &bundle,
        ErrorKind::InvalidRequest,
        "error during container init: error setting rlimits for ready process: error setting rlimit type 7: operation not permitted",
    );
}

fn sysctls_of_the_host_are_refused() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.spec["linux"]["sysctl"] = json!({"kernel.panic": "1"});
    assert_eq!(
        bundle.run().err().unwrap().message,
        "runc create failed: sysctl \"kernel.panic\" is not in a separate kernel namespace"
    );
}

/// As by runc beside it. A host that does enforce labels does not know these.
fn labels_that_nothing_enforces_are_refused() {
    let with = |part: &str, field: &str, label: &str| {
        let mut bundle = Bundle::new(&["true"]);
        bundle.spec[part][field] = json!(label);
        bundle.run().map(|output| output.exit)
    };
    let refused = |part, field| with(part, field, "nonesuch").unwrap_err().message;
    let words = refused("process", "apparmorProfile");
    let start = format!("{PREFIX}error during container init: unable to apply apparmor profile: ");
    assert!(words.starts_with(&start), "{words}");
    let words = refused("linux", "mountLabel");
    let start = format!("{PREFIX}error during container init: error mounting \"tmpfs\" to rootfs");
    assert!(words.starts_with(&start), "{words}");
    let words = refused("process", "selinuxLabel");
    let reason = "selinux label is specified in config, but selinux is disabled or not supported";
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        assert_eq!(words, format!("runc create failed: {reason}"));
        let bundle = Bundle::new(&["sleep", "1000"]);
        let (container, _pipes) = bundle.start().unwrap();
        let mut process = bundle.spec["process"].clone();
        process["selinuxLabel"] = json!("nonesuch");
        let process = serde_json::from_value(process).unwrap();
        let request = ExecRequest::new(&process, Pipes::new().1);
        let error = container.exec(request).err().unwrap();
        assert_eq!(error.message, format!("exec failed: {reason}"));
        container.kill(libc::SIGKILL).unwrap();
        container::wait(container.pidfd()).unwrap();
        container.remove_cgroup().unwrap();
    }
    for (part, field) in [
        ("process", "apparmorProfile"),
        ("process", "selinuxLabel"),
        ("linux", "mountLabel"),
    ] {
        assert_eq!(with(part, field, "").unwrap(), Exit::Code(0), "{field}");
    }
}
