//! The default network: addresses, published ports, and who reaches them from where.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use berth_testkit::{Daemon, run, sh, until};

use crate::{daemon, run_detached};

/// A host on the other side of a wire: a network namespace with a route through this machine.
struct Neighbour {
    name: String,
    /// This machine's address on the wire.
    here: String,
}

impl Neighbour {
    fn new(number: u8) -> Self {
        let name = format!("bt{}n{number}", std::process::id());
        let (here, there) = (format!("10.213.{number}.1"), format!("10.213.{number}.2"));
        sh(&format!(
            "ip netns add {name}; ip link add {name}a type veth peer name {name}b netns {name}
             ip addr add {here}/24 dev {name}a; ip link set {name}a up
             ip -n {name} addr add {there}/24 dev {name}b; ip -n {name} link set {name}b up; ip -n {name} link set lo up
             ip -n {name} route add default via {here}"
        ));
        Self { name, here }
    }

    fn sh(&self, line: &str) -> berth_testkit::Output {
        run(
            Command::new("ip").args(["netns", "exec", &self.name, "bash", "-ec", line]),
            b"",
        )
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        sh(&format!("ip netns del {}", self.name));
    }
}

const SERVER: &str = "mkdir -p /w; echo page >/w/index.html; exec httpd -f -p 80 -h /w";

pub fn serve(daemon: &Daemon, name: &str, publish: &[&str]) {
    let mut words = vec!["run", "-d", "--name", name];
    for port in publish {
        words.extend(["-p", port]);
    }
    words.extend(["busybox", "sh", "-c", SERVER]);
    daemon.docker(&words).ok();
    until("the server answers", || {
        (daemon
            .docker(&["exec", name, "wget", "-qO-", "http://127.0.0.1/"])
            .code
            == 0)
            .then_some(())
    });
}

pub fn host_port(daemon: &Daemon, name: &str, port: &str) -> u16 {
    let shown = daemon.docker(&["port", name, port]);
    shown
        .ok()
        .lines()
        .next()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

fn get(url: &str) -> berth_testkit::Output {
    run(Command::new("curl").args(["-sS", "-m", "5", url]), b"")
}

#[test]
fn the_bridge_has_dockers_shape_and_the_container_an_address_on_it() {
    let daemon = daemon();
    let subnet = daemon.docker(&[
        "network",
        "inspect",
        "bridge",
        "-f",
        "{{(index .IPAM.Config 0).Subnet}}",
    ]);
    assert!(subnet.ok().ends_with("/16"), "{}", subnet.stdout);
    let address = daemon.docker(&[
        "run", "--rm", "busybox", "ip", "-4", "-o", "addr", "show", "eth0",
    ]);
    let prefix: String = subnet.ok().split('.').take(2).collect::<Vec<_>>().join(".");
    assert!(
        address.ok().contains(&format!("inet {prefix}.")),
        "{}",
        address.stdout
    );
    let listed = daemon.docker(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]);
    assert_eq!(listed.ok(), "bridge bridge\nhost host\nnone null");
}

