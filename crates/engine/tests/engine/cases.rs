//! What has to hold.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use berth_docker::container::RestartPolicy;
use berth_docker::exec::CreateRequest as ExecRequest;
use berth_docker::filters::Filters;
use berth_engine::{
    Condition, ErrorKind, EventOptions, ExecStartOptions, ListOptions, LogOptions, RemoveOptions,
    StartOptions, StopOptions,
};

use super::Case;
use super::world::{PATIENCE, World, all, payload, read_to_end};

pub const ALL: &[Case] = &[
    ("a_container_runs_logs_and_exits_with_its_code", runs),
    ("names_and_ids_are_found_and_taken_names_refused", names),
    (
        "commands_that_cannot_run_fail_with_dockers_codes",
        bad_commands,
    ),
    ("stop_is_idempotent_and_kills_after_the_grace_period", stop),
    ("attach_before_start_sees_all_output", attach_before_start),
    ("attach_passes_input_both_ways", attach_input),
    ("execs_run_report_codes_and_refusals", execs),
    ("pause_freezes_and_resumes", pause),
    (
        "rm_removes_itself_and_wait_removed_sees_the_code",
        auto_remove,
    ),
    ("running_containers_are_removed_only_by_force", force),
    ("restart_policies_restart_with_back_off", policies),
    (
        "a_new_daemon_finds_running_containers_and_folds_in_ends",
        recovery,
    ),
    ("a_killed_keeper_is_reported_as_137", killed_keeper),
    ("follow_sees_every_line_and_ends_with_the_container", follow),
    ("events_come_in_dockers_order", events),
    ("list_filters_choose", filters),
    ("rename_frees_the_old_name", rename),
    ("volumes_outlive_their_containers", volumes),
    ("published_ports_are_reached_conflict_and_are_freed", bridge),
    ("without_live_restore_shutdown_stops_all", shutdown),
    ("a_long_log_is_read_back_fast", long_log),
    ("create_start_wait_remove_is_fast", speed),
];

fn runs(world: &World) {
    let id = world.create("hello", &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    world.start(&id);
    assert_eq!(world.exit_code(&id), 3);
    let log = world.logs(&id, LogOptions::default());
    assert!(log.contains("out\n") && log.contains("err\n"), "{log:?}");
    let inspect = world.run(world.engine().inspect("hello", true)).unwrap();
    assert_eq!(inspect.state.status, "exited");
    assert_eq!(inspect.state.exit_code, 3);
    assert_eq!((inspect.path.as_str(), inspect.args.len()), ("sh", 2));
    assert_eq!(inspect.config.hostname, id[..12]);
    world.start(&id);
    assert_eq!(world.exit_code(&id), 3);
    assert_eq!(
        world
            .logs(
                &id,
                LogOptions {
                    tail: Some(1),
                    ..LogOptions::default()
                }
            )
            .lines()
            .count(),
        1
    );
}

fn names(world: &World) {
    let id = world.create("web", &["true"]);
    let engine = world.engine();
    for reference in [id.as_str(), &id[..12], &id[..4], "web", "/web"] {
        assert_eq!(world.run(engine.inspect(reference, false)).unwrap().id, id);
    }
    let error = world.create_with("web", &["true"], |_, _| {}).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert_eq!(
        error.message,
        format!(
            "Conflict. The container name \"/web\" is already in use by container \"{id}\". You \
             have to remove (or rename) that container to be able to reuse that name."
        )
    );
    let error = world.run(engine.inspect("nope", false)).unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::NotFound, "No such container: nope")
    );
    let error = world
        .create_with("no good", &["true"], |_, _| {})
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    let error = world
        .create_with("", &["true"], |config, _| config.image = "missing".into())
        .unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::NotFound, "No such image: missing:latest")
    );
}

