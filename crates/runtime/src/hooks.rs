//! Hooks: programs that a specification names, run at six points of a container's life (OCI
//! runtime specification, config.md "POSIX-platform Hooks").
//!
//! ```text
//!  create                                   start                            delete
//!  mounts made ─ prestart ─ createRuntime ─ createContainer ─ pivot
//!                                           startContainer ─ exec ─ poststart
//!                                                                            gone ─ poststop
//! ```
//!
//! createContainer and startContainer are run by the container's first process, in its
//! namespaces; the others by the runtime. All are told the container's state on their stdin.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use oci_spec::runtime::{Hook, Hooks};
use rustix::fs::MemfdFlags;

use crate::error::{Error, io_words};

/// How much of what a failed hook wrote is shown, in bytes of each stream.
const MAX_SHOWN_BYTES: u64 = 1024;

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Prestart,
    CreateRuntime,
    CreateContainer,
    StartContainer,
    Poststart,
    Poststop,
}

/// The points of a container's life, in their order.
pub const POINTS: [Point; 6] = [
    Point::Prestart,
    Point::CreateRuntime,
    Point::CreateContainer,
    Point::StartContainer,
    Point::Poststart,
    Point::Poststop,
];

impl Point {
    /// As the specification's property is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// The `status` that the hook is told.
    fn status(self) -> &'static str {
        match self {
            Self::Prestart | Self::CreateRuntime | Self::CreateContainer => "creating",
            Self::StartContainer => "created",
            Self::Poststart => "running",
            Self::Poststop => "stopped",
        }
    }

    /// The hooks of this point, in their order.
    #[allow(
        deprecated,
        reason = "prestart is deprecated in the specification, and widely used"
    )]
    pub fn of(self, hooks: &Hooks) -> &[Hook] {
        let list = match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}

/// The container that a hook is told about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// `ociVersion` of its specification.
    pub version: &'a str,
    pub id: &'a str,
    pub bundle: &'a Path,
    pub annotations: Option<&'a HashMap<String, String>>,
}

impl Subject<'_> {
    /// The state, as the specification's "State" has it; `pid` is left out when it is 0.
    pub(crate) fn state(&self, status: &str, pid: i32) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": self.version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
        });
        if pid != 0 {
            state["pid"] = pid.into();
        }
        if let Some(annotations) = self.annotations.filter(|map| !map.is_empty()) {
            state["annotations"] = serde_json::json!(annotations);
        }
        state
    }
}

/// Refuses what could never be run.
pub fn check(hooks: &Hooks) -> Result<(), Error> {
    for point in POINTS {
        for hook in point.of(hooks) {
            let name = point.name();
            if !hook.path().is_absolute() {
                let path = hook.path().display();
                let message = format!("{name} hook path {path} must be absolute");
                return Err(Error::invalid(message));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return Err(Error::invalid(format!(
                    "{name} hook timeout must be greater than zero"
                )));
            }
        }
    }
    Ok(())
}

/// Whether anything is to be run at one of the points.
pub fn any(hooks: &Hooks, points: &[Point]) -> bool {
    points.iter().any(|point| !point.of(hooks).is_empty())
}

/// Runs the hooks of a point up to the first that fails. `pid` is the container's first process,
/// in the caller's pid namespace; 0 when it is gone. `env` is the environment of hooks that have
/// none of their own; without it they have ours.
pub fn run(
    hooks: &Hooks,
    point: Point,
    subject: &Subject<'_>,
    pid: i32,
    env: Option<&[CString]>,
) -> Result<(), Error> {
    match failures(hooks, point, subject, pid, env).next() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Runs the hooks of a point whatever becomes of them, and returns what went wrong.
pub fn run_all(hooks: &Hooks, point: Point, subject: &Subject<'_>) -> Vec<Error> {
    failures(hooks, point, subject, 0, None).collect()
}

fn failures<'a>(
    hooks: &'a Hooks,
    point: Point,
    subject: &'a Subject<'_>,
    pid: i32,
    env: Option<&'a [CString]>,
) -> impl Iterator<Item = Error> + 'a {
    point
        .of(hooks)
        .iter()
        .enumerate()
        .filter_map(move |(index, hook)| {
            let state = subject.state(point.status(), pid).to_string();
            run_one(hook, &state, env).err().map(|reason| {
                let name = point.name();
                Error::internal(format!("error running {name} hook #{index}: {reason}"))
            })
        })
}

