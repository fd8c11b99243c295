//! A client with a resolver's sockets: what a container's C library does.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use berth_dns::{Forwarder, Listening, Membership, Resolver, Sockets, View, Zone};
use berth_tasks::Scope;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// Longer than the server waits for anything: only a hang ends by it.
const HANG: Duration = Duration::from_secs(60);

/// A name server for one container, and how to ask it.
pub struct Container {
    pub listening: Listening,
    pub address: SocketAddr,
}

/// The zone `app` has `web` at two addresses and `db` at one, in a view with this forwarder.
pub fn view(forwarder: Option<Arc<Forwarder>>) -> View {
    let zone = Zone::new("app");
    let names = |all: &[&str]| {
        all.iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    zone.insert(
        "1",
        &names(&["web1", "web"]),
        &[IpAddr::from([10, 0, 0, 1])],
    );
    zone.insert(
        "2",
        &names(&["web2", "web"]),
        &[IpAddr::from([10, 0, 0, 2])],
    );
    zone.insert("3", &names(&["db"]), &[IpAddr::from([10, 0, 0, 3])]);
    View {
        networks: vec![Membership::new(Arc::new(zone), [])],
        ndots_set: false,
        forwarder,
    }
}

impl Container {
    pub fn new(make: impl FnOnce(&Resolver) -> View) -> Self {
        let resolver = Resolver::new(Scope::new());
        let (sockets, address) = sockets();
        let view = make(&resolver);
        let listening = resolver.listen(sockets, view).unwrap();
        Self { listening, address }
    }

    pub async fn ask(&self, name: &str, record_type: RecordType) -> Message {
        self.send(&question(name, record_type)).await
    }

    pub async fn send(&self, message: &Message) -> Message {
        let bytes = self.send_bytes(&message.to_vec().unwrap()).await;
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(reply.metadata.id, message.metadata.id);
        assert_eq!(reply.queries, message.queries);
        reply
    }

    pub async fn send_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let socket = self.socket().await;
        socket.send(bytes).await.unwrap();
        receive(&socket).await
    }

    pub async fn socket(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket
    }

    pub async fn ask_by_tcp(&self, name: &str, record_type: RecordType) -> Message {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        converse(&mut stream, &question(name, record_type)).await
    }
}

/// One question on a connection.
pub async fn converse(stream: &mut TcpStream, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    let mut frame = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(bytes);
    stream.write_all(&frame).await.unwrap();
    let read = async {
        let length = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    };
    let bytes = tokio::time::timeout(HANG, read).await.unwrap();
    let reply = Message::from_vec(&bytes).unwrap();
    assert_eq!(reply.metadata.id, message.metadata.id);
    reply
}

pub async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = vec![0; 65_535];
    let length = tokio::time::timeout(HANG, socket.recv(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    bytes.truncate(length);
    bytes
}

/// UDP and TCP on one port.
pub fn sockets() -> (Sockets, SocketAddr) {
    loop {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        // The port may be another's for TCP.
        if let Ok(tcp) = std::net::TcpListener::bind(address) {
            return (Sockets { udp, tcp }, address);
        }
    }
}

pub fn question(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(rand_id(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

/// The same, from a client that takes this much by UDP.
pub fn question_up_to(name: &str, record_type: RecordType, payload: u16) -> Message {
    let mut message = question(name, record_type);
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

fn rand_id() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(1_000);
    NEXT.fetch_add(7, Ordering::Relaxed)
}

/// The answer's data, sorted.
pub fn data(reply: &Message) -> Vec<String> {
    let mut all: Vec<String> = reply
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect();
    all.sort();
    all
}

/// The answer's addresses, in order.
pub fn addresses(reply: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    reply
        .answers
        .iter()
        .filter_map(|record| address(&record.data))
        .collect()
}
