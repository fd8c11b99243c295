//! Beside other firewalls and another engine: with networks of users' own, over IPv4 and IPv6, and
//! another host that is a network namespace. What is published is reached, nothing else is.

use std::process::Command;

use berth_testkit::image::{archive, docker};
use berth_testkit::{Daemon, Firewalld, Output, Ufw, run, until};

use crate::inspect;
use crate::island::Island;
use crate::place::Place;

const SERVER: &str = "mkdir -p /w; echo page >/w/index.html; exec httpd -f -p 80 -h /w";
/// Published by `web` on the default bridge, by `app` on a network of a user's, and on this machine
/// only.
const WEB: u16 = 8080;
const APP: u16 = 8081;
const LOCAL: u16 = 8082;

/// The containers and networks of a test, with a server on the neighbour.
struct Scene<'a> {
    island: &'a Island,
    daemon: &'a Daemon,
    /// The process id of the neighbour's server.
    server: String,
}

impl<'a> Scene<'a> {
    fn new(island: &'a Island, daemon: &'a Daemon) -> Self {
        let server = "mkdir -p $1; cd $1; echo outside >index.html
            python3 -m http.server --bind :: 80 >/dev/null 2>&1 </dev/null & echo $!";
        let directory = daemon.socket().with_extension("neighbour");
        let line = format!("set -- {}; {server}", directory.display());
        let server = island.on_neighbour(&line).ok().to_owned();
        let networks = [
            "network create --ipv6 --subnet fd00:213:10::/64 --subnet 10.213.10.0/24 app",
            "network create other",
            "network create --internal inside",
        ];
        for line in networks {
            docker_words(daemon, line).ok();
        }
        let containers = [
            format!("--name web -p {WEB}:80 -p 127.0.0.1:{LOCAL}:80"),
            format!("--name app --network app -p {APP}:80"),
            "--name other --network other".to_owned(),
            "--name inside --network inside".to_owned(),
        ];
        for options in &containers {
            crate::run_detached(daemon, options, SERVER);
        }
        let scene = Self {
            island,
            daemon,
            server,
        };
        for name in ["web", "app", "other", "inside"] {
            until("the servers answer", || {
                scene.gets(name, "127.0.0.1").then_some(())
            });
        }
        scene
    }

    /// Whether a container gets a page from port 80.
    fn gets(&self, container: &str, address: &str) -> bool {
        let url = format!("http://{address}/");
        let words = ["exec", container, "timeout", "1", "wget", "-qO-", &url];
        self.daemon.docker(&words).code == 0
    }

    fn address(&self, container: &str, field: &str) -> String {
        let form = format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}");
        inspect(self.daemon, container, &form)
    }

    /// What is to be open is.
    #[track_caller]
    fn check_open(&self) {
        let (here, here6) = (Island::HERE, format!("[{}]", Island::HERE6));
        for (address, port) in [(here, WEB), (here, APP), (&here6, APP)] {
            let page = self.island.get(address, port);
            assert_eq!(page.as_deref(), Some("page"), "{address} {port}");
        }
        for container in ["web", "app", "other"] {
            assert!(self.gets(container, Island::THERE), "{container}");
        }
        let there6 = format!("[{}]", Island::THERE6);
        assert!(self.gets("app", &there6));
    }

    /// What is to be closed is: from the neighbour, and from network to network. All is tried at
    /// once, since each is waited for.
    #[track_caller]
    fn check_closed(&self) {
        // A neighbour that sends what is for 127.0.0.1 here.
        let trick = "ip route replace 127.0.0.1 via 10.213.9.1 dev wire table 99
            sysctl -qw net.ipv4.conf.all.route_localnet=1
            ip rule add pref 0 to 127.0.0.1 lookup 99; ip rule del pref 0 lookup local || true
            ip rule add pref 100 lookup local || true";
        self.island.on_neighbour(trick).ok();
        let app6 = format!("[{}]", self.address("app", "GlobalIPv6Address"));
        let of_containers =
            ["web", "app", "other", "inside"].map(|name| self.address(name, "IPAddress"));
        let local = ["127.0.0.1".to_owned(), Island::HERE.to_owned()];
        let mut outside: Vec<(String, u16)> = local.map(|address| (address, LOCAL)).into();
        outside.extend(of_containers.into_iter().chain([app6]).map(|it| (it, 80)));
        let mut inside: Vec<(&str, String)> = [
            ("web", "app"),
            ("app", "other"),
            ("other", "web"),
            ("inside", "app"),
        ]
        .map(|(from, to)| (from, self.address(to, "IPAddress")))
        .into();
        inside.push(("inside", Island::THERE.to_owned()));
        let got: Vec<String> = std::thread::scope(|scope| {
            let outside = outside.iter().map(|(address, port)| {
                scope.spawn(move || self.island.get(address, *port).map(|_| address.clone()))
            });
            let inside = inside.iter().map(|(from, to)| {
                scope.spawn(move || self.gets(from, to).then(|| format!("{from} {to}")))
            });
            let tried: Vec<_> = outside.chain(inside).collect();
            tried
                .into_iter()
                .filter_map(|it| it.join().unwrap())
                .collect()
        });
        assert_eq!(got, Vec::<String>::new());
        self.island
            .on_neighbour(
                "ip rule del pref 0; ip rule add pref 0 lookup local; ip rule del pref 100",
            )
            .ok();
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        self.island.on_neighbour(&format!("kill {}", self.server));
    }
}

