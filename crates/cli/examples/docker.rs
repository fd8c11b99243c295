//! The command line alone, without the daemon beside it: to compare it with docker's, and to
//! measure what it costs by itself.

use std::process::ExitCode;

use berth_cli::{Build, Invocation};

fn main() -> ExitCode {
    berth_cli::main(Invocation {
        program: "docker".to_owned(),
        args: std::env::args().skip(1).collect(),
        environment: Box::new(|name| std::env::var(name).ok()),
        default_host: "unix:///run/berth/berth.sock".to_owned(),
        build: Build {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: "example".to_owned(),
            time: String::new(),
        },
        extra_commands: &[],
    })
}
