//! firewalld on a message bus of its own, with files that end with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::image::cache;
use crate::run::{Output, run, sh};
use crate::wait::until;

/// Where it runs, and what it was started under.
pub struct Firewalld {
    directory: PathBuf,
    under: Vec<String>,
    processes: Vec<Child>,
}

impl Firewalld {
    /// Starts the bus, with the files in `directory`. `under` is a command that executes what
    /// follows it (`nsenter`), or empty: then firewalld is for the thread's own network namespace.
    pub fn new(directory: &Path, under: &[&str]) -> Self {
        std::fs::create_dir_all(directory.join("work")).unwrap();
        let mut firewalld = Self {
            directory: directory.to_owned(),
            under: under.iter().map(|&word| word.to_owned()).collect(),
            processes: Vec::new(),
        };
        let configuration = format!(
            r#"<busconfig><type>system</type><listen>{}</listen><auth>EXTERNAL</auth>
            <policy context="default"><allow own="*"/><allow send_destination="*"/>
            <allow receive_sender="*"/></policy></busconfig>"#,
            firewalld.address()
        );
        let file = directory.join("bus.conf");
        std::fs::write(&file, configuration).unwrap();
        let bus = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--config-file"])
            .arg(file)
            .stderr(Stdio::null())
            .spawn();
        firewalld.processes.push(bus.unwrap());
        firewalld
    }

    /// Starts it: the program from where `tests/prepare` has unpacked it, and a permanent
    /// configuration and a log that end with it.
    #[track_caller]
    pub fn start(&mut self) {
        let script = format!(
            "mount -t tmpfs none {work} && mkdir {work}/etc {work}/work && \
             mount -t overlay -o lowerdir={tree}/etc:/etc,upperdir={work}/etc,workdir={work}/work \
                none /etc && \
             mount -t overlay -o lowerdir={tree}/usr:/usr none /usr && \
             mount -t tmpfs none /var/log && exec firewalld --nofork --nopid",
            work = self.directory.join("work").display(),
            tree = tree().display(),
        );
        let mut words = self.under.iter().map(String::as_str);
        let first = words.next().unwrap_or("env");
        let firewalld = Command::new(first)
            .args(words)
            .args(["unshare", "--mount", "sh", "-c", &script])
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .stdout(Stdio::null())
            .spawn();
        self.processes.push(firewalld.unwrap());
        until("firewalld answers", || {
            (self.program(&["--state"]).code == 0).then_some(())
        });
    }

    pub fn stop(&mut self) {
        let mut firewalld = self.processes.pop().unwrap();
        sh(&format!("kill {}", firewalld.id()));
        firewalld.wait().unwrap();
    }

    /// What `firewall-cmd` says, which must succeed.
    #[track_caller]
    pub fn cmd(&self, words: &[&str]) -> String {
        self.program(words).ok().to_owned()
    }

    fn program(&self, words: &[&str]) -> Output {
        let mut command = Command::new(tree().join("usr/bin/firewall-cmd"));
        command
            .args(words)
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address());
        run(&mut command, b"")
    }

    /// The address of the bus, as `DBUS_SYSTEM_BUS_ADDRESS` has it.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.bus().display())
    }

    pub fn bus(&self) -> PathBuf {
        self.directory.join("bus")
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn tree() -> PathBuf {
    cache().join("firewalld")
}
