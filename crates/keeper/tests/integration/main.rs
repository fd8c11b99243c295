//! The launcher and its keepers with real containers, as root. The launcher is forked first
//! thing, as the daemon does it; then the cases run, each with containers of its own; and in the
//! end the machine must be as it was before.
//!
//! Arguments: a part of the cases' names.

#![allow(
    clippy::unwrap_used,
    reason = "a test without libtest is no test to clippy"
)]

mod keeping;
mod streams;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use berth_keeper::launcher::{self, Config, ServiceArgs};
use world::{Machine, World};

type Case = (&'static str, fn(&World));

macro_rules! cases {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$((stringify!($name), $module::$name as fn(&World))),*]
    };
}

fn main() -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: containers need root here");
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<_> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let before = Machine::now();
    let cgroup = world::instance() + "/keepers";
    let services: [(&'static str, launcher::Service); 2] = [("echo", echo), ("place", place)];
    let config = Config {
        cgroup: Some(&cgroup),
        is_scope: false,
        births: None,
        services: &services,
    };
    keeping::launchers_relieve_each_other_in_one_cgroup(config);
    let launchers = [(); 2].map(|()| launcher::fork(config).expect("fork a launcher"));
    let births = std::env::temp_dir().join(format!("keeper-test-{}.lock", std::process::id()));
    let generations = keeping::two_generations(Config {
        births: Some(&births),
        ..config
    });
    keeping::an_overlay_can_be_mounted_the_classic_way();
    let world = World::new(launchers, generations);

    let cases: Vec<Case> = cases![
        keeping::a_container_s_end_is_told_and_recorded,
        keeping::a_command_that_does_not_exist_fails_the_start,
        keeping::a_gated_start_waits_for_its_byte,
        keeping::a_start_that_is_called_off_leaves_nothing,
        keeping::a_service_is_forked_by_name,
        keeping::a_keeper_outlives_its_daemon_and_its_launcher,
        keeping::the_next_daemon_finds_what_the_last_one_asked_for_in_its_last_moment,
        keeping::twenty_daemons_lose_no_line,
        keeping::a_killed_keeper_s_container_dies,
        keeping::a_keeper_hears_no_signal_for_the_daemon_s_group,
        keeping::a_container_starts_again_on_the_same_overlay,
        keeping::a_keeper_has_little_memory_of_its_own,
        streams::input_and_output_are_exact,
        streams::an_exec_has_its_own_streams_and_code,
        streams::a_daemonised_child_of_an_exec_lives_on,
        streams::a_terminal_is_resized_left_and_joined_again,
        streams::a_client_that_does_not_read_holds_up_the_container,
        streams::a_vanished_client_holds_up_nobody,
        streams::rotated_logs_are_compressed_meanwhile,
        streams::a_late_reader_gets_everything_after_the_end,
        streams::a_flood_of_lines_is_logged_exactly,
    ]
    .into_iter()
    .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part)))
    .collect();
    let mut failed = 0;
    for (name, case) in cases {
        let passed = catch_unwind(AssertUnwindSafe(|| case(&world))).is_ok();
        println!("{name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u32::from(!passed);
    }
    drop(world);
    std::fs::remove_file(births).unwrap();
    if let Err(left) = before.check_unchanged() {
        println!("left behind: {left}");
        failed += 1;
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A service that writes its argument into the descriptor that it was given.
fn echo(args: ServiceArgs) -> i32 {
    let text = args.args.as_str().unwrap_or_default().to_owned();
    i32::from(
        args.fds
            .first()
            .is_none_or(|fd| rustix::io::write(fd, text.as_bytes()).is_err()),
    )
}

/// A service that writes its cgroups into the descriptor that it was given.
fn place(args: ServiceArgs) -> i32 {
    let text = std::fs::read("/proc/self/cgroup").unwrap_or_default();
    i32::from(
        args.fds
            .first()
            .is_none_or(|fd| rustix::io::write(fd, &text).is_err()),
    )
}
