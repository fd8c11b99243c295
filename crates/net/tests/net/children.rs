//! Networks whose interfaces are children of a link of the host's. What this kernel lacks (ipvlan,
//! VLANs and dummies on many) is refused with a sentence; where it has it, it is tried.

use std::os::fd::AsFd;

use berth_net::{
    Child, ChildKind, Driver, EndpointRequest, Error, IpvlanFlag, IpvlanMode, MacvlanMode, Net,
    Network, NetworkRequest, SubnetRequest,
};

use crate::machine::{
    REMOTE, ask_tcp, connect, connect_to, eventually, inside, no_tcp, run, serve_tcp, tcp,
    with_machine,
};

fn macvlan(id: &str, mode: MacvlanMode) -> NetworkRequest {
    child(id, "cable0", ChildKind::Macvlan(mode))
}

/// The machine's own subnet, from addresses that nobody has; its gateway is the remote host.
fn child(id: &str, parent: &str, kind: ChildKind) -> NetworkRequest {
    NetworkRequest {
        v4: Some(SubnetRequest {
            subnet: "198.51.100.0/24".parse().ok(),
            gateway: Some(REMOTE),
            range: "198.51.100.64/26".parse().ok(),
            ..SubnetRequest::default()
        }),
        driver: Driver::Child(Child {
            parent: parent.to_owned(),
            kind,
        }),
        ..NetworkRequest::new(id)
    }
}

fn create(net: &Net, request: NetworkRequest) -> Network {
    net.create_network(request).expect("a network")
}

#[test]
fn macvlan_containers_are_hosts_of_their_parents_network() {
    with_machine(|machine| {
        let net = machine.open(machine.config("lan"));
        create(&net, macvlan("lan", MacvlanMode::Bridge));
        let before = run("nft list ruleset; ip -o link");
        let one = connect_to(&net, "lan", "one", &[tcp(8200, 80)]);
        let two = connect_to(&net, "lan", "two", &[]);
        assert_eq!(run("nft list ruleset; ip -o link"), before);
        assert_eq!(one.ipv4().to_string(), "198.51.100.64");
        let macs = [&one, &two].map(|it| it.endpoint.mac_string());
        assert!(macs.iter().all(|it| it.starts_with("02:42:")), "{macs:?}");
        assert_ne!(macs[0], macs[1]);
        // As in Docker, nothing is published: the container is reached at its own address.
        assert_eq!(
            (one.endpoint.ports.len(), one.endpoint.veth.as_ref()),
            (0, None)
        );
        serve_tcp(&one.netns, 80, "one");
        serve_tcp(&machine.remote, 80, "remote");
        let said = ask_tcp(Some(&machine.remote), one.ipv4(), 80);
        assert_eq!(said, Some(format!("one {REMOTE}")));
        let said = ask_tcp(Some(&two.netns), one.ipv4(), 80);
        assert_eq!(said, Some(format!("one {}", two.ipv4())));
        let said = ask_tcp(Some(&two.netns), REMOTE, 80);
        assert_eq!(said, Some(format!("remote {}", two.ipv4())));
        // The parent's own host is not reached; that is the kernel's way.
        no_tcp(None, one.ipv4(), 80);
        let routes = inside(&two.netns, || run("ip -4 route show default"));
        assert_eq!(routes, format!("default via {REMOTE} dev eth0 \n"));

        // It leaves a container that goes on, and comes back with the same addresses.
        let request = || EndpointRequest {
            network: "lan",
            ipv4: Some(two.ipv4()),
            ..EndpointRequest::new("two", two.netns.as_fd())
        };
        net.detach("two", two.netns.as_fd(), "lan").expect("detach");
        assert!(!inside(&two.netns, || run("ip -o link")).contains("eth0"));
        // The remote host remembers the address with the hardware address that is gone.
        net.connect(request()).expect("connect");
        serve_tcp(&two.netns, 80, "two");
        assert!(ask_tcp(Some(&machine.remote), two.ipv4(), 80).is_some());
        assert!(ask_tcp(Some(&two.netns), REMOTE, 80).is_some());
        let used = net.remove_network("lan");
        assert!(matches!(used, Err(Error::NetworkInUse { .. })));
        for id in ["one", "two"] {
            net.disconnect(id, "lan").expect("disconnect");
        }
        net.remove_network("lan").expect("remove");
        assert!(
            run("ip -o link").contains("cable0"),
            "the parent is not ours"
        );
    });
}

