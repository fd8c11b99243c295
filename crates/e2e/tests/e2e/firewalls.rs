//! Firewalls of the host: what lets our traffic through, and that nothing of it stays.

use berth_testkit::until;

use crate::island::Island;
use crate::network::{host_port, serve};

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
