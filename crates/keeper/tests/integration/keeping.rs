//! Cases about the lives of containers, keepers, launchers and daemons.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use berth_keeper::framing;
use berth_keeper::keeper;
use berth_keeper::launcher::{self, Launcher};
use berth_keeper::protocol::{Event, FailureKind, LauncherRequest, ReplyBody, RequestBody, Target};
use berth_runtime::cgroup::Cgroup;
use berth_runtime::rootfs::overlay::{Overlay, Upper, mount_classic};
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{Control, World, is_alive, read_log, until};

/// Runs first, while this process has one thread.
pub fn an_overlay_can_be_mounted_the_classic_way() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let lower: Vec<_> = (0..100)
        .map(|n| make(&format!("{}{n}", "layer:,\\".repeat(12))))
        .collect();
    for (number, layer) in lower.iter().enumerate() {
        fs::write(layer.join("which"), number.to_string()).unwrap();
    }
    let (upper, work) = (make("upper"), make("work"));
    for volatile in [false, true] {
        let overlay = Overlay {
            lower: &lower,
            upper: Some(Upper {
                directory: &upper,
                work: &work,
                volatile,
            }),
        };
        let mount = mount_classic(&overlay).unwrap();
        let root = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&mount));
        assert_eq!(fs::read_to_string(format!("{root}/which")).unwrap(), "0");
        fs::write(format!("{root}/new"), "x").unwrap();
        assert!(upper.join("new").exists());
    }
}

pub fn a_container_s_end_is_told_and_recorded(world: &World) {
    let container = world.shell("echo out; echo err >&2; exit 7");
    let log = container.log.clone();
    let mut control = container.start(&world.launcher);
    let dir = control.dir.clone();
    let record = control.exited();
    assert_eq!(
        (record.code, record.signal, record.oom_killed),
        (7, None, false)
    );
    assert_eq!(keeper::read_exit(&dir).unwrap().unwrap().code, 7);
    assert_eq!(read_log(&log), ("out\n".to_owned(), "err\n".to_owned()));
    let events = control.end();
    assert!(matches!(events.as_slice(), [Event::Released]), "{events:?}");

    let mut control = world.shell("sleep 100").start(&world.launcher);
    let record = control.kill();
    assert_eq!((record.code, record.signal), (137, Some(9)));
}

pub fn a_command_that_does_not_exist_fails_the_start(world: &World) {
    let (mut control, keeper) = world
        .container(&["/no/such"], false)
        .launch(&world.launcher);
    let dir = control.dir.clone();
    let failure = control.event(|event| match event {
        Event::StartFailed(failure) => Some(failure.clone()),
        other => panic!("{other:?}"),
    });
    assert_eq!(failure.kind, FailureKind::CommandNotFound, "{failure:?}");
    control.end();
    until("the keeper has ended", || !is_alive(keeper));
    assert!(keeper::read_exit(&dir).unwrap().is_none());
    assert!(keeper::connect(&dir).is_err());
}

pub fn a_gated_start_waits_for_its_byte(world: &World) {
    let mut container = world.shell("echo ran");
    container.launch.gated = true;
    let log = container.log.clone();
    let cgroup = container.launch.cgroup.clone();
    let (mut control, _) = container.launch(&world.launcher);
    until("the container waits in its cgroup", || {
        !members(&cgroup).is_empty()
    });
    assert_eq!(read_log(&log), (String::new(), String::new()));
    control.go();
    control.started();
    assert_eq!(control.exited().code, 0);
    assert_eq!(read_log(&log).0, "ran\n");
}

pub fn a_start_that_is_called_off_leaves_nothing(world: &World) {
    let mut container = world.shell("echo ran");
    container.launch.gated = true;
    let (log, cgroup) = (container.log.clone(), container.launch.cgroup.clone());
    let (control, keeper) = container.launch(&world.launcher);
    control.call_off();
    let events = control.end();
    assert!(
        matches!(events.as_slice(), [Event::StartFailed(_)]),
        "{events:?}"
    );
    until("the keeper has ended", || !is_alive(keeper));
    assert!(members(&cgroup).is_empty());
    assert_eq!(read_log(&log).0, "");
}

