//! Networks of one's own, and containers in several of them.

use std::os::fd::AsFd;

use berth_net::{
    DEFAULT_NETWORK, Endpoint, EndpointRequest, Error, Gateway, Net, Network, NetworkRequest,
    SubnetRequest,
};

use crate::machine::{
    Container, LOCALHOST, MACHINE, REMOTE, ask_tcp, bridged, connect, connect_to, inside, no_tcp,
    run, serve_tcp, tcp, with_machine,
};

fn create(net: &Net, id: &str) -> Network {
    net.create_network(NetworkRequest::new(id))
        .expect("a network")
}

fn subnet(network: &Network) -> String {
    network.v4.as_ref().expect("IPv4").subnet.to_string()
}

/// A further network of a container that runs.
fn join(net: &Net, container: &Container, network: &str, interface: &str) -> Endpoint {
    let endpoint = net.connect(EndpointRequest {
        network,
        interface,
        gateway: Gateway::default(),
        ..EndpointRequest::new(&container.id, container.netns.as_fd())
    });
    endpoint.expect("connect")
}

#[test]
fn a_network_is_made_beside_the_others_and_goes_wholly() {
    with_machine(|machine| {
        let net = machine.open(machine.config("own"));
        let before = run("ip -o link | grep -o 'br-.*' || true; nft list ruleset");
        run("ip route add 172.18.0.0/16 dev cable0");
        let network = create(&net, "0123456789abcdef");
        assert_eq!(network.bridge().expect("a bridge").name, "br-0123456789ab");
        assert_eq!(subnet(&network), "172.19.0.0/16");
        assert_eq!(net.network("0123456789abcdef"), Some(network.clone()));
        assert_eq!(subnet(&create(&net, "second")), "172.20.0.0/16");
        assert!(run("ip addr show br-0123456789ab").contains("172.19.0.1/16"));
        let again = net.create_network(NetworkRequest::new("0123456789abcdef"));
        assert!(matches!(again, Err(Error::NetworkExists { .. })));
        let same_bridge = net.create_network(bridged("third", |bridge| {
            bridge.name = "br-second".to_owned();
        }));
        assert!(matches!(same_bridge, Err(Error::BridgeTaken { .. })));
        let overlapping = net.create_network(NetworkRequest {
            v4: Some(SubnetRequest {
                subnet: "172.19.3.0/24".parse().ok(),
                ..SubnetRequest::default()
            }),
            ..NetworkRequest::new("third")
        });
        assert!(matches!(overlapping, Err(Error::SubnetOverlaps { .. })));

        let container = connect_to(&net, "second", "one", &[]);
        assert_eq!(container.ipv4().to_string(), "172.20.0.2");
        let used = net.remove_network("second");
        assert!(matches!(used, Err(Error::NetworkInUse { .. })));
        net.disconnect("one", "second").expect("disconnect");
        net.remove_network("second").expect("remove");
        net.remove_network("0123456789abcdef").expect("remove");
        let gone = net.remove_network("second");
        assert!(matches!(gone, Err(Error::UnknownNetwork { .. })));
        assert!(net.remove_network(DEFAULT_NETWORK).is_err());
        let after = run("ip -o link | grep -o 'br-.*' || true; nft list ruleset");
        assert_eq!(after, before);
    });
}

#[test]
fn a_container_reaches_those_of_its_networks_and_no_others() {
    with_machine(|machine| {
        let net = machine.open(machine.config("apart"));
        create(&net, "red");
        create(&net, "blue");
        let red = connect_to(&net, "red", "red1", &[]);
        let blue = connect_to(&net, "blue", "blue1", &[tcp(8100, 80)]);
        let other = connect(&net, "other", &[]);
        for (container, name) in [(&red, "red"), (&blue, "blue"), (&other, "other")] {
            serve_tcp(&container.netns, 80, name);
        }
        serve_tcp(&machine.remote, 80, "remote");
        let containers = [&red, &blue, &other];
        for from in containers {
            let world = ask_tcp(Some(&from.netns), REMOTE, 80);
            assert_eq!(world, Some(format!("remote {MACHINE}")));
            for to in containers.into_iter().filter(|to| to.id != from.id) {
                no_tcp(Some(&from.netns), to.ipv4(), 80);
            }
            // What is published is for everyone.
            let published = ask_tcp(Some(&from.netns), MACHINE, 8100);
            assert!(published.is_some_and(|said| said.starts_with("blue")));
        }
        no_tcp(Some(&machine.remote), blue.ipv4(), 80);
        for (from, expect) in [
            (Some(&machine.remote), "blue 198.51.100.2"),
            (None, "blue 198.51.100.1"),
        ] {
            let said = ask_tcp(from, MACHINE, 8100);
            assert_eq!(said.as_deref(), Some(expect));
        }
        assert!(ask_tcp(None, LOCALHOST, 8100).is_some());
        assert!(ask_tcp(None, std::net::Ipv6Addr::LOCALHOST, 8100).is_some());

        // Joined while it runs.
        let endpoint = join(&net, &red, "blue", "eth1");
        let said = ask_tcp(Some(&red.netns), blue.ipv4(), 80);
        let own = endpoint.ipv4.expect("an address");
        assert_eq!(said, Some(format!("blue {own}")));
        assert!(ask_tcp(Some(&blue.netns), own, 80).is_some());
        net.detach("red1", red.netns.as_fd(), "blue")
            .expect("detach");
        assert!(!inside(&red.netns, || run("ip -o link")).contains("eth1"));
        no_tcp(Some(&red.netns), blue.ipv4(), 80);
        join(&net, &red, "blue", "eth1");
        assert!(ask_tcp(Some(&red.netns), blue.ipv4(), 80).is_some());
    });
}

