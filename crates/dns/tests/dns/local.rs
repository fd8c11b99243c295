//! Names of the view: by UDP and TCP, while it changes, and whatever else arrives.

use std::net::IpAddr;
use std::sync::Arc;

use berth_dns::{Membership, Origin, Upstreams, View, Zone};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::net::TcpStream;

use crate::client::{Container, addresses, converse, data, question, question_up_to, view};

#[tokio::test]
async fn names_are_answered_by_udp_and_tcp() {
    let container = Container::new(|_| view(None));
    for reply in [
        container.ask("web.", RecordType::A).await,
        container.ask_by_tcp("web.app.", RecordType::A).await,
    ] {
        assert_eq!(data(&reply), ["10.0.0.1", "10.0.0.2"]);
        assert!(reply.answers.iter().all(|record| record.ttl == 600));
        assert!(reply.metadata.recursion_available);
    }
    let reply = container
        .ask("3.0.0.10.in-addr.arpa.", RecordType::PTR)
        .await;
    assert_eq!(data(&reply), ["db.app."]);
}

#[tokio::test]
async fn equal_aliases_take_turns() {
    let container = Container::new(|_| view(None));
    let mut first = [0; 3];
    for _ in 0..200 {
        let reply = container.ask("web.", RecordType::A).await;
        let IpAddr::V4(address) = addresses(&reply)[0] else {
            panic!("{reply}")
        };
        first[usize::from(address.octets()[3])] += 1;
    }
    assert!(first[1] > 20 && first[2] > 20, "{first:?}");
}

#[tokio::test]
async fn without_servers_elsewhere_unknown_names_fail_as_by_docker() {
    let container = Container::new(|_| view(None));
    let reply = container.ask("example.org.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let reply = container.ask_by_tcp("nobody.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_changed_view_and_a_changed_zone_are_seen_by_the_next_question() {
    let container = Container::new(|_| view(None));
    let zone = Arc::new(Zone::new("other"));
    container.listening.show(View {
        networks: vec![Membership::new(Arc::clone(&zone), [])],
        ..View::default()
    });
    let reply = container.ask("web.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    zone.insert("9", &["web".to_owned()], &[IpAddr::from([10, 0, 9, 9])]);
    assert_eq!(
        data(&container.ask("web.", RecordType::A).await),
        ["10.0.9.9"]
    );
    zone.remove("9");
    let reply = container.ask("web.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_long_answer_is_cut_for_udp_and_whole_by_tcp() {
    let zone = Zone::new("app");
    for last in 0..100 {
        let address = IpAddr::from([10, 0, 1, last]);
        zone.insert(&last.to_string(), &["many".to_owned()], &[address]);
    }
    let container = Container::new(|_| View {
        networks: vec![Membership::new(Arc::new(zone), [])],
        ..View::default()
    });
    let reply = container.ask("many.", RecordType::A).await;
    assert_eq!((reply.answers.len(), reply.metadata.truncation), (30, true));
    let reply = container
        .send(&question_up_to("many.", RecordType::A, 4_096))
        .await;
    assert_eq!(
        (reply.answers.len(), reply.metadata.truncation),
        (100, false)
    );
    assert!(reply.edns.is_some());
    let reply = container.ask_by_tcp("many.", RecordType::A).await;
    assert_eq!(
        (reply.answers.len(), reply.metadata.truncation),
        (100, false)
    );
}

#[tokio::test]
async fn one_connection_takes_many_questions() {
    let container = Container::new(|_| view(None));
    let mut stream = TcpStream::connect(container.address).await.unwrap();
    for _ in 0..50 {
        let reply = converse(&mut stream, &question("db.", RecordType::A)).await;
        assert_eq!(data(&reply), ["10.0.0.3"]);
    }
}

#[tokio::test]
async fn idle_connections_keep_nobody_from_udp() {
    let container = Container::new(|_| view(None));
    let mut idle = Vec::new();
    // More than are accepted; the kernel keeps the rest.
    for _ in 0..150 {
        idle.push(TcpStream::connect(container.address).await.unwrap());
    }
    assert_eq!(
        data(&container.ask("db.", RecordType::A).await),
        ["10.0.0.3"]
    );
}

#[tokio::test]
async fn the_sockets_are_closed_when_it_has_stopped() {
    // A server that never answers, so that a question is under way.
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = [silent.local_addr().unwrap()];
    let container = Container::new(|resolver| {
        view(Some(resolver.forwarder(
            Upstreams::new(&servers, []),
            None,
            Origin::Host,
        )))
    });
    let asked = question("example.org.", RecordType::A).to_vec().unwrap();
    container.socket().await.send(&asked).await.unwrap();
    let mut buffer = [0; 512];
    silent.recv(&mut buffer).await.unwrap();
    let _open = TcpStream::connect(container.address).await.unwrap();
    container.listening.stop().await;
    std::net::UdpSocket::bind(container.address).unwrap();
    let refused = TcpStream::connect(container.address).await;
    assert_eq!(
        refused.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionRefused
    );
}

/// Whatever bytes arrive, whole or damaged: the next question is answered, and what is said to
/// them is a message with their id.
#[test]
fn nothing_that_arrives_ends_the_service() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let container = runtime.block_on(async { Container::new(|_| view(None)) });
    let whole = question_up_to("web.app.", RecordType::A, 1_232)
        .to_vec()
        .unwrap();
    let length = whole.len();
    let damaged = (
        proptest::collection::vec((0..length, any::<u8>()), 1..5),
        0..=length,
    )
        .prop_map(move |(damage, kept)| {
            let mut bytes = whole.clone();
            for (at, value) in damage {
                bytes[at] = value;
            }
            bytes.truncate(kept);
            bytes
        });
    let messages = prop_oneof![damaged, proptest::collection::vec(any::<u8>(), 0..300)];
    let mut runner = TestRunner::new(Config::with_cases(500));
    let result = runner.run(&messages, |mut bytes| {
        // No sound question has this id.
        bytes.iter_mut().take(2).for_each(|byte| *byte = 0);
        runtime.block_on(async {
            let socket = container.socket().await;
            socket.send(&bytes).await.unwrap();
            let sound = question("db.", RecordType::A);
            socket.send(&sound.to_vec().unwrap()).await.unwrap();
            loop {
                let reply = crate::client::receive(&socket).await;
                if reply[..2] == sound.metadata.id.to_be_bytes() {
                    let reply = Message::from_vec(&reply).unwrap();
                    assert_eq!(data(&reply), ["10.0.0.3"]);
                    break;
                }
                assert_eq!(reply[..2], bytes[..2]);
                Message::from_vec(&reply).unwrap();
            }
        });
        Ok(())
    });
    result.unwrap();
}