/// The processes of a cgroup, in whatever hierarchy has some.
fn members(cgroup: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .filter(|line| line.starts_with("cgroup"))
        .filter_map(|line| line.split(' ').nth(1))
        .filter_map(|mount| fs::read_to_string(format!("{mount}{cgroup}/cgroup.procs")).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// One starts while the one before, which is alone in the cgroup, leaves and removes it. Before any
/// thread.
pub fn launchers_relieve_each_other_in_one_cgroup(config: launcher::Config<'_>) {
    let wanted = config.cgroup.unwrap();
    let hierarchies = Cgroup::new(wanted).unwrap().directories().len();
    for round in 0..40 {
        let launcher = launcher::fork(config).unwrap();
        let (mut reader, writer) = UnixStream::pair().unwrap();
        launcher
            .service("place", serde_json::Value::Null, &[writer.as_fd()])
            .unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let inside = text.lines().filter(|line| line.ends_with(wanted)).count();
        assert_eq!(inside, hierarchies, "round {round}: {text}");
    }
}

/// Before any thread.
pub fn two_generations(config: launcher::Config<'_>) -> [Launcher; 2] {
    let last = launcher::fork(config).unwrap();
    // Otherwise the next one could be quicker.
    last.settle().unwrap();
    [last, launcher::fork(config).unwrap()]
}

pub fn the_next_daemon_finds_what_the_last_one_asked_for_in_its_last_moment(world: &World) {
    let Some([last, next]) = world.generations.take() else {
        return;
    };
    let container = world.shell("exec sleep 1000");
    let dir = container.launch.dir.clone();
    // The launcher is busy while its daemon asks and dies.
    let pid = last.pid().unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let (control, theirs) = UnixStream::pair().unwrap();
    let frame = framing::encode(&LauncherRequest::Launch(Box::new(container.launch))).unwrap();
    framing::send(last.into_socket(), &frame, &[theirs.as_fd()]).unwrap();
    drop((control, theirs));

    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            next.settle().unwrap();
            tell.send(keeper::connect(&dir).map(|_found| dir)).unwrap();
        });
        let early = told.recv_timeout(Duration::from_millis(100));
        assert!(early.is_err(), "it did not wait: {early:?}");
        kill_process(pid, Signal::CONT).unwrap();
        let dir = told.recv().unwrap().unwrap();
        Control::connect(&dir).0.kill();
    });
}

pub fn a_service_is_forked_by_name(world: &World) {
    let (mut reader, writer) = UnixStream::pair().unwrap();
    world
        .launcher
        .service("echo", "hello".into(), &[writer.as_fd()])
        .unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    let error = world
        .launcher
        .service("nothing", "".into(), &[])
        .unwrap_err();
    assert_eq!(error.to_string(), "no service is named \"nothing\"");
}

pub fn a_keeper_outlives_its_daemon_and_its_launcher(world: &World) {
    let Some(launcher) = world.other.take() else {
        return;
    };
    let container = world.shell("trap 'echo got; exit 5' TERM; while :; do sleep 0.01; done");
    let (mut control, keeper_pid) = container.launch(&launcher);
    let init = control.started();
    let dir = control.dir.clone();
    drop(control);
    drop(launcher);

    let (mut control, state) = Control::connect(&dir);
    assert_eq!(
        (state.init_pid, state.keeper_pid, state.paused),
        (init, keeper_pid, false)
    );
    assert!(state.exited.is_none() && state.init_start_ticks > 0);
    control.done(
        RequestBody::Signal {
            signal: 15,
            target: Target::Init,
        },
        &[],
    );
    assert_eq!(control.exited().code, 5);
    until("the keeper has ended", || !is_alive(keeper_pid));
    assert_eq!(keeper::read_state(&dir).unwrap().unwrap().init_pid, init);
}

