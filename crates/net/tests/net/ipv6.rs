//! Networks with IPv6.

use std::net::Ipv6Addr;
use std::os::fd::AsFd;

use berth_net::{
    DEFAULT_NETWORK, EndpointRequest, Gateway, Net, Network, NetworkRequest, Protocol,
    SubnetRequest,
};

use crate::machine::{
    LOCALHOST, MACHINE, MACHINE6, REMOTE, REMOTE6, ask_tcp, ask_udp, connect, connect_to,
    eventually, inside, no_tcp, port, run, serve_tcp, serve_udp, tcp, with_machine,
};

fn dual(id: &str) -> NetworkRequest {
    NetworkRequest {
        v6: Some(SubnetRequest::default()),
        ..NetworkRequest::new(id)
    }
}

fn create(net: &Net, request: NetworkRequest) -> Network {
    net.create_network(request).expect("a network")
}

fn forwarding() -> String {
    run("cat /proc/sys/net/ipv6/conf/all/forwarding")
}

#[test]
fn containers_reach_each_other_and_the_world_by_ipv6() {
    with_machine(|machine| {
        let net = machine.open(machine.config("six"));
        let red = create(&net, dual("red"));
        let blue = create(&net, dual("blue"));
        let subnet = |network: &Network| network.v6.as_ref().expect("IPv6").subnet;
        assert_eq!(subnet(&red).prefix, 64);
        assert_eq!(subnet(&red).address.octets()[0], 0xfd);
        assert!(!subnet(&red).overlaps(subnet(&blue)));
        let one = connect_to(&net, "red", "one", &[]);
        let two = connect_to(&net, "red", "two", &[]);
        let other = connect_to(&net, "blue", "other", &[]);
        serve_tcp(&two.netns, 80, "two");
        serve_tcp(&other.netns, 80, "other");
        serve_tcp(&machine.remote, 80, "remote");
        assert_eq!(one.ipv6().to_bits() & 0xffff, 2);
        let ask = |address: Ipv6Addr| ask_tcp(Some(&one.netns), address, 80);
        assert_eq!(ask(two.ipv6()), Some(format!("two {}", one.ipv6())));
        assert_eq!(ask(REMOTE6), Some(format!("remote {MACHINE6}")));
        assert!(ask_tcp(None, two.ipv6(), 80).is_some());
        no_tcp(Some(&one.netns), other.ipv6(), 80);
        no_tcp(Some(&machine.remote), two.ipv6(), 80);
        let routes = inside(&one.netns, || run("ip -6 route show default"));
        let gateway = subnet(&red).first() + 1;
        assert!(
            routes.contains(&Ipv6Addr::from(gateway).to_string()),
            "{routes}"
        );
        // What is not in such a network has no IPv6.
        let plain = connect(&net, "plain", &[]);
        let addresses = inside(&plain.netns, || run("ip -6 addr show eth0"));
        assert_eq!(addresses, "");
    });
}

#[test]
fn a_port_is_published_by_ipv6_with_the_clients_address() {
    with_machine(|machine| {
        let net = machine.open(machine.config("open6"));
        create(&net, dual("red"));
        let dns = port(Protocol::Udp, None, 5300, 53);
        let local = port(Protocol::Tcp, Some("::1"), 8107, 80);
        let web = connect_to(&net, "red", "web", &[tcp(8106, 80), dns, local]);
        let other = connect_to(&net, "red", "other", &[]);
        serve_tcp(&web.netns, 80, "web");
        serve_udp(&web.netns, 53, "dns");
        let remote = Some(&machine.remote);
        assert_eq!(
            ask_tcp(remote, MACHINE6, 8106),
            Some(format!("web {REMOTE6}"))
        );
        assert_eq!(
            ask_tcp(remote, MACHINE, 8106),
            Some(format!("web {REMOTE}"))
        );
        assert_eq!(
            ask_udp(remote, MACHINE6, 5300),
            Some(format!("dns {REMOTE6}"))
        );
        assert!(ask_tcp(None, MACHINE6, 8106).is_some());
        assert!(ask_tcp(None, Ipv6Addr::LOCALHOST, 8106).is_some());
        assert!(ask_tcp(None, LOCALHOST, 8106).is_some());
        // A hairpin, and its neighbour.
        assert!(ask_tcp(Some(&web.netns), MACHINE6, 8106).is_some());
        assert!(ask_tcp(Some(&other.netns), MACHINE6, 8106).is_some());
        assert!(ask_tcp(None, Ipv6Addr::LOCALHOST, 8107).is_some());
        no_tcp(remote, MACHINE6, 8107);
        run("nft flush ruleset");
        assert!(eventually(|| run("nft list ruleset")
            .matches("8106")
            .count()
            == 2));
        assert_eq!(
            ask_tcp(remote, MACHINE6, 8106),
            Some(format!("web {REMOTE6}"))
        );
        net.disconnect("web", "red").expect("disconnect");
        no_tcp(remote, MACHINE6, 8106);
    });
}