fn bad_commands(world: &World) {
    let check = |command: &[&str], code: i64, words: &str| {
        let id = world.create("", command);
        let error = world
            .run(world.engine().start(&id, StartOptions::default()))
            .unwrap_err();
        assert!(error.message.contains(words), "{}", error.message);
        assert!(error.message.starts_with("failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed"), "{}", error.message);
        let state = world.run(world.engine().inspect(&id, false)).unwrap().state;
        assert_eq!((state.exit_code, state.status.as_str()), (code, "created"));
        assert_eq!(state.error, error.message);
    };
    check(
        &["nonsense"],
        127,
        "exec: \"nonsense\": executable file not found in $PATH",
    );
    check(&["/etc/noexec"], 126, "permission denied");
}

fn stop(world: &World) {
    let id = world.create(
        "",
        &[
            "sh",
            "-c",
            "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done",
        ],
    );
    world.start(&id);
    world.until_ready(&id);
    let engine = world.engine();
    let seconds = |timeout| StopOptions {
        signal: None,
        timeout_s: Some(timeout),
    };
    world.run(engine.stop(&id, seconds(10))).unwrap();
    assert_eq!(world.exit_code(&id), 7);
    let again = world.run(engine.stop(&id, seconds(10))).unwrap_err();
    assert_eq!(again.kind, ErrorKind::NotModified);

    let deaf = world.create(
        "",
        &[
            "sh",
            "-c",
            "trap '' TERM; echo ready; while :; do sleep 0.05; done",
        ],
    );
    world.start(&deaf);
    world.until_ready(&deaf);
    world.run(engine.stop(&deaf, seconds(0))).unwrap();
    assert_eq!(world.exit_code(&deaf), 137);
    let error = world.run(engine.kill(&deaf, None)).unwrap_err();
    assert_eq!(
        (error.kind, error.message),
        (
            ErrorKind::Conflict,
            format!("cannot kill container: {deaf}: container {deaf} is not running")
        )
    );
}

fn attach_before_start(world: &World) {
    let id = world.create("", &["sh", "-c", "echo first; echo second >&2"]);
    let stream = world.attach(&id, false);
    world.start(&id);
    let text = payload(&read_to_end(stream));
    assert!(
        text.contains("first\n") && text.contains("second\n"),
        "{text:?}"
    );
    assert_eq!(world.exit_code(&id), 0);
}

