//! Cases about cost. The bounds are wide, for builds without optimisation and busy machines; the
//! figures are printed.

use std::fs;
use std::time::{Duration, Instant};

use berth_keeper::protocol::{RequestBody, Target};

use crate::world::{World, read_log, until};

pub fn a_keeper_is_small_and_forked_fast(world: &World) {
    let mut controls = Vec::new();
    let (mut fork, mut start) = (Duration::ZERO, Duration::ZERO);
    let (_first, keeper) = world.shell("true").launch(&world.launcher);
    let launcher = parent(keeper);
    let before = cpu_time(launcher);
    for _ in 0..10 {
        let container = world.shell("sleep 1000");
        let began = Instant::now();
        let (mut control, pid) = container.launch(&world.launcher);
        fork += began.elapsed();
        control.started();
        start += began.elapsed();
        controls.push((control, pid));
    }
    std::thread::sleep(Duration::from_millis(1500));
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", controls[9].1)).unwrap();
    let kib = |name: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    println!(
        "  fork {:?} ({:?} of the launcher's time), start {:?}; PSS {} KiB, private {} KiB",
        fork / 10,
        (cpu_time(launcher) - before) / 10,
        start / 10,
        kib("Pss:"),
        kib("Private_Clean:") + kib("Private_Dirty:")
    );
    assert!(kib("Private_Dirty:") < 1024);
    assert!(fork / 10 < Duration::from_millis(20));
    for (mut control, _) in controls {
        control.done(
            RequestBody::Signal {
                signal: 9,
                target: Target::Init,
            },
            &[],
        );
        control.exited();
    }
}

pub fn a_flood_of_lines_is_logged_exactly(world: &World) {
    let line =
        "The quick brown fox jumps over the lazy dog, again and again, until the log is full.";
    let count = 300_000;
    let container = world.shell(&format!("yes '{line}' | head -n {count}; sleep 1000"));
    let log = container.log.clone();
    let (mut control, keeper) = container.launch(&world.launcher);
    control.started();
    let bytes = count * (line.len() + 1);
    let last = format!("{}\n", line);
    until("all is logged", || {
        let logged = fs::metadata(&log).map_or(0, |data| data.len());
        logged > bytes as u64 && read_log(&log).0.len() == bytes
    });
    assert!(read_log(&log).0.ends_with(&last));
    println!(
        "  {} MB of lines: {:?} of the keeper's time",
        bytes / 1_000_000,
        cpu_time(keeper)
    );
    control.done(
        RequestBody::Signal {
            signal: 9,
            target: Target::Init,
        },
        &[],
    );
    control.exited();
    let text = read_log(&log).0;
    assert_eq!(text.len(), bytes);
    assert!(text.lines().all(|seen| seen == line));
}

/// How long a process has been on a processor: unlike elapsed time, the others do not count.
fn cpu_time(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}