#[test]
fn the_default_route_follows_the_gateway() {
    with_machine(|machine| {
        let net = machine.open(machine.config("ways"));
        create(&net, "red");
        let one = connect(&net, "one", &[]);
        join(&net, &one, "red", "eth1");
        let routes = || inside(&one.netns, || run("ip -4 route show default"));
        assert_eq!(routes(), "default via 172.17.0.1 dev eth0 \n");
        let set = |v4| net.set_gateway("one", one.netns.as_fd(), v4, None);
        set(Some("red")).expect("set");
        assert_eq!(routes(), "default via 172.18.0.1 dev eth1 \n");
        serve_tcp(&machine.remote, 80, "remote");
        assert!(ask_tcp(Some(&one.netns), REMOTE, 80).is_some());
        set(None).expect("take away");
        set(None).expect("take away what is gone");
        assert_eq!(routes(), "");
        assert!(matches!(set(Some("blue")), Err(Error::NotConnected { .. })));
        set(Some(DEFAULT_NETWORK)).expect("set");
        assert_eq!(routes(), "default via 172.17.0.1 dev eth0 \n");
    });
}

#[test]
fn published_ports_move_to_another_network() {
    with_machine(|machine| {
        let net = machine.open(machine.config("moves"));
        create(&net, "red");
        let web = connect(&net, "web", &[tcp(8117, 80)]);
        serve_tcp(&web.netns, 80, "web");
        let remote = Some(&machine.remote);
        assert!(ask_tcp(remote, MACHINE, 8117).is_some());
        let red = join(&net, &web, "red", "eth1");
        net.set_gateway("web", web.netns.as_fd(), Some("red"), None)
            .expect("set");
        let old = net
            .set_ports("web", DEFAULT_NETWORK, &[])
            .expect("take back");
        assert_eq!(old.ports, []);
        no_tcp(remote, MACHINE, 8117);
        let new = net
            .set_ports("web", "red", &[tcp(8117, 80)])
            .expect("publish");
        assert_eq!(new.ports.len(), 2);
        assert_eq!(new.ipv4, red.ipv4);
        assert!(ask_tcp(remote, MACHINE, 8117).is_some());
        // What is refused leaves nothing; what was there before is free.
        let ours = std::net::TcpListener::bind("0.0.0.0:8118").expect("bind");
        let refused = net.set_ports("web", "red", &[tcp(8119, 80), tcp(8118, 80)]);
        assert!(
            matches!(refused, Err(Error::PortInUse { .. })),
            "{refused:?}"
        );
        drop(ours);
        for number in [8117, 8119] {
            drop(std::net::TcpListener::bind(("0.0.0.0", number)).expect("free"));
        }
        net.set_ports("web", "red", &[tcp(8118, 80)])
            .expect("publish");
        machine.kill_relays();
        assert!(crate::machine::eventually(|| {
            ask_tcp(None, std::net::Ipv6Addr::LOCALHOST, 8118).is_some()
        }));
        net.detach("web", web.netns.as_fd(), "red").expect("detach");
        drop(std::net::TcpListener::bind("0.0.0.0:8118").expect("free"));
        let gone = net.set_ports("web", "red", &[]);
        assert!(matches!(gone, Err(Error::NotConnected { .. })));
    });
}

