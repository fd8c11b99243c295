//! Published ports: from everywhere, and in conflict.

use std::net::{Ipv6Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use berth_net::{DEFAULT_NETWORK, EndpointRequest, Error, Firewall, Holder, PortRequest, Protocol};

use crate::machine::{
    LOCALHOST, MACHINE, REMOTE, ask_tcp, ask_udp, connect, no_tcp, port, serve_tcp, serve_udp, tcp,
    try_connect, with_machine,
};

#[test]
fn a_tcp_port_is_reached_from_everywhere() {
    with_machine(|machine| {
        let net = machine.open(machine.config("everywhere"));
        let web = connect(&net, "web", &[tcp(8080, 80)]);
        let other = connect(&net, "other", &[]);
        serve_tcp(&web.netns, 80, "web");
        let check = |namespace, address: &str, expect: &str| {
            let address: std::net::IpAddr = address.parse().expect("an address");
            let answer = ask_tcp(namespace, address, 8080);
            assert_eq!(answer.as_deref(), Some(expect), "{address}");
        };
        check(Some(&machine.remote), "198.51.100.1", "web 198.51.100.2");
        check(None, "127.0.0.1", "web 172.17.0.1");
        check(None, "198.51.100.1", "web 198.51.100.1");
        check(None, "172.17.0.1", "web 172.17.0.1");
        check(None, "::1", "web 172.17.0.1");
        check(Some(&other.netns), "172.17.0.1", "web 172.17.0.1");
        check(Some(&other.netns), "198.51.100.1", "web 172.17.0.1");
        // A hairpin: to itself by way of the host.
        check(Some(&web.netns), "198.51.100.1", "web 172.17.0.1");
        let host_ips: Vec<String> = web
            .endpoint
            .ports
            .iter()
            .map(|port| port.host_ip.to_string())
            .collect();
        assert_eq!(host_ips, ["0.0.0.0", "::"]);
    });
}

/// With br_netfilter the bridge itself gives a frame back that was meant for the host.
#[test]
fn a_port_is_reached_from_its_own_network_whoever_filters_the_bridge() {
    with_machine(|machine| {
        let net = machine.open(machine.config("filtered"));
        let web = connect(&net, "web", &[tcp(8080, 80)]);
        let other = connect(&net, "other", &[]);
        serve_tcp(&web.netns, 80, "web");
        let setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        for filtered in ["0", "1"] {
            if std::path::Path::new(setting).exists() {
                std::fs::write(setting, filtered).expect("set");
            }
            for namespace in [&other.netns, &web.netns] {
                let answer = ask_tcp(Some(namespace), MACHINE, 8080);
                assert_eq!(answer.as_deref(), Some("web 172.17.0.1"), "{filtered}");
            }
            let from_host = ask_tcp(None, MACHINE, 8080);
            assert_eq!(from_host.as_deref(), Some("web 198.51.100.1"));
        }
    });
}

#[test]
fn a_udp_port_is_reached_from_everywhere() {
    with_machine(|machine| {
        let net = machine.open(machine.config("udp"));
        let dns = connect(&net, "dns", &[port(Protocol::Udp, None, 5300, 53)]);
        let other = connect(&net, "other", &[]);
        serve_udp(&dns.netns, 53, "dns");
        assert_eq!(
            ask_udp(Some(&machine.remote), MACHINE, 5300).as_deref(),
            Some("dns 198.51.100.2")
        );
        assert_eq!(
            ask_udp(None, LOCALHOST, 5300).as_deref(),
            Some("dns 172.17.0.1")
        );
        assert_eq!(
            ask_udp(None, MACHINE, 5300).as_deref(),
            Some("dns 198.51.100.1")
        );
        assert_eq!(
            ask_udp(None, Ipv6Addr::LOCALHOST, 5300).as_deref(),
            Some("dns 172.17.0.1")
        );
        assert_eq!(
            ask_udp(Some(&other.netns), MACHINE, 5300).as_deref(),
            Some("dns 172.17.0.1")
        );
        assert_eq!(
            ask_udp(Some(&dns.netns), MACHINE, 5300).as_deref(),
            Some("dns 172.17.0.1")
        );
    });
}

#[test]
fn a_udp_flow_that_never_pauses_reaches_a_new_container() {
    with_machine(|machine| {
        let net = machine.open(machine.config("flow"));
        let client = crate::machine::inside(&machine.remote, || UdpSocket::bind("0.0.0.0:0"));
        let client = client.expect("bind");
        client
            .set_read_timeout(Some(std::time::Duration::from_millis(300)))
            .expect("timeout");
        let ask = |expect: Option<&str>| {
            client.send_to(b"ping", (MACHINE, 5301)).expect("send");
            let mut buffer = [0; 64];
            let answer = client.recv(&mut buffer).ok();
            let answer = answer.map(|bytes| String::from_utf8_lossy(&buffer[..bytes]).into_owned());
            assert_eq!(answer.as_deref(), expect);
        };
        ask(None);
        let request = [port(Protocol::Udp, None, 5301, 53)];
        for (id, answer) in [("one", "one 198.51.100.2"), ("two", "two 198.51.100.2")] {
            let container = connect(&net, id, &request);
            serve_udp(
                &container.netns,
                53,
                if id == "one" { "one" } else { "two" },
            );
            ask(Some(answer));
            net.disconnect(id, DEFAULT_NETWORK).expect("disconnect");
            ask(None);
        }
    });
}

#[test]
fn a_port_on_one_address_is_closed_on_the_others() {
    with_machine(|machine| {
        let net = machine.open(machine.config("one"));
        let local = connect(
            &net,
            "local",
            &[port(Protocol::Tcp, Some("127.0.0.1"), 8081, 80)],
        );
        let outer = connect(
            &net,
            "outer",
            &[port(Protocol::Tcp, Some("198.51.100.1"), 8081, 80)],
        );
        serve_tcp(&local.netns, 80, "local");
        serve_tcp(&outer.netns, 80, "outer");
        assert_eq!(
            ask_tcp(None, LOCALHOST, 8081).as_deref(),
            Some("local 172.17.0.1")
        );
        no_tcp(None, Ipv6Addr::LOCALHOST, 8081);
        let from_remote = ask_tcp(Some(&machine.remote), MACHINE, 8081);
        assert_eq!(from_remote.as_deref(), Some("outer 198.51.100.2"));
        // A neighbour that routes 127.0.0.1 to the machine does not get in.
        crate::machine::inside(&machine.remote, || {
            crate::machine::run("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet");
            crate::machine::run("ip rule add pref 10 lookup 99; ip rule add pref 20 lookup local");
            crate::machine::run("ip rule del pref 0");
            crate::machine::run("ip route add 127.0.0.1 via 198.51.100.1 dev cable1 table 99");
        });
        no_tcp(Some(&machine.remote), LOCALHOST, 8081);
    });
}

#[test]
fn a_taken_port_is_refused_with_its_holder() {
    with_machine(|machine| {
        let net = machine.open(machine.config("taken"));
        let _first = connect(&net, "first", &[tcp(8082, 80)]);
        let refused = try_connect(&net, "second", &[tcp(9090, 90), tcp(8082, 80)]).err();
        let Some(Error::PortAllocated {
            holder: Some(Holder::Container { id }),
            ..
        }) = &refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!(id, "first");
        let ours = TcpListener::bind("127.0.0.1:8083").expect("bind");
        let refused = try_connect(&net, "second", &[tcp(9090, 90), tcp(8083, 80)]).err();
        let Some(Error::PortInUse {
            holder: Some(Holder::Process { pid, .. }),
            host,
            ..
        }) = &refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!(
            (*pid, host.port()),
            (std::process::id().cast_signed(), 8083)
        );
        drop(ours);
        // Nothing is left of the attempts: neither the port nor the address.
        let second = connect(&net, "second", &[tcp(9090, 90), tcp(8083, 80)]);
        assert_eq!(second.ipv4().to_string(), "172.17.0.3");
        let alone = port(Protocol::Tcp, Some("127.0.0.1"), 8082, 80);
        let refused = try_connect(&net, "third", &[alone]).err();
        assert!(
            matches!(refused, Some(Error::PortAllocated { .. })),
            "{refused:?}"
        );
        let elsewhere = try_connect(
            &net,
            "third",
            &[port(Protocol::Tcp, Some("203.0.113.9"), 1, 1)],
        );
        assert!(matches!(elsewhere.err(), Some(Error::Bind { .. })));
    });
}

#[test]
fn ranges_give_the_first_free_port_and_end() {
    with_machine(|machine| {
        let net = machine.open(machine.config("range"));
        let request = PortRequest {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_ip: None,
            host_ports: Some(7000..=7001),
        };
        let ports = |id| {
            let connected = try_connect(&net, id, std::slice::from_ref(&request));
            connected.map(|container| container.endpoint.ports[0].host_port)
        };
        assert_eq!(ports("one").expect("connect"), 7000);
        assert_eq!(ports("two").expect("connect"), 7001);
        assert!(matches!(
            ports("three"),
            Err(Error::RangeExhausted {
                first: 7000,
                last: 7001,
                ..
            })
        ));
    });
}

#[test]
fn random_ports_are_ephemeral_and_all_different() {
    with_machine(|machine| {
        let net = machine.open(machine.config("random"));
        let requests = [tcp(0, 80), tcp(0, 81), port(Protocol::Udp, None, 0, 82)];
        let container = connect(&net, "one", &requests);
        let mut ports: Vec<(Protocol, u16)> = container
            .endpoint
            .ports
            .iter()
            .map(|port| (port.protocol, port.host_port))
            .collect();
        assert_eq!(ports.len(), 6);
        assert!(ports.iter().all(|(_, port)| *port >= 32768), "{ports:?}");
        ports.dedup();
        assert_eq!(ports.len(), 3);
        serve_tcp(&container.netns, 81, "random");
        let answer = ask_tcp(Some(&machine.remote), MACHINE, ports[1].1);
        assert_eq!(answer.as_deref(), Some("random 198.51.100.2"));
    });
}

#[test]
fn without_a_firewall_the_relay_serves() {
    with_machine(|machine| {
        let mut config = machine.config("off");
        config.firewall = Firewall::Off;
        let net = machine.open(config);
        let web = connect(
            &net,
            "web",
            &[tcp(8084, 80), port(Protocol::Udp, None, 8084, 80)],
        );
        serve_tcp(&web.netns, 80, "web");
        serve_udp(&web.netns, 80, "web");
        let remote = Some(&machine.remote);
        assert_eq!(
            ask_tcp(remote, MACHINE, 8084).as_deref(),
            Some("web 172.17.0.1")
        );
        assert_eq!(
            ask_udp(remote, MACHINE, 8084).as_deref(),
            Some("web 172.17.0.1")
        );
        assert_eq!(
            ask_tcp(None, LOCALHOST, 8084).as_deref(),
            Some("web 172.17.0.1")
        );
        net.disconnect("web", DEFAULT_NETWORK).expect("disconnect");
        no_tcp(None, LOCALHOST, 8084);
        assert_eq!(crate::machine::run("nft list ruleset"), "");
    });
}

/// Answers that another host goes on sending are not the next container's.
#[test]
fn nothing_is_tracked_of_a_container_that_is_gone() {
    with_machine(|machine| {
        let net = machine.open(machine.config("gone"));
        let server = crate::machine::inside(&machine.remote, || UdpSocket::bind("0.0.0.0:7000"));
        let server = server.expect("bind");
        let one = connect(&net, "one", &[tcp(8140, 80)]);
        serve_tcp(&one.netns, 80, "one");
        assert!(ask_tcp(Some(&machine.remote), MACHINE, 8140).is_some());
        let open = |container: &crate::machine::Container| {
            crate::machine::inside(&container.netns, || UdpSocket::bind("0.0.0.0:7001"))
        };
        let client = open(&one).expect("bind");
        client.send_to(b"ping", (REMOTE, 7000)).expect("send");
        let mut buffer = [0; 8];
        let (_, seen) = server.recv_from(&mut buffer).expect("receive");
        let tracked = || crate::machine::run("conntrack -L 2>/dev/null");
        let address = one.ipv4().to_string();
        assert!(tracked().contains(&address), "{}", tracked());
        net.disconnect("one", DEFAULT_NETWORK).expect("disconnect");
        // That is done beside, in one look for all that go at once.
        assert!(
            crate::machine::eventually(|| !tracked().contains(&address)),
            "{}",
            tracked()
        );
        // The next one has the same address.
        let netns = net.create_namespace().expect("a namespace");
        let endpoint = net.connect(EndpointRequest {
            ipv4: Some(one.ipv4()),
            ..EndpointRequest::new("two", netns.as_fd())
        });
        let two = crate::machine::Container {
            id: "two".to_owned(),
            endpoint: endpoint.expect("connect"),
            netns,
        };
        let receiver = open(&two).expect("bind");
        let patience = Some(std::time::Duration::from_millis(300));
        receiver.set_read_timeout(patience).expect("timeout");
        server.send_to(b"late", seen).expect("send");
        assert!(
            receiver.recv(&mut buffer).is_err(),
            "it is not for this one"
        );
    });
}