/// Waits for the hook's end. Its streams are files in memory, so a hook that does not read, or
/// that leaves a process with its streams behind, holds nobody up.
fn run_one(hook: &Hook, state: &str, env: Option<&[CString]>) -> Result<(), String> {
    let words = |what: &str, error: &io::Error| format!("{what}: {}", io_words(error));
    let file = |name: &str| {
        rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)
            .map(File::from)
            .map_err(|e| words("memfd", &e.into()))
    };
    let copy = |file: &File| file.try_clone().map_err(|e| words("duplicate", &e));
    let mut stdin = file("state")?;
    stdin
        .write_all(state.as_bytes())
        .and_then(|()| stdin.rewind())
        .map_err(|e| words("write state", &e))?;
    let (stdout, stderr) = (file("stdout")?, file("stderr")?);
    let path = hook.path().display();
    let mut command = Command::new(hook.path());
    let mut args = hook.args().iter().flatten();
    if let Some(name) = args.next() {
        command.arg0(name).args(args);
    }
    match (hook.env().as_ref().filter(|env| !env.is_empty()), env) {
        (Some(own), _) => {
            let pairs = own
                .iter()
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            command.env_clear().envs(pairs);
        }
        (None, Some(env)) => {
            command.env_clear();
            for pair in env.iter().map(|pair| pair.as_bytes()) {
                if let Some(end) = pair.iter().position(|&byte| byte == b'=') {
                    let (name, value) = (&pair[..end], &pair[end + 1..]);
                    command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
                }
            }
        }
        (None, None) => {}
    }
    let mut child = command
        .stdin(stdin)
        .stdout(copy(&stdout)?)
        .stderr(copy(&stderr)?)
        .spawn()
        .map_err(|e| words(&format!("fork/exec {path}"), &e))?;
    let timeout = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok());
    let status = match timeout {
        None => child.wait().map_err(|e| words("wait", &e))?,
        Some(seconds) => berth_sys::wait::child(&mut child, Duration::from_secs(seconds))
            .map_err(|e| words("wait", &e))?
            .ok_or_else(|| format!("hook ran past specified timeout of {seconds}.0s"))?,
    };
    match status.success() {
        true => Ok(()),
        false => Err(format!(
            "{}, stdout: {}, stderr: {}",
            ending(status),
            shown(stdout),
            shown(stderr)
        )),
    }
}

/// As Go words it.
fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => "unknown end".to_owned(),
    }
}

fn shown(mut file: File) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is not shown; the hook's exit code is what counts.
    let _ = file
        .rewind()
        .and_then(|()| file.take(MAX_SHOWN_BYTES).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hooks(value: serde_json::Value) -> Hooks {
        serde_json::from_value(value).unwrap()
    }

    fn go(hooks: &Hooks, point: Point) -> Result<(), Error> {
        let annotations = HashMap::from([("a".to_owned(), "b".to_owned())]);
        let subject = Subject {
            version: "1.2.0",
            id: "c1",
            bundle: Path::new("/bundle"),
            annotations: Some(&annotations),
        };
        run(hooks, point, &subject, 42, None)
    }

    #[test]
    fn a_hook_gets_the_state_its_arguments_and_its_environment() {
        let out = tempfile::NamedTempFile::new().unwrap();
        let script = format!("cat > {0}; echo \"|$0|$1|$X\" >> {0}", out.path().display());
        let hooks = hooks(json!({"poststart": [
            {"path": "/bin/sh", "args": ["sh", "-c", script, "name", "one"],
             "env": ["X=y=z", "PATH=/usr/bin:/bin"]},
        ]}));
        go(&hooks, Point::Poststart).unwrap();
        let text = std::fs::read_to_string(out.path()).unwrap();
        let (state, rest) = text.split_once('|').unwrap();
        assert_eq!(rest, "name|one|y=z\n");
        let state: serde_json::Value = serde_json::from_str(state).unwrap();
        let expected = json!({"ociVersion": "1.2.0", "id": "c1", "status": "running",
            "bundle": "/bundle", "pid": 42, "annotations": {"a": "b"}});
        assert_eq!(state, expected);
    }

    #[test]
    fn the_first_failure_ends_the_point_and_is_told() {
        let hooks = hooks(json!({"prestart": [
            {"path": "/bin/true"},
            {"path": "/bin/sh", "args": ["sh", "-c", "echo out; echo err >&2; exit 3"]},
            {"path": "/nonexistent"},
        ]}));
        assert_eq!(
            go(&hooks, Point::Prestart).unwrap_err().message,
            "error running prestart hook #1: exit status 3, stdout: out\n, stderr: err\n"
        );
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed() {
        let hooks = hooks(json!({"poststop": [
            {"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1},
        ]}));
        assert_eq!(
            go(&hooks, Point::Poststop).unwrap_err().message,
            "error running poststop hook #0: hook ran past specified timeout of 1.0s"
        );
    }

    #[test]
    fn hooks_that_cannot_be_are_refused() {
        assert!(check(&hooks(json!({"poststop": [{"path": "relative"}]}))).is_err());
        assert!(
            check(&hooks(
                json!({"createRuntime": [{"path": "/x", "timeout": 0}]})
            ))
            .is_err()
        );
        assert!(
            check(&hooks(
                json!({"createRuntime": [{"path": "/x", "timeout": 1}]})
            ))
            .is_ok()
        );
    }
}
