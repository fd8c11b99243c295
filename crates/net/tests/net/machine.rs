//! A machine for one test: its own network namespace, with a remote host on the other end of a
//! cable, and the containers that the test connects.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use berth_net::{
    Bridge, Config, Driver, Endpoint, EndpointRequest, Error, Net, NetworkRequest, PortRequest,
    Protocol,
};
use berth_sys::netns;

/// The machine's address on the cable, and the remote host's.
pub const MACHINE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub const MACHINE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub const REMOTE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
pub const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

const ANSWER: Duration = Duration::from_secs(3);
/// How long silence is taken for "not reachable".
const SILENCE: Duration = Duration::from_millis(300);

pub struct Machine {
    pub directory: tempfile::TempDir,
    pub remote: OwnedFd,
    relays: Arc<Mutex<Vec<Child>>>,
}

pub struct Container {
    pub id: String,
    pub netns: OwnedFd,
    pub endpoint: Endpoint,
}

impl Container {
    /// The host's end of its pair.
    pub fn veth(&self) -> &str {
        self.endpoint.veth.as_deref().expect("a pair")
    }

    /// Its address in the network that it was connected to first.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.endpoint.ipv4.expect("an address")
    }

    pub fn ipv6(&self) -> Ipv6Addr {
        self.endpoint.ipv6.expect("an address")
    }
}

/// Runs a test in a machine of its own.
pub fn with_machine(test: impl FnOnce(&Machine) + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: making network namespaces needs root");
        return;
    }
    let run = move || {
        netns::unshare().expect("a machine");
        let machine = Machine::new();
        test(&machine);
    };
    let result = thread::spawn(run).join();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

impl Machine {
    fn new() -> Machine {
        let remote = thread::spawn(|| {
            netns::unshare().expect("a remote host");
            netns::current().expect("its namespace")
        });
        let remote = remote.join().expect("the remote host");
        // A new namespace may have this from the host.
        run("echo 0 > /proc/sys/net/ipv4/ip_forward");
        run("ip link set lo up");
        let path = format!("/proc/{}/fd/{}", std::process::id(), remote.as_raw_fd());
        run(&format!(
            "ip link add cable0 type veth peer name cable1 netns {path}"
        ));
        run(&format!("ip addr add {MACHINE}/24 dev cable0"));
        run(&format!("ip addr add {MACHINE6}/64 dev cable0 nodad"));
        run("echo 0 > /proc/sys/net/ipv6/conf/all/forwarding");
        run("ip link set cable0 up");
        inside(&remote, || {
            run("ip link set lo up");
            run(&format!("ip addr add {REMOTE}/24 dev cable1"));
            run(&format!("ip addr add {REMOTE6}/64 dev cable1 nodad"));
            run("ip link set cable1 up");
            // A neighbour that wishes the machine no good: it sends everything there.
            run(&format!("ip route add 172.16.0.0/12 via {MACHINE}"));
            run(&format!("ip -6 route add fd00::/8 via {MACHINE6}"));
        });
        // The kernel takes a moment to notice the carrier, and tests compare what it says.
        assert!(eventually(
            || run("ip -o link show cable0").contains("LOWER_UP")
        ));
        let directory = tempfile::tempdir().expect("a directory");
        Machine {
            directory,
            remote,
            relays: Arc::default(),
        }
    }

    pub fn config(&self, instance: &str) -> Config {
        let exec_root = self.directory.path().join(instance);
        std::fs::create_dir_all(&exec_root).expect("the exec root");
        let mut config = Config::new(instance, &bridge_name(instance), exec_root);
        config.lock_file = self.directory.path().join("lock");
        config
    }

    pub fn open(&self, config: Config) -> Net {
        self.try_open(config).expect("open the network")
    }

    pub fn try_open(&self, config: Config) -> Result<Net, Error> {
        let relays = self.relays.clone();
        Net::open(config, move |listener| {
            let child = Command::new(env!("CARGO_BIN_EXE_net-test-relay"))
                .stdin(Stdio::from(OwnedFd::from(listener)))
                .stdout(Stdio::null())
                .spawn()?;
            relays.lock().expect("relays").push(child);
            Ok(())
        })
    }

    pub fn kill_relays(&self) {
        for relay in self.relays.lock().expect("relays").iter_mut() {
            let _ = relay.kill();
            relay.wait().expect("the relay's end");
        }
    }

    /// Whether every relay that was started has ended by itself.
    pub fn relays_ended(&self) -> bool {
        let mut relays = self.relays.lock().expect("relays");
        let mut ended = |relay: &mut Child| relay.try_wait().is_ok_and(|status| status.is_some());
        eventually(|| relays.iter_mut().all(&mut ended))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill_relays();
    }
}

pub fn bridge_name(instance: &str) -> String {
    format!("{instance}0")
}

pub fn connect(net: &Net, id: &str, ports: &[PortRequest]) -> Container {
    try_connect(net, id, ports).expect("connect")
}

