//! With the firewalls of others in force.

use berth_net::{DEFAULT_NETWORK, Firewall, NetworkRequest, Protocol, SubnetRequest};

use crate::machine::{
    MACHINE, REMOTE, ask_tcp, bridged, connect, connect_to, eventually, no_tcp, port, run,
    serve_tcp, tcp, with_machine,
};

#[test]
fn the_table_is_as_planned() {
    with_machine(|machine| {
        let net = machine.open(machine.config("golden"));
        let local = port(Protocol::Udp, Some("127.0.0.1"), 5353, 53);
        let _container = connect(&net, "one", &[tcp(8080, 80), local]);
        let table = run("nft list table ip golden");
        assert_eq!(table, include_str!("golden.nft"));
        // Whoever saves the rules can load them at the next boot.
        let saved = machine.directory.path().join("saved.nft");
        std::fs::write(&saved, &table).expect("write");
        run(&format!("nft -c -f {}", saved.display()));
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
        let advice = |side| {
            let text = warnings.iter().find_map(|text| text.split_once(": "));
            let mut rules = text.expect("advice").1.split("; ");
            rules
                .find(|rule| rule.contains(side))
                .expect("a rule")
                .to_owned()
        };
        let blocked = connect(&net, "blocked", &[]);
        no_tcp(Some(&blocked.netns), REMOTE, 80);
        assert_eq!(rules(), before);
        for side in ["--src-group", "--dst-group"] {
            run(&advice(side));
        }
        assert!(ask_tcp(Some(&blocked.netns), REMOTE, 80).is_some());
        for side in ["--src-group", "--dst-group"] {
            run(&advice(side).replace(" -A ", " -D "));
        }
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

/// The rules of one chain of iptables.
fn chain(program: &str, name: &str) -> String {
    run(&format!("{program} -S {name} | grep -v '^-N'"))
}

#[test]
fn a_foreign_firewall_has_two_rules_for_all_networks() {
    for program in ["iptables-nft", "iptables-legacy"] {
        with_machine(move |machine| {
            run(&format!("{program} -P FORWARD DROP"));
            serve_tcp(&machine.remote, 80, "remote");
            // A bridge of the administrator's is not in our group.
            run("ip link add admins type bridge; ip link set admins up");
            let net = machine.open(machine.config("groups"));
            let request = |n: u8| NetworkRequest::new(&format!("{n:012x}"));
            net.create_network(request(1)).expect("a network");
            let with_one = chain(program, "GROUPS-FORWARD");
            assert_eq!(with_one.lines().count(), 2, "{with_one}");
            net.create_network(request(2)).expect("a network");
            assert_eq!(chain(program, "GROUPS-FORWARD"), with_one);
            let named = bridged("000000000003", |bridge| bridge.name = "admins".to_owned());
            net.create_network(named).expect("a network");
            let with_admins = chain(program, "GROUPS-FORWARD");
            assert_eq!(with_admins.lines().count(), 4, "{with_admins}");
            for (n, id) in ["000000000002", "000000000003"].into_iter().enumerate() {
                let port = 8110 + u16::try_from(n).expect("small");
                let web = connect_to(&net, id, &format!("web{n}"), &[tcp(port, 80)]);
                serve_tcp(&web.netns, 80, "web");
                assert!(ask_tcp(Some(&web.netns), REMOTE, 80).is_some(), "{id}");
                assert!(ask_tcp(Some(&machine.remote), MACHINE, port).is_some());
                net.disconnect(&web.id, id).expect("disconnect");
            }
            net.remove_network("000000000003").expect("remove");
            assert_eq!(chain(program, "GROUPS-FORWARD"), with_one);
        });
    }
}

#[test]
fn the_administrators_rules_come_first_and_stay() {
    with_machine(|machine| {
        let net = machine.open(machine.config("ours"));
        net.create_network(NetworkRequest::new("app")).expect("app");
        let (web, app) = (
            connect(&net, "web", &[tcp(8120, 80)]),
            connect_to(&net, "app", "app", &[tcp(8121, 80)]),
        );
        serve_tcp(&web.netns, 80, "web");
        serve_tcp(&app.netns, 80, "app");
        serve_tcp(&machine.remote, 80, "remote");
        let user = || run("nft list chain ip ours user");
        let reached = |port| ask_tcp(Some(&machine.remote), MACHINE, port).is_some();

        // One source only, as docker's users write it.
        run(&format!(
            "nft add rule ip ours user iifname cable0 ip saddr != {REMOTE} drop"
        ));
        assert!(reached(8120) && reached(8121));
        run("nft flush chain ip ours user");
        run("nft add rule ip ours user iifname cable0 ip saddr 203.0.113.0/24 return");
        run(
            "nft add rule ip ours user iifname cable0 meta l4proto tcp ct original proto-dst 8120 drop",
        );
        no_tcp(Some(&machine.remote), MACHINE, 8120);
        assert!(reached(8121));
        // What leaves is asked about as well.
        run("nft add rule ip ours user oifname cable0 ip daddr 198.51.100.2 tcp dport 80 drop");
        no_tcp(Some(&app.netns), REMOTE, 80);
        // What they accept is accepted, also what we would drop.
        no_tcp(Some(&machine.remote), web.ipv4(), 80);
        run("nft insert rule ip ours user ip saddr 198.51.100.2 tcp dport 80 accept");
        assert!(ask_tcp(Some(&machine.remote), web.ipv4(), 80).is_some());

        let rules = user();
        net.create_network(NetworkRequest::new("more"))
            .expect("more");
        net.remove_network("more").expect("remove");
        drop(net);
        let net = machine.open(machine.config("ours"));
        assert_eq!(user(), rules, "after a restart");
        // A table of another make.
        drop(net);
        run("nft flush chain ip ours prerouting; nft flush chain ip ours output");
        run("nft delete map ip ours ports; nft add map ip ours ports '{ type mark : mark; }'");
        let net = machine.open(machine.config("ours"));
        assert_eq!(user(), rules, "after a change of the table's shape");
        net.disconnect("web", DEFAULT_NETWORK).expect("disconnect");
        run(
            "nft add chain ip6 ours user 2>/dev/null || nft add table ip6 ours; nft add chain ip6 ours user",
        );
        run("nft add rule ip6 ours user ip6 saddr 2001:db8:bad::/48 drop");
        let user6 = run("nft list chain ip6 ours user");
        let v6 = NetworkRequest {
            v6: Some(SubnetRequest::default()),
            ..NetworkRequest::new("six")
        };
        net.create_network(v6).expect("a network with IPv6");
        assert_eq!(run("nft list chain ip6 ours user"), user6);
        assert!(run("nft list chain ip6 ours forward").contains("jump user"));
        net.remove_network("six").expect("remove");
        assert_eq!(run("nft list chain ip6 ours user"), user6);
        net.close().expect("close");
        let left = run("nft list ruleset");
        assert!(
            left.contains("table ip ours") && left.contains("table ip6 ours"),
            "{left}"
        );
        assert!(!left.contains("hook") && !left.contains("map "), "{left}");
        assert_eq!(user(), rules, "after the instance");
        // Without rules there is nothing to keep.
        run("nft flush chain ip ours user; nft flush chain ip6 ours user");
        machine.open(machine.config("ours")).close().expect("close");
        assert_eq!(run("nft list ruleset"), "");
    });
}

#[test]
fn rules_loaded_before_the_daemon_and_by_every_reload_hold() {
    with_machine(|machine| {
        let file = machine.directory.path().join("nftables.conf");
        let text = "flush ruleset\n\
                    table ip early { chain user { tcp dport 80 iifname cable0 drop; }; }\n";
        std::fs::write(&file, text).expect("write");
        let load = || run(&format!("nft -f {}", file.display()));
        load();
        let net = machine.open(machine.config("early"));
        net.create_network(NetworkRequest::new("app")).expect("app");
        let app = connect_to(&net, "app", "app", &[tcp(8122, 80), tcp(8123, 81)]);
        serve_tcp(&app.netns, 80, "closed");
        serve_tcp(&app.netns, 81, "open");
        let check = || {
            assert!(ask_tcp(Some(&machine.remote), MACHINE, 8123).is_some());
            no_tcp(Some(&machine.remote), MACHINE, 8122);
        };
        check();
        load();
        let whole = || run("nft list table ip early").contains("jump user");
        assert!(eventually(whole), "{}", run("nft list ruleset"));
        check();
        assert!(run("nft list chain ip early user").contains("drop"));
    });
}

/// Scripts for Docker's chain need two lines before the rest.
#[test]
fn a_docker_user_chain_of_the_administrators_is_obeyed() {
    with_machine(|machine| {
        let net = machine.open(machine.config("scripts"));
        let web = connect(&net, "web", &[tcp(8125, 80)]);
        serve_tcp(&web.netns, 80, "web");
        let reached = || ask_tcp(Some(&machine.remote), MACHINE, 8125).is_some();
        run("iptables -N DOCKER-USER; iptables -I FORWARD -j DOCKER-USER");
        run(&format!(
            "iptables -I DOCKER-USER -i cable0 ! -s {REMOTE} -j DROP"
        ));
        assert!(reached());
        run("iptables -I DOCKER-USER -i cable0 -s 198.51.100.0/24 -j DROP");
        no_tcp(Some(&machine.remote), MACHINE, 8125);
        run("iptables -F DOCKER-USER");
        assert!(reached());
        net.disconnect("web", DEFAULT_NETWORK).expect("disconnect");
        net.close().expect("close");
        assert!(run("iptables -S").contains("-A FORWARD -j DOCKER-USER"));
    });
}

#[test]
fn the_jump_stands_behind_what_decides_and_before_what_closes() {
    for program in ["iptables-nft", "iptables-legacy"] {
        with_machine(move |machine| {
            serve_tcp(&machine.remote, 80, "remote");
            // As the rules of Red Hat's iptables-services end.
            run(&format!("{program} -A FORWARD -s 203.0.113.9 -j DROP"));
            run(&format!("{program} -A FORWARD -j REJECT"));
            let net = machine.open(machine.config("place"));
            let other = machine.open(machine.config("second"));
            let web = connect(&net, "web", &[tcp(8126, 80)]);
            let also = connect(&other, "also", &[tcp(8127, 80)]);
            serve_tcp(&web.netns, 80, "web");
            serve_tcp(&also.netns, 80, "also");
            let reached = |port| ask_tcp(Some(&machine.remote), MACHINE, port).is_some();
            assert!(reached(8126) && reached(8127));
            assert!(ask_tcp(Some(&web.netns), REMOTE, 80).is_some());
            let order = || {
                let rules = run(&format!("{program} -S FORWARD"));
                let at = |word: &str| rules.lines().position(|line| line.contains(word));
                (
                    at("203.0.113.9"),
                    at("PLACE-FORWARD"),
                    at("SECOND-FORWARD"),
                    at("-j REJECT"),
                )
            };
            let (denial, place, second, end) = order();
            assert!(denial < place && place < end && denial < second && second < end);
            if program == "iptables-legacy" {
                return;
            }
            // What is decided later is obeyed as well, and neither pushes the other away.
            run(&format!("{program} -D FORWARD -j REJECT"));
            run(&format!("{program} -A FORWARD -s {REMOTE} -j DROP"));
            let last = || {
                let rules = run(&format!("{program} -S FORWARD"));
                let mut lines = rules.lines().rev();
                let both = [lines.next(), lines.next()].map(Option::unwrap_or_default);
                both.iter()
                    .all(|line| line.contains("-FORWARD"))
                    .then_some(rules)
            };
            assert!(eventually(|| last().is_some()), "{}", run("iptables -S"));
            no_tcp(Some(&machine.remote), MACHINE, 8126);
            let settled = last();
            std::thread::sleep(std::time::Duration::from_secs(1));
            assert_eq!(last(), settled);
        });
    }
}

#[test]
fn rules_that_iptables_flushes_come_back() {
    for program in ["iptables-nft", "iptables-legacy"] {
        with_machine(move |machine| {
            run(&format!("{program} -P FORWARD DROP"));
            let net = machine.open(machine.config("flushed"));
            net.create_network(NetworkRequest::new("app")).expect("app");
            let app = connect_to(&net, "app", "app", &[tcp(8128, 80)]);
            serve_tcp(&app.netns, 80, "app");
            assert!(ask_tcp(Some(&machine.remote), MACHINE, 8128).is_some());
            run(&format!("{program} -F; {program} -X"));
            no_tcp(Some(&machine.remote), MACHINE, 8128);
            let back = || run(&format!("{program} -S FORWARD")).contains("FLUSHED-FORWARD");
            // Nobody is told of a change of iptables-legacy.
            let patience = if program == "iptables-legacy" { 5 } else { 1 };
            assert!((0..patience).any(|_| eventually(back)), "{program}");
            assert!(ask_tcp(Some(&machine.remote), MACHINE, 8128).is_some());
        });
    }
}
