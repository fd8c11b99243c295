//! How networks are joined to the world: translated, routed, or not at all.

use berth_net::{
    Error, GatewayMode, GatewayModes, Net, Network, NetworkRequest, Protocol, SubnetRequest,
};

use crate::machine::{
    LOCALHOST, MACHINE, MACHINE6, REMOTE, REMOTE6, ask_tcp, bridged, connect_to, inside, no_tcp,
    port, run, serve_tcp, tcp, with_machine,
};

fn create(net: &Net, id: &str, v4: GatewayMode, v6: GatewayMode, internal: bool) -> Network {
    net.create_network(NetworkRequest {
        v6: Some(SubnetRequest::default()),
        internal,
        ..bridged(id, |bridge| bridge.gateway_modes = GatewayModes { v4, v6 })
    })
    .expect("a network")
}

fn pings(from: &std::os::fd::OwnedFd, address: impl std::fmt::Display) -> bool {
    let command = format!("busybox ping -c1 -W1 {address} > /dev/null && echo yes || echo no");
    inside(from, || run(&command)) == "yes\n"
}

#[test]
fn a_routed_network_is_reached_at_its_published_ports_without_translation() {
    with_machine(|machine| {
        let net = machine.open(machine.config("routes"));
        create(&net, "red", GatewayMode::Routed, GatewayMode::Routed, false);
        let local = port(Protocol::Tcp, Some("127.0.0.1"), 8111, 81);
        let web = connect_to(&net, "red", "web", &[tcp(8110, 80), tcp(8112, 80), local]);
        assert_eq!(web.endpoint.ports, []);
        assert_eq!(web.endpoint.open.len(), 2);
        for number in [80, 81] {
            serve_tcp(&web.netns, number, "web");
        }
        serve_tcp(&machine.remote, 80, "remote");
        let remote = Some(&machine.remote);
        assert_eq!(
            ask_tcp(remote, web.ipv4(), 80),
            Some(format!("web {REMOTE}"))
        );
        assert_eq!(
            ask_tcp(remote, web.ipv6(), 80),
            Some(format!("web {REMOTE6}"))
        );
        assert!(pings(&machine.remote, web.ipv4()) && pings(&machine.remote, web.ipv6()));
        no_tcp(remote, web.ipv4(), 81);
        no_tcp(remote, MACHINE, 8110);
        // The world sees the container itself.
        let said = ask_tcp(Some(&web.netns), REMOTE, 80);
        assert_eq!(said, Some(format!("remote {}", web.ipv4())));
        let said = ask_tcp(Some(&web.netns), REMOTE6, 80);
        assert_eq!(said, Some(format!("remote {}", web.ipv6())));
        assert!(ask_tcp(None, web.ipv4(), 80).is_some());
        net.disconnect("web", "red").expect("disconnect");
        assert!(!run("nft list ruleset").contains(&web.ipv6().to_string()));
    });
}

#[test]
fn an_unprotected_network_is_reached_at_all_ports_and_translated() {
    with_machine(|machine| {
        let net = machine.open(machine.config("naked"));
        let (nat, unprotected) = (GatewayMode::Nat, GatewayMode::NatUnprotected);
        create(&net, "red", unprotected, nat, false);
        create(&net, "blue", nat, nat, false);
        let web = connect_to(&net, "red", "web", &[tcp(8121, 80)]);
        let other = connect_to(&net, "blue", "other", &[]);
        for (container, name) in [(&web, "web"), (&other, "other")] {
            serve_tcp(&container.netns, 80, name);
            serve_tcp(&container.netns, 81, name);
        }
        serve_tcp(&machine.remote, 80, "remote");
        let remote = Some(&machine.remote);
        for (address, port) in [(MACHINE, 8121), (web.ipv4(), 80), (web.ipv4(), 81)] {
            assert_eq!(
                ask_tcp(remote, address, port),
                Some(format!("web {REMOTE}"))
            );
        }
        no_tcp(remote, web.ipv6(), 80);
        no_tcp(remote, other.ipv4(), 81);
        no_tcp(Some(&other.netns), web.ipv4(), 81);
        let said = ask_tcp(Some(&web.netns), REMOTE, 80);
        assert_eq!(said, Some(format!("remote {MACHINE}")));
    });
}

#[test]
fn the_families_may_differ() {
    with_machine(|machine| {
        let net = machine.open(machine.config("mixed"));
        create(&net, "red", GatewayMode::Nat, GatewayMode::Routed, false);
        let web = connect_to(&net, "red", "web", &[tcp(8113, 80)]);
        serve_tcp(&web.netns, 80, "web");
        let remote = Some(&machine.remote);
        assert_eq!(
            ask_tcp(remote, MACHINE, 8113),
            Some(format!("web {REMOTE}"))
        );
        assert_eq!(
            ask_tcp(remote, web.ipv6(), 80),
            Some(format!("web {REMOTE6}"))
        );
        no_tcp(remote, web.ipv4(), 80);
        no_tcp(remote, MACHINE6, 8113);
        assert!(!pings(&machine.remote, web.ipv4()));
    });
}

#[test]
fn an_isolated_network_does_not_reach_even_the_host() {
    with_machine(|machine| {
        let net = machine.open(machine.config("alone"));
        let isolated = GatewayMode::Isolated;
        let open = net.create_network(bridged("open", |bridge| {
            bridge.gateway_modes = GatewayModes {
                v4: isolated,
                v6: isolated,
            };
        }));
        assert!(matches!(open, Err(Error::IsolatedNotInternal)));
        let network = create(&net, "red", isolated, isolated, true);
        let one = connect_to(&net, "red", "one", &[tcp(8114, 80)]);
        let two = connect_to(&net, "red", "two", &[]);
        // Nothing is published, and the port is nobody's.
        assert_eq!((one.endpoint.ports.len(), one.endpoint.open.len()), (0, 0));
        drop(std::net::TcpListener::bind("0.0.0.0:8114").expect("the port is free"));
        serve_tcp(&one.netns, 80, "one");
        assert!(ask_tcp(Some(&two.netns), one.ipv4(), 80).is_some());
        assert!(ask_tcp(Some(&two.netns), one.ipv6(), 80).is_some());
        let (addresses, routes) = (
            run(&format!(
                "ip -o -4 addr show {}",
                network.bridge().expect("a bridge").name
            )),
            inside(&one.netns, || {
                run("ip -4 route show default; ip -6 route show default")
            }),
        );
        assert_eq!((addresses.as_str(), routes.as_str()), ("", ""));
        no_tcp(Some(&one.netns), MACHINE, 80);
        no_tcp(None, one.ipv4(), 80);
    });
}

#[test]
fn ports_are_published_where_the_network_says() {
    with_machine(|machine| {
        let net = machine.open(machine.config("where"));
        let request = bridged("local", |bridge| bridge.host_ip = Some(LOCALHOST.into()));
        net.create_network(request).expect("a network");
        let everywhere = port(Protocol::Tcp, Some("0.0.0.0"), 8116, 80);
        let web = connect_to(&net, "local", "web", &[tcp(8115, 80), everywhere]);
        serve_tcp(&web.netns, 80, "web");
        let remote = Some(&machine.remote);
        assert!(ask_tcp(None, LOCALHOST, 8115).is_some());
        no_tcp(remote, MACHINE, 8115);
        assert!(ask_tcp(remote, MACHINE, 8116).is_some());
    });
}
