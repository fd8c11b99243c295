//! The resolver's sockets inside a container.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use berth_net::{Protocol, RESOLVER, ResolverSockets};

use crate::machine::{Container, connect, inside, run, with_machine};

/// Whether a datagram and a connection to port 53 arrive, and their answers come from there.
fn check(container: &Container, sockets: &ResolverSockets) {
    let client = inside(&container.netns, || {
        let client = UdpSocket::bind("0.0.0.0:0").expect("bind");
        client.connect((RESOLVER, 53)).expect("connect");
        client
    });
    client.send(b"question").expect("send");
    answer(&sockets.udp);
    let patience = Some(Duration::from_secs(3));
    client.set_read_timeout(patience).expect("a timeout");
    let mut buffer = [0; 64];
    let bytes = client.recv(&mut buffer).expect("an answer");
    assert_eq!(&buffer[..bytes], b"question");

    let mut client = inside(&container.netns, || {
        TcpStream::connect((RESOLVER, 53)).expect("connect")
    });
    let (mut server, _) = sockets.tcp.accept().expect("accept");
    client.write_all(b"question").expect("send");
    server.read_exact(&mut buffer[..8]).expect("receive");
    assert_eq!(&buffer[..8], b"question");
}

fn answer(socket: &UdpSocket) {
    let mut buffer = [0; 64];
    let patience = Some(Duration::from_secs(3));
    socket.set_read_timeout(patience).expect("a timeout");
    let (bytes, from) = socket.recv_from(&mut buffer).expect("a question");
    socket.send_to(&buffer[..bytes], from).expect("answer");
}

#[test]
fn port_53_of_the_resolver_leads_to_sockets_elsewhere() {
    with_machine(|machine| {
        let net = machine.open(machine.config("names"));
        let container = connect(&net, "one", &[]);
        let open = || net.resolver_sockets(container.netns.as_fd());
        let sockets = open().expect("sockets");
        check(&container, &sockets);
        // A server of the container's own may have the port.
        inside(&container.netns, || {
            let own = UdpSocket::bind("0.0.0.0:53").expect("53 is free");
            let client = UdpSocket::bind("127.0.0.1:0").expect("bind");
            client.send_to(b"own", "127.0.0.1:53").expect("send");
            let mut buffer = [0; 8];
            let (bytes, _) = own.recv_from(&mut buffer).expect("receive");
            assert_eq!(&buffer[..bytes], b"own");
        });
        check(&container, &sockets);
        // Nothing of it on the host.
        assert!(!run("nft list ruleset").contains("resolver"));
    });
}

#[test]
fn a_restarted_daemon_finds_the_same_sockets() {
    with_machine(|machine| {
        let net = machine.open(machine.config("again"));
        let container = connect(&net, "one", &[]);
        let open = || {
            let sockets = net.resolver_sockets(container.netns.as_fd());
            sockets.expect("sockets")
        };
        let first = open();
        let client = inside(&container.netns, || {
            let client = UdpSocket::bind("0.0.0.0:0").expect("bind");
            client.connect((RESOLVER, 53)).expect("connect");
            client
        });
        client.send(b"question").expect("send");
        answer(&first.udp);
        let ports = |it: &ResolverSockets| (it.udp.local_addr().ok(), it.tcp.local_addr().ok());
        let before = ports(&first);
        drop(first);
        let second = open();
        assert_eq!(ports(&second), before);
        // A flow that a program keeps goes on.
        client.send(b"question").expect("send");
        answer(&second.udp);
        check(&container, &second);
        // The first sockets are not closed yet: others do.
        let third = open();
        assert_ne!(ports(&third), before);
        check(&container, &third);
    });
}

#[test]
fn a_socket_towards_another_server_is_in_the_containers_network() {
    with_machine(|machine| {
        let net = machine.open(machine.config("other"));
        let container = connect(&net, "one", &[]);
        let server = inside(&container.netns, || {
            UdpSocket::bind("127.0.0.1:0").expect("bind")
        });
        let towards: SocketAddr = server.local_addr().expect("an address");
        let made = net.socket(container.netns.as_fd(), Protocol::Udp, towards);
        let client = UdpSocket::from(made.expect("a socket"));
        client.connect(towards).expect("connect");
        client.send(b"question").expect("send");
        answer(&server);
        let mut buffer = [0; 64];
        let bytes = client.recv(&mut buffer).expect("an answer");
        assert_eq!(&buffer[..bytes], b"question");
    });
}