#[test]
fn containers_reach_each_other_and_the_world() {
    let daemon = daemon();
    serve(&daemon, "web", &[]);
    let ip = daemon
        .docker(&[
            "inspect",
            "-f",
            "{{.NetworkSettings.Networks.bridge.IPAddress}}",
            "web",
        ])
        .ok()
        .to_owned();
    let url = format!("http://{ip}/");
    assert_eq!(
        daemon
            .docker(&["run", "--rm", "busybox", "wget", "-qO-", &url])
            .ok(),
        "page"
    );
    assert_eq!(get(&url).ok(), "page");
    // Another host sees this machine's address, not the container's.
    let neighbour = Neighbour::new(1);
    let mut server = Command::new("ip")
        .args(["netns", "exec", &neighbour.name, "python3", "-c"])
        .arg("import socket;s=socket.create_server(('0.0.0.0',7000));c,a=s.accept();c.send(a[0].encode());c.close()")
        .spawn()
        .unwrap();
    let there = neighbour.here.replace(".1.1", ".1.2");
    let seen = until("the other host answers", || {
        let output = daemon.docker(&["run", "--rm", "busybox", "nc", &there, "7000"]);
        (output.code == 0 && !output.stdout.is_empty()).then_some(output.stdout)
    });
    server.wait().unwrap();
    assert_eq!(seen.trim(), neighbour.here);
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    let daemon = daemon();
    serve(&daemon, "web", &["0:80", "127.0.0.1::80"]);
    let shown = daemon.docker(&["port", "web", "80"]).ok().to_owned();
    let port = |address: &str| -> u16 {
        let line = shown
            .lines()
            .find(|line| line.starts_with(&format!("{address}:")))
            .unwrap();
        line.rsplit(':').next().unwrap().parse().unwrap()
    };
    let (public, local) = (port("0.0.0.0"), port("127.0.0.1"));
    let neighbour = Neighbour::new(2);
    assert_eq!(get(&format!("http://127.0.0.1:{public}/")).ok(), "page");
    assert_eq!(get(&format!("http://127.0.0.1:{local}/")).ok(), "page");
    assert_eq!(get(&format!("http://[::1]:{public}/")).ok(), "page");
    assert_eq!(
        get(&format!("http://{}:{public}/", neighbour.here)).ok(),
        "page"
    );
    assert_eq!(
        neighbour
            .sh(&format!(
                "curl -sS -m 5 http://{}:{public}/",
                neighbour.here
            ))
            .ok(),
        "page"
    );
    // From another container by the gateway, and from itself (hairpin).
    let gateway = daemon
        .docker(&[
            "network",
            "inspect",
            "bridge",
            "-f",
            "{{(index .IPAM.Config 0).Gateway}}",
        ])
        .ok()
        .to_owned();
    let url = format!("http://{gateway}:{public}/");
    assert_eq!(
        daemon
            .docker(&["run", "--rm", "busybox", "wget", "-qO-", &url])
            .ok(),
        "page"
    );
    assert_eq!(
        daemon.docker(&["exec", "web", "wget", "-qO-", &url]).ok(),
        "page"
    );
    // What is published on 127.0.0.1 is not for others.
    assert_ne!(
        neighbour
            .sh(&format!("curl -sS -m 2 http://{}:{local}/", neighbour.here))
            .code,
        0
    );
    daemon.docker(&["stop", "-t", "0", "web"]).ok();
    assert_ne!(get(&format!("http://127.0.0.1:{public}/")).code, 0);
    daemon.docker(&["start", "web"]).ok();
    let again = host_port(&daemon, "web", "80");
    until("it answers again", || {
        (get(&format!("http://127.0.0.1:{again}/")).code == 0).then_some(())
    });
}

#[test]
fn ports_outlive_the_daemon() {
    let mut daemon = daemon();
    serve(&daemon, "web", &["0:80"]);
    let port = host_port(&daemon, "web", "80");
    let works = || {
        assert_eq!(get(&format!("http://127.0.0.1:{port}/")).ok(), "page");
        assert_eq!(get(&format!("http://[::1]:{port}/")).ok(), "page");
    };
    daemon.signal(rustix::process::Signal::KILL);
    works();
    daemon.spawn();
    works();
    assert!(
        TcpListener::bind(("0.0.0.0", port)).is_err(),
        "the port is free for others"
    );
    daemon.docker(&["rm", "-f", "web"]).ok();
    TcpListener::bind(("0.0.0.0", port)).unwrap();
}

