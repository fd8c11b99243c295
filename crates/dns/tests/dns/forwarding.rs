//! With servers behind it that are slow, silent, wrong or hostile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use berth_dns::{Origin, Resolver, Transport, Upstreams, View};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

use crate::client::{Container, data, question, view};

/// A server whose answers a test writes: each question gets the messages that `reply` makes of it.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(mut reply: impl FnMut(&Message) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        #[allow(clippy::disallowed_methods, reason = "ended with the test")]
        let task = tokio::spawn(async move {
            let mut bytes = [0; 4_096];
            loop {
                let (length, client) = socket.recv_from(&mut bytes).await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                for reply in reply(&Message::from_vec(&bytes[..length]).unwrap()) {
                    socket.send_to(&reply, client).await.unwrap();
                }
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The right answer: 192.0.2.LAST.
fn right(question: &Message, last: u8) -> Message {
    let mut message = question.clone();
    message.metadata.message_type = MessageType::Response;
    let name = question.queries[0].name().clone();
    message.add_answer(Record::from_rdata(
        name,
        60,
        RData::A(A::new(192, 0, 2, last)),
    ));
    message
}

fn refusal(question: &Message, code: ResponseCode) -> Message {
    let mut message = question.clone();
    message.metadata.message_type = MessageType::Response;
    message.metadata.response_code = code;
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

fn behind(resolver: &Resolver, servers: &[SocketAddr], options: &str) -> View {
    let upstreams = Upstreams::new(servers, options.split_whitespace());
    view(Some(resolver.forwarder(upstreams, None, Origin::Host)))
}

async fn container(servers: &[&Server], options: &str) -> Container {
    let servers: Vec<_> = servers.iter().map(|server| server.address).collect();
    Container::new(|resolver| behind(resolver, &servers, options))
}

#[tokio::test]
async fn forged_and_strange_datagrams_are_waited_out() {
    let server = Server::start(|question| {
        let mut forged = right(question, 66);
        forged.metadata.id ^= 1;
        let echo = question.clone();
        vec![
            vec![],
            b"garbage".to_vec(),
            bytes(&forged),
            bytes(&echo),
            bytes(&right(question, 1)),
        ]
    })
    .await;
    let container = container(&[&server], "").await;
    let reply = container.ask("example.org.", RecordType::A).await;
    assert_eq!(data(&reply), ["192.0.2.1"]);
}

#[tokio::test]
async fn a_damaged_or_unwilling_server_is_left_for_the_next() {
    let damaged = Server::start(|question| {
        let mut whole = bytes(&right(question, 1));
        whole.truncate(whole.len() - 2);
        vec![whole]
    })
    .await;
    let other_name = Server::start(|question| {
        let mut message = right(question, 66);
        message.queries = crate::client::question("other.org.", RecordType::A).queries;
        vec![bytes(&message)]
    })
    .await;
    let failing =
        Server::start(|question| vec![bytes(&refusal(question, ResponseCode::ServFail))]).await;
    let refusing =
        Server::start(|question| vec![bytes(&refusal(question, ResponseCode::Refused))]).await;
    let good = Server::start(|question| vec![bytes(&right(question, 7))]).await;
    for bad in [&damaged, &other_name, &failing, &refusing] {
        let container = container(&[bad, &good], "").await;
        let reply = container.ask("example.org.", RecordType::A).await;
        assert_eq!(data(&reply), ["192.0.2.7"]);
        assert_eq!(bad.asked(), 1);
    }
    let container = container(&[&refusing, &damaged], "attempts:2").await;
    let reply = container.ask("example.org.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(
        (refusing.asked(), damaged.asked()),
        (3, 3),
        "each once above, and twice here"
    );
}

#[tokio::test]
async fn a_silent_server_delays_no_local_name_and_is_asked_last_afterwards() {
    let silent = Server::start(|_| Vec::new()).await;
    let good = Server::start(|question| vec![bytes(&right(question, 7))]).await;
    let container = container(&[&silent, &good], "timeout:1").await;
    let socket = container.socket().await;
    let unknown = question("one.example.org.", RecordType::A);
    socket.send(&bytes(&unknown)).await.unwrap();
    // A hundred answers arrive before that of the earlier question.
    for _ in 0..100 {
        let local = question("db.", RecordType::A);
        socket.send(&bytes(&local)).await.unwrap();
        let reply = Message::from_vec(&crate::client::receive(&socket).await).unwrap();
        assert_eq!(reply.metadata.id, local.metadata.id);
    }
    let reply = Message::from_vec(&crate::client::receive(&socket).await).unwrap();
    assert_eq!(reply.metadata.id, unknown.metadata.id);
    assert_eq!(data(&reply), ["192.0.2.7"]);
    for name in ["two.example.org.", "three.example.org."] {
        assert_eq!(
            data(&container.ask(name, RecordType::A).await),
            ["192.0.2.7"]
        );
    }
    assert_eq!((silent.asked(), good.asked()), (1, 3));
}

#[tokio::test]
async fn rotate_spreads_the_questions() {
    let one = Server::start(|question| vec![bytes(&right(question, 1))]).await;
    let two = Server::start(|question| vec![bytes(&right(question, 2))]).await;
    let container = container(&[&one, &two], "rotate").await;
    for index in 0..10 {
        container
            .ask(&format!("host{index}.example.org."), RecordType::A)
            .await;
    }
    assert_eq!((one.asked(), two.asked()), (5, 5));
}

#[tokio::test]
async fn the_same_question_is_asked_once_and_each_client_has_its_own_answer() {
    let server = Server::start(|question| vec![bytes(&right(question, 1))]).await;
    let container = container(&[&server], "").await;
    for name in ["example.org.", "Example.ORG.", "eXample.org."] {
        // The client looks at the spelling and the id itself.
        assert_eq!(
            data(&container.ask(name, RecordType::A).await),
            ["192.0.2.1"]
        );
    }
    assert_eq!(server.asked(), 1);
    container.ask("example.org.", RecordType::AAAA).await;
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn who_asks_the_same_meanwhile_waits_for_that_answer() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = [server.local_addr().unwrap()];
    let container = Container::new(|resolver| behind(resolver, &servers, "timeout:30"));
    let gate = tokio::sync::Semaphore::new(0);
    let names = ["example.org.", "EXAMPLE.org.", "example.ORG."];
    let ask = |name| container.ask(name, RecordType::A);
    let all_have_asked = async {
        // Read after the others, and answered at once.
        container.ask("db.", RecordType::A).await;
        gate.add_permits(1);
    };
    // It answers when all have asked, and nothing that may be kept.
    let serve = async {
        let mut buffer = [0; 512];
        let (length, client) = server.recv_from(&mut buffer).await.unwrap();
        let asked = Message::from_vec(&buffer[..length]).unwrap();
        let _open = gate.acquire().await;
        let reply = bytes(&refusal(&asked, ResponseCode::NXDomain));
        server.send_to(&reply, client).await.unwrap();
    };
    let (a, b, c, (), ()) = tokio::join!(
        ask(names[0]),
        ask(names[1]),
        ask(names[2]),
        all_have_asked,
        serve
    );
    for (reply, name) in [a, b, c].iter().zip(names) {
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(reply.queries[0].name().to_string(), name);
    }
    let again = server.try_recv_from(&mut [0; 512]);
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn other_servers_are_asked_from_the_next_question_on() {
    let first = Server::start(|question| vec![bytes(&right(question, 1))]).await;
    let second = Server::start(|question| vec![bytes(&right(question, 2))]).await;
    let upstreams = |server: &Server| Upstreams::new(&[server.address], []);
    let (from, to) = (upstreams(&first), upstreams(&second));
    let changed = Arc::new(std::sync::Mutex::new(None));
    let told = changed.clone();
    let container = Container::new(|resolver| {
        let changes = Box::new(move || told.lock().unwrap().take());
        view(Some(resolver.forwarder(from, Some(changes), Origin::Host)))
    });
    let ask = async |name| data(&container.ask(name, RecordType::A).await);
    assert_eq!(ask("a.org.").await, ["192.0.2.1"]);
    *changed.lock().unwrap() = Some(to);
    assert_eq!(ask("b.org.").await, ["192.0.2.2"]);
    // What the others said is forgotten.
    assert_eq!(ask("a.org.").await, ["192.0.2.2"]);
}

/// Thousands of damaged answers, the same ones in every run: each question is answered.
#[tokio::test]
async fn damaged_answers_by_the_thousand_harm_nobody() {
    const ANSWERS: usize = 4_000;
    // The sequence of Knuth's MMIX.
    let mut state = 0x5eed_u64;
    let mut next = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let server = Server::start(move |question| {
        let mut reply = bytes(&right(question, 1));
        for _ in 0..=next(6) {
            let at = next(reply.len());
            // Its own id, so that it is read.
            if at > 1 {
                reply[at] = u8::try_from(next(256)).unwrap();
            }
        }
        if next(4) == 0 {
            reply.truncate(2 + next(reply.len() - 2));
        }
        // After it a sound one, for where the damaged one is nobody's.
        vec![reply, bytes(&right(question, 1))]
    })
    .await;
    let container = container(&[&server], "timeout:1").await;
    for index in 0..ANSWERS {
        // Records are passed on as the server said them, for the client to judge.
        let asked = bytes(&question(&format!("n{index}.example.org."), RecordType::A));
        assert_eq!(container.send_bytes(&asked).await[..2], asked[..2]);
    }
    let reply = container.ask("db.", RecordType::A).await;
    assert_eq!(data(&reply), ["10.0.0.3"]);
}

#[tokio::test]
async fn no_more_than_a_limit_of_questions_waits_and_the_rest_is_refused() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Each question that is under way has a socket.
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, most).unwrap();
    let silent = Server::start(|_| Vec::new()).await;
    let container = container(&[&silent], "timeout:30").await;
    let socket = container.socket().await;
    let mut refused = None;
    for index in 0..5_000 {
        let asked = question(&format!("h{index}.example.org."), RecordType::A);
        socket.send(&bytes(&asked)).await.unwrap();
        let mut buffer = [0; 512];
        let answered =
            tokio::time::timeout(Duration::from_millis(1), socket.recv(&mut buffer)).await;
        if let Ok(length) = answered {
            let reply = Message::from_vec(&buffer[..length.unwrap()]).unwrap();
            refused = Some((index, reply.metadata.response_code));
            break;
        }
    }
    let (index, code) = refused.expect("nothing was refused");
    assert_eq!(code, ResponseCode::Refused);
    assert!(index >= 1_024, "{index}");
    assert_eq!(
        data(&container.ask("db.", RecordType::A).await),
        ["10.0.0.3"]
    );
}

#[tokio::test]
async fn a_containers_own_servers_are_asked_from_its_namespace() {
    let server = Server::start(|question| vec![bytes(&right(question, 1))]).await;
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    // Whoever makes the sockets chooses where: here it is seen that it was asked to.
    let origin = Origin::Namespace(Arc::new(move |kind, server| {
        assert_eq!(kind, Transport::Udp);
        assert!(server.is_ipv4());
        count.fetch_add(1, Ordering::SeqCst);
        Ok(std::net::UdpSocket::bind("127.0.0.1:0")?.into())
    }));
    let container = Container::new(|resolver| {
        let upstreams = Upstreams::new(&[server.address], []);
        view(Some(resolver.forwarder(upstreams, None, origin)))
    });
    let reply = container.ask("example.org.", RecordType::A).await;
    assert_eq!(data(&reply), ["192.0.2.1"]);
    assert_eq!(made.load(Ordering::SeqCst), 1);
}
