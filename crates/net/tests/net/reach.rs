//! Who reaches whom without published ports.

use crate::machine::{
    LOCALHOST, MACHINE, REMOTE, ask_tcp, connect, inside, no_tcp, run, serve_tcp, with_machine,
};

#[test]
fn a_container_reaches_the_gateway_the_other_containers_and_the_world() {
    with_machine(|machine| {
        let net = machine.open(machine.config("reach"));
        let (one, two) = (connect(&net, "one", &[]), connect(&net, "two", &[]));
        assert_eq!(net.bridge().subnet.to_string(), "172.17.0.0/16");
        assert_eq!(one.ipv4().to_string(), "172.17.0.2");
        assert_eq!(one.endpoint.mac_string(), "02:42:ac:11:00:02");
        assert_eq!(two.ipv4().to_string(), "172.17.0.3");
        serve_tcp(&two.netns, 80, "two");
        serve_tcp(&machine.remote, 80, "remote");
        let from_one = |address| ask_tcp(Some(&one.netns), address, 80);
        assert_eq!(from_one(two.ipv4()).as_deref(), Some("two 172.17.0.2"));
        // The world sees the machine's address.
        assert_eq!(from_one(REMOTE), Some(format!("remote {MACHINE}")));
        assert_eq!(
            ask_tcp(None, two.ipv4(), 80).as_deref(),
            Some("two 172.17.0.1")
        );
    });
}

#[test]
fn the_interface_is_what_docker_makes() {
    with_machine(|machine| {
        let mut config = machine.config("looks");
        config.bridge.mtu = Some(1400);
        let net = machine.open(config);
        let container = connect(&net, "one", &[]);
        let (addresses, routes) =
            inside(&container.netns, || (run("ip -o addr"), run("ip -4 route")));
        assert!(
            addresses.contains("eth0    inet 172.17.0.2/16 brd 172.17.255.255"),
            "{addresses}"
        );
        assert!(addresses.contains("lo    inet 127.0.0.1/8"), "{addresses}");
        assert!(!addresses.contains("fe80"), "{addresses}");
        assert!(
            routes.contains("default via 172.17.0.1 dev eth0"),
            "{routes}"
        );
        let link = inside(&container.netns, || run("ip link show eth0"));
        assert!(
            link.contains("mtu 1400") && link.contains("state UP"),
            "{link}"
        );
    });
}

#[test]
fn unpublished_ports_are_closed_to_other_hosts() {
    with_machine(|machine| {
        let net = machine.open(machine.config("closed"));
        let container = connect(&net, "one", &[]);
        serve_tcp(&container.netns, 80, "one");
        assert_eq!(ask_tcp(Some(&machine.remote), container.ipv4(), 80), None);
        no_tcp(Some(&machine.remote), MACHINE, 80);
    });
}

#[test]
fn the_hosts_loopback_is_closed_to_containers() {
    with_machine(|machine| {
        let net = machine.open(machine.config("loop"));
        let container = connect(&net, "one", &[]);
        let host = berth_sys::netns::current().expect("the machine");
        serve_tcp(&host, 81, "host");
        assert_eq!(
            ask_tcp(None, LOCALHOST, 81).as_deref(),
            Some("host 127.0.0.1")
        );
        // The container's own 127/8 is out of the way, and the packets go to the gateway.
        inside(&container.netns, || {
            run("ip rule add pref 0 from all lookup 99; ip rule del pref 0 lookup local");
            run("ip rule add pref 100 lookup local");
            run("ip route add 127.0.0.1 via 172.17.0.1 dev eth0 table 99");
            run("echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet");
        });
        no_tcp(Some(&container.netns), LOCALHOST, 81);
        let ruleset = run("nft -y list chain ip loop martian");
        assert!(ruleset.contains("127.0.0.0/8"), "{ruleset}");
    });
}

#[test]
fn without_icc_containers_do_not_reach_each_other() {
    with_machine(|machine| {
        let mut config = machine.config("noicc");
        config.icc = false;
        let net = machine.open(config);
        let (one, two) = (connect(&net, "one", &[]), connect(&net, "two", &[]));
        serve_tcp(&two.netns, 80, "two");
        serve_tcp(&machine.remote, 80, "remote");
        no_tcp(Some(&one.netns), two.ipv4(), 80);
        assert!(ask_tcp(Some(&one.netns), REMOTE, 80).is_some());
    });
}
