//! Networks whose containers are hosts of the network that a link of this machine is on. The
//! machine on the other end of the wire is a network namespace.

use berth_testkit::{Daemon, sh};
use rustix::process::Signal;

use crate::{CLIENTS, daemon, inspect, run_detached};

/// A wire to another machine, which has the first address of the subnet and serves there.
struct Wire {
    name: String,
    subnet: String,
}

impl Wire {
    fn new(number: u8) -> Self {
        let name = format!("mv{}n{number}", std::process::id());
        let subnet = format!("10.214.{number}");
        sh(&format!(
            "ip netns add {name}; ip link add {name}a type veth peer name {name}b netns {name}
             ip link set {name}a up; ip -n {name} link set {name}b up
             ip -n {name} addr add {subnet}.1/24 dev {name}b; ip -n {name} link set lo up"
        ));
        Self { name, subnet }
    }

    fn create(&self, more: &[&str]) -> Vec<String> {
        let words = [
            "network",
            "create",
            "-d",
            "macvlan",
            "--subnet",
            &format!("{}.0/24", self.subnet),
            "--gateway",
            &format!("{}.1", self.subnet),
            "-o",
            &format!("parent={}a", self.name),
        ];
        words
            .iter()
            .chain(more)
            .map(|word| (*word).to_owned())
            .collect()
    }

    fn pings(&self, address: &str) -> bool {
        let line = format!(
            "ip netns exec {} busybox ping -c1 -W2 {address} >/dev/null && echo yes || echo no",
            self.name
        );
        sh(&line).trim() == "yes"
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        sh(&format!("ip netns del {}", self.name));
    }
}

fn address(daemon: &Daemon, container: &str) -> String {
    inspect(
        daemon,
        container,
        "{{.NetworkSettings.Networks.lan.IPAddress}}",
    )
}

#[test]
fn containers_on_a_macvlan_network_are_hosts_of_the_wire_and_have_names() {
    let mut daemon = daemon();
    let wire = Wire::new(1);
    for client in CLIENTS {
        let create = wire.create(&["lan"]);
        let create: Vec<&str> = create.iter().map(String::as_str).collect();
        client(&daemon, &create).ok();
        let (_, shown) = daemon.api("GET", "/v1.51/networks/lan", None);
        assert_eq!(shown["Driver"], "macvlan");
        assert_eq!(shown["Options"]["parent"], format!("{}a", wire.name));
        let one = run_detached(&daemon, "--name one --network lan", "exec sleep 1000");
        let two = format!(
            "--name two --network lan --ip {}.77 -p 8300:80",
            wire.subnet
        );
        run_detached(&daemon, &two, "exec sleep 1000");
        assert_eq!(address(&daemon, "two"), format!("{}.77", wire.subnet));
        for name in ["one", "two"] {
            assert!(wire.pings(&address(&daemon, name)), "{name}");
        }
        let line = format!("ping -c1 -W2 two && ping -c1 -W2 {}.1", wire.subnet);
        daemon.docker(&["exec", "one", "sh", "-c", &line]).ok();
        // As Docker: published ports are not for this driver.
        assert_eq!(
            inspect(&daemon, "two", "{{json .NetworkSettings.Ports}}"),
            "{}"
        );

        // The daemon goes, the containers stay, and can be taken off and put on again.
        daemon.signal(Signal::KILL);
        daemon.spawn();
        assert!(wire.pings(&address(&daemon, "one")));
        daemon.docker(&["network", "disconnect", "lan", "one"]).ok();
        let links = daemon.docker(&["exec", "one", "ip", "-o", "link"]);
        assert!(!links.ok().contains("eth0"), "{}", links.ok());
        daemon.docker(&["network", "connect", "lan", &one]).ok();
        assert!(wire.pings(&address(&daemon, "one")));
        daemon.docker(&["restart", "-t", "0", "two"]).ok();
        assert!(wire.pings(&address(&daemon, "two")));
        daemon
            .docker(&["network", "rm", "lan"])
            .fails(1, "has active endpoints");
        daemon.docker(&["rm", "-f", "one", "two"]).ok();
        client(&daemon, &["network", "rm", "lan"]).ok();
    }
}

#[test]
fn what_a_driver_or_the_kernel_cannot_do_is_told() {
    let daemon = daemon();
    let wire = Wire::new(2);
    let refused = |driver: &str, option: &str, words: &str| {
        let create = ["network", "create", "-d", driver, "-o", option, "net"];
        daemon.docker(&create).fails(1, words);
    };
    refused(
        "macvlan",
        "parent=nosuch",
        "invalid subinterface vlan name nosuch, example formatting is eth0.10",
    );
    refused(
        "macvlan",
        "parent=lo",
        "loopback interface is not a valid macvlan parent link",
    );
    refused(
        "ipvlan",
        "ipvlan_mode=l4",
        "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan driver default",
    );
    let parent = format!("parent={}a", wire.name);
    let ipvlan = daemon.docker(&["network", "create", "-d", "ipvlan", "-o", &parent, "net"]);
    if ipvlan.code == 0 {
        run_detached(&daemon, "--rm --name one --network net", "exec sleep 1000");
        daemon
            .docker(&[
                "run",
                "--rm",
                "--network",
                "net",
                "busybox",
                "ping",
                "-c1",
                "one",
            ])
            .ok();
        let mac = [
            "run",
            "--rm",
            "--network",
            "net",
            "--mac-address",
            "02:00:00:00:00:09",
            "busybox",
            "true",
        ];
        daemon.docker(&mac).fails(
            125,
            "ipvlan interfaces do not support custom mac address assignment",
        );
        daemon.docker(&["rm", "-f", "one"]).ok();
        daemon.docker(&["network", "rm", "net"]).ok();
    } else {
        ipvlan.fails(1, "this kernel has no ipvlan interfaces: its module ipvlan is neither built in nor can it be loaded");
    }
    let listed = daemon.docker(&["network", "ls", "-f", "type=custom", "-q"]);
    assert_eq!(listed.ok(), "");
}