fn docker_words(daemon: &Daemon, line: &str) -> Output {
    daemon.docker(&line.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn neighbours_and_networks_are_kept_out() {
    let island = Island::new(21);
    let daemon = island.daemon(&[]);
    let scene = Scene::new(&island, &daemon);
    scene.check_open();
    scene.check_closed();
    // Until what another program flushed is back, too.
    island.on_host("nft flush ruleset").ok();
    until("published ports are open again", || {
        island.get(Island::HERE, APP)
    });
    scene.check_open();
    scene.check_closed();
}

#[test]
fn with_ufw_ports_are_published_and_its_rules_obeyed() {
    let island = Island::new(22);
    let [nsenter, net] = island.under();
    let directory = std::env::temp_dir().join(format!("berth-ufw-{}", std::process::id()));
    let ufw = Ufw::new(&directory, &[&nsenter, &net]);
    ufw.cmd(&["--force", "enable"]).ok();
    let daemon = island.daemon(&[]);
    let scene = Scene::new(&island, &daemon);
    scene.check_open();
    scene.check_closed();
    ufw.cmd(&["reload"]).ok();
    scene.check_open();
    let route = |words: &str| {
        let from = Island::THERE;
        let line = format!("route {words} proto tcp from {from} to any port 80");
        ufw.cmd(&line.split(' ').collect::<Vec<_>>()).ok();
    };
    route("deny");
    assert_eq!(
        island.get(Island::HERE, APP),
        None,
        "a route that ufw denies"
    );
    assert_eq!(island.get(Island::HERE, WEB), None);
    route("delete deny");
    ufw.cmd(&["disable"]).ok();
    ufw.cmd(&["--force", "enable"]).ok();
    scene.check_open();
    scene.check_closed();
    // The relay accepts on the machine itself, which is ufw's to allow.
    let web6 = || island.get(&format!("[{}]", Island::HERE6), WEB);
    assert_eq!(web6(), None);
    let behind = daemon.berth(&["ports", "web", "--format", "{{.By}} {{.Note}}"]);
    assert!(
        behind.ok().contains("relay behind ufw"),
        "{}",
        behind.stdout
    );
    ufw.cmd(&["allow", "8080/tcp"]).ok();
    assert_eq!(web6().as_deref(), Some("page"));
    drop(scene);
    drop(daemon);
    let rules = island.on_host("iptables -S; ip6tables -S");
    assert!(!rules.ok().contains("erth"), "{}", rules.stdout);
    ufw.cmd(&["disable"]).ok();
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn with_firewalld_networks_of_users_are_reached() {
    let island = Island::new(23);
    let [nsenter, net] = island.under();
    let directory = std::env::temp_dir().join(format!("berth-firewalld-{}", std::process::id()));
    let mut firewalld = Firewalld::new(&directory, &[&nsenter, &net]);
    firewalld.start();
    let bus = format!("DBUS_SYSTEM_BUS_ADDRESS={}", firewalld.address());
    let daemon = island.daemon_with(&[&bus], &[]);
    let scene = Scene::new(&island, &daemon);
    scene.check_open();
    scene.check_closed();
    firewalld.cmd(&["--reload"]);
    scene.check_open();
    scene.check_closed();
    // A port of the host is still firewalld's.
    assert_eq!(island.get(&format!("[{}]", Island::HERE6), WEB), None);
    firewalld.cmd(&["--add-port=8080/tcp"]);
    let web6 = island.get(&format!("[{}]", Island::HERE6), WEB);
    assert_eq!(web6.as_deref(), Some("page"));
    drop(scene);
    drop(daemon);
    assert!(
        !firewalld
            .cmd(&["--permanent", "--get-zones"])
            .contains("berth")
    );
    firewalld.stop();
    drop(firewalld);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn beside_dockerd_both_publish_and_neither_is_in_the_way() {
    let island = Island::new(24);
    let [nsenter, net] = island.under();
    let place = Place::new_under(&[&nsenter, &net], "beside", |root, name| {
        let root = root.display();
        std::fs::write(format!("{root}/daemon.json"), "{}").unwrap();
        format!(
            "dockerd --config-file {root}/daemon.json --data-root {root}/data \
             --exec-root {root}/exec --pidfile {root}/pid --host unix://{root}/docker.sock \
             --cgroup-parent /{name}"
        )
        .split_whitespace()
        .map(str::to_owned)
        .collect()
    });
    let theirs = |line: &str| -> Output {
        let host = format!("unix://{}", place.root.join("docker.sock").display());
        let words = line.split_whitespace();
        run(Command::new(docker()).args(["-H", &host]).args(words), b"")
    };
    until("dockerd answers", || {
        (theirs("version").code == 0).then_some(())
    });
    theirs(&format!("load -qi {}", archive("busybox").display())).ok();
    let serve = |options: &str| {
        theirs(&format!("run -d {options} busybox sh -c echo${{IFS}}docker>/index.html;httpd${{IFS}}-f${{IFS}}-p${{IFS}}80"))
            .ok()
            .to_owned()
    };
    theirs("network create theirs").ok();
    serve("--name one -p 8090:80");
    serve("--name two --network theirs -p 8091:80");
    let daemon = island.daemon(&[]);
    let scene = Scene::new(&island, &daemon);
    let theirs_open = || {
        for port in [8090, 8091] {
            let page = island.get(Island::HERE, port);
            assert_eq!(page.as_deref(), Some("docker"), "{port}");
        }
    };
    theirs_open();
    scene.check_open();
    scene.check_closed();
    let form = "inspect -f {{range.NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let one = theirs(&format!("{form} one")).ok().to_owned();
    // Neither's containers reach the other's by their own addresses.
    let app = scene.address("app", "IPAddress");
    theirs(&format!("exec one timeout 1 wget -qO- http://{app}/")).fails(143, "");
    // But what is published, they do.
    theirs(&format!(
        "exec one wget -qO- http://{}:{APP}/",
        Island::HERE
    ))
    .ok();
    assert_ne!(one, app);
    // Docker's chain for the administrator is before both.
    island
        .on_host(&format!(
            "iptables -I DOCKER-USER -i wire -s {} -j DROP",
            Island::THERE
        ))
        .ok();
    assert_eq!(island.get(Island::HERE, APP), None);
    assert_eq!(island.get(Island::HERE, 8091), None);
    island.on_host("iptables -F DOCKER-USER").ok();
    scene.check_open();
    drop(scene);
    drop(daemon);
    theirs_open();
    theirs("rm -f one two").ok();
}
