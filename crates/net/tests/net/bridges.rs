//! What a bridge can be told beside its addresses.

use berth_net::{Driver, Network, NetworkRequest, SubnetRequest};

use crate::machine::{
    MACHINE, REMOTE, ask_tcp, bridged, connect_to, inside, no_tcp, run, serve_tcp, tcp,
    with_machine,
};

#[test]
fn containers_leave_with_the_address_that_is_given() {
    with_machine(|machine| {
        run("ip addr add 198.51.100.9/24 dev cable0; ip addr add 2001:db8::9/64 dev cable0 nodad");
        let net = machine.open(machine.config("source"));
        let request = NetworkRequest {
            v6: Some(SubnetRequest::default()),
            ..bridged("source", |bridge| {
                bridge.source_v4 = Some([198, 51, 100, 9].into());
                bridge.source_v6 = "2001:db8::9".parse().ok();
            })
        };
        net.create_network(request).expect("a network");
        net.create_network(NetworkRequest::new("plain"))
            .expect("a network");
        let one = connect_to(&net, "source", "one", &[]);
        let two = connect_to(&net, "plain", "two", &[]);
        serve_tcp(&machine.remote, 80, "remote");
        let said = ask_tcp(Some(&one.netns), REMOTE, 80);
        assert_eq!(said.as_deref(), Some("remote 198.51.100.9"));
        let said = ask_tcp(Some(&one.netns), crate::machine::REMOTE6, 80);
        assert_eq!(said.as_deref(), Some("remote 2001:db8::9"));
        let said = ask_tcp(Some(&two.netns), REMOTE, 80);
        assert_eq!(said, Some(format!("remote {MACHINE}")));
    });
}

#[test]
fn trusted_interfaces_reach_published_ports_at_the_containers_addresses() {
    with_machine(|machine| {
        let net = machine.open(machine.config("trust"));
        let trusting = bridged("trusts", |bridge| {
            bridge.trusted_interfaces = vec!["cable0".to_owned(), "nosuch0".to_owned()];
        });
        net.create_network(trusting).expect("a network");
        let other = bridged("other", |bridge| {
            bridge.trusted_interfaces = vec!["nosuch0".to_owned()];
        });
        net.create_network(other).expect("a network");
        let one = connect_to(&net, "trusts", "one", &[tcp(8210, 80)]);
        let two = connect_to(&net, "other", "two", &[tcp(8211, 80)]);
        for container in [&one, &two] {
            serve_tcp(&container.netns, 80, "published");
            serve_tcp(&container.netns, 81, "not published");
        }
        let remote = Some(&machine.remote);
        let said = ask_tcp(remote, one.ipv4(), 80);
        assert_eq!(said, Some(format!("published {REMOTE}")));
        no_tcp(remote, one.ipv4(), 81);
        no_tcp(remote, two.ipv4(), 80);
        assert!(ask_tcp(remote, MACHINE, 8210).is_some());
        net.disconnect("one", "trusts").expect("disconnect");
        no_tcp(remote, one.ipv4(), 80);
    });
}

#[test]
fn a_router_on_the_bridge_is_the_gateway_where_the_bridge_has_no_address() {
    with_machine(|machine| {
        let net = machine.open(machine.config("router"));
        let subnet = || {
            Some(SubnetRequest {
                subnet: "10.88.0.0/24".parse().ok(),
                ..SubnetRequest::default()
            })
        };
        let request = NetworkRequest {
            v4: subnet(),
            ..bridged("inhibited", |bridge| bridge.inhibit_ipv4 = true)
        };
        let network: Network = net.create_network(request).expect("a network");
        let Driver::Bridge(bridge) = &network.driver else {
            panic!("{network:?}");
        };
        assert_eq!(run(&format!("ip -o -4 addr show {}", bridge.name)), "");
        let one = connect_to(&net, "inhibited", "one", &[]);
        let route = || inside(&one.netns, || run("ip -4 route show default"));
        assert_eq!(route(), "default via 10.88.0.1 dev eth0 \n");
        net.disconnect("one", "inhibited").expect("disconnect");
        net.remove_network("inhibited").expect("remove");

        // By the auxiliary address of that name, beside the bridge's own.
        let mut v4 = subnet().expect("a subnet");
        let router = [10, 88, 0, 254].into();
        v4.auxiliary.insert("DefaultGatewayIPv4".to_owned(), router);
        let request = NetworkRequest {
            v4: Some(v4),
            ..NetworkRequest::new("declared")
        };
        net.create_network(request).expect("a network");
        assert!(run("ip -o -4 addr show br-declared").contains("10.88.0.1/24"));
        let two = connect_to(&net, "declared", "two", &[]);
        let route = inside(&two.netns, || run("ip -4 route show default"));
        assert_eq!(route, "default via 10.88.0.254 dev eth0 \n");
        assert_eq!(two.endpoint.gateway, Some(router));
    });
}