fn attach_input(world: &World) {
    let open = |config: &mut berth_docker::container::Config| {
        config.open_stdin = true;
        config.stdin_once = true;
        config.attach_stdin = true;
    };
    let id = world
        .create_with("", &["cat"], |config, _| open(config))
        .unwrap();
    world.start(&id);
    let mut stream = world.attach(&id, true);
    stream.write_all(b"there and back\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(payload(&read_to_end(stream)), "there and back\n");
    assert_eq!(world.exit_code(&id), 0);

    let tty = world
        .create_with("", &["sh"], |config, _| {
            open(config);
            config.tty = true;
        })
        .unwrap();
    world.start(&tty);
    let mut stream = world.attach(&tty, true);
    world.run(world.engine().resize(&tty, 40, 120)).unwrap();
    stream.write_all(b"stty size; exit 5\n").unwrap();
    let text = String::from_utf8_lossy(&read_to_end(stream)).into_owned();
    assert!(text.contains("40 120"), "{text:?}");
    assert_eq!(world.exit_code(&tty), 5);
}

fn exec(world: &World, id: &str, command: &[&str]) -> (String, Option<i64>) {
    let engine = world.engine();
    let request = ExecRequest {
        attach_stdout: true,
        attach_stderr: true,
        cmd: Some(command.iter().map(|&word| word.to_owned()).collect()),
        ..ExecRequest::default()
    };
    let exec = world.run(engine.exec_create(id, request)).unwrap().id;
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    // A refusal is told on the stream, too.
    world
        .run(engine.exec_start(&exec, ExecStartOptions::default(), Some(theirs.into())))
        .ok();
    let text = payload(&read_to_end(ours));
    let inspect = world.run(engine.exec_inspect(&exec)).unwrap();
    assert!(!inspect.running, "the stream has ended");
    (text, inspect.exit_code)
}

fn execs(world: &World) {
    let id = world.create("", &["sleep", "1000"]);
    let engine = world.engine();
    let error = world
        .run(engine.exec_create(&id, ExecRequest::default()))
        .unwrap_err();
    assert_eq!(error.message, format!("container {id} is not running"));
    world.start(&id);
    assert_eq!(
        exec(world, &id, &["sh", "-c", "echo hi; exit 4"]),
        ("hi\n".into(), Some(4))
    );
    for _ in 0..20 {
        assert_eq!(exec(world, &id, &["false"]), (String::new(), Some(1)));
    }
    let (text, code) = exec(world, &id, &["nonsense"]);
    assert!(
        text.starts_with("OCI runtime exec failed: exec failed: unable to start container process: exec: \"nonsense\": executable file not found in $PATH"),
        "{text:?}"
    );
    assert_eq!(code, Some(127));
    let error = world.run(engine.exec_inspect("nope")).unwrap_err();
    assert_eq!(error.message, "No such exec instance: nope");
}

fn pause(world: &World) {
    let id = world.create("", &["sleep", "1000"]);
    world.start(&id);
    let engine = world.engine();
    world.run(engine.pause(&id)).unwrap();
    assert_eq!(
        world.run(engine.inspect(&id, false)).unwrap().state.status,
        "paused"
    );
    let error = world.run(engine.pause(&id)).unwrap_err();
    assert_eq!(error.message, format!("container {id} is already paused"));
    world.run(engine.unpause(&id)).unwrap();
    assert_eq!(
        world.run(engine.inspect(&id, false)).unwrap().state.status,
        "running"
    );
    world.run(engine.pause(&id)).unwrap();
    world.run(engine.kill(&id, None)).unwrap();
    assert_eq!(world.exit_code(&id), 137);
}

fn auto_remove(world: &World) {
    let id = world
        .create_with("", &["sh", "-c", "exit 9"], |_, host| {
            host.auto_remove = true
        })
        .unwrap();
    let engine = world.engine();
    let waiter = engine.wait(&id, Condition::Removed).unwrap();
    world.start(&id);
    assert_eq!(world.run(waiter.done()).exit_code, 9);
    assert_eq!(
        world.run(engine.inspect(&id, false)).unwrap_err().kind,
        ErrorKind::NotFound
    );
    // One that cannot start is removed as well.
    let id = world
        .create_with("", &["nonsense"], |_, host| host.auto_remove = true)
        .unwrap();
    world
        .run(engine.start(&id, StartOptions::default()))
        .unwrap_err();
    assert_eq!(
        world.run(engine.inspect(&id, false)).unwrap_err().kind,
        ErrorKind::NotFound
    );
}

fn force(world: &World) {
    let id = world.create("busy", &["sleep", "1000"]);
    world.start(&id);
    let engine = world.engine();
    let error = world
        .run(engine.remove("busy", RemoveOptions::default()))
        .unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (
            ErrorKind::Conflict,
            "cannot remove container \"/busy\": container is running: stop the container before \
             removing or force remove"
        )
    );
    world.remove(&id);
    assert!(world.run(engine.list(all())).unwrap().is_empty());
}

fn policies(world: &World) {
    let policy = |name: &str, count| RestartPolicy {
        name: name.into(),
        maximum_retry_count: count,
    };
    let id = world
        .create_with("", &["false"], |_, host| {
            host.restart_policy = policy("on-failure", 2)
        })
        .unwrap();
    world.start(&id);
    let inspect = world.until(&id, |inspect| inspect.state.status == "exited");
    assert_eq!((inspect.restart_count, inspect.state.exit_code), (2, 1));

    let always = world
        .create_with("", &["false"], |_, host| {
            host.restart_policy = policy("always", 0)
        })
        .unwrap();
    world.start(&always);
    world.until(&always, |inspect| inspect.restart_count >= 2);
    world
        .run(world.engine().stop(&always, StopOptions::default()))
        .unwrap();
    let inspect = world.run(world.engine().inspect(&always, false)).unwrap();
    assert_eq!(inspect.state.status, "exited");
    assert!(!inspect.state.restarting);
}

