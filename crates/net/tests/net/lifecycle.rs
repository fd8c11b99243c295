//! Open, restart, close: what stays, what goes, what lives side by side.

use std::net::TcpListener;
use std::os::fd::AsFd;

use berth_net::{DEFAULT_NETWORK, EndpointRequest, Error, Net};

use crate::machine::{
    Container, LOCALHOST, MACHINE, Machine, ask_tcp, connect, eventually, no_tcp, run, serve_tcp,
    tcp, with_machine,
};

/// All that another program could notice. Forwarding is Docker's to leave on, but not ours.
fn state() -> String {
    let links = run("ip -o link | sed 's/^[0-9]*: //; s/ mtu.*//' | sort");
    let forward = run("cat /proc/sys/net/ipv4/ip_forward");
    links + &run("ip -4 addr show | grep inet; ip -4 route; nft list ruleset") + &forward
}

#[test]
fn disconnect_frees_the_port_at_once_and_the_interface_soon() {
    with_machine(|machine| {
        let net = machine.open(machine.config("leave"));
        let container = connect(&net, "one", &[tcp(8085, 80)]);
        let veth = container.veth().to_owned();
        assert!(run("ip -o link").contains(&veth));
        net.disconnect("one", DEFAULT_NETWORK).expect("disconnect");
        drop(TcpListener::bind("0.0.0.0:8085").expect("the port is free"));
        assert!(!run("nft list ruleset").contains("8085"));
        net.disconnect("one", DEFAULT_NETWORK)
            .expect("disconnect again");
        // The namespace is still held, so the kernel does not clean up by itself.
        net.settle();
        assert!(!run("ip -o link").contains(&veth));
        let next = connect(&net, "two", &[tcp(8085, 80)]);
        // A freed address is reused last.
        assert_eq!(container.ipv4().to_string(), "172.17.0.2");
        assert_eq!(next.ipv4().to_string(), "172.17.0.3");
        serve_tcp(&next.netns, 80, "two");
        assert!(ask_tcp(None, LOCALHOST, 8085).is_some());
    });
}

#[test]
fn an_address_is_usable_at_once_by_its_next_holder() {
    with_machine(|machine| {
        let net = machine.open(machine.config("heir"));
        let neighbour = connect(&net, "neighbour", &[]);
        for name in ["one", "two", "three"] {
            let netns = net.create_namespace().expect("a namespace");
            let endpoint = net.connect(EndpointRequest {
                ipv4: Some([172, 17, 0, 3].into()),
                ..EndpointRequest::new(name, netns.as_fd())
            });
            let container = Container {
                id: name.to_owned(),
                endpoint: endpoint.expect("connect"),
                netns,
            };
            serve_tcp(&container.netns, 80, name);
            let answer = ask_tcp(Some(&neighbour.netns), container.ipv4(), 80);
            assert_eq!(answer, Some(format!("{name} 172.17.0.2")));
            assert!(ask_tcp(None, container.ipv4(), 80).is_some());
            net.disconnect(name, DEFAULT_NETWORK).expect("disconnect");
            no_tcp(None, container.ipv4(), 80);
        }
    });
}