#[test]
fn the_next_start_takes_the_address_of_a_container_that_has_ended() {
    with_machine(|machine| {
        let net = machine.open(machine.config("again"));
        create(&net, macvlan("lan", MacvlanMode::Passthru));
        for _ in 0..3 {
            let one = connect_to(&net, "lan", "one", &[]);
            net.disconnect("one", "lan").expect("disconnect");
            // Its namespace goes after this, in the kernel's own time.
            drop(one);
        }
        let one = connect_to(&net, "lan", "one", &[]);
        // A second one is refused, and leaves nothing.
        let netns = net.create_namespace().expect("a namespace");
        let second = net.connect(EndpointRequest {
            network: "lan",
            ..EndpointRequest::new("second", netns.as_fd())
        });
        let words = second.expect_err("passthru is for one").to_string();
        assert!(
            words.starts_with("failed to create the macvlan port: "),
            "{words}"
        );
        net.disconnect("one", "lan").expect("disconnect");
        drop(one);
        net.remove_network("lan").expect("remove");
    });
}

#[test]
fn modes_and_parents_are_refused_as_by_docker() {
    with_machine(|machine| {
        let net = machine.open(machine.config("refused"));
        create(&net, macvlan("first", MacvlanMode::Bridge));
        let refused = |request: NetworkRequest| {
            let before = run("ip -o link; nft list ruleset");
            let error = net.create_network(request).expect_err("refused");
            assert_eq!(run("ip -o link; nft list ruleset"), before);
            error.to_string()
        };
        let other = |parent: &str, mode| NetworkRequest {
            v4: Some(SubnetRequest::default()),
            ..child("second", parent, ChildKind::Macvlan(mode))
        };
        assert_eq!(
            refused(other("cable0", MacvlanMode::Passthru)),
            "cannot use mode passthru, macvlan network first is already using parent interface \
             cable0"
        );
        assert_eq!(
            refused(other("nosuch", MacvlanMode::Bridge)),
            "invalid subinterface vlan name nosuch, example formatting is eth0.10"
        );
        assert_eq!(
            refused(other("nosuch.7", MacvlanMode::Bridge)),
            "-o parent interface was not found on the host: nosuch"
        );
        // Two networks may share a parent.
        create(&net, other("cable0", MacvlanMode::Private));
        net.remove_network("second").expect("remove");
    });
}

#[test]
fn an_internal_network_has_no_way_out_and_none_leads_to_a_bridge() {
    with_machine(|machine| {
        let net = machine.open(machine.config("within"));
        let request = NetworkRequest {
            internal: true,
            v4: Some(SubnetRequest {
                subnet: "10.66.0.0/24".parse().ok(),
                ..SubnetRequest::default()
            }),
            ..macvlan("within", MacvlanMode::Bridge)
        };
        let network = create(&net, request);
        assert_eq!(network.v4.expect("IPv4").gateway, None);
        let one = connect_to(&net, "within", "one", &[]);
        assert_eq!(one.ipv4().to_string(), "10.66.0.1");
        assert_eq!(inside(&one.netns, || run("ip -4 route show default")), "");
        let bridged = connect(&net, "bridged", &[]);
        serve_tcp(&bridged.netns, 80, "bridged");
        no_tcp(Some(&one.netns), bridged.ipv4(), 80);
    });
}

