//! How long connecting takes, and that ten thousand ports cost nothing.

use std::time::{Duration, Instant};

use berth_net::{PortRequest, Protocol};

use crate::machine::{MACHINE, ask_tcp, connect, no_tcp, serve_tcp, tcp, with_machine};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn connecting_takes_milliseconds() {
    with_machine(|machine| {
        const ROUNDS: u16 = 50;
        let net = machine.open(machine.config("speed"));
        let (mut create, mut on, mut off) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let begin = Instant::now();
            let netns = net.create_namespace().expect("a namespace");
            create.push(begin.elapsed());
            let id = format!("container{round}");
            let request = berth_net::EndpointRequest {
                container_id: &id,
                netns: std::os::fd::AsFd::as_fd(&netns),
                mac: None,
                ipv4: None,
                ports: vec![tcp(8095, 80)],
            };
            let begin = Instant::now();
            net.connect(request).expect("connect");
            on.push(begin.elapsed());
            let begin = Instant::now();
            net.disconnect(&id).expect("disconnect");
            off.push(begin.elapsed());
        }
        let (create, on, off) = (median(create), median(on), median(off));
        println!("medians: namespace {create:?}, connect {on:?}, disconnect {off:?}");
        // Generous, since other tests run beside this one.
        assert!(on < Duration::from_millis(200), "{on:?}");
        assert!(off < Duration::from_millis(100), "{off:?}");
        net.settle();
    });
}

#[test]
fn the_network_is_ready_when_connect_returns() {
    with_machine(|machine| {
        let net = machine.open(machine.config("ready"));
        for round in 0..20 {
            let container = connect(&net, &format!("container{round}"), &[tcp(8096, 80)]);
            serve_tcp(&container.netns, 80, "ready");
            let begin = Instant::now();
            assert!(ask_tcp(None, container.endpoint.ipv4, 80).is_some());
            assert!(ask_tcp(Some(&machine.remote), MACHINE, 8096).is_some());
            // A lost packet is sent again after a second.
            assert!(begin.elapsed() < Duration::from_secs(1), "round {round}");
            net.disconnect(&container.id).expect("disconnect");
        }
    });
}

/// The kernel gives a bridge 1,023 ports.
#[test]
fn a_thousand_containers_are_on_one_bridge_each_reached_at_its_own_port() {
    with_machine(|machine| {
        const CONTAINERS: usize = 1000;
        const WINDOW: usize = 50;
        let net = machine.open(machine.config("crowd"));
        let (mut on, mut off, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let mut addresses = std::collections::HashSet::new();
        for n in 0..CONTAINERS {
            let netns = net.create_namespace().expect("a namespace");
            let id = format!("container{n}");
            let host_port = u16::try_from(20_000 + n).expect("a port");
            let request = || berth_net::EndpointRequest {
                container_id: &id,
                netns: std::os::fd::AsFd::as_fd(&netns),
                mac: None,
                ipv4: None,
                ports: vec![tcp(host_port, 80)],
            };
            let begin = Instant::now();
            let endpoint = net.connect(request()).expect("connect");
            on.push(begin.elapsed());
            assert!(addresses.insert(endpoint.ipv4), "{id} has a taken address");
            others.push(netns);
        }
        for (n, port) in [(0, 20_000), (CONTAINERS - 1, 20_999)] {
            serve_tcp(&others[n], 80, "here");
            assert!(ask_tcp(Some(&machine.remote), MACHINE, port).is_some());
        }
        for n in (0..CONTAINERS).rev() {
            let begin = Instant::now();
            net.disconnect(&format!("container{n}"))
                .expect("disconnect");
            off.push(begin.elapsed());
        }
        off.reverse();
        let window = |times: &[Duration], at: usize| median(times[at..at + WINDOW].to_vec());
        for at in [0, 100, 500, 900] {
            let (on, off) = (window(&on, at), window(&off, at));
            println!("{at} others: connect {on:?}, disconnect {off:?}");
        }
        drop(others);
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
        let begin = Instant::now();
        let container = connect(&net, "many", &ports);
        println!("{COUNT} ports published in {:?}", begin.elapsed());
        assert_eq!(container.endpoint.ports.len(), 2 * usize::from(COUNT));
        let last = FIRST + COUNT - 1;
        serve_tcp(&container.netns, last, "many");
        assert!(ask_tcp(Some(&machine.remote), MACHINE, last).is_some());
        let begin = Instant::now();
        net.restore(std::slice::from_ref(&container.endpoint))
            .expect("restore");
        println!("restored in {:?}", begin.elapsed());
        assert!(ask_tcp(Some(&machine.remote), MACHINE, last).is_some());
        let begin = Instant::now();
        net.disconnect("many").expect("disconnect");
        println!("taken back in {:?}", begin.elapsed());
        no_tcp(Some(&machine.remote), MACHINE, last);
    });
}
