//! Names on networks of a user's own: who is found, by whom, and what the host's servers are
//! asked.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use berth_testkit::{Daemon, Output, until};
use rustix::process::Signal;

use crate::resolvers::with_resolv_conf;
use crate::{inspect, run_detached};

/// A name server on the host's loopback, which alone knows `host.corp`. Of other names it says
/// that it knows nobody to ask.
struct HostServer {
    address: Ipv4Addr,
    child: Child,
}

const CORP: &str = "192.0.2.80";

impl HostServer {
    fn start() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [low, high, ..] = std::process::id().to_le_bytes();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::new(127, 153 + number, high, low.max(1));
        let child = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--user=root",
            ])
            .args([
                "--pid-file=",
                "--no-resolv",
                "--no-hosts",
                "--bind-interfaces",
            ])
            .arg(format!("--listen-address={address}"))
            .arg(format!("--host-record=host.corp,{CORP}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("dnsmasq listens", || {
            std::net::TcpStream::connect((address, 53)).ok()
        });
        Self { address, child }
    }

    /// A daemon on a host that asks this server.
    fn daemon(&self) -> Daemon {
        let text = format!("nameserver {}\nsearch lan\n", self.address);
        let daemon = with_resolv_conf(&text, None);
        daemon.docker(&["network", "create", "app"]).ok();
        daemon
    }
}

impl Drop for HostServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(daemon: &Daemon, container: &str, network: &str) -> String {
    let form = format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}");
    inspect(daemon, container, &form)
}

/// With a dot at its end, since busybox' tool would add the host's search domain.
fn look_up(daemon: &Daemon, from: &str, name: &str) -> Output {
    let name = format!("{name}.");
    daemon.docker(&["exec", from, "nslookup", "-type=a", &name])
}

#[track_caller]
fn finds(daemon: &Daemon, from: &str, name: &str, address: &str) {
    let found = look_up(daemon, from, name);
    let expect = format!("Address: {address}");
    let lines = || found.stdout.lines().map(str::trim);
    assert!(lines().any(|line| line == expect), "{name}: {found:?}");
}

#[track_caller]
fn finds_nobody(daemon: &Daemon, from: &str, name: &str) {
    let found = look_up(daemon, from, name);
    assert!(found.code != 0, "{name}: {found:?}");
}

#[test]
fn containers_find_each_other_by_every_name_until_they_end() {
    let server = HostServer::start();
    let daemon = server.daemon();
    let options = "--name db --network app --network-alias store --hostname dbhost";
    let id = run_detached(&daemon, options, "sleep 1000");
    run_detached(
        &daemon,
        "--name web --network app --link db:database",
        "sleep 1000",
    );
    let db = address(&daemon, "db", "app");
    for name in [
        "db",
        "DB",
        "store",
        "dbhost",
        &id[..12],
        "db.app",
        "database",
    ] {
        finds(&daemon, "web", name, &db);
    }
    finds(&daemon, "db", "web", &address(&daemon, "web", "app"));
    // A link is its container's alone.
    finds_nobody(&daemon, "db", "database");
    let reverse = daemon.docker(&["exec", "web", "nslookup", &db]);
    assert!(reverse.ok().contains("name = db.app"), "{reverse:?}");
    // The program resolves as well as the tool that only asks.
    daemon
        .docker(&["exec", "web", "ping", "-c", "1", "-W", "3", "store"])
        .ok();

    daemon.docker(&["rename", "db", "data"]).ok();
    finds(&daemon, "web", "data", &db);
    finds_nobody(&daemon, "web", "db");
    daemon.docker(&["stop", "-t", "0", "data"]).ok();
    finds_nobody(&daemon, "web", "data");
    finds_nobody(&daemon, "web", "store");
    daemon.docker(&["start", "data"]).ok();
    finds(&daemon, "web", "store", &address(&daemon, "data", "app"));
}

#[test]
fn a_running_container_that_joins_a_network_is_found_and_finds_and_no_longer_when_it_left() {
    let server = HostServer::start();
    let daemon = server.daemon();
    run_detached(&daemon, "--name web --network app", "sleep 1000");
    run_detached(&daemon, "--name late", "sleep 1000");
    let resolv_conf = |name| {
        let shown = daemon.docker(&["exec", name, "cat", "/etc/resolv.conf"]);
        shown.ok().to_owned()
    };
    // The bridge's containers have no names and no name server.
    assert!(!resolv_conf("late").contains("127.0.0.11"));
    daemon
        .docker(&["network", "connect", "--alias", "second", "app", "late"])
        .ok();
    finds(&daemon, "web", "second", &address(&daemon, "late", "app"));
    finds(&daemon, "late", "web", &address(&daemon, "web", "app"));
    let text = format!(
        "nameserver 127.0.0.11\nsearch lan\noptions ndots:0\n\n\
         # Based on host file: '/etc/resolv.conf' (internal resolver)\n\
         # ExtServers: [host({})]\n\
         # Overrides: []\n\
         # Option ndots from: internal",
        server.address
    );
    for name in ["web", "late"] {
        assert!(resolv_conf(name).ends_with(&text), "{}", resolv_conf(name));
    }
    daemon
        .docker(&["network", "disconnect", "app", "late"])
        .ok();
    finds_nobody(&daemon, "web", "second");
    finds_nobody(&daemon, "late", "web");
    finds(&daemon, "late", "host.corp", CORP);
}

#[test]
fn the_hosts_servers_are_asked_but_not_for_who_is_cut_off() {
    let server = HostServer::start();
    let daemon = server.daemon();
    daemon
        .docker(&["network", "create", "--internal", "inner"])
        .ok();
    run_detached(&daemon, "--name out --network app", "sleep 1000");
    run_detached(&daemon, "--name in --network inner", "sleep 1000");
    run_detached(&daemon, "--name peer --network inner", "sleep 1000");
    finds(&daemon, "out", "host.corp", CORP);
    finds_nobody(&daemon, "in", "host.corp");
    finds(&daemon, "in", "peer", &address(&daemon, "peer", "inner"));
    // A way out opens.
    daemon.docker(&["network", "connect", "app", "in"]).ok();
    finds(&daemon, "in", "host.corp", CORP);
    // Without the host's server local names are found as before.
    drop(server);
    finds(&daemon, "in", "out", &address(&daemon, "out", "app"));
}

#[test]
fn after_a_killed_daemon_all_names_are_found_again() {
    let server = HostServer::start();
    let mut daemon = server.daemon();
    run_detached(
        &daemon,
        "--name db --network app --network-alias store",
        "sleep 1000",
    );
    run_detached(&daemon, "--name web --network app", "sleep 1000");
    let db = address(&daemon, "db", "app");
    finds(&daemon, "web", "store", &db);
    daemon.signal(Signal::KILL);
    daemon.spawn();
    finds(&daemon, "web", "store", &db);
    finds(&daemon, "db", "web", &address(&daemon, "web", "app"));
    finds(&daemon, "web", "host.corp", CORP);
}