#[test]
fn networks_with_a_parent_survive_a_restart() {
    with_machine(|machine| {
        let net = machine.open(machine.config("kept"));
        let networks = [create(&net, macvlan("lan", MacvlanMode::Bridge))];
        let one = connect_to(&net, "lan", "one", &[]);
        serve_tcp(&one.netns, 80, "one");
        drop(net);
        let net = machine.open(machine.config("kept"));
        let endpoints = [one.endpoint.clone()];
        net.restore(&networks, &endpoints).expect("restore");
        assert!(ask_tcp(Some(&machine.remote), one.ipv4(), 80).is_some());
        let two = connect_to(&net, "lan", "two", &[]);
        assert_eq!(two.ipv4().to_string(), "198.51.100.65");
        // The parent is unplugged, and the network is there nevertheless.
        net.disconnect("two", "lan").expect("disconnect");
        drop(net);
        run("ip link del cable0");
        let net = machine.open(machine.config("kept"));
        net.restore(&networks, &endpoints).expect("restore");
        let netns = net.create_namespace().expect("a namespace");
        let request = EndpointRequest {
            network: "lan",
            ..EndpointRequest::new("three", netns.as_fd())
        };
        let words = net.connect(request).expect_err("no parent").to_string();
        assert_eq!(
            words,
            "the requested parent interface cable0 was not found on the Docker host"
        );
        net.disconnect("one", "lan").expect("disconnect");
        net.remove_network("lan").expect("remove");
    });
}

/// What the kernel is asked for beside macvlan.
#[test]
fn what_the_kernel_lacks_is_told_and_what_it_has_works() {
    with_machine(|machine| {
        let net = machine.open(machine.config("kinds"));
        let kinds = [
            ("ipvlan", child("net", "cable0", ipvlan(IpvlanMode::L3))),
            ("ipvlan", child("net", "cable0", ipvlan(IpvlanMode::L2))),
            (
                "8021q",
                child("net", "cable0.10", ChildKind::Macvlan(MacvlanMode::Vepa)),
            ),
            (
                "dummy",
                NetworkRequest {
                    internal: true,
                    driver: Driver::Child(Child::without_parent("net", ipvlan(IpvlanMode::L2))),
                    ..NetworkRequest::new("net")
                },
            ),
            (
                "dummy",
                NetworkRequest {
                    internal: true,
                    driver: Driver::Child(Child::without_parent(
                        "net",
                        ChildKind::Macvlan(MacvlanMode::Bridge),
                    )),
                    ..NetworkRequest::new("net")
                },
            ),
        ];
        let links = || run("ip -o link | cut -d: -f2");
        let before = links();
        for (module, request) in kinds {
            let (driver, internal) = (request.driver.clone(), request.internal);
            match net.create_network(request) {
                Err(error) => {
                    let words = error.to_string();
                    assert!(words.starts_with("this kernel has no "), "{words}");
                    let named = words.contains(module) || words.contains("ipvlan");
                    assert!(named, "{words}");
                    println!("lacking: {words}");
                }
                Ok(_) => {
                    let one = connect_to(&net, "net", "one", &[]);
                    let two = connect_to(&net, "net", "two", &[]);
                    serve_tcp(&one.netns, 80, "one");
                    let Driver::Child(child) = driver else {
                        continue;
                    };
                    let vepa = ChildKind::Macvlan(MacvlanMode::Vepa);
                    let asked = ask(&two.netns, &one, child.kind == vepa);
                    assert!(asked, "{child:?}");
                    let route = inside(&two.netns, || run("ip -4 route show default"));
                    let to_link = child.kind == ipvlan(IpvlanMode::L3);
                    assert_eq!(
                        route == "default dev eth0 scope link \n",
                        to_link,
                        "{route}"
                    );
                    assert_eq!(route.is_empty(), internal, "{route}");
                    let own_mac = matches!(child.kind, ChildKind::Macvlan(_));
                    assert_eq!(!one.endpoint.mac_string().is_empty(), own_mac);
                    for id in ["one", "two"] {
                        net.disconnect(id, "net").expect("disconnect");
                    }
                    drop((one, two));
                    net.remove_network("net").expect("remove");
                    println!("works: {child:?}");
                }
            }
            assert!(eventually(|| links() == before), "{}", links());
        }
    });
}

fn ipvlan(mode: IpvlanMode) -> ChildKind {
    ChildKind::Ipvlan(mode, IpvlanFlag::Bridge)
}

/// With vepa only a switch outside would bring the packets back.
fn ask(from: &std::os::fd::OwnedFd, to: &crate::machine::Container, vepa: bool) -> bool {
    if vepa {
        no_tcp(Some(from), to.ipv4(), 80);
        return true;
    }
    ask_tcp(Some(from), to.ipv4(), 80).is_some()
}
