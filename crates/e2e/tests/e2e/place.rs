//! Surroundings for another program that runs containers: files of its own, and a mount namespace.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_testkit::image::cache;
use berth_testkit::{Machine, sh};
use rustix::process::{Pid, Signal, kill_process};

use crate::program;

/// Directories and a mount namespace of their own for one caller.
pub struct Place {
    pub root: PathBuf,
    /// Of the control groups.
    pub name: String,
    /// Holds the mount namespace until its input ends, or is the caller's daemon.
    pub holder: Child,
    machine: Machine,
}

/// `$1` is the place's root; what follows is executed.
const ENTER: &str = r#"
for directory in etc opt var; do
    mkdir -p "$1/upper/$directory" "$1/scratch/$directory"
    mount -t overlay overlay -o "lowerdir=/$directory,upperdir=$1/upper/$directory,workdir=$1/scratch/$directory" "/$directory"
done
mount -t tmpfs none /run
shift
exec "$@"
"#;

impl Place {
    pub fn new(kind: &str, inside: impl FnOnce(&Path, &str) -> Vec<String>) -> Self {
        Self::new_under(&["env"], kind, inside)
    }

    /// The same under a command that executes what follows it (`nsenter`).
    pub fn new_under(
        under: &[&str],
        kind: &str,
        inside: impl FnOnce(&Path, &str) -> Vec<String>,
    ) -> Self {
        let name = format!("berth-test-{}-{kind}", std::process::id());
        let root = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&root).unwrap();
        std::os::unix::fs::symlink(program(), root.join("berth-runtime")).unwrap();
        let path = format!("{}:{}", cache().join("dockerd").display(), env_path());
        let holder = Command::new(under[0])
            .args(&under[1..])
            .args([
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-ec",
                ENTER,
                "sh",
            ])
            .arg(&root)
            .args(inside(&root, &name))
            .env("PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(root.join("log")).unwrap())
            .spawn()
            .unwrap();
        let machine = Machine::new(vec![format!("{}/", root.display()), name.clone()]);
        Self {
            root,
            name,
            holder,
            machine,
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.root.join("log")).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Ends on the one or on the other.
        drop(self.holder.stdin.take());
        if let Some(pid) = i32::try_from(self.holder.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.holder.wait();
        sh(&format!(
            "find /sys/fs/cgroup -depth -type d -path '*/{}*' -exec rmdir {{}} + || true",
            self.name
        ));
        if std::thread::panicking() {
            eprintln!("{}", self.log());
            self.machine.sweep();
        } else {
            self.machine.assert_clean();
        }
        std::fs::remove_dir_all(&self.root).unwrap();
    }
}

fn env_path() -> String {
    std::env::var("PATH").unwrap_or_default()
}
