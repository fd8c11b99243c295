//! The `berth` binary: arguments to configuration, build, run, drain.
//!
//! The name it is called by decides: `docker` is the command line, `dockerd` the daemon,
//! `berth-runtime` or `runc` the OCI runtime; `berth` is all of them, and has a few commands of
//! its own.

mod build;
mod daemon;
mod demo;
mod surroundings;

use std::path::Path;
use std::process::ExitCode;

use berth_cli::{Build, Invocation};

/// The commands that only the binary itself has.
const OWN_COMMANDS: &[(&str, &str)] = &[
    ("daemon", "Run the engine"),
    (
        "demo",
        "Show what it does, without network and without traces",
    ),
];

/// What the daemon calls itself by to replace its launcher.
const LAUNCHER: &str = "daemon-launcher";

fn main() -> ExitCode {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called = words.next().unwrap_or_default();
    let args: Vec<String> = words.collect();
    let name = Path::new(&called)
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    match (name.as_str(), args.first().map(String::as_str)) {
        ("dockerd", _) => sealed(|| daemon::main("dockerd", &args)),
        ("docker", _) => command_line("docker", args),
        (_, Some("daemon")) => sealed(|| daemon::main("berth daemon", &args[1..])),
        ("berth-runtime" | "runc", _) => runtime(&called, 1),
        (_, Some("runtime")) => runtime("berth runtime", 2),
        (_, Some(LAUNCHER)) => sealed(|| daemon::launcher(&args[1..])),
        (_, Some("demo")) => demo::main(&args[1..]),
        (_, Some(demo::SERVER)) => demo::serve(&args[1..]),
        _ => command_line("berth", args),
    }
}

/// Runs from a read-only mount of this binary: containers are forks of it, and could otherwise
/// reach the file through their `/proc/self/exe` (CVE-2019-5736).
fn sealed(work: impl FnOnce() -> ExitCode) -> ExitCode {
    let (args, env) = surroundings::raw();
    match berth_runtime::selfexe::seal(args, env) {
        Ok(()) => work(),
        Err(error) => {
            eprintln!("run from a read-only mount of this program: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The OCI runtime's command line, which begins after `skipped` words.
fn runtime(program: &str, skipped: usize) -> ExitCode {
    sealed(|| {
        let args: Vec<std::ffi::OsString> = std::env::args_os().skip(skipped).collect();
        let surroundings = surroundings::Surroundings::of_process();
        let code = berth_runtime::cli::main(&berth_runtime::cli::Invocation {
            program,
            args: &args,
            default_root: Path::new("/run/berth-runtime"),
            listen_fds: u32::try_from(surroundings.listen_fds()).unwrap_or(0),
            notify_socket: surroundings.notify_socket().filter(|path| !path.is_empty()),
        });
        ExitCode::from(u8::try_from(code).unwrap_or(1))
    })
}

fn command_line(program: &str, args: Vec<String>) -> ExitCode {
    berth_cli::main(Invocation {
        program: program.to_owned(),
        args,
        environment: Box::new(surroundings::variable),
        default_host: format!("unix://{}", daemon::DEFAULT_SOCKET),
        build: Build {
            version: build::VERSION.to_owned(),
            commit: build::commit().to_owned(),
            time: String::new(),
        },
        extra_commands: if program == "berth" {
            OWN_COMMANDS
        } else {
            &[]
        },
    })
}
