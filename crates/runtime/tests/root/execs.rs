//! Processes that join a running container.

use std::fs::File;
use std::io::Read;

use berth_runtime::container::{
    self, Container, ErrorKind, ExecRequest, Exit, Stdio, TerminalSize,
};
use oci_spec::runtime::Process;
use serde_json::json;

use crate::bundle::{Bundle, Output, Pipes};

crate::claims![
    an_exec_sees_the_containers_world,
    an_exec_is_in_the_containers_cgroup,
    an_exec_has_the_filter_and_the_capabilities,
    a_terminal_has_its_size_and_is_controlling,
    an_exec_of_nothing_is_not_found,
    a_paused_container_stands_still,
    the_first_process_can_have_a_terminal,
];

fn with_container(claim: impl FnOnce(&Container, &Bundle)) {
    let bundle = Bundle::new(&["sleep", "1000"]);
    let (container, _pipes) = bundle.start().unwrap();
    claim(&container, &bundle);
    container.kill(libc::SIGKILL).unwrap();
    container::wait(container.pidfd()).unwrap();
    container.remove_cgroup().unwrap();
}

fn process(bundle: &Bundle, args: &[&str]) -> Process {
    let mut process = bundle.spec["process"].clone();
    process["args"] = json!(args);
    serde_json::from_value(process).unwrap()
}

fn exec(container: &Container, bundle: &Bundle, args: &[&str]) -> Output {
    let (pipes, stdio) = Pipes::new();
    let spec: oci_spec::runtime::Spec = serde_json::from_value(bundle.spec.clone()).unwrap();
    let filter = container::filter(&spec).unwrap();
    let process = container
        .exec(ExecRequest {
            filter: filter.as_ref(),
            ..ExecRequest::new(&process(bundle, args), stdio)
        })
        .unwrap();
    let (stdout, stderr) = pipes.read();
    Output {
        stdout,
        stderr,
        exit: container::wait(process.pidfd.as_fd()).unwrap(),
    }
}

use std::os::fd::AsFd;

fn an_exec_sees_the_containers_world() {
    with_container(|container, bundle| {
        let output = exec(
            container,
            bundle,
            &["sh", "-c", "hostname; ps | grep -c '[s]leep 1000'; exit 9"],
        );
        assert_eq!(
            (output.stdout.as_str(), output.exit),
            ("box\n1\n", Exit::Code(9))
        );
    });
}

fn an_exec_is_in_the_containers_cgroup() {
    with_container(|container, bundle| {
        let output = exec(container, bundle, &["cat", "/proc/self/cgroup"]);
        let ours = output
            .stdout
            .lines()
            .filter(|l| l.ends_with(&bundle.cgroup()))
            .count();
        assert!(ours >= 1, "{}", output.stdout);
    });
}

fn an_exec_has_the_filter_and_the_capabilities() {
    with_container(|container, bundle| {
        let output = exec(
            container,
            bundle,
            &[
                "grep",
                "-E",
                "Seccomp:|CapEff|NoNewPrivs",
                "/proc/self/status",
            ],
        );
        assert_eq!(
            output.stdout,
            "CapEff:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\n"
        );
    });
}

fn read_terminal(master: std::os::fd::OwnedFd) -> String {
    let mut text = Vec::new();
    // A terminal whose slaves are all closed reads as EIO.
    let _ = File::from(master).read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

fn a_terminal_has_its_size_and_is_controlling() {
    with_container(|container, bundle| {
        let size = Some(TerminalSize {
            rows: 31,
            columns: 77,
        });
        let script = "stty size; tty; echo x > /dev/tty";
        std::os::unix::fs::symlink("busybox", bundle.upper().join("bin/stty"))
            .or_else(|_| std::fs::create_dir_all(bundle.upper().join("bin")))
            .unwrap();
        let process = container
            .exec(ExecRequest::new(
                &process(
                    bundle,
                    &["sh", "-c", &script.replace("stty", "busybox stty")],
                ),
                Stdio::Terminal { size },
            ))
            .unwrap();
        let text = read_terminal(process.console.unwrap());
        container::wait(process.pidfd.as_fd()).unwrap();
        assert_eq!(text, "31 77\r\n/dev/pts/0\r\nx\r\n");
    });
}

fn an_exec_of_nothing_is_not_found() {
    with_container(|container, bundle| {
        let (_pipes, stdio) = Pipes::new();
        let process = process(bundle, &["nothing"]);
        let request = ExecRequest::new(&process, stdio);
        let error = container.exec(request).err().unwrap();
        assert_eq!(error.kind, ErrorKind::CommandNotFound);
        assert_eq!(
            error.message,
            "exec failed: unable to start container process: exec: \"nothing\": executable file not found in $PATH"
        );
    });
}

fn a_paused_container_stands_still() {
    with_container(|container, _| {
        container.pause().unwrap();
        let state = std::fs::read_to_string(
            container
                .cgroup()
                .directory("freezer")
                .unwrap()
                .join("freezer.state"),
        );
        assert!(state.is_err() || state.unwrap().trim() == "FROZEN");
        container.resume().unwrap();
    });
}

fn the_first_process_can_have_a_terminal() {
    let mut bundle = Bundle::new(&[
        "sh",
        "-c",
        "tty; stat -c %t:%T /dev/console; echo y > /dev/console",
    ]);
    bundle.spec["process"]["terminal"] = json!(true);
    let mut created = bundle.create(Stdio::Terminal { size: None }).unwrap();
    let master = created.console.take().unwrap();
    let container = created.start().unwrap();
    let text = read_terminal(master);
    container::wait(container.pidfd()).unwrap();
    container.remove_cgroup().unwrap();
    // The node is the slave of pty 0: 136:0 in hexadecimal.
    assert_eq!(text, "/dev/pts/0\r\n88:0\r\ny\r\n");
}
