//! The port relay as a process of its own, for the tests: what the launcher forks in the daemon.
//! The listening socket is its standard input.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

fn main() -> io::Result<ExitCode> {
    let listener = io::stdin().as_fd().try_clone_to_owned()?;
    Ok(match berth_net::relay::main(listener.into()) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
