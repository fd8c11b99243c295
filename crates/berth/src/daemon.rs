//! `berth daemon`: configuration, build, run, drain.
//!
//! ```text
//! argv + daemon.json ─▶ Settings ─▶ Instance (names, directories, locks)
//!    └─ fork the launcher while there is one thread
//!         └─ runtime ─▶ store ─▶ images ─▶ network ─▶ engine ─▶ API ─▶ listeners
//!              SIGHUP: settings again    SIGTERM, SIGINT: drain in the reverse order
//! ```

mod flags;
mod instance;
mod listen;
mod reload;
mod rest;
mod run;
mod settings;

use std::process::ExitCode;

use berth_cli::flags::{Order, Stop};

pub use instance::SOCKET as DEFAULT_SOCKET;
pub use settings::Settings;

/// Runs the daemon with the words after `daemon`. `program` is what help and errors call it.
pub fn main(program: &str, words: &[String]) -> ExitCode {
    let parsed = match berth_cli::flags::parse(flags::FLAGS, Order::Mixed, words) {
        Ok(parsed) => parsed,
        Err(Stop::Help | Stop::ShortHelp) => {
            print!("{}", flags::help(program));
            return ExitCode::SUCCESS;
        }
        Err(Stop::Invalid(complaint)) => {
            return fail(&format!("{complaint}\nSee '{program} --help'."));
        }
    };
    if parsed.on("version") {
        println!(
            "Berth version {}, build {}",
            crate::build::VERSION,
            crate::build::commit()
        );
        return ExitCode::SUCCESS;
    }
    if let Some(word) = parsed.args.first() {
        return fail(&format!(
            "\"{program}\" accepts no arguments, but was given {word:?}.\nSee '{program} --help'."
        ));
    }
    let outcome = Settings::load(&parsed).and_then(|settings| {
        if parsed.on("validate") {
            eprintln!("configuration OK");
            return Ok(());
        }
        run::run(settings, parsed)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("failed to start daemon: {error:#}")),
    }
}

/// A launcher that is not the daemon's first one.
pub fn launcher(words: &[String]) -> ExitCode {
    let code = match words {
        [births, cgroup, more @ ..] => {
            run::launcher(births, cgroup, more.first().map(String::as_str))
        }
        _ => 1,
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn fail(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::FAILURE
}
