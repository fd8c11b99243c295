//! Process 1 with `--init`: starts the command as its child, passes signals on, and reaps what
//! the container's processes leave behind. It has the command's user, capabilities and filter.

use berth_sys::clone;
use berth_sys::fork::exit_now;
use berth_sys::signal;
use berth_sys::title;
use rustix::process::{Pid, WaitOptions};

use super::Exit;
use super::process::Prepared;

/// Never returns: exits as the command does, with 128 + N after signal N.
pub(super) fn run(prepared: &Prepared) -> ! {
    // Blocked before the fork, so that none is lost between it and the first wait.
    signal::block_all();
    let child = match clone::fork_plain() {
        Ok(Some(child)) => child,
        Ok(None) => {
            own_terminal();
            signal::reset();
            prepared.execute()
        }
        Err(error) => {
            let line = format!("fork: {error}\n");
            let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
            exit_now(255)
        }
    };
    // Closes the channel too, by which the caller learns that the container runs. Nothing that
    // owned a descriptor is used from here on.
    let _ = berth_sys::exec::close_all_but(3, &[]);
    let _ = rustix::thread::set_name(c"docker-init");
    // As Docker's init shows itself.
    let mut words: Vec<&[u8]> = vec![b"/sbin/docker-init", b"--"];
    words.extend(prepared.words());
    title::set(&words);
    loop {
        match signal::wait_any() {
            Ok(libc::SIGCHLD) => {
                if let Some(code) = reap(child) {
                    exit_now(code);
                }
            }
            // Job control of the terminal is meant for the command's group, which has it.
            Ok(libc::SIGTTIN | libc::SIGTTOU) | Err(_) => {}
            // A child that is gone was or will be reaped.
            Ok(other) => drop(signal::kill(child.as_raw_nonzero().get(), other)),
        }
    }
}

/// A group of its own in the terminal's foreground, as a shell would start it: the terminal's
/// signals then reach the command once, and not a second time through us.
fn own_terminal() {
    if rustix::process::setpgid(None, None).is_ok() {
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
    }
}

fn reap(child: Pid) -> Option<i32> {
    let mut code = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == child {
            code = Some(Exit::from(status).code());
        }
    }
    code
}
