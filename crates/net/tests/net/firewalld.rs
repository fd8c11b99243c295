//! With a firewalld of the machine's own, on a message bus of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_net::{Config, DEFAULT_NETWORK, Firewall};

use crate::machine::{
    MACHINE, Machine, REMOTE, ask_tcp, connect, run, serve_tcp, tcp, with_machine,
};

/// firewalld is Python, and the machine may be busy.
const START: Duration = Duration::from_secs(60);

struct Firewalld {
    directory: PathBuf,
    processes: Vec<Child>,
}

impl Firewalld {
    fn new(machine: &Machine) -> Firewalld {
        let directory = machine.directory.path().join("firewalld");
        std::fs::create_dir_all(directory.join("work")).expect("a directory");
        let configuration = format!(
            r#"<busconfig><type>system</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>
            <policy context="default"><allow own="*"/><allow send_destination="*"/>
            <allow receive_sender="*"/></policy></busconfig>"#,
            bus(&directory).display()
        );
        let file = directory.join("bus.conf");
        std::fs::write(&file, configuration).expect("the bus's configuration");
        let bus = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--config-file"])
            .arg(file)
            .stderr(Stdio::null())
            .spawn();
        Firewalld {
            directory,
            processes: vec![bus.expect("dbus-daemon")],
        }
    }

    /// Starts it with files of its own: the program from where it was unpacked, and a permanent
    /// configuration and a log that end with it.
    fn start(&mut self) {
        let script = format!(
            "mount -t tmpfs none {work} && mkdir {work}/etc {work}/work && \
             mount -t overlay -o lowerdir={tree}/etc:/etc,upperdir={work}/etc,workdir={work}/work \
                none /etc && \
             mount -t overlay -o lowerdir={tree}/usr:/usr none /usr && \
             mount -t tmpfs none /var/log && exec firewalld --nofork --nopid",
            work = self.directory.join("work").display(),
            tree = tree().display(),
        );
        let firewalld = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .stdout(Stdio::null())
            .spawn();
        self.processes.push(firewalld.expect("firewalld"));
        assert!(in_time(|| self.answers()), "firewalld does not start");
    }

    fn stop(&mut self) {
        let mut firewalld = self.processes.pop().expect("a process");
        run(&format!("kill {}", firewalld.id()));
        firewalld.wait().expect("its end");
    }

    fn answers(&self) -> bool {
        self.program(&["--state"]).0
    }

    /// What `firewall-cmd` says, which must succeed.
    fn cmd(&self, words: &[&str]) -> String {
        let (success, said) = self.program(words);
        assert!(success, "firewall-cmd {words:?}: {said}");
        said.trim().to_owned()
    }

    fn program(&self, words: &[&str]) -> (bool, String) {
        let output = Command::new(tree().join("usr/bin/firewall-cmd"))
            .args(words)
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .output()
            .expect("firewall-cmd");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), said)
    }

    fn address(&self) -> String {
        format!("unix:path={}", bus(&self.directory).display())
    }

    fn config(&self, machine: &Machine, instance: &str) -> Config {
        let mut config = machine.config(instance);
        config.system_bus = bus(&self.directory);
        config
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

/// Where `tests/prepare` has unpacked it.
fn tree() -> PathBuf {
    let cache = std::env::var_os("BERTH_TEST_CACHE");
    let cache = cache.map_or_else(|| PathBuf::from("/var/cache/berth-tests"), PathBuf::from);
    let tree = cache.join("firewalld");
    assert!(tree.exists(), "run tests/prepare first");
    tree
}

fn bus(directory: &Path) -> PathBuf {
    directory.join("bus")
}

fn in_time(mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + START;
    while !done() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}

#[test]
fn containers_are_connected_through_a_zone_of_firewalld_until_the_end() {
    with_machine(|machine| {
        let mut firewalld = Firewalld::new(machine);
        serve_tcp(&machine.remote, 80, "remote");
        // The daemon is there first.
        let net = machine.open(firewalld.config(machine, "zoned"));
        let web = connect(&net, "web", &[tcp(8094, 80)]);
        serve_tcp(&web.netns, 80, "web");
        let out = || ask_tcp(Some(&web.netns), REMOTE, 80).is_some();
        let published = || ask_tcp(Some(&machine.remote), MACHINE, 8094).is_some();
        firewalld.start();
        let zones = || firewalld.cmd(&["--permanent", "--get-zones"]);
        let policies = || firewalld.cmd(&["--permanent", "--get-policies"]);
        assert!(in_time(|| firewalld
            .cmd(&["--get-active-policies"])
            .contains("zoned-fwd")));
        assert!(out() && published());
        assert!(
            firewalld
                .cmd(&["--info-zone=zoned"])
                .contains("interfaces: zoned0")
        );

        firewalld.cmd(&["--reload"]);
        assert!(out() && published(), "after a reload");
        drop(net);
        firewalld.cmd(&["--reload"]);
        assert!(out() && published(), "after a reload without a daemon");
        let net = machine.open(firewalld.config(machine, "zoned"));
        net.restore(&[], std::slice::from_ref(&web.endpoint))
            .expect("restore");
        firewalld.cmd(&["--zone=zoned", "--remove-interface=zoned0"]);
        assert!(!out(), "the zone is what makes the difference");
        firewalld.cmd(&["--reload"]);
        assert!(
            out() && published(),
            "after the bridge was taken out and a reload"
        );

        net.disconnect("web", DEFAULT_NETWORK).expect("disconnect");
        net.close().expect("close");
        assert!(!zones().contains("zoned"), "{}", zones());
        assert!(!policies().contains("zoned"), "{}", policies());
        assert!(!firewalld.cmd(&["--get-active-zones"]).contains("zoned"));
        firewalld.cmd(&["--reload"]);
        assert!(!firewalld.cmd(&["--get-zones"]).contains("zoned"));
        firewalld.stop();
    });
}

#[test]
fn firewalld_is_left_to_its_user_if_they_say_so() {
    with_machine(|machine| {
        let mut firewalld = Firewalld::new(machine);
        serve_tcp(&machine.remote, 80, "remote");
        firewalld.start();
        let mut own = firewalld.config(machine, "owned");
        own.firewall = Firewall::Own;
        let net = machine.open(own.clone());
        let warnings = net.warnings();
        let advice = "firewall-cmd --permanent --zone=trusted --add-interface=owned0";
        assert!(
            warnings.iter().any(|text| text.contains(advice)),
            "{warnings:?}"
        );
        let container = connect(&net, "blocked", &[]);
        let out = || ask_tcp(Some(&container.netns), REMOTE, 80).is_some();
        assert!(!out());
        firewalld.cmd(&["--permanent", "--zone=trusted", "--add-interface=owned0"]);
        firewalld.cmd(&["--reload"]);
        assert!(out(), "the advice is good");
        drop(net);
        let net = machine.open(own);
        assert_eq!(net.warnings(), Vec::<String>::new());
        drop(net);
        // Nor is a zone made for a bridge that has one.
        let net = machine.open(firewalld.config(machine, "owned"));
        assert_eq!(net.warnings(), Vec::<String>::new());
        assert!(
            !firewalld
                .cmd(&["--permanent", "--get-zones"])
                .contains("owned")
        );
        net.disconnect("blocked", DEFAULT_NETWORK)
            .expect("disconnect");
        net.close().expect("close");
        let zone = firewalld.cmd(&["--get-zone-of-interface=owned0"]);
        assert_eq!(zone, "trusted");
    });
}
