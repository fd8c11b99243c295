//! The engine on a real kernel: containers of busybox, as root. Without root, or without a
//! static busybox on the machine, it says so and passes.
//!
//! The launcher has to be forked while the process has one thread, hence the own `main`. Each
//! case gets an engine on directories of its own.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod cases;
mod world;

use std::process::ExitCode;

use berth_keeper::launcher;

/// A test: its name is the claim.
type Case = (&'static str, fn(&world::World));

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    if std::env::args().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() || !std::path::Path::new(world::BUSYBOX).exists() {
        println!("skipped: needs root and {}", world::BUSYBOX);
        return ExitCode::SUCCESS;
    }
    let launcher = launcher::fork(launcher::Config {
        cgroup: None,
        is_scope: false,
        births: None,
        services: &[("relay", relay)],
    })
    .expect("fork the launcher");
    let launcher = std::sync::Arc::new(launcher);
    let mut failed = 0;
    for (name, case) in cases::all() {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            continue;
        }
        let started = std::time::Instant::now();
        let launcher = launcher.clone();
        let result = std::panic::catch_unwind(move || {
            let world = world::World::new(launcher);
            case(&world);
            world.finish();
        });
        let outcome = if result.is_ok() { "ok" } else { "FAILED" };
        failed += usize::from(result.is_err());
        println!(
            "test {name} ... {outcome} ({} ms)",
            started.elapsed().as_millis()
        );
    }
    println!("{failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The relay of published ports, as the binary registers it.
fn relay(args: launcher::ServiceArgs) -> i32 {
    match args.fds.into_iter().next() {
        Some(listener) => berth_net::relay::main(listener.into()),
        None => 1,
    }
}