#[test]
fn close_leaves_the_machine_as_it_was() {
    with_machine(|machine| {
        let before = state();
        let net = machine.open(machine.config("gone"));
        let container = connect(&net, "one", &[tcp(8086, 80)]);
        drop(container.netns);
        net.disconnect("one", DEFAULT_NETWORK).expect("disconnect");
        net.close().expect("close");
        assert_eq!(state(), before);
        assert!(machine.relays_ended());
        let left: Vec<_> = std::fs::read_dir(machine.directory.path().join("gone"))
            .expect("the exec root")
            .collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

fn restarted(machine: &Machine, net: Net, endpoints: &[berth_net::Endpoint]) -> Net {
    drop(net);
    let net = machine.open(machine.config("again"));
    net.restore(&[], endpoints).expect("restore");
    net
}

#[test]
fn ports_survive_a_restart_and_what_is_unknown_goes() {
    with_machine(|machine| {
        let net = machine.open(machine.config("again"));
        let web = connect(&net, "web", &[tcp(8087, 80)]);
        let lost = connect(&net, "lost", &[tcp(8088, 80)]);
        serve_tcp(&web.netns, 80, "web");
        drop(net);
        // Nothing depends on the daemon.
        let remote = Some(&machine.remote);
        assert_eq!(
            ask_tcp(remote, MACHINE, 8087).as_deref(),
            Some("web 198.51.100.2")
        );
        assert!(ask_tcp(None, std::net::Ipv6Addr::LOCALHOST, 8087).is_some());
        let net = machine.open(machine.config("again"));
        net.restore(&[], std::slice::from_ref(&web.endpoint))
            .expect("restore");
        assert_eq!(
            ask_tcp(remote, MACHINE, 8087).as_deref(),
            Some("web 198.51.100.2")
        );
        assert!(ask_tcp(None, std::net::Ipv6Addr::LOCALHOST, 8087).is_some());
        drop(TcpListener::bind("0.0.0.0:8088").expect("the port is free"));
        net.settle();
        assert!(!run("ip -o link").contains(lost.veth()));
        // The addresses are known again, too.
        let next = connect(&net, "next", &[]);
        assert_eq!(next.ipv4().to_string(), "172.17.0.3");
        net.disconnect("web", DEFAULT_NETWORK).expect("disconnect");
        drop(TcpListener::bind("0.0.0.0:8087").expect("the port is free"));
    });
}

#[test]
fn what_others_took_away_is_made_again() {
    with_machine(|machine| {
        let net = machine.open(machine.config("again"));
        let web = connect(&net, "web", &[tcp(8089, 80)]);
        serve_tcp(&web.netns, 80, "web");
        run("nft flush ruleset");
        machine.kill_relays();
        let other = connect(&net, "other", &[tcp(8090, 80)]);
        serve_tcp(&other.netns, 80, "other");
        let ask = |port| ask_tcp(Some(&machine.remote), MACHINE, port);
        assert_eq!(ask(8089).as_deref(), Some("web 198.51.100.2"));
        assert_eq!(ask(8090).as_deref(), Some("other 198.51.100.2"));
        assert!(ask_tcp(None, std::net::Ipv6Addr::LOCALHOST, 8089).is_some());
        // A machine whose bridge went as well: the daemon starts over.
        machine.kill_relays();
        run("nft flush ruleset; ip link del again0");
        let net = restarted(machine, net, &[]);
        let web = connect(&net, "web", &[tcp(8089, 80)]);
        serve_tcp(&web.netns, 80, "web");
        assert_eq!(ask(8089).as_deref(), Some("web 198.51.100.2"));
    });
}

#[test]
fn a_flushed_ruleset_comes_back_by_itself() {
    with_machine(|machine| {
        run("iptables-nft -P FORWARD DROP");
        let net = machine.open(machine.config("back"));
        let web = connect(&net, "web", &[tcp(8097, 80)]);
        serve_tcp(&web.netns, 80, "web");
        let ask = || ask_tcp(Some(&machine.remote), MACHINE, 8097).is_some();
        assert!(ask());
        // As `systemctl restart nftables`, then as a firewall program that starts over.
        run("nft flush ruleset");
        assert!(eventually(|| run("nft list ruleset").contains("8097")));
        assert!(ask());
        run("iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -i nosuch -j ACCEPT");
        assert!(eventually(
            || run("iptables-nft -S FORWARD").contains("BACK-FORWARD")
        ));
        assert!(ask());
        run("iptables-nft -F FORWARD");
        assert!(eventually(
            || run("iptables-nft -S FORWARD").contains("BACK-FORWARD")
        ));
        assert!(ask());
        net.disconnect("web", DEFAULT_NETWORK).expect("disconnect");
        net.close().expect("close");
        assert!(!run("iptables-nft -S").contains("BACK"));
        assert!(!run("nft list ruleset").contains("back"));
    });
}

#[test]
fn a_killed_relay_comes_back_by_itself() {
    with_machine(|machine| {
        let net = machine.open(machine.config("relayed"));
        let web = connect(&net, "web", &[tcp(8098, 80)]);
        serve_tcp(&web.netns, 80, "web");
        let ask = || ask_tcp(None, std::net::Ipv6Addr::LOCALHOST, 8098).is_some();
        assert!(ask());
        for _ in 0..3 {
            machine.kill_relays();
            assert!(eventually(ask));
        }
        assert!(
            TcpListener::bind("0.0.0.0:8098").is_err(),
            "the port is held again"
        );
        net.disconnect("web", DEFAULT_NETWORK).expect("disconnect");
        net.close().expect("close");
        assert!(machine.relays_ended());
    });
}

#[test]
fn many_connect_at_the_same_time() {
    with_machine(|machine| {
        const THREADS: usize = 8;
        let net = machine.open(machine.config("crowd"));
        let connected = std::thread::scope(|scope| {
            let connect = |n: usize| {
                let net = &net;
                scope.spawn(move || connect(net, &format!("container{n}"), &[tcp(0, 80)]))
            };
            let threads: Vec<_> = (0..THREADS).map(connect).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join();
            threads
                .into_iter()
                .map(|thread| join(thread).expect("connect"))
                .collect::<Vec<_>>()
        });
        let mut taken: Vec<_> = connected
            .iter()
            .map(|one| (one.ipv4(), one.endpoint.ports[0].host_port))
            .collect();
        for container in &connected {
            serve_tcp(&container.netns, 80, "crowd");
            let port = container.endpoint.ports[0].host_port;
            assert!(ask_tcp(Some(&machine.remote), MACHINE, port).is_some());
        }
        taken.sort();
        taken.dedup_by_key(|(ipv4, _)| *ipv4);
        taken.sort_by_key(|(_, port)| *port);
        taken.dedup_by_key(|(_, port)| *port);
        assert_eq!(taken.len(), THREADS);
    });
}

#[test]
fn instances_live_side_by_side() {
    with_machine(|machine| {
        let before = state();
        let one = machine.open(machine.config("side1"));
        let two = machine.open(machine.config("side2"));
        assert_eq!(two.bridge().subnet.to_string(), "172.18.0.0/16");
        let web = connect(&one, "web", &[tcp(8091, 80)]);
        let other = connect(&two, "other", &[tcp(8092, 80)]);
        serve_tcp(&web.netns, 80, "web");
        serve_tcp(&other.netns, 80, "other");
        assert!(ask_tcp(Some(&machine.remote), MACHINE, 8091).is_some());
        assert!(ask_tcp(Some(&machine.remote), MACHINE, 8092).is_some());
        assert!(ask_tcp(Some(&other.netns), MACHINE, 8091).is_some());
        // Networks are apart, but for what is published.
        no_tcp(Some(&other.netns), web.ipv4(), 80);
        let taken = crate::machine::try_connect(&two, "third", &[tcp(8091, 80)]).err();
        assert!(
            matches!(
                taken,
                Some(Error::PortInUse {
                    holder: Some(_),
                    ..
                })
            ),
            "{taken:?}"
        );
        for (net, container) in [(two, other), (one, web)] {
            net.disconnect(&container.id, DEFAULT_NETWORK)
                .expect("disconnect");
            drop(container);
            net.close().expect("close");
        }
        assert_eq!(state(), before);
    });
}

#[test]
fn a_users_bridge_is_used_and_left_alone() {
    with_machine(|machine| {
        let mut config = machine.config("user");
        config.bridge.user_managed = true;
        config.bridge.name = "mine".to_owned();
        let open = |config: &berth_net::Config| machine.try_open(config.clone());
        assert!(matches!(open(&config), Err(Error::BridgeMissing { .. })));
        run("ip link add mine type bridge; ip link set mine up");
        assert!(matches!(
            open(&config),
            Err(Error::BridgeWithoutAddress { .. })
        ));
        run("ip addr add 10.9.0.1/24 dev mine");
        let net = open(&config).expect("open");
        let container = connect(&net, "one", &[tcp(8093, 80)]);
        assert_eq!(container.ipv4().to_string(), "10.9.0.2");
        serve_tcp(&container.netns, 80, "one");
        assert!(ask_tcp(Some(&machine.remote), MACHINE, 8093).is_some());
        net.disconnect("one", DEFAULT_NETWORK).expect("disconnect");
        net.close().expect("close");
        assert!(run("ip addr show mine").contains("10.9.0.1/24"));
        config.bridge.name = "cable0".to_owned();
        assert!(matches!(open(&config), Err(Error::NotABridge { .. })));
    });
}

#[test]
fn a_static_address_is_checked() {
    with_machine(|machine| {
        let net = machine.open(machine.config("static"));
        let netns = net.create_namespace().expect("a namespace");
        let connect = |address: &str| {
            net.connect(EndpointRequest {
                mac: Some([2, 0, 0, 0, 0, 9]),
                ipv4: Some(address.parse().expect("an address")),
                ..EndpointRequest::new(address, netns.as_fd())
            })
        };
        assert!(matches!(
            connect("10.0.0.1"),
            Err(Error::AddressOutside { .. })
        ));
        assert!(matches!(
            connect("172.17.0.1"),
            Err(Error::AddressInUse { .. })
        ));
        let endpoint = connect("172.17.5.5").expect("connect");
        assert_eq!(endpoint.mac_string(), "02:00:00:00:00:09");
        assert!(matches!(
            connect("172.17.5.5"),
            Err(Error::Connected { .. })
        ));
    });
}

#[test]
fn a_namespace_that_ends_takes_its_interface_along() {
    with_machine(|machine| {
        let net = machine.open(machine.config("dies"));
        let container = connect(&net, "one", &[]);
        let veth = container.veth().to_owned();
        drop(container.netns);
        assert!(eventually(|| !run("ip -o link").contains(&veth)));
        net.disconnect("one", DEFAULT_NETWORK).expect("disconnect");
        net.settle();
    });
}
