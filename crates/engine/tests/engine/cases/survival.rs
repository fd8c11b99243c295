//! Restart policies, a new daemon, a killed keeper, a shutdown.

use std::time::Duration;

use berth_docker::container::RestartPolicy;
use berth_engine::{ErrorKind, LogOptions, StopOptions};

use super::streams::exec;
use crate::Case;
use crate::world::World;

pub const ALL: &[Case] = &[
    ("restart_policies_restart_with_back_off", policies),
    (
        "a_new_daemon_finds_running_containers_and_folds_in_ends",
        recovery,
    ),
    ("a_killed_keeper_is_reported_as_137", killed_keeper),
    ("without_live_restore_shutdown_stops_all", shutdown),
];

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
    let (pid, keeper) = processes(world, &id);
    let kill = |pid: i32| {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    kill(keeper);
    assert_eq!(world.exit_code(&id), 137);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists() || dead(pid));

    world.start(&id);
    let (_, keeper) = processes(world, &id);
    world.leave();
    kill(keeper);
    world.open();
    assert_eq!(world.exit_code(&id), 137);
}

/// The process ids of a running container's init and of its keeper.
fn processes(world: &World, id: &str) -> (i64, i32) {
    let inspect = world.run(world.engine().inspect(id, false)).unwrap();
    let pid = inspect.state.pid;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    (pid, fields.split(' ').nth(1).unwrap().parse().unwrap())
}

/// A zombie that nobody has reaped yet.
fn dead(pid: i64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
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
