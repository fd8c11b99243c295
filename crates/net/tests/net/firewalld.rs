//! With a firewalld of the machine's own, on a message bus of its own.

use berth_net::{Config, DEFAULT_NETWORK, Firewall, NetworkRequest};
use berth_testkit::Firewalld;

use crate::machine::{
    MACHINE, Machine, REMOTE, ask_tcp, connect, connect_to, eventually, serve_tcp, tcp,
    with_machine,
};

fn firewalld(machine: &Machine) -> Firewalld {
    Firewalld::new(&machine.directory.path().join("firewalld"), &[])
}

fn config(firewalld: &Firewalld, machine: &Machine, instance: &str) -> Config {
    let mut config = machine.config(instance);
    config.system_bus = firewalld.bus();
    config
}

#[test]
fn containers_are_connected_through_a_zone_of_firewalld_until_the_end() {
    with_machine(|machine| {
        let mut firewalld = firewalld(machine);
        serve_tcp(&machine.remote, 80, "remote");
        // The daemon is there first.
        let net = machine.open(config(&firewalld, machine, "zoned"));
        let web = connect(&net, "web", &[tcp(8094, 80)]);
        serve_tcp(&web.netns, 80, "web");
        let out = || ask_tcp(Some(&web.netns), REMOTE, 80).is_some();
        let published = || ask_tcp(Some(&machine.remote), MACHINE, 8094).is_some();
        firewalld.start();
        let zones = || firewalld.cmd(&["--permanent", "--get-zones"]);
        let policies = || firewalld.cmd(&["--permanent", "--get-policies"]);
        assert!(eventually(|| firewalld
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
        // Networks that come and go join the zone and leave it.
        net.create_network(NetworkRequest::new("app")).expect("app");
        net.create_network(NetworkRequest::new("more"))
            .expect("more");
        let app = connect_to(&net, "app", "app", &[tcp(8095, 80)]);
        serve_tcp(&app.netns, 80, "app");
        let app_reached = || {
            ask_tcp(Some(&app.netns), REMOTE, 80).is_some()
                && ask_tcp(Some(&machine.remote), MACHINE, 8095).is_some()
        };
        assert!(app_reached());
        let members = |kind: &[&str]| {
            let info = firewalld.cmd(&[kind, &["--zone=zoned", "--list-interfaces"]].concat());
            let mut names: Vec<_> = info.split_whitespace().map(str::to_owned).collect();
            names.sort();
            names.join(" ")
        };
        for kind in [&[][..], &["--permanent"]] {
            assert_eq!(members(kind), "br-app br-more zoned0");
        }
        net.remove_network("more").expect("remove");
        firewalld.cmd(&["--reload"]);
        assert!(app_reached(), "after a reload");
        net.disconnect("app", "app").expect("disconnect");
        net.remove_network("app").expect("remove");
        for kind in [&[][..], &["--permanent"]] {
            assert_eq!(members(kind), "zoned0");
        }
        drop(net);
        firewalld.cmd(&["--reload"]);
        assert!(out() && published(), "after a reload without a daemon");
        let net = machine.open(config(&firewalld, machine, "zoned"));
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
        let mut firewalld = firewalld(machine);
        serve_tcp(&machine.remote, 80, "remote");
        firewalld.start();
        let mut own = config(&firewalld, machine, "owned");
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
        let net = machine.open(config(&firewalld, machine, "owned"));
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
