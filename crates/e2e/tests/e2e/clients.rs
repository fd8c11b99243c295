//! Other clients: docker-py, curl, old versions of the API.

use std::process::Command;

use berth_testkit::{image, run};

use crate::daemon;

const DOCKER_PY: &str = r#"
import docker, sys
client = docker.DockerClient(base_url=sys.argv[1])
assert client.ping()
assert client.containers.run("busybox", ["echo", "hi"], remove=True) == b"hi\n"
c = client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2; sleep 1000"], detach=True, name="py",
    mem_limit="32m", environment={"A": "1"}, ports={"80/tcp": None}, labels={"l": "v"})
c.reload()
assert c.status == "running", c.status
port = c.attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
assert int(port) > 1024
result = c.exec_run(["sh", "-c", "echo $A; exit 3"])
assert (result.exit_code, result.output) == (3, b"1\n"), result
out, err = c.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True).output
assert (out, err) == (b"o\n", b"e\n")
sock = c.exec_run("cat", stdin=True, socket=True).output
sock._sock.close()
import time
deadline = time.time() + 20
while c.logs() != b"out\nerr\n":
    assert time.time() < deadline, c.logs()
assert [x.name for x in client.containers.list(filters={"label": "l=v"})] == ["py"]
assert c.attrs["HostConfig"]["Memory"] == 32 << 20
c.kill("SIGTERM")
c.stop(timeout=0)
assert c.wait()["StatusCode"] == 137
c.remove()
for _ in range(5):
    c = client.containers.run("busybox", ["sh", "-c",
        "trap 'echo late; exit' USR1; echo early; while :; do sleep 0.02; done"], detach=True)
    while c.logs() != b"early\n":
        assert time.time() < deadline, c.logs()
    stream = c.attach(logs=True, stream=True)
    assert next(stream) == b"early\n"
    c.kill("USR1")
    assert b"".join(stream) == b"late\n"
    c.remove(force=True)
flood = "i=0; while :; do i=$((i+1)); echo number $i; [ $((i % 200)) != 0 ] || usleep 1000; done"
for options in [{}, {"max-size": "500k", "max-file": "900"}]:
    c = client.containers.run("busybox", ["sh", "-c", flood], detach=True,
        log_config=docker.types.LogConfig(config=options))
    while len(c.logs()) < 500_000:
        assert time.time() < deadline + 20, len(c.logs())
    text = b""
    for piece in c.attach(logs=True, stream=True):
        text += piece
        if len(text) > 2_000_000:
            break
    c.remove(force=True)
    lines = text.split(b"\n")[:-1]
    assert lines == [b"number %d" % (i + 1) for i in range(len(lines))], [
        (i, line) for i, line in enumerate(lines) if line != b"number %d" % (i + 1)][:3]
try:
    client.containers.get("py")
    raise SystemExit("it is still there")
except docker.errors.NotFound as error:
    assert "No such container: py" in str(error)
try:
    client.images.get("nonesuch")
    raise SystemExit("it exists")
except docker.errors.ImageNotFound:
    pass
tags = [t for i in client.images.list() for t in i.tags]
assert tags == ["busybox:latest"], tags
assert client.images.get("busybox").tag("copy", "1")
client.images.remove("copy:1")
print("done")
"#;

#[test]
fn docker_py_works() {
    let daemon = daemon();
    let mut python = Command::new(image::python());
    python.args(["-c", DOCKER_PY, &daemon.host()]);
    assert_eq!(run(&mut python, b"").ok(), "done");
}

#[test]
fn every_version_of_the_api_is_served_and_no_other() {
    let daemon = daemon();
    for minor in 24..=51 {
        let (status, version) = daemon.api("GET", &format!("/v1.{minor}/version"), None);
        assert_eq!(
            (status, version["ApiVersion"].as_str()),
            (200, Some("1.51"))
        );
        let (status, list) = daemon.api("GET", &format!("/v1.{minor}/containers/json?all=1"), None);
        assert_eq!((status, list.as_array().unwrap().len()), (200, 0));
    }
    let (status, error) = daemon.api("GET", "/v1.52/version", None);
    assert_eq!(status, 400);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("client version 1.52 is too new. Maximum supported API version is 1.51")
    );
    let (status, error) = daemon.api("GET", "/v1.23/version", None);
    assert_eq!(status, 400);
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("client version 1.23 is too old. Minimum supported API version is 1.24")
    );
}

#[test]
fn the_client_negotiates_old_versions() {
    let daemon = daemon();
    for version in ["1.24", "1.30", "1.40", "1.44", "1.50"] {
        let mut docker = daemon.docker_command();
        docker.env("DOCKER_API_VERSION", version);
        let output = run(
            docker.args(["run", "--rm", "busybox", "echo", version]),
            b"",
        );
        assert_eq!(output.ok(), version);
    }
}

#[test]
fn our_command_line_speaks_to_other_hosts_and_contexts() {
    let daemon = daemon();
    let ours = |words: &[&str], host: Option<&str>| {
        let mut command = Command::new(daemon.program());
        command.env("DOCKER_CONFIG", daemon.root.join("contexts"));
        if let Some(host) = host {
            command.env("DOCKER_HOST", host);
        }
        run(command.args(words), b"")
    };
    assert_eq!(ours(&["ps", "-q"], Some(&daemon.host())).ok(), "");
    let endpoint = format!("host={}", daemon.host());
    ours(&["context", "create", "mine", "--docker", &endpoint], None).ok();
    ours(&["context", "use", "mine"], None).ok();
    assert_eq!(
        ours(&["run", "--rm", "busybox", "echo", "by context"], None).ok(),
        "by context"
    );
    // Completion asks the daemon that the flags before the command name.
    let name = daemon.docker(&["create", "--name", "whole", "busybox"]);
    name.ok();
    let host = daemon.host();
    for flags in [&["-H", &host][..], &["--context", "mine"], &["-c=mine"]] {
        let words = [&["__complete"], flags, &["rm", "wh"]].concat();
        let mut command = Command::new(daemon.program());
        command
            .env("DOCKER_CONFIG", daemon.root.join("contexts"))
            .env("DOCKER_HOST", "unix:///nonesuch")
            .env_remove("DOCKER_CONTEXT");
        assert_eq!(run(command.args(&words), b"").ok(), "whole", "{words:?}");
    }
    // The real client understands the same files.
    let mut docker = Command::new(image::docker());
    docker
        .env("DOCKER_CONFIG", daemon.root.join("contexts"))
        .args(["images", "-q"]);
    assert_eq!(run(&mut docker, b"").ok().lines().count(), 1);
}

#[test]
fn dial_stdio_carries_the_api() {
    let daemon = daemon();
    let request = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
    let output = daemon.berth_with(&["system", "dial-stdio"], request);
    assert!(
        output.ok().starts_with("HTTP/1.1 200 OK"),
        "{}",
        output.stdout
    );
    assert!(output.stdout.ends_with("OK"));
}

#[test]
fn completion_scripts_are_accepted_by_their_shells() {
    let daemon = daemon();
    for (shell, check) in [("bash", "bash -n"), ("zsh", "zsh -n"), ("fish", "fish -n")] {
        let script = daemon.berth(&["completion", shell]);
        let path = daemon.root.join(format!("completion.{shell}"));
        std::fs::write(&path, script.ok()).unwrap();
        berth_testkit::sh(&format!("{check} {}", path.display()));
    }
}
