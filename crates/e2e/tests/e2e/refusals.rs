//! Bad input: Docker's status, a clear sentence, nothing left behind.

use crate::{CLIENTS, daemon};

#[test]
fn commands_that_cannot_run_are_told_apart() {
    let daemon = daemon();
    for client in CLIENTS {
        client(&daemon, &["run", "--rm", "busybox", "nonesuch"]).fails(
            127,
            "exec: \"nonesuch\": executable file not found in $PATH",
        );
        client(&daemon, &["run", "--rm", "busybox", "/nonesuch"])
            .fails(127, "no such file or directory");
        client(&daemon, &["run", "--rm", "busybox", "/etc/passwd"]).fails(126, "permission denied");
        client(&daemon, &["run", "--rm", "busybox", "/etc"]).fails(126, "is a directory");
        client(&daemon, &["run", "--nonesuch"]).fails(125, "unknown flag: --nonesuch");
        client(&daemon, &["run", "--rm", "-u", "ghost", "busybox", "true"]).fails(
            125,
            "unable to find user ghost: no matching entries in passwd file",
        );
        client(
            &daemon,
            &["run", "--rm", "--cap-add", "FLY", "busybox", "true"],
        )
        .fails(125, "unknown capability: \"CAP_FLY\"");
        client(
            &daemon,
            &["run", "--rm", "--network", "nonesuch", "busybox", "true"],
        )
        .fails(
            125,
            "failed to set up container networking: network nonesuch not found",
        );
        client(&daemon, &["run", "--rm", "-m", "1m", "busybox", "true"])
            .fails(125, "Minimum memory limit allowed is 6MB");
        client(&daemon, &["run", "--rm", "-w", "rel", "busybox", "true"])
            .fails(125, "it needs to be an absolute path");
        let file = ["run", "--rm", "-w", "/etc/passwd", "busybox", "true"];
        client(&daemon, &file).fails(
            125,
            "Error response from daemon: Cannot mkdir: /etc/passwd is not a directory",
        );
        let weight = ["run", "--rm", "--blkio-weight", "9", "busybox", "true"];
        client(&daemon, &weight).fails(125, "ange of blkio weight is from 10 to 1000");
        client(
            &daemon,
            &["run", "--rm", "-v", "/a:/b:bad", "busybox", "true"],
        )
        .fails(125, "invalid mode: bad");
        client(
            &daemon,
            &[
                "run",
                "--rm",
                "--mount",
                "type=bind,src=/nonesuch,dst=/x",
                "busybox",
                "true",
            ],
        )
        .fails(125, "bind source path does not exist: /nonesuch");
        client(
            &daemon,
            &[
                "run",
                "--rm",
                "--device",
                "/dev/nonesuch",
                "busybox",
                "true",
            ],
        )
        // 127 as with dockerd: the client looks for these words.
        .fails(127, "no such file or directory");
    }
    assert_eq!(daemon.docker(&["ps", "-aq"]).ok(), "");
}

#[test]
fn unknown_objects_are_not_found() {
    let daemon = daemon();
    for client in CLIENTS {
        for words in [
            &["start", "x"][..],
            &["stop", "x"],
            &["rm", "x"],
            &["logs", "x"],
            &["kill", "x"],
            &["wait", "x"],
            &["exec", "x", "true"],
        ] {
            client(&daemon, words).fails(1, "No such container: x");
        }
        client(&daemon, &["inspect", "x"]).fails(1, "No such object: x");
        client(&daemon, &["rmi", "x"]).fails(1, "No such image: x:latest");
        client(&daemon, &["tag", "x", "y"]).fails(1, "No such image: x:latest");
        client(&daemon, &["run", "--pull", "never", "x"]).fails(125, "No such image: x:latest");
        client(&daemon, &["tag", "busybox", "UPPER"]).fails(1, "invalid reference format");
    }
}

#[test]
fn taken_names_and_ports_name_their_holder() {
    let daemon = daemon();
    let id = daemon
        .docker(&[
            "run", "-d", "--name", "first", "-p", "18080:80", "busybox", "sleep", "1000",
        ])
        .ok()
        .to_owned();
    for client in CLIENTS {
        let words =
            format!("The container name \"/first\" is already in use by container \"{id}\"");
        client(&daemon, &["create", "--name", "first", "busybox"]).fails(1, &words);
        client(
            &daemon,
            &["run", "--rm", "-p", "18080:80", "busybox", "true"],
        )
        .fails(
            125,
            "Bind for 0.0.0.0:18080 failed: port is already allocated",
        );
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let publish = format!("{port}:80");
        client(&daemon, &["run", "--rm", "-p", &publish, "busybox", "true"])
            .fails(125, "address already in use");
    }
    assert_eq!(
        daemon.docker(&["ps", "-a", "--format", "{{.Names}}"]).ok(),
        "first"
    );
}

#[test]
fn json_of_the_wrong_shape_is_a_bad_request() {
    let daemon = daemon();
    for body in [
        "",
        "{",
        "[]",
        r#"{"Image": 5}"#,
        r#"{"Image":"busybox","HostConfig":{"Memory":"much"}}"#,
        r#"{"Image":"busybox"} x"#,
    ] {
        let (status, error) = daemon.api("POST", "/v1.51/containers/create", Some(body));
        assert_eq!(status, 400, "{body}: {error}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    let (status, error) = daemon.api("GET", "/v1.51/nonesuch", None);
    assert_eq!(
        (status, error["message"].as_str()),
        (404, Some("page not found"))
    );
    let (status, _) = daemon.api("GET", "/v1.51/containers/json?filters=notjson", None);
    assert_eq!(status, 400);
    let (status, _) = daemon.api(
        "POST",
        "/v1.51/containers/create",
        Some(r#"{"Image":"nonesuch"}"#),
    );
    assert_eq!(status, 404);
}

#[test]
fn what_is_done_already_is_not_modified() {
    let daemon = daemon();
    daemon
        .docker(&["run", "-d", "--name", "cc", "busybox", "sleep", "1000"])
        .ok();
    assert_eq!(
        daemon.api("POST", "/v1.51/containers/cc/start", None).0,
        304
    );
    daemon.docker(&["stop", "-t", "0", "cc"]).ok();
    assert_eq!(daemon.api("POST", "/v1.51/containers/cc/stop", None).0, 304);
    assert_eq!(daemon.api("POST", "/v1.51/containers/cc/kill", None).0, 409);
    assert_eq!(daemon.api("DELETE", "/v1.51/containers/cc", None).0, 204);
    assert_eq!(daemon.api("DELETE", "/v1.51/containers/cc", None).0, 404);
}
