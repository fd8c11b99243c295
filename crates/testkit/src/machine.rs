//! What containers could leave behind on the machine: listed before, compared after.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::run::run;
use crate::wait::PATIENCE;

/// The traces that belong to one instance, by the texts that mark them: its directories, its
/// name, its bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    marks: Vec<String>,
}

impl Machine {
    /// Traces are whatever has one of these texts in its name.
    pub fn new(marks: Vec<String>) -> Self {
        Self { marks }
    }

    /// Everything that is there now: mounts, interfaces, nftables, cgroups, processes, files.
    pub fn traces(&self) -> BTreeSet<String> {
        let mut traces = BTreeSet::new();
        let mut add = |kind: &str, text: &str| {
            for line in text
                .lines()
                .filter(|line| self.marks.iter().any(|mark| line.contains(mark.as_str())))
            {
                traces.insert(format!("{kind}: {}", line.trim()));
            }
        };
        add(
            "mount",
            &std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        );
        add("link", &tool("ip", &["-o", "link"]));
        add("address", &tool("ip", &["-o", "addr"]));
        add("nftables", &tool("nft", &["list", "ruleset"]));
        add("iptables", &tool("iptables-save", &[]));
        add("cgroup", &cgroups());
        let lines: Vec<String> = processes()
            .into_iter()
            .map(|(pid, text)| format!("{pid} {text}"))
            .collect();
        add("process", &lines.join("\n"));
        traces
    }

    /// Waits until nothing is left: interfaces and control groups go a little later than the
    /// answer that took them away.
    ///
    /// # Panics
    /// When something stays.
    #[track_caller]
    pub fn assert_clean(&self) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let traces = self.traces();
            if traces.is_empty() {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "left behind: {traces:#?}"
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Machine {
    /// After a failed test: ends the instance's processes and removes its bridge, tables, rules
    /// and control groups as well as it can, so that other tests find the machine as they need it.
    /// Only what bears one of the marks is touched.
    pub fn sweep(&self) {
        let line = self
            .marks
            .iter()
            .map(|mark| format!("sweep {mark}"))
            .collect::<Vec<_>>()
            .join("\n");
        for (pid, text) in processes() {
            if self.marks.iter().any(|mark| text.contains(mark.as_str()))
                && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
            {
                // It may have ended meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let output = run(
            Command::new("bash").args(["-c", &format!("{SWEEP}\n{line}")]),
            b"",
        );
        eprint!("{}", output.stderr);
    }
}

/// What is named after the mark goes; most marks name nothing of most kinds.
const SWEEP: &str = r#"sweep() {
    case $1 in */*) return;; esac
    ip link del "$1" 2>/dev/null
    for family in ip ip6 inet; do nft delete table $family "$1" 2>/dev/null; done
    for tool in iptables ip6tables; do
        $tool-save 2>/dev/null | grep -i -- "^-A FORWARD .*$1\b" | sed 's/^-A/-D/' | while read -r rule; do eval "$tool $rule"; done
        $tool-save 2>/dev/null | grep -io -- "^:$1-[^ ]*" | while read -r chain; do $tool -F "${chain#:}"; $tool -X "${chain#:}"; done
    done
    for try in 1 2 3 4 5 6 7 8 9 10; do
        find /sys/fs/cgroup -depth -type d -path "*/$1*" 2>/dev/null | xargs -r rmdir 2>/dev/null && break
        sleep 0.05
    done
}"#;

fn tool(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args);
    match command.output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(_) => String::new(),
    }
}

fn cgroups() -> String {
    run(
        Command::new("find").args(["/sys/fs/cgroup", "-type", "d"]),
        b"",
    )
    .stdout
}

/// Process id, and command line with control groups, of every process.
fn processes() -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let Some(pid) = pid(&path) else { continue };
        if pid == std::process::id() {
            continue;
        }
        let words = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&words).replace(['\0', '\n'], " ");
        let cgroup = std::fs::read_to_string(path.join("cgroup"))
            .unwrap_or_default()
            .replace('\n', " ");
        found.push((pid, format!("{line} {cgroup}")));
    }
    found
}

fn pid(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}