#[test]
fn a_network_may_have_ipv6_only() {
    with_machine(|machine| {
        let net = machine.open(machine.config("only6"));
        let request = NetworkRequest {
            v4: None,
            v6: Some(SubnetRequest {
                subnet: "fd77::/64".parse().ok(),
                ..SubnetRequest::default()
            }),
            ..NetworkRequest::new("only6")
        };
        create(&net, request);
        let web = connect_to(&net, "only6", "web", &[tcp(8108, 80)]);
        assert_eq!(web.endpoint.ipv4, None);
        assert_eq!(web.ipv6().to_string(), "fd77::2");
        serve_tcp(&web.netns, 80, "web");
        let remote = Some(&machine.remote);
        assert_eq!(
            ask_tcp(remote, MACHINE6, 8108),
            Some(format!("web {REMOTE6}"))
        );
        // By IPv4 it is relayed.
        assert!(ask_tcp(remote, MACHINE, 8108).is_some());
        let asked_for = Some("fd77::9:9".parse().expect("an address"));
        let netns = net.create_namespace().expect("a namespace");
        let endpoint = net.connect(EndpointRequest {
            network: "only6",
            ipv6: asked_for,
            mac: Some([2, 0, 0, 0, 0, 9]),
            ..EndpointRequest::new("nine", netns.as_fd())
        });
        assert_eq!(endpoint.expect("connect").ipv6, asked_for);
        let addresses = inside(&netns, || run("ip -o -6 addr show eth0"));
        assert!(addresses.contains("fd77::9:9/64"), "{addresses}");
    });
}

#[test]
fn the_gateways_of_the_families_may_differ() {
    with_machine(|machine| {
        let net = machine.open(machine.config("two6"));
        create(&net, dual("red"));
        let one = connect(&net, "one", &[]);
        net.connect(EndpointRequest {
            network: "red",
            interface: "eth1",
            gateway: Gateway {
                v4: false,
                v6: true,
            },
            ..EndpointRequest::new("one", one.netns.as_fd())
        })
        .expect("connect");
        let routes = || {
            inside(&one.netns, || {
                run("ip -4 route show default; ip -6 route show default")
            })
        };
        let both = routes();
        assert!(
            both.contains("dev eth0") && both.contains("dev eth1"),
            "{both}"
        );
        let set = |v4, v6| net.set_gateway("one", one.netns.as_fd(), v4, v6);
        set(Some("red"), None).expect("set");
        assert_eq!(routes(), "default via 172.18.0.1 dev eth1 \n");
        set(Some(DEFAULT_NETWORK), Some("red")).expect("set");
        let both = routes();
        assert!(
            both.contains("dev eth0") && both.contains("dev eth1"),
            "{both}"
        );
    });
}

#[test]
fn the_host_forwards_ipv6_only_while_a_network_has_it() {
    with_machine(|machine| {
        assert_eq!(forwarding(), "0\n");
        let net = machine.open(machine.config("way6"));
        assert_eq!(forwarding(), "0\n");
        let red = create(&net, dual("red"));
        create(&net, dual("blue"));
        assert_eq!(forwarding(), "1\n");
        let guarded = || run("nft list chain ip6 way6 forward").contains("does not route");
        assert!(guarded());
        let web = connect_to(&net, "red", "web", &[tcp(8109, 80)]);
        serve_tcp(&web.netns, 80, "web");
        drop(net);
        let net = machine.open(machine.config("way6"));
        net.restore(
            std::slice::from_ref(&red),
            std::slice::from_ref(&web.endpoint),
        )
        .expect("restore");
        assert!(guarded());
        let said = ask_tcp(Some(&machine.remote), MACHINE6, 8109);
        assert_eq!(said, Some(format!("web {REMOTE6}")));
        net.disconnect("web", "red").expect("disconnect");
        net.remove_network("red").expect("remove");
        assert_eq!(forwarding(), "0\n");
        assert!(!run("nft list tables").contains("ip6"));
        create(&net, dual("red"));
        assert_eq!(forwarding(), "1\n");
        net.remove_network("red").expect("remove");
        net.close().expect("close");
        assert_eq!(forwarding(), "0\n");
        run("echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        let net = machine.open(machine.config("way6"));
        create(&net, dual("red"));
        assert!(!guarded());
        net.close().expect("close");
        assert_eq!(forwarding(), "1\n");
    });
}

#[test]
fn a_port_is_reached_by_ipv6_when_connect_returns() {
    with_machine(|machine| {
        let net = machine.open(machine.config("prompt"));
        create(&net, dual("red"));
        let web = connect_to(&net, "red", "web", &[tcp(8130, 80)]);
        serve_tcp(&web.netns, 80, "web");
        let begun_again = || inside(&machine.remote, crate::many::begun_again);
        assert!(ask_tcp(Some(&machine.remote), MACHINE6, 8130).is_some());
        assert_eq!(begun_again(), 0, "a packet was lost");
    });
}

#[test]
fn the_host_listens_to_routers_as_before() {
    with_machine(|machine| {
        let listens = |name: &str| run(&format!("cat /proc/sys/net/ipv6/conf/{name}/accept_ra"));
        run("ip link add mine type veth peer name away; ip link set mine up");
        run("echo 1 >/proc/sys/net/ipv6/conf/cable0/accept_ra");
        run("echo 2 >/proc/sys/net/ipv6/conf/mine/accept_ra");
        let net = machine.open(machine.config("routers"));
        create(&net, dual("red"));
        assert_eq!(
            (listens("cable0"), listens("mine")),
            ("2\n".into(), "2\n".into())
        );
        drop(net);
        let net = machine.open(machine.config("routers"));
        net.restore(&[], &[]).expect("restore without the network");
        assert_eq!(
            (listens("cable0"), listens("mine")),
            ("1\n".into(), "2\n".into())
        );
        assert_eq!(forwarding(), "0\n");
        net.close().expect("close");
        let left = std::fs::read_dir(machine.directory.path().join("routers"));
        let left: Vec<_> = left.expect("the exec root").flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    });
}
