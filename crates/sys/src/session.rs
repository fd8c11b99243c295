//! Child processes apart from their parent's terminal.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;

/// The program gets a session of its own (setsid(2)), so that keys typed at this one's terminal
/// reach this one only; and it is sent SIGTERM when the thread that starts it ends.
pub fn detach(command: &mut Command) {
    let prepare = || {
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls may run. `prepare` makes two
    // system calls that touch no memory of the process, and an error of errno without allocating.
    unsafe { command.pre_exec(prepare) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_child_leads_a_session() {
        let mut command = Command::new("sh");
        // Field 6 of /proc/self/stat is the session (proc(5)).
        command.args([
            "-c",
            "read -r pid _ _ _ _ session _ </proc/$$/stat; echo $pid $session",
        ]);
        detach(&mut command);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (pid, session) = text.trim().split_once(' ').unwrap();
        assert_eq!(pid, session);
    }
}
