//! With dnsmasq behind it, which is Debian's (`dnsmasq-base`).

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use berth_dns::{Origin, Resolver, Upstreams, View};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::client::{Container, data, question_up_to, view};

/// The lifetime of its answers, in seconds.
const LIFETIME: u32 = 300;

struct Dnsmasq {
    child: Child,
    _files: tempfile::TempDir,
    address: SocketAddr,
}

impl Dnsmasq {
    /// Knows `host.corp`, `text.corp`, and `many.corp` at a hundred addresses.
    async fn start() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [low, high, ..] = std::process::id().to_le_bytes();
        // An address of its own, on which every port is free.
        let ip = Ipv4Addr::new(
            127,
            53 + NEXT.fetch_add(1, Ordering::Relaxed),
            high,
            low.max(1),
        );
        let files = tempfile::tempdir().unwrap();
        let hosts: String = (0..100)
            .map(|last| format!("10.1.0.{last} many.corp\n"))
            .collect();
        let path = files.path().join("hosts");
        std::fs::write(&path, hosts).unwrap();
        let child = Command::new("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--user=root",
                "--pid-file=",
            ])
            .args([
                "--no-resolv",
                "--no-hosts",
                "--bind-interfaces",
                "--port=5353",
                "--local=/corp/",
            ])
            .arg(format!("--listen-address={ip}"))
            .arg(format!("--addn-hosts={}", path.display()))
            .arg(format!("--local-ttl={LIFETIME}"))
            .args([
                "--host-record=host.corp,192.0.2.80,2001:db8::80",
                "--txt-record=text.corp,a text",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dnsmasq is installed (tests/prepare)");
        let server = Self {
            child,
            _files: files,
            address: SocketAddr::from((ip, 5353)),
        };
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(server.address).await.is_ok() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("dnsmasq does not listen on {}", server.address);
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn behind(resolver: &Resolver, servers: &[SocketAddr]) -> View {
    view(Some(resolver.forwarder(
        Upstreams::new(servers, []),
        None,
        Origin::Host,
    )))
}

#[tokio::test]
async fn unknown_names_are_asked_of_the_server_behind() {
    let dnsmasq = Dnsmasq::start().await;
    let container = Container::new(|resolver| behind(resolver, &[dnsmasq.address]));
    for (name, kind, expect) in [
        ("host.corp.", RecordType::A, "192.0.2.80"),
        ("HOST.corp.", RecordType::AAAA, "2001:db8::80"),
        ("text.corp.", RecordType::TXT, "a text"),
        ("80.2.0.192.in-addr.arpa.", RecordType::PTR, "host.corp."),
        ("db.", RecordType::A, "10.0.0.3"),
    ] {
        assert_eq!(data(&container.ask(name, kind).await), [expect], "{name}");
        assert_eq!(
            data(&container.ask_by_tcp(name, kind).await),
            [expect],
            "{name}"
        );
    }
    let reply = container.ask("nobody.corp.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    // It has nobody to ask, and refuses; as with Docker the client hears of a failure.
    let reply = container.ask("example.org.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn answers_are_kept_for_their_lifetime_and_shared_by_containers() {
    let mut dnsmasq = Dnsmasq::start().await;
    let container = Container::new(|resolver| behind(resolver, &[dnsmasq.address]));
    let first = container.ask("host.corp.", RecordType::A).await;
    assert_eq!(first.answers[0].ttl, LIFETIME);
    dnsmasq.stop();
    let kept = container.ask("Host.CORP.", RecordType::A).await;
    assert_eq!(data(&kept), ["192.0.2.80"]);
    assert!(
        (LIFETIME - 60..=LIFETIME).contains(&kept.answers[0].ttl),
        "{kept}"
    );
    let kept = container
        .send(&question_up_to("host.corp.", RecordType::A, 1_232))
        .await;
    assert!(kept.edns.is_some());
    let other = container.ask("text.corp.", RecordType::TXT).await;
    assert_eq!(other.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn an_answer_too_long_for_udp_is_fetched_by_tcp() {
    let dnsmasq = Dnsmasq::start().await;
    let container = Container::new(|resolver| behind(resolver, &[dnsmasq.address]));
    // The client hears that there is more, comes again by TCP, and finds it kept.
    let reply = container.ask("many.corp.", RecordType::A).await;
    assert!(reply.metadata.truncation);
    let reply = container.ask_by_tcp("many.corp.", RecordType::A).await;
    assert_eq!(
        (reply.answers.len(), reply.metadata.truncation),
        (100, false)
    );
    // One that takes it by UDP is given it so.
    let reply = container
        .send(&question_up_to("many.corp.", RecordType::A, 4_096))
        .await;
    assert_eq!(
        (reply.answers.len(), reply.metadata.truncation),
        (100, false)
    );
}

#[tokio::test]
async fn the_next_server_is_asked_when_the_first_is_not_there() {
    let dnsmasq = Dnsmasq::start().await;
    // Nothing listens there: the kernel says so at once.
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let container = Container::new(|resolver| behind(resolver, &[nobody, dnsmasq.address]));
    let reply = container.ask("host.corp.", RecordType::A).await;
    assert_eq!(data(&reply), ["192.0.2.80"]);
    let reply = container.ask_by_tcp("text.corp.", RecordType::TXT).await;
    assert_eq!(data(&reply), ["a text"]);
}
