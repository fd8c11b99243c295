//! Create, start, stop, pause, rename, remove.

use berth_engine::{Condition, ErrorKind, LogOptions, RemoveOptions, StartOptions, StopOptions};

use crate::Case;
use crate::world::{World, all};

pub const ALL: &[Case] = &[
    ("a_container_runs_logs_and_exits_with_its_code", runs),
    ("names_and_ids_are_found_and_taken_names_refused", names),
    (
        "commands_that_cannot_run_fail_with_dockers_codes",
        bad_commands,
    ),
    ("stop_is_idempotent_and_kills_after_the_grace_period", stop),
    ("pause_freezes_and_resumes", pause),
    (
        "rm_removes_itself_and_wait_removed_sees_the_code",
        auto_remove,
    ),
    ("running_containers_are_removed_only_by_force", force),
    ("rename_frees_the_old_name", rename),
    ("volumes_outlive_their_containers", volumes),
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
