//! How many questions a second a container's name server answers, and how fast.
//!
//! `cargo run --release -p berth-dns --example queries [RECORDS [SECONDS]]`: 5,000 records in one
//! zone and 3 seconds by default. First one client that waits for each answer, then one that keeps
//! 64 questions under way.

use std::error::Error;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_dns::{Membership, Resolver, Sockets, View, Zone};
use berth_tasks::Scope;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let records: u32 = arguments.next().map_or(Ok(5_000), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let zone = Zone::new("app");
    for index in 0..records {
        let address = IpAddr::from((0x0a00_0000 + index).to_be_bytes());
        zone.insert(&index.to_string(), &[format!("host{index}")], &[address]);
    }
    let view = View {
        networks: vec![Membership::new(Arc::new(zone), [])],
        ..View::default()
    };
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    let address = udp.local_addr()?;
    let tcp = TcpListener::bind(address)?;
    let resolver = Resolver::new(Scope::new());
    let _listening = runtime.block_on(async { resolver.listen(Sockets { udp, tcp }, view) })?;
    println!("{records} records, one thread of the server");
    for under_way in [1, 64] {
        measure(address, records, under_way, Duration::from_secs(seconds))?;
    }
    Ok(())
}

fn measure(
    server: SocketAddr,
    records: u32,
    under_way: u16,
    time: Duration,
) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    let questions = (0..records.min(1_000))
        .map(question)
        .collect::<Result<Vec<_>, _>>()?;
    let mut sent = vec![Instant::now(); usize::from(u16::MAX) + 1];
    let mut delays = Vec::new();
    let mut next = 0u16;
    let mut send = |sent: &mut Vec<Instant>| -> std::io::Result<()> {
        let mut message = questions[usize::from(next) % questions.len()].clone();
        message[..2].copy_from_slice(&next.to_be_bytes());
        sent[usize::from(next)] = Instant::now();
        next = next.wrapping_add(1);
        socket.send(&message).map(drop)
    };
    let begin = Instant::now();
    for _ in 0..under_way {
        send(&mut sent)?;
    }
    let mut answer = [0; 512];
    while begin.elapsed() < time {
        let length = socket.recv(&mut answer)?;
        if answer[..length].get(6..8) != Some(&[0, 1]) {
            return Err("an answer without an address".into());
        }
        delays.push(sent[usize::from(u16::from_be_bytes([answer[0], answer[1]]))].elapsed());
        send(&mut sent)?;
    }
    let rate = delays.len() as f64 / begin.elapsed().as_secs_f64();
    delays.sort();
    let at = |part: usize| {
        delays
            .get(delays.len() * part / 1_000)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{under_way:3} under way: {rate:8.0} questions/s; median {:?}, 99% {:?}, 99.9% {:?}",
        at(500),
        at(990),
        at(999)
    );
    Ok(())
}

fn question(index: u32) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(format!("host{index}."))?;
    message.add_query(Query::query(name, RecordType::A));
    Ok(message.to_vec()?)
}