#[test]
fn ranges_udp_and_publish_all_work() {
    let daemon = daemon();
    run_detached(
        &daemon,
        "--name rr -p 127.0.0.1:28100-28102:100-102",
        "for p in 100 101 102; do (echo $p | nc -l -p $p) & done; wait",
    );
    // Busybox speaks no UDP; Debian has Perl.
    daemon.load("debian");
    let echo = "use IO::Socket::INET; $s = IO::Socket::INET->new(LocalPort => 53, Proto => 'udp') or die $!; \
                while (1) { $s->recv($m, 64); $s->send(\"udp $m\") }";
    daemon
        .docker(&[
            "run",
            "-d",
            "--name",
            "uu",
            "-p",
            "28105:53/udp",
            "debian",
            "perl",
            "-e",
            echo,
        ])
        .ok();
    for port in 100..=102 {
        let text = until("the port answers", || {
            let mut stream = TcpStream::connect(("127.0.0.1", 28_000 + port)).ok()?;
            let mut text = String::new();
            std::io::Read::read_to_string(&mut stream, &mut text).ok()?;
            (!text.is_empty()).then_some(text)
        });
        assert_eq!(text.trim(), port.to_string());
    }
    for (own, there) in [
        ("127.0.0.1:0", "127.0.0.1:28105"),
        ("[::1]:0", "[::1]:28105"),
    ] {
        let socket = std::net::UdpSocket::bind(own).unwrap();
        let patience = std::time::Duration::from_millis(200);
        socket.set_read_timeout(Some(patience)).unwrap();
        let answer = until("UDP answers", || {
            socket.send_to(b"x", there).unwrap();
            let mut bytes = [0; 16];
            let length = socket.recv(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
        });
        assert_eq!(answer, "udp x");
    }
    run_detached(&daemon, "--name all -P --expose 80", SERVER);
    let port = host_port(&daemon, "all", "80");
    assert_eq!(
        until("the page", || Some(get(&format!(
            "http://127.0.0.1:{port}/"
        )))
        .filter(|o| o.code == 0))
        .ok(),
        "page"
    );
}

#[test]
fn none_host_and_shared_networks() {
    let daemon = daemon();
    let links = daemon.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "ls",
        "/sys/class/net",
    ]);
    assert_eq!(links.ok(), "lo");
    let name = sh("hostname");
    assert_eq!(
        daemon
            .docker(&["run", "--rm", "--network", "host", "busybox", "hostname"])
            .ok(),
        name
    );
    let host = sh("readlink /proc/self/ns/net");
    assert_eq!(
        daemon
            .docker(&[
                "run",
                "--rm",
                "--network",
                "host",
                "busybox",
                "readlink",
                "/proc/self/ns/net"
            ])
            .ok(),
        host
    );
    serve(&daemon, "web", &[]);
    let page = daemon.docker(&[
        "run",
        "--rm",
        "--network",
        "container:web",
        "busybox",
        "wget",
        "-qO-",
        "http://127.0.0.1/",
    ]);
    assert_eq!(page.ok(), "page");
    let hostname = |network: &str| {
        let output = daemon.docker(&["run", "--rm", "--network", network, "busybox", "hostname"]);
        output.ok().to_owned()
    };
    let id = daemon.docker(&["ps", "-q", "--filter", "name=web"]);
    assert_eq!(hostname("container:web"), id.ok());
}

#[test]
fn a_killed_port_relay_comes_back_and_no_container_notices() {
    let daemon = daemon();
    serve(&daemon, "web", &["127.0.0.1::80", "[::1]::80"]);
    let shown = daemon.docker(&["port", "web", "80"]).ok().to_owned();
    let addresses: Vec<&str> = shown.lines().collect();
    let [four, six] = addresses[..] else {
        panic!("{shown}");
    };
    let port = six.rsplit(':').next().unwrap();
    let pid = || {
        let holder = sh(&format!("ss -Hltnp 'sport = :{port}'"));
        let (_, pid) = holder.split_once("pid=")?;
        Some(pid.split(',').next()?.to_owned())
    };
    let started = ["inspect", "-f", "{{.State.StartedAt}}", "web"];
    let before = daemon.docker(&started).ok().to_owned();
    let first = pid().expect("a relay");
    sh(&format!("kill -9 {first}"));
    // IPv4 does not depend on it.
    assert_eq!(get(&format!("http://{four}/")).ok(), "page");
    let killed = std::time::Instant::now();
    until("another relay has the port", || {
        pid().filter(|pid| *pid != first)
    });
    assert!(
        killed.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        killed.elapsed()
    );
    assert_eq!(get(&format!("http://{six}/")).ok(), "page");
    assert_eq!(daemon.docker(&started).ok(), before);
}
