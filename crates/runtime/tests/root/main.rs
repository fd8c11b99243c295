//! Real containers on a busybox root. Needs root and `busybox-static`.
//!
//! A container's first process is forked from its caller, which must be single-threaded; so the
//! claims run one after another in the main thread, without the test harness. The machine is
//! compared before and after.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod bundle;
mod command_line;
mod containers;
mod execs;
mod failures;
mod hooks;
mod mounts;
mod namespaces;
mod seccomp;
mod security;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A claim and the function that shows it.
type Claim = (&'static str, fn());

#[macro_export]
macro_rules! claims {
    ($($name:ident),* $(,)?) => {
        pub const CLAIMS: &[$crate::Claim] = &[$((stringify!($name), $name)),*];
    };
}

fn main() {
    let wanted = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == command_line::CALL) {
        let code = command_line::called(&words[1..]);
        berth_sys::fork::exit_now(code);
    }
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    // What others mount meanwhile is not ours.
    berth_sys::fork::unshare_mounts().unwrap();
    berth_runtime::container::warm();
    let before = bundle::machine();
    let claims = [
        containers::CLAIMS,
        execs::CLAIMS,
        failures::CLAIMS,
        mounts::CLAIMS,
        namespaces::CLAIMS,
        seccomp::CLAIMS,
        security::CLAIMS,
        command_line::CLAIMS,
        hooks::CLAIMS,
    ]
    .concat();
    let mut failed = Vec::new();
    for (name, claim) in claims {
        if wanted.as_ref().is_some_and(|wanted| !name.contains(wanted)) {
            continue;
        }
        let start = std::time::Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(claim));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("claim {name} ... {word} ({:?})", start.elapsed());
        if outcome.is_err() {
            failed.push(name);
        }
    }
    assert_eq!(bundle::machine(), before, "something was left behind");
    assert!(failed.is_empty(), "failed: {failed:?}");
}