pub fn try_connect(net: &Net, id: &str, ports: &[PortRequest]) -> Result<Container, Error> {
    let netns = net.create_namespace()?;
    let endpoint = net.connect(EndpointRequest {
        ports: ports.to_vec(),
        ..EndpointRequest::new(id, netns.as_fd())
    })?;
    Ok(Container {
        id: id.to_owned(),
        netns,
        endpoint,
    })
}

/// A request for a network on a bridge that is like this.
pub fn bridged(id: &str, change: impl FnOnce(&mut Bridge)) -> NetworkRequest {
    let mut bridge = Bridge::of(id);
    change(&mut bridge);
    NetworkRequest {
        driver: Driver::Bridge(bridge),
        ..NetworkRequest::new(id)
    }
}

/// A container in this network only.
pub fn connect_to(net: &Net, network: &str, id: &str, ports: &[PortRequest]) -> Container {
    let netns = net.create_namespace().expect("a namespace");
    let endpoint = net.connect(EndpointRequest {
        network,
        ports: ports.to_vec(),
        ..EndpointRequest::new(id, netns.as_fd())
    });
    Container {
        id: id.to_owned(),
        endpoint: endpoint.expect("connect"),
        netns,
    }
}

pub fn port(protocol: Protocol, host: Option<&str>, first: u16, container: u16) -> PortRequest {
    PortRequest {
        protocol,
        container_port: container,
        host_ip: host.map(|text| text.parse().expect("an address")),
        host_ports: (first != 0).then_some(first..=first),
    }
}

pub fn tcp(first: u16, container: u16) -> PortRequest {
    port(Protocol::Tcp, None, first, container)
}

/// Runs something in another namespace.
pub fn inside<T: Send>(namespace: &OwnedFd, task: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let visit = scope.spawn(|| {
            netns::enter(namespace).expect("enter the namespace");
            task()
        });
        visit.join().expect("the task")
    })
}

/// A command that must succeed; returns what it printed.
pub fn run(command: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", command])
        .output()
        .expect("sh");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

pub fn eventually(mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + ANSWER;
    while !done() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Answers every connection with `name`, a space, and the address that it came from, then sends
/// back what it receives until the client has ended.
pub fn serve_tcp(namespace: &OwnedFd, port: u16, name: &'static str) {
    let listener = inside(namespace, || {
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
    });
    let listener = listener.expect("listen");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let peer = stream.peer_addr().expect("the peer");
                writeln!(stream, "{name} {}", peer.ip().to_canonical()).expect("write");
                let mut reader = stream.try_clone().expect("clone");
                let _ = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
}

/// Answers every datagram with `name`, a space, and the address that it came from.
pub fn serve_udp(namespace: &OwnedFd, port: u16, name: &'static str) {
    let socket = inside(namespace, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)));
    let socket = socket.expect("bind");
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let answer = format!("{name} {}", from.ip().to_canonical());
            let _ = socket.send_to(answer.as_bytes(), from);
        }
    });
}

pub fn ask_tcp(
    namespace: Option<&OwnedFd>,
    address: impl Into<IpAddr>,
    port: u16,
) -> Option<String> {
    try_tcp(namespace, address.into(), port, ANSWER)
}

pub fn ask_udp(
    namespace: Option<&OwnedFd>,
    address: impl Into<IpAddr>,
    port: u16,
) -> Option<String> {
    try_udp(namespace, address.into(), port, ANSWER)
}

pub fn no_tcp(namespace: Option<&OwnedFd>, address: impl Into<IpAddr>, port: u16) {
    let address = address.into();
    assert_eq!(
        try_tcp(namespace, address, port, SILENCE),
        None,
        "{address}:{port}"
    );
}

/// What a TCP server says, and whether it sends back what it is told; `None` if it is not
/// reached.
fn try_tcp(
    namespace: Option<&OwnedFd>,
    address: IpAddr,
    port: u16,
    patience: Duration,
) -> Option<String> {
    let address = SocketAddr::new(address, port);
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        stream.write_all(b"and this").ok()?;
        stream.shutdown(std::net::Shutdown::Write).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (said, repeated) = answer.split_once('\n')?;
        assert_eq!(repeated, "and this");
        Some(said.to_owned())
    };
    match namespace {
        Some(namespace) => inside(namespace, ask),
        None => ask(),
    }
}

/// The same by UDP.
fn try_udp(
    namespace: Option<&OwnedFd>,
    address: IpAddr,
    port: u16,
    patience: Duration,
) -> Option<String> {
    let address = SocketAddr::new(address, port);
    let ask = || {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).expect("bind");
        socket.connect(address).ok()?;
        socket.set_read_timeout(Some(patience)).ok()?;
        socket.send(b"ping").ok()?;
        let mut buffer = [0; 64];
        let bytes = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..bytes]).into_owned())
    };
    match namespace {
        Some(namespace) => inside(namespace, ask),
        None => ask(),
    }
}