fn recovery(world: &World) {
    let steady = world.create(
        "steady",
        &[
            "sh",
            "-c",
            "i=0; while :; do echo $i; i=$((i+1)); usleep 2000; done",
        ],
    );
    let short = world.create("short", &["sh", "-c", "sleep 0.3; exit 6"]);
    let gone = world
        .create_with("gone", &["sh", "-c", "sleep 0.3"], |_, host| {
            host.auto_remove = true
        })
        .unwrap();
    let again = world
        .create_with("again", &["sh", "-c", "sleep 0.3; exit 1"], |_, host| {
            host.restart_policy = RestartPolicy {
                name: "always".into(),
                maximum_retry_count: 0,
            };
        })
        .unwrap();
    for id in [&steady, &short, &gone, &again] {
        world.start(id);
    }
    let pid = world
        .run(world.engine().inspect("steady", false))
        .unwrap()
        .state
        .pid;
    world.leave();
    std::thread::sleep(Duration::from_millis(700));
    for round in 0..3 {
        world.open();
        if round == 0 {
            let state = world
                .run(world.engine().inspect("short", false))
                .unwrap()
                .state;
            assert_eq!(
                state.status, "exited",
                "ends are folded in before the first answer"
            );
        }
        let inspect = world.run(world.engine().inspect("steady", false)).unwrap();
        assert_eq!(
            (inspect.state.status.as_str(), inspect.state.pid),
            ("running", pid)
        );
        assert_eq!(
            exec(world, &steady, &["echo", "still here"]).0,
            "still here\n"
        );
        world.leave();
    }
    world.open();
    let engine = world.engine();
    let state = world.run(engine.inspect(&short, false)).unwrap().state;
    assert_eq!((state.status.as_str(), state.exit_code), ("exited", 6));
    assert_eq!(
        world.run(engine.inspect(&gone, false)).unwrap_err().kind,
        ErrorKind::NotFound
    );
    world.until(&again, |inspect| inspect.state.running);
    world.run(engine.kill(&steady, None)).unwrap();
    assert_eq!(world.exit_code(&steady), 137);
    let log = world.logs(&steady, LogOptions::default());
    let numbers: Vec<u64> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.len() > 100, "{}", numbers.len());
    assert!(
        numbers
            .iter()
            .enumerate()
            .all(|(index, number)| index as u64 == *number),
        "a line is missing"
    );
}

fn killed_keeper(world: &World) {
    let id = world.create("", &["sleep", "1000"]);
    world.start(&id);
    let pid = world
        .run(world.engine().inspect(&id, false))
        .unwrap()
        .state
        .pid;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let keeper: i32 = stat
        .rsplit_once(") ")
        .unwrap()
        .1
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let kill = |pid: i32| {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    kill(keeper);
    assert_eq!(world.exit_code(&id), 137);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists() || dead(pid));

    world.start(&id);
    let pid = world
        .run(world.engine().inspect(&id, false))
        .unwrap()
        .state
        .pid;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let keeper: i32 = stat
        .rsplit_once(") ")
        .unwrap()
        .1
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    world.leave();
    kill(keeper);
    world.open();
    assert_eq!(world.exit_code(&id), 137);
}

/// A zombie that nobody has reaped yet.
fn dead(pid: i64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}