pub fn twenty_daemons_lose_no_line(world: &World) {
    let script =
        "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); usleep 300; done; exit 9";
    let container = world.shell(script);
    let log = container.log.clone();
    let mut control = container.start(&world.launcher);
    let dir = control.dir.clone();
    let mut inits = std::collections::BTreeSet::new();
    for _daemon in 0..20 {
        drop(control);
        let (next, state) = Control::connect(&dir);
        inits.insert(state.init_pid);
        control = next;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(inits.len(), 1);
    assert_eq!(control.exited().code, 9);
    let expect: String = (0..3000).map(|number| format!("line {number}\n")).collect();
    assert!(read_log(&log).0 == expect);
}

pub fn a_killed_keeper_s_container_dies(world: &World) {
    let (mut control, keeper_pid) = world.shell("sleep 1000").launch(&world.launcher);
    let init = control.started();
    let dir = control.dir.clone();
    let group = cgroup_procs(init);
    kill_process(Pid::from_raw(keeper_pid).unwrap(), Signal::KILL).unwrap();
    until("the container is dead", || !is_alive(init));
    assert!(keeper::connect(&dir).is_err());
    assert!(keeper::read_exit(&dir).unwrap().is_none());
    // What the engine does when it finds this.
    for directory in group {
        until("the cgroup is removed", || {
            !directory.exists() || fs::remove_dir(&directory).is_ok()
        });
    }
}

/// The container's own cgroup directories.
fn cgroup_procs(pid: i32) -> Vec<std::path::PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let paths: std::collections::BTreeSet<_> = own
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .filter(|path| path.starts_with(&crate::world::instance()))
        .collect();
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields[2].starts_with("cgroup"))
        .flat_map(|fields| {
            paths
                .iter()
                .map(move |path| format!("{}{path}", fields[1]).into())
        })
        .filter(|path: &std::path::PathBuf| path.exists())
        .collect()
}

pub fn a_keeper_hears_no_signal_for_the_daemon_s_group(world: &World) {
    let (mut control, keeper_pid) = world.shell("sleep 1000").launch(&world.launcher);
    control.started();
    let group = rustix::process::getpgid(Pid::from_raw(keeper_pid)).unwrap();
    let session = rustix::process::getsid(Pid::from_raw(keeper_pid)).unwrap();
    assert_eq!(
        (group.as_raw_nonzero().get(), session.as_raw_nonzero().get()),
        (keeper_pid, keeper_pid)
    );
    let open = fs::read_dir(format!("/proc/{keeper_pid}/fd"))
        .unwrap()
        .count();
    assert!(open <= 12, "{open} descriptors");
    control.done(
        RequestBody::Signal {
            signal: 9,
            target: Target::All,
        },
        &[],
    );
    assert_eq!(control.exited().code, 137);
}

pub fn a_container_starts_again_on_the_same_overlay(world: &World) {
    for round in 1..=3 {
        let mut container = world.shell("echo x >> /file; exit $(wc -l < /file)");
        let base = world.shell("").launch;
        container.launch.id = "5".repeat(64);
        container.launch.dir = base
            .dir
            .parent()
            .unwrap()
            .parent()
            .unwrap()
            .join("again/run");
        let again = container.launch.dir.parent().unwrap().to_owned();
        for name in ["upper", "work"] {
            fs::create_dir_all(again.join(name)).unwrap();
        }
        let berth_keeper::protocol::Rootfs::Overlay {
            upper,
            work,
            volatile,
            ..
        } = &mut container.launch.rootfs
        else {
            unreachable!()
        };
        (*upper, *work, *volatile) = (again.join("upper"), again.join("work"), true);
        let mut control = container.start(&world.launcher);
        assert_eq!(control.exited().code, round);
        control.event(|event| matches!(event, Event::Released).then_some(()));
    }
    let mut control = world.shell("sleep 1000").start(&world.launcher);
    for (body, paused) in [(RequestBody::Pause, true), (RequestBody::Resume, false)] {
        control.done(body, &[]);
        let reply = control.request(RequestBody::Hello { version: 1 }, &[]);
        assert!(matches!(reply, ReplyBody::State(state) if state.paused == paused));
    }
    control.kill();
}

pub fn a_keeper_has_little_memory_of_its_own(world: &World) {
    let (mut control, keeper) = world.shell("sleep 1000").launch(&world.launcher);
    control.started();
    let own_kib = || {
        let rollup = fs::read_to_string(format!("/proc/{keeper}/smaps_rollup")).unwrap();
        let mut lines = rollup.lines();
        let line = lines.find_map(|line| line.strip_prefix("Private_Dirty:"));
        let (kib, _) = line.unwrap().trim().split_once(' ').unwrap();
        kib.parse::<u32>().unwrap()
    };
    // It gives back what its start took when it has nothing else to do.
    until("the keeper is small", || own_kib() < 1024);
    control.kill();
}
