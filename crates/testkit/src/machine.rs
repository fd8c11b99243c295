//! What containers could leave behind on the machine: listed before, compared after.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

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
        add("process", &processes());
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

/// Process id and command line of every process.
fn processes() -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let Some(pid) = pid(&path) else { continue };
        if pid == std::process::id() {
            continue;
        }
        let words = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&words).replace('\0', " ");
        let cgroup = std::fs::read_to_string(path.join("cgroup"))
            .unwrap_or_default()
            .replace('\n', " ");
        text.push_str(&format!("{pid} {line} {cgroup}\n"));
    }
    text
}

fn pid(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.parse().ok()
}
