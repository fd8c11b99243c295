//! With the firewalls of others in force.

use berth_net::{DEFAULT_NETWORK, Firewall, Protocol};

use crate::machine::{
    MACHINE, REMOTE, ask_tcp, connect, no_tcp, port, run, serve_tcp, tcp, with_machine,
};

#[test]
fn the_table_is_as_planned() {
    with_machine(|machine| {
        let net = machine.open(machine.config("golden"));
        let local = port(Protocol::Udp, Some("127.0.0.1"), 5353, 53);
        let _container = connect(&net, "one", &[tcp(8080, 80), local]);
        let table = run("nft list table ip golden");
        assert_eq!(table, include_str!("golden.nft"));
    });
}

fn check(program: &'static str) {
    with_machine(move |machine| {
        run(&format!("{program} -P FORWARD DROP"));
        run(&format!("{program} -A FORWARD -i nosuch -j ACCEPT"));
        let rules = || run(&format!("{program} -S"));
        let before = rules();
        serve_tcp(&machine.remote, 80, "remote");

        let mut config = machine.config("foreign");
        config.firewall = Firewall::Own;
        let net = machine.open(config);
        let warnings = net.warnings();
        assert!(
            warnings
                .iter()
                .any(|text| text.contains("-A FORWARD -i foreign0 -j ACCEPT"))
        );
        let blocked = connect(&net, "blocked", &[]);
        no_tcp(Some(&blocked.netns), REMOTE, 80);
        assert_eq!(rules(), before);
        drop(net);

        for _ in 0..2 {
            // The second time it is there already.
            let net = machine.open(machine.config("foreign"));
            assert_eq!(net.warnings(), Vec::<String>::new());
            net.restore(&[], &[]).expect("restore");
            drop(net);
        }
        let jumps = rules()
            .lines()
            .filter(|line| line.contains("-j FOREIGN-FORWARD"))
            .count();
        assert_eq!(jumps, 1, "{}", rules());
        assert!(rules().contains("made by foreign"), "{}", rules());
        let net = machine.open(machine.config("foreign"));
        let web = connect(&net, "web", &[tcp(8094, 80)]);
        serve_tcp(&web.netns, 80, "web");
        assert!(ask_tcp(Some(&web.netns), REMOTE, 80).is_some());
        assert!(ask_tcp(Some(&machine.remote), MACHINE, 8094).is_some());
        net.disconnect("web", DEFAULT_NETWORK).expect("disconnect");
        net.close().expect("close");
        assert_eq!(rules(), before);
    });
}

#[test]
fn a_forward_drop_of_iptables_nft_is_passed() {
    check("iptables-nft");
}

#[test]
fn a_forward_drop_of_iptables_legacy_is_passed() {
    check("iptables-legacy");
}

#[test]
fn a_forward_drop_of_another_nftables_table_is_reported() {
    with_machine(|machine| {
        run("nft add table inet strict");
        run(
            "nft add chain inet strict onward '{ type filter hook forward priority 0; policy drop; }'",
        );
        let net = machine.open(machine.config("strict1"));
        let warnings = net.warnings();
        assert!(
            warnings.iter().any(|text| text.contains("strict")),
            "{warnings:?}"
        );
    });
}

#[test]
fn a_host_that_did_not_route_does_not_begin_to() {
    with_machine(|machine| {
        run(
            "ip link add far type veth peer name away; ip addr add 203.0.113.1/24 dev far; ip link set far up",
        );
        assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward"), "0\n");
        let guarded =
            || run("nft list chain ip guard forward").contains("does not route for others");
        let net = machine.open(machine.config("guard"));
        assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
        assert!(guarded());
        drop(net);
        let net = machine.open(machine.config("guard"));
        assert!(guarded(), "the next daemon knows");
        net.close().expect("close");
        assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward"), "0\n");
        run("echo 1 > /proc/sys/net/ipv4/ip_forward");
        let net = machine.open(machine.config("guard"));
        assert!(!guarded());
        net.close().expect("close");
        assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward"), "1\n");
    });
}