#[test]
fn an_internal_network_has_no_way_out_and_none_in() {
    with_machine(|machine| {
        let net = machine.open(machine.config("inner"));
        let request = NetworkRequest {
            internal: true,
            ..NetworkRequest::new("inside")
        };
        net.create_network(request).expect("a network");
        create(&net, "outside");
        let one = connect_to(&net, "inside", "one", &[]);
        let two = connect_to(&net, "inside", "two", &[]);
        let stranger = connect_to(&net, "outside", "stranger", &[tcp(8101, 80)]);
        for (container, name) in [(&two, "two"), (&stranger, "stranger")] {
            serve_tcp(&container.netns, 80, name);
        }
        serve_tcp(&machine.remote, 80, "remote");
        assert!(ask_tcp(Some(&one.netns), two.ipv4(), 80).is_some());
        assert!(ask_tcp(None, two.ipv4(), 80).is_some());
        no_tcp(Some(&one.netns), REMOTE, 80);
        no_tcp(Some(&one.netns), stranger.ipv4(), 80);
        no_tcp(Some(&one.netns), MACHINE, 8101);
        no_tcp(Some(&stranger.netns), two.ipv4(), 80);
        no_tcp(Some(&machine.remote), two.ipv4(), 80);
    });
}

#[test]
fn without_icc_the_containers_of_a_network_are_apart() {
    with_machine(|machine| {
        let net = machine.open(machine.config("mute"));
        let request = bridged("mute", |bridge| bridge.icc = false);
        net.create_network(request).expect("a network");
        let one = connect_to(&net, "mute", "one", &[]);
        let two = connect_to(&net, "mute", "two", &[tcp(8102, 80)]);
        serve_tcp(&two.netns, 80, "two");
        no_tcp(Some(&one.netns), two.ipv4(), 80);
        assert!(ask_tcp(Some(&machine.remote), MACHINE, 8102).is_some());
    });
}

#[test]
fn networks_survive_a_restart_and_what_is_unknown_goes() {
    with_machine(|machine| {
        let net = machine.open(machine.config("stays"));
        let networks = [create(&net, "red"), create(&net, "blue")];
        create(&net, "lost");
        let red = connect_to(&net, "red", "red1", &[tcp(8103, 80)]);
        let blue = connect_to(&net, "blue", "blue1", &[tcp(8104, 80)]);
        let unknown = connect_to(&net, "red", "unknown", &[]);
        serve_tcp(&red.netns, 80, "red");
        serve_tcp(&blue.netns, 80, "blue");
        drop(net);
        let ask = |port| ask_tcp(Some(&machine.remote), MACHINE, port);
        assert!(ask(8103).is_some() && ask(8104).is_some());
        // One of the bridges is deleted behind our back, and a rule with it.
        run("ip link del br-blue; nft flush set ip stays bridges");
        let net = machine.open(machine.config("stays"));
        let endpoints = [red.endpoint.clone(), blue.endpoint.clone()];
        net.restore(&networks, &endpoints).expect("restore");
        net.settle();
        let links = run("ip -o link");
        assert!(!links.contains("br-lost"), "{links}");
        assert!(!links.contains(unknown.veth()), "{links}");
        assert_eq!(ask(8103).as_deref(), Some("red 198.51.100.2"));
        assert_eq!(ask(8104).as_deref(), Some("blue 198.51.100.2"));
        no_tcp(Some(&red.netns), blue.ipv4(), 80);
        assert_eq!(net.network("blue").as_ref(), Some(&networks[1]));
        // The addresses and the subnets are known again.
        let next = connect_to(&net, "red", "next", &[]);
        assert_eq!(next.ipv4().to_string(), "172.18.0.3");
        assert_eq!(subnet(&create(&net, "green")), "172.20.0.0/16");
        for (id, network) in [("red1", "red"), ("next", "red"), ("blue1", "blue")] {
            net.disconnect(id, network).expect("disconnect");
        }
        net.close().expect("close");
        let links = run("ip -o link");
        assert!(!links.contains("br-"), "{links}");
    });
}

#[test]
fn a_bridge_that_somebody_removed_comes_back_with_the_next_connection() {
    with_machine(|machine| {
        let net = machine.open(machine.config("gone"));
        create(&net, "red");
        for (network, bridge) in [("red", "br-red"), (DEFAULT_NETWORK, "gone0")] {
            let id = |number| format!("{network}{number}");
            let one = connect_to(&net, network, &id(1), &[tcp(8120, 80)]);
            serve_tcp(&one.netns, 80, "one");
            run(&format!("ip link del {bridge}"));
            let two = connect_to(&net, network, &id(2), &[]);
            let said = ask_tcp(Some(&two.netns), one.ipv4(), 80);
            assert_eq!(said, Some(format!("one {}", two.ipv4())));
            for from in [Some(&machine.remote), None] {
                assert!(ask_tcp(from, MACHINE, 8120).is_some());
            }
            assert!(ask_tcp(None, LOCALHOST, 8120).is_some());
            // And it is no fault for those who leave.
            run(&format!("ip link del {bridge}"));
            for number in [1, 2] {
                net.disconnect(&id(number), network).expect("disconnect");
            }
        }
        net.remove_network("red").expect("remove");
        let links = run("ip -o link");
        assert!(!links.contains("br-red"), "{links}");
    });
}

