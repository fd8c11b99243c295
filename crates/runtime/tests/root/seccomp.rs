//! Seccomp profiles in the kernel: what they refuse, and the agent that is asked.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use berth_runtime::container::{self, ExecRequest};
use berth_runtime::hooks::Subject;
use berth_runtime::seccomp::Filter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::bundle::{Bundle, Pipes};

crate::claims![
    every_action_does_what_it_says,
    arguments_are_looked_at,
    flags_are_taken_by_the_kernel,
    an_agent_gets_the_filter_and_the_state,
    an_agent_gets_the_filter_of_an_exec,
    without_its_agent_a_container_does_not_start,
];

fn filtered(script: &str, syscalls: Value) -> Bundle {
    let mut bundle = Bundle::new(&["sh", "-c", script]);
    bundle.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "syscalls": syscalls,
    });
    bundle
}

fn every_action_does_what_it_says() {
    for (action, errno, expect) in [
        ("SCMP_ACT_ERRNO", json!(28), "1\n"),
        ("SCMP_ACT_ALLOW", Value::Null, "0\n"),
        ("SCMP_ACT_LOG", Value::Null, "0\n"),
        ("SCMP_ACT_KILL", Value::Null, "159\n"),
        ("SCMP_ACT_KILL_THREAD", Value::Null, "159\n"),
        ("SCMP_ACT_KILL_PROCESS", Value::Null, "159\n"),
        ("SCMP_ACT_TRAP", Value::Null, "159\n"),
        // Without a tracer the call is not implemented.
        ("SCMP_ACT_TRACE", json!(5), "1\n"),
    ] {
        let rule = json!([{"names": ["mkdir", "mkdirat"], "action": action, "errnoRet": errno}]);
        let output = filtered("mkdir /x 2>/dev/null; echo $?", rule).run();
        assert_eq!(output.unwrap().stdout, expect, "{action}");
    }
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let output = filtered("mkdir /x", rule).run().unwrap();
    assert!(output.stderr.contains("No space left"), "{}", output.stderr);
}

fn arguments_are_looked_at() {
    // kill(pid, 10) is refused, and only for that signal.
    let rule = json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
        "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]}]);
    let script = "trap 'echo usr1' USR1; trap 'echo usr2' USR2; kill -USR1 $$ 2>/dev/null || echo refused; kill -USR2 $$";
    let output = filtered(script, rule).run().unwrap();
    assert_eq!(output.stdout, "refused\nusr2\n");
}

fn flags_are_taken_by_the_kernel() {
    let rule = json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]);
    let mut bundle = filtered("grep Seccomp: /proc/self/status", rule);
    bundle.spec["linux"]["seccomp"]["flags"] = json!([
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    ]);
    assert_eq!(bundle.run().unwrap().stdout, "Seccomp:\t2\n");
}

/// A container whose calls of mkdir an agent decides about.
fn asked(script: &str) -> (Bundle, UnixListener) {
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]);
    let mut bundle = filtered(script, rule);
    let path = bundle.directory.path().join("agent");
    let seccomp = &mut bundle.spec["linux"]["seccomp"];
    seccomp["listenerPath"] = json!(path);
    seccomp["listenerMetadata"] = json!("the metadata");
    seccomp["flags"] = json!([
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
    ]);
    let listener = UnixListener::bind(path).unwrap();
    (bundle, listener)
}

/// What the agent is told, and the filter's descriptor.
fn told(listener: &UnixListener) -> (Value, OwnedFd) {
    let (socket, _) = listener.accept().unwrap();
    let (mut text, mut descriptors) = (Vec::new(), VecDeque::new());
    loop {
        let mut part = [0; 4096];
        let flags = rustix::net::RecvFlags::empty();
        match berth_sys::fdpass::recv_some(&socket, &mut part, &mut descriptors, flags).unwrap() {
            0 => break,
            length => text.extend_from_slice(&part[..length]),
        }
    }
    assert_eq!(descriptors.len(), 1);
    let state = serde_json::from_slice(&text).unwrap();
    (state, descriptors.pop_front().unwrap())
}

/// Waits for a call to decide about, and goes away: then it is not implemented.
fn refuse_by_leaving(filter: OwnedFd) {
    let limit = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let mut polled = [PollFd::new(&filter, PollFlags::IN)];
    assert_eq!(poll(&mut polled, Some(&limit)).unwrap(), 1, "nobody asks");
    drop(filter);
}

fn an_agent_gets_the_filter_and_the_state() {
    for init in [false, true] {
        let (mut bundle, listener) = asked("mkdir /x; echo $?");
        bundle.init = init;
        bundle.spec["annotations"] = json!({"a": "b"});
        let (container, pipes) = bundle.start().unwrap();
        let (message, filter) = told(&listener);
        let pid = container.pid().as_raw_nonzero().get();
        assert_eq!(message["ociVersion"], "1.2.0");
        assert_eq!(message["fds"], json!(["seccompFd"]));
        assert_eq!(message["pid"], pid);
        assert_eq!(message["metadata"], "the metadata");
        let state = &message["state"];
        assert_eq!(
            (&state["status"], &state["pid"]),
            (&json!("creating"), &json!(pid))
        );
        assert_eq!(state["annotations"], json!({"a": "b"}));
        refuse_by_leaving(filter);
        let (stdout, stderr) = pipes.read();
        assert_eq!(stdout, "1\n");
        assert!(stderr.contains("not implemented"), "{stderr}");
        container::wait(container.pidfd()).unwrap();
        container.remove_cgroup().unwrap();
    }
}

fn an_agent_gets_the_filter_of_an_exec() {
    let (bundle, listener) = asked("sleep 1000");
    let (container, _pipes) = bundle.start().unwrap();
    drop(told(&listener));
    let seccomp = serde_json::from_value(bundle.spec["linux"]["seccomp"].clone()).unwrap();
    let subject = Subject {
        version: "1.2.0",
        id: "x",
        bundle: bundle.directory.path(),
        annotations: None,
    };
    let filter = Filter::compile(&seccomp).unwrap();
    let agent = filter.agent(&subject, "running").unwrap();
    let mut process = bundle.spec["process"].clone();
    process["args"] = json!(["mkdir", "/x"]);
    let process = serde_json::from_value(process).unwrap();
    let (pipes, stdio) = Pipes::new();
    let joined = container
        .exec(ExecRequest {
            filter: Some(&filter),
            agent: Some(&agent),
            ..ExecRequest::new(&process, stdio)
        })
        .unwrap();
    let (message, filter) = told(&listener);
    assert_eq!(message["state"]["status"], "running");
    assert_eq!(message["pid"], joined.pid.as_raw_nonzero().get());
    refuse_by_leaving(filter);
    assert!(pipes.read().1.contains("not implemented"));
    container::wait(joined.pidfd.as_fd()).unwrap();
    container.kill(libc::SIGKILL).unwrap();
    container::wait(container.pidfd()).unwrap();
    container.remove_cgroup().unwrap();
}

fn without_its_agent_a_container_does_not_start() {
    let (bundle, listener) = asked("true");
    drop(listener);
    let error = bundle.run().err().unwrap();
    assert!(
        error.message.contains("connect to the seccomp agent"),
        "{}",
        error.message
    );
}
