//! Firewalls of the host: what lets our traffic through, and that nothing of it stays.

use std::process::Command;

use berth_testkit::{Daemon, run, sh, until};

use crate::network::{host_port, serve};

/// A network namespace for a daemon, so that the firewall there is nobody else's, with a wire to
/// another one that stands for another host.
pub struct Island {
    host: String,
    neighbour: String,
}

impl Island {
    pub const HERE: &str = "10.213.9.1";

    pub fn new(number: u8) -> Self {
        let name = |letter| format!("bt{}{letter}{number}", std::process::id());
        let island = Self {
            host: name('h'),
            neighbour: name('n'),
        };
        let (h, n) = (&island.host, &island.neighbour);
        sh(&format!(
            "ip netns add {h}; ip netns add {n}; ip -n {h} link set lo up; ip -n {n} link set lo up
             ip -n {h} link add wire type veth peer name wire netns {n}
             ip -n {h} addr add {here}/24 dev wire; ip -n {h} link set wire up
             ip -n {n} addr add 10.213.9.2/24 dev wire; ip -n {n} link set wire up
             ip -n {n} route add default via {here}",
            here = Self::HERE
        ));
        island
    }

    /// Runs a line on the daemon's host.
    pub fn on_host(&self, line: &str) -> berth_testkit::Output {
        Self::inside(&self.host, line)
    }

    pub fn on_neighbour(&self, line: &str) -> berth_testkit::Output {
        Self::inside(&self.neighbour, line)
    }

    fn inside(namespace: &str, line: &str) -> berth_testkit::Output {
        let net = format!("--net=/run/netns/{namespace}");
        run(
            Command::new("nsenter").args([&net, "bash", "-ec", line]),
            b"",
        )
    }

    /// Not by `ip netns exec`, which mounts another `/sys` without the control groups.
    pub fn daemon(&self, flags: &[&str]) -> Daemon {
        let net = format!("--net=/run/netns/{}", self.host);
        let daemon = Daemon::start_under(&["nsenter", &net], crate::program(), flags);
        daemon.load("busybox");
        daemon
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        sh(&format!(
            "ip netns del {}; ip netns del {}",
            self.host, self.neighbour
        ));
    }
}

#[test]
fn a_foreign_forward_drop_does_not_cut_containers_off() {
    for program in ["iptables-nft", "iptables-legacy"] {
        let island = Island::new(1);
        island.on_host(&format!("{program} -P FORWARD DROP")).ok();
        let daemon = island.daemon(&[]);
        serve(&daemon, "web", &["0:80"]);
        let port = host_port(&daemon, "web", "80");
        let url = format!("http://{}:{port}/", Island::HERE);
        let page = island.on_neighbour(&format!("curl -sS -m 5 {url}"));
        assert_eq!(page.ok(), "page", "{program}");
        // Not everything is let through: an unpublished port stays closed from outside.
        let ip = daemon.docker(&[
            "inspect",
            "-f",
            "{{.NetworkSettings.Networks.bridge.IPAddress}}",
            "web",
        ]);
        let direct = island.on_neighbour(&format!("curl -sS -m 1 http://{}/", ip.ok()));
        assert_ne!(direct.code, 0, "{program}");
        drop(daemon);
        let rules = island.on_host(&format!("{program} -S"));
        assert!(
            !rules.ok().to_lowercase().contains("berth"),
            "our rules are still there: {}",
            rules.stdout
        );
        assert!(rules.ok().contains("-P FORWARD DROP"), "{}", rules.stdout);
    }
}

#[test]
fn a_forward_drop_that_comes_later_does_not_cut_containers_off_either() {
    let island = Island::new(2);
    let daemon = island.daemon(&[]);
    serve(&daemon, "web", &["0:80"]);
    let port = host_port(&daemon, "web", "80");
    island.on_host("iptables-nft -P FORWARD DROP").ok();
    let line = format!("curl -sS -m 1 http://{}:{port}/", Island::HERE);
    until("the page comes", || {
        (island.on_neighbour(&line).code == 0).then_some(())
    });
}

#[test]
fn with_firewall_own_the_missing_rule_is_told() {
    let island = Island::new(3);
    island.on_host("iptables-nft -P FORWARD DROP").ok();
    let daemon = island.daemon(&["--firewall=own"]);
    let rules = island.on_host("iptables-nft -S");
    assert!(
        !rules.ok().to_lowercase().contains("berth"),
        "{}",
        rules.stdout
    );
    assert!(
        daemon
            .log()
            .contains("iptables -A FORWARD -m devgroup --src-group"),
        "{}",
        daemon.log()
    );
}