fn follow(world: &World) {
    let id = world
        .create_with(
            "",
            &[
                "sh",
                "-c",
                "for i in $(seq 2000); do echo line $i; done; sleep 0.2; echo last",
            ],
            |_, host| {
                host.log_config.driver = "json-file".into();
                host.log_config.config = Some(
                    [("max-size", "20k"), ("max-file", "20")]
                        .map(|(key, value)| (key.to_owned(), value.to_owned()))
                        .into(),
                );
            },
        )
        .unwrap();
    world.start(&id);
    let log = world.logs(
        &id,
        LogOptions {
            follow: true,
            ..LogOptions::default()
        },
    );
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(
        (lines.len(), lines[0], lines[2000]),
        (2001, "line 1", "last")
    );
    let tail = world.logs(
        &id,
        LogOptions {
            tail: Some(1500),
            ..LogOptions::default()
        },
    );
    assert_eq!(tail.lines().next(), Some("line 502"));
}

fn events(world: &World) {
    let engine = world.engine();
    let options = EventOptions {
        filters: Filters::parse(r#"{"type":["container"]}"#).unwrap(),
        ..EventOptions::default()
    };
    let mut stream = {
        let _guard = world.runtime.enter();
        engine.events(options).unwrap()
    };
    let id = world
        .create_with("eve", &["sh", "-c", "exit 2"], |_, host| {
            host.auto_remove = true
        })
        .unwrap();
    let attached = world.attach(&id, false);
    let waiter = engine.wait(&id, Condition::Removed).unwrap();
    world.start(&id);
    world.run(waiter.done());
    drop(read_to_end(attached));
    for action in ["create", "attach", "start", "die", "destroy"] {
        let event = world.run(stream.next()).unwrap();
        assert_eq!(
            (event.action.as_str(), event.actor.id.as_str()),
            (action, id.as_str())
        );
        assert_eq!(event.actor.attributes["name"], "eve");
        if action == "die" {
            assert_eq!(event.actor.attributes["exitCode"], "2");
        }
    }
}

fn filters(world: &World) {
    let one = world
        .create_with("one", &["sleep", "1000"], |config, _| {
            config.labels = Some([("tier".to_owned(), "front".to_owned())].into());
        })
        .unwrap();
    world.create("two", &["sh", "-c", "exit 3"]);
    world.start("one");
    world.start("two");
    world.exit_code("two");
    let names = |filters: &str, all: bool| -> Vec<String> {
        let options = ListOptions {
            all,
            filters: Filters::parse(filters).unwrap(),
            ..ListOptions::default()
        };
        let list = world.run(world.engine().list(options)).unwrap();
        list.into_iter()
            .map(|summary| summary.names[0].clone())
            .collect()
    };
    assert_eq!(names("{}", false), ["/one"]);
    assert_eq!(names("{}", true), ["/two", "/one"]);
    assert_eq!(names(r#"{"status":["exited"]}"#, false), ["/two"]);
    assert_eq!(names(r#"{"exited":["3"]}"#, true), ["/two"]);
    assert_eq!(names(r#"{"label":["tier=front"]}"#, true), ["/one"]);
    assert_eq!(names(r#"{"name":["^tw"]}"#, true), ["/two"]);
    assert_eq!(
        names(&format!(r#"{{"id":["{}"]}}"#, &one[..12]), true),
        ["/one"]
    );
    assert_eq!(
        names(r#"{"ancestor":["engine-test"]}"#, true),
        ["/two", "/one"]
    );
    assert_eq!(names(r#"{"since":["one"]}"#, true), ["/two"]);
    assert_eq!(names(r#"{"before":["two"]}"#, true), ["/one"]);
    assert_eq!(names(r#"{"network":["none"]}"#, true), ["/two", "/one"]);
    let options = ListOptions {
        filters: Filters::parse(r#"{"status":["odd"]}"#).unwrap(),
        ..all()
    };
    let error = world.run(world.engine().list(options)).unwrap_err();
    assert_eq!(error.message, "invalid filter 'status=odd'");
}

fn rename(world: &World) {
    let id = world.create("old", &["true"]);
    world.create("taken", &["true"]);
    let engine = world.engine();
    let error = world.run(engine.rename("old", "taken")).unwrap_err();
    assert!(
        error
            .message
            .starts_with("Error when allocating new name: Conflict."),
        "{error}"
    );
    world.run(engine.rename("old", "new")).unwrap();
    assert_eq!(world.run(engine.inspect("new", false)).unwrap().id, id);
    world.create("old", &["true"]);
    world.leave();
    world.open();
    assert_eq!(
        world.run(world.engine().inspect("new", false)).unwrap().id,
        id
    );
}

fn volumes(world: &World) {
    let mount = |text: &str| {
        let text = text.to_owned();
        move |_: &mut berth_docker::container::Config,
              host: &mut berth_docker::container::HostConfig| {
            host.binds = Some(vec![text]);
        }
    };
    let engine = world.engine();
    let id = world
        .create_with(
            "",
            &["sh", "-c", "ls /data; echo kept > /data/file"],
            mount("vol:/data"),
        )
        .unwrap();
    world.start(&id);
    assert_eq!(world.exit_code(&id), 0);
    assert_eq!(
        world.logs(&id, LogOptions::default()),
        "from-image\n",
        "a new volume gets the image's files"
    );
    let error = world.run(engine.volume_remove("vol", false)).unwrap_err();
    assert_eq!(
        error.message,
        format!("remove vol: volume is in use - [{id}]")
    );
    world.remove(&id);
    let id = world
        .create_with("", &["cat", "/data/file"], mount("vol:/data"))
        .unwrap();
    world.start(&id);
    assert_eq!(world.exit_code(&id), 0);
    assert_eq!(world.logs(&id, LogOptions::default()), "kept\n");
    world.remove(&id);
    world.run(engine.volume_remove("vol", false)).unwrap();
    assert_eq!(
        engine.volume_inspect("vol").unwrap_err().message,
        "get vol: no such volume"
    );
}

fn bridge(world: &World) {
    world.leave();
    world.open_on_bridge();
    let engine = world.engine();
    let publish = |port: &str| {
        let bindings = [(
            "80/tcp".to_owned(),
            Some(vec![berth_docker::port::PortBinding {
                host_ip: "127.0.0.1".into(),
                host_port: port.to_owned(),
            }]),
        )];
        move |_: &mut berth_docker::container::Config,
              host: &mut berth_docker::container::HostConfig| {
            host.network_mode = "bridge".into();
            host.port_bindings = Some(bindings.into());
        }
    };
    let serve = ["nc", "-ll", "-p", "80", "-e", "echo", "hello"];
    let id = world.create_with("server", &serve, publish("")).unwrap();
    world.start(&id);
    let inspect = world.run(engine.inspect(&id, false)).unwrap();
    let ports = inspect.network_settings.ports["80/tcp"].clone().unwrap();
    let port: u16 = ports[0].host_port.parse().unwrap();
    let fetch = || {
        let mut text = String::new();
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        std::io::Read::read_to_string(&mut stream, &mut text)?;
        std::io::Result::Ok(text)
    };
    // The server may not listen yet.
    let text = world.run(async {
        loop {
            match fetch() {
                Ok(text) if !text.is_empty() => return text,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    assert_eq!(text, "hello\n");

    let other = world
        .create_with("other", &serve, publish(&port.to_string()))
        .unwrap();
    let error = world
        .run(engine.start(&other, StartOptions::default()))
        .unwrap_err();
    assert!(
        error.message.starts_with("failed to set up container networking: driver failed programming external connectivity on endpoint other (")
            && error.message.contains("port is already allocated"),
        "{error}"
    );

    let address = inspect.network_settings.ip_address;
    let joined = world
        .create_with("", &["ip", "-4", "addr", "show", "eth0"], |_, host| {
            host.network_mode = "container:server".into();
        })
        .unwrap();
    world.start(&joined);
    assert_eq!(world.exit_code(&joined), 0);
    assert!(
        world
            .logs(&joined, LogOptions::default())
            .contains(&address)
    );
    let hosts = world
        .create_with("", &["cat", "/etc/hosts"], publish(""))
        .unwrap();
    world.start(&hosts);
    world.exit_code(&hosts);
    assert!(
        world
            .logs(&hosts, LogOptions::default())
            .contains(&hosts[..12])
    );
    assert!(
        world
            .run(engine.inspect("server", false))
            .unwrap()
            .network_settings
            .networks
            .contains_key("bridge")
    );
    assert_eq!(
        engine.network_inspect("bridge").unwrap().containers.len(),
        1
    );

    world.run(engine.kill("server", None)).unwrap();
    assert!(fetch().is_err(), "the port is still open");
    world.start(&other);
    world.run(engine.kill("other", None)).unwrap();
}

fn shutdown(world: &World) {
    let id = world
        .create_with(
            "",
            &[
                "sh",
                "-c",
                "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done",
            ],
            |_, host| {
                host.restart_policy = RestartPolicy {
                    name: "unless-stopped".into(),
                    maximum_retry_count: 0,
                };
            },
        )
        .unwrap();
    world.start(&id);
    world.until_ready(&id);
    let pid = world
        .run(world.engine().inspect(&id, false))
        .unwrap()
        .state
        .pid;
    world.stop_all_and_leave();
    assert!(dead(pid), "the container was not stopped");
    world.open();
    let inspect = world.until(&id, |inspect| inspect.state.status == "running");
    assert_ne!(inspect.state.pid, pid);
}

fn long_log(world: &World) {
    // Large enough to tell a slow reader from a fast one, small enough for an unoptimised build.
    const LINES: usize = 1 << 20;
    let id = world.create("", &["true"]);
    let path = world.log_path(&id);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    for number in 0..LINES {
        writeln!(
            file,
            r#"{{"log":"line {number:08} of a log that is read back as fast as the disk gives it\n","stream":"stdout","time":"2026-11-21T10:00:00.123456789Z"}}"#
        )
        .unwrap();
    }
    file.flush().unwrap();
    let read = |options: LogOptions| -> (usize, Duration) {
        let started = std::time::Instant::now();
        let _guard = world.runtime.enter();
        let options = LogOptions {
            stdout: true,
            ..options
        };
        let mut stream = world.engine().logs(&id, options).unwrap();
        let bytes = world.run(async {
            let mut bytes = 0;
            while let Some(piece) = stream.next().await {
                bytes += piece.unwrap().len();
            }
            bytes
        });
        (bytes, started.elapsed())
    };
    let (bytes, all) = read(LogOptions::default());
    let (tail_bytes, tail) = read(LogOptions {
        tail: Some(10),
        ..LogOptions::default()
    });
    assert_eq!(bytes / LINES, tail_bytes / 10);
    println!(
        "  {} MB in {all:?}, the last lines in {tail:?}",
        bytes >> 20
    );
    assert!(tail < Duration::from_secs(1), "the tail took {tail:?}");
    assert!(all < Duration::from_secs(15), "reading took {all:?}");
}

fn speed(world: &World) {
    let engine = world.engine();
    let mut times = Vec::new();
    for _ in 0..40 {
        let started = std::time::Instant::now();
        let id = world.create("", &["true"]);
        let created = started.elapsed();
        world.start(&id);
        let running = started.elapsed();
        let waiter = engine.wait(&id, Condition::NotRunning).unwrap();
        world.run(waiter.done());
        let ended = started.elapsed();
        world
            .run(engine.remove(&id, RemoveOptions::default()))
            .unwrap();
        times.push((
            started.elapsed(),
            created,
            running - created,
            ended - running,
        ));
    }
    times.sort();
    let (all, create, start, end) = times[times.len() / 2];
    println!(
        "  median {all:?}: create {create:?}, start {start:?}, end {end:?}, rm {:?}",
        all - create - start - end
    );
    assert!(all < Duration::from_millis(150), "far too slow: {all:?}");
}
