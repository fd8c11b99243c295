//! Many containers, one after another and at once, and many ports.

use std::collections::HashSet;
use std::os::fd::AsFd;

use berth_net::{DEFAULT_NETWORK, EndpointRequest, Gateway, NetworkRequest, PortRequest, Protocol};

use crate::machine::{
    MACHINE, ask_tcp, connect, connect_to, inside, no_tcp, run, serve_tcp, tcp, with_machine,
};

/// How many connections of this thread's namespace were begun again since nobody had answered.
pub fn begun_again() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").expect("the counters");
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let mut fields = || lines.next().expect("TcpExt").split(' ');
    let mut counters = fields().zip(fields());
    let found = counters.find(|(name, _)| *name == "TCPSynRetrans");
    found.expect("the counter").1.parse().expect("a number")
}

#[test]
fn the_network_is_ready_when_connect_returns() {
    with_machine(|machine| {
        let net = machine.open(machine.config("ready"));
        for round in 0..20 {
            let container = connect(&net, &format!("container{round}"), &[tcp(8096, 80)]);
            serve_tcp(&container.netns, 80, "ready");
            assert!(ask_tcp(None, container.ipv4(), 80).is_some());
            assert!(ask_tcp(Some(&machine.remote), MACHINE, 8096).is_some());
            // No packet was lost.
            assert_eq!(begun_again(), 0, "round {round}");
            assert_eq!(inside(&machine.remote, begun_again), 0, "round {round}");
            net.disconnect(&container.id, DEFAULT_NETWORK)
                .expect("disconnect");
        }
    });
}

/// The kernel gives a bridge 1,023 ports.
#[test]
fn a_thousand_containers_are_on_one_bridge_each_reached_at_its_own_port() {
    with_machine(|machine| {
        const CONTAINERS: u16 = 1000;
        const FIRST: u16 = 20_000;
        let net = machine.open(machine.config("crowd"));
        let containers: Vec<_> = (0..CONTAINERS)
            .map(|n| connect(&net, &format!("container{n}"), &[tcp(FIRST + n, 80)]))
            .collect();
        let addresses: HashSet<_> = containers.iter().map(|one| one.ipv4()).collect();
        assert_eq!(addresses.len(), containers.len(), "an address is two's");
        for n in [0, CONTAINERS - 1] {
            serve_tcp(&containers[usize::from(n)].netns, 80, "here");
            assert!(ask_tcp(Some(&machine.remote), MACHINE, FIRST + n).is_some());
        }
        for container in containers.iter().rev() {
            net.disconnect(&container.id, DEFAULT_NETWORK)
                .expect("disconnect");
        }
        drop(containers);
        net.settle();
    });
}

#[test]
fn ten_thousand_ports_are_published_and_taken_back() {
    with_machine(|machine| {
        const FIRST: u16 = 20_000;
        const COUNT: u16 = 10_000;
        let net = machine.open(machine.config("many"));
        let request = |n| PortRequest {
            protocol: Protocol::Tcp,
            container_port: n,
            host_ip: None,
            host_ports: Some(n..=n),
        };
        let ports: Vec<PortRequest> = (FIRST..FIRST + COUNT).map(request).collect();
        let container = connect(&net, "many", &ports);
        assert_eq!(container.endpoint.ports.len(), 2 * usize::from(COUNT));
        let last = FIRST + COUNT - 1;
        serve_tcp(&container.netns, last, "many");
        assert!(ask_tcp(Some(&machine.remote), MACHINE, last).is_some());
        net.restore(&[], std::slice::from_ref(&container.endpoint))
            .expect("restore");
        assert!(ask_tcp(Some(&machine.remote), MACHINE, last).is_some());
        net.disconnect("many", DEFAULT_NETWORK).expect("disconnect");
        no_tcp(Some(&machine.remote), MACHINE, last);
    });
}

/// What a change costs does not grow with what there is, nor do the rules that a packet passes.
#[test]
fn two_hundred_networks_are_some_elements_of_sets() {
    with_machine(|machine| {
        const NETWORKS: usize = 200;
        let mut config = machine.config("nets");
        config.pools = vec!["base=10.64.0.0/16,size=24".parse().expect("a pool")];
        let net = machine.open(config);
        let rules = || run("nft list table ip nets | grep -c -e accept -e drop -e masquerade");
        let before = rules();
        let name = |n: usize| format!("{n:012x}");
        for n in 0..NETWORKS {
            let request = NetworkRequest::new(&name(n));
            net.create_network(request).expect("a network");
        }
        assert_eq!(rules(), before);
        let ends = [0, NETWORKS - 1].map(|n| {
            let port = 8120 + u16::from(n > 0);
            connect_to(&net, &name(n), &format!("container{n}"), &[tcp(port, 80)])
        });
        for (n, container) in ends.iter().enumerate() {
            serve_tcp(&container.netns, 80, "here");
            let port = 8120 + u16::try_from(n).expect("a small number");
            assert!(ask_tcp(Some(&machine.remote), MACHINE, port).is_some());
        }
        no_tcp(Some(&ends[0].netns), ends[1].ipv4(), 80);
        // One container on fifty of them.
        for n in 1..50 {
            let interface = format!("eth{n}");
            net.connect(EndpointRequest {
                network: &name(n),
                interface: &interface,
                gateway: Gateway::default(),
                ..EndpointRequest::new("container0", ends[0].netns.as_fd())
            })
            .expect("connect");
        }
        let links = inside(&ends[0].netns, || run("ip -o link | grep -c eth"));
        assert_eq!(links, "50\n");
        for n in 0..50 {
            net.disconnect("container0", &name(n)).expect("disconnect");
        }
        let last = NETWORKS - 1;
        net.disconnect(&format!("container{last}"), &name(last))
            .expect("disconnect");
        for n in 0..NETWORKS {
            net.remove_network(&name(n)).expect("remove");
        }
        assert!(!run("ip -o link").contains("br-"));
    });
}