#[test]
fn a_network_whose_bridge_cannot_be_made_spoils_no_other() {
    with_machine(|machine| {
        let net = machine.open(machine.config("spoilt"));
        let networks = [create(&net, "blue"), create(&net, "red")];
        let red = connect_to(&net, "red", "red1", &[]);
        serve_tcp(&red.netns, 80, "red");
        drop(net);
        run("ip link del br-blue; ip link add br-blue type veth peer name other");
        let net = machine.open(machine.config("spoilt"));
        net.restore(&networks, std::slice::from_ref(&red.endpoint))
            .expect("restore");
        let other = connect_to(&net, "red", "red2", &[]);
        assert!(ask_tcp(Some(&other.netns), red.ipv4(), 80).is_some());
        let netns = net.create_namespace().expect("a namespace");
        let connect = || {
            net.connect(EndpointRequest {
                network: "blue",
                ..EndpointRequest::new("blue1", netns.as_fd())
            })
        };
        assert!(matches!(connect(), Err(Error::NotABridge { .. })));
        run("ip link del br-blue");
        connect().expect("connect");
        net.disconnect("blue1", "blue").expect("disconnect");
        net.remove_network("blue").expect("remove");
    });
}

#[test]
fn a_flushed_ruleset_comes_back_with_all_networks() {
    with_machine(|machine| {
        let net = machine.open(machine.config("back"));
        create(&net, "red");
        create(&net, "blue");
        let red = connect_to(&net, "red", "red1", &[tcp(8105, 80)]);
        let blue = connect_to(&net, "blue", "blue1", &[]);
        serve_tcp(&red.netns, 80, "red");
        serve_tcp(&blue.netns, 80, "blue");
        run("iptables-nft -P FORWARD DROP; nft flush ruleset; iptables-nft -P FORWARD DROP");
        assert!(crate::machine::eventually(|| {
            run("iptables-nft -S").contains("BACK-FORWARD -m devgroup --src-group")
                && run("nft list ruleset").contains("8105")
        }));
        let said = ask_tcp(Some(&machine.remote), MACHINE, 8105);
        assert_eq!(said.as_deref(), Some("red 198.51.100.2"));
        no_tcp(Some(&red.netns), blue.ipv4(), 80);
        net.disconnect("blue1", "blue").expect("disconnect");
        net.remove_network("blue").expect("remove");
        assert!(!run("iptables-nft -S").contains("br-blue"));
    });
}

#[test]
fn a_range_and_auxiliary_addresses_are_kept_to() {
    with_machine(|machine| {
        let net = machine.open(machine.config("range"));
        let request = NetworkRequest {
            v4: Some(SubnetRequest {
                subnet: "10.77.0.0/24".parse().ok(),
                gateway: Some([10, 77, 0, 254].into()),
                range: "10.77.0.16/30".parse().ok(),
                auxiliary: [("router".to_owned(), [10, 77, 0, 17].into())].into(),
            }),
            mtu: Some(1300),
            ..NetworkRequest::new("range")
        };
        net.create_network(request).expect("a network");
        let containers: Vec<Container> = ["a", "b", "c"]
            .map(|id| connect_to(&net, "range", id, &[]))
            .into();
        let octets: Vec<u8> = containers.iter().map(|it| it.ipv4().octets()[3]).collect();
        assert_eq!(octets, [16, 18, 19]);
        let (link, routes) = inside(&containers[0].netns, || {
            (run("ip link show eth0"), run("ip -4 route"))
        });
        assert!(link.contains("mtu 1300"), "{link}");
        assert!(routes.contains("default via 10.77.0.254"), "{routes}");
        let netns = net.create_namespace().expect("a namespace");
        let full = net.connect(EndpointRequest {
            network: "range",
            ..EndpointRequest::new("d", netns.as_fd())
        });
        assert!(matches!(full, Err(Error::NoFreeAddress { .. })));
        let asked_for = net.connect(EndpointRequest {
            network: "range",
            ipv4: Some([10, 77, 0, 9].into()),
            sysctls: vec![(
                "net/ipv4/conf/IFNAME/log_martians".to_owned(),
                "1".to_owned(),
            )],
            link_local: vec!["169.254.9.9".parse().expect("an address")],
            ..EndpointRequest::new("d", netns.as_fd())
        });
        asked_for.expect("connect");
        let said = inside(&netns, || {
            run("cat /proc/sys/net/ipv4/conf/eth0/log_martians; ip -o -4 addr show eth0")
        });
        assert!(
            said.starts_with("1\n") && said.contains("169.254.9.9/16"),
            "{said}"
        );
    });
}
