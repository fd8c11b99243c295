//! Networks of a user's own: what docker's client and ours make of them, and containers on
//! several of them.

use berth_testkit::{Daemon, until};
use rustix::process::Signal;

use crate::island::Island;
use crate::network::host_port;
use crate::{CLIENTS, daemon, inspect, run_detached};

fn address(daemon: &Daemon, container: &str, network: &str) -> String {
    let form = format!("{{{{(index .NetworkSettings.Networks {network:?}).IPAddress}}}}");
    inspect(daemon, container, &form)
}

fn sh(daemon: &Daemon, container: &str, line: &str) -> String {
    let output = daemon.docker(&["exec", container, "sh", "-c", line]);
    output.ok().to_owned()
}

fn names(daemon: &Daemon, filter: &str) -> String {
    let listed = daemon.docker(&["network", "ls", "-f", filter, "--format", "{{.Name}}"]);
    listed.ok().replace('\n', " ")
}

#[test]
fn both_clients_make_show_and_remove_networks_alike() {
    let daemon = daemon();
    for client in CLIENTS {
        let create = [
            "network",
            "create",
            "--subnet",
            "10.211.0.0/16",
            "--ip-range",
            "10.211.4.0/24",
            "--gateway",
            "10.211.0.9",
            "--aux-address",
            "router=10.211.0.7",
            "--label",
            "a=b",
            "--internal",
            "--attachable",
            "--opt",
            "com.docker.network.driver.mtu=1400",
            "app",
        ];
        let id = client(&daemon, &create).ok().to_owned();
        assert_eq!(id.len(), 64);
        let shown = client(&daemon, &["network", "inspect", "app"]);
        let other = daemon.docker(&["network", "inspect", &id[..12]]);
        assert_eq!(shown.ok(), other.ok());
        let (_, wire) = daemon.api("GET", "/v1.51/networks/app", None);
        assert_eq!(wire["Id"], id.as_str());
        assert_eq!(
            wire["IPAM"],
            serde_json::json!({"Driver": "default", "Options": {}, "Config": [{
                "Subnet": "10.211.0.0/16", "IPRange": "10.211.4.0/24", "Gateway": "10.211.0.9",
                "AuxiliaryAddresses": {"router": "10.211.0.7"}}]})
        );
        assert_eq!(wire["Internal"], true);
        assert_eq!(wire["Attachable"], true);
        assert_eq!(wire["Labels"]["a"], "b");
        assert_eq!(wire["Options"]["com.docker.network.driver.mtu"], "1400");
        let link = format!("/sys/class/net/br-{}/mtu", &id[..12]);
        assert_eq!(std::fs::read_to_string(&link).unwrap().trim(), "1400");
        client(&daemon, &["network", "create", "app"])
            .fails(1, "network with name app already exists");
        assert_eq!(client(&daemon, &["network", "rm", "app"]).ok(), "app");
        assert!(!std::path::Path::new(&link).exists());
        let missing = client(&daemon, &["network", "rm", "app"]);
        missing.fails(1, "network app not found");
        client(&daemon, &["network", "rm", "-f", "app"]).ok();
    }
}

#[test]
fn what_cannot_be_made_is_refused_in_dockers_words() {
    let daemon = daemon();
    daemon
        .docker(&["network", "create", "--subnet", "10.211.0.0/16", "one"])
        .ok();
    let refused: &[(u16, &str, &str)] = &[
        (
            403,
            r#"{"Name":"host"}"#,
            "operation is not permitted on predefined host network ",
        ),
        (400, r#"{"Name":""}"#, "invalid name: name is empty"),
        (
            409,
            r#"{"Name":"one"}"#,
            "network with name one already exists",
        ),
        (
            404,
            r#"{"Name":"x","Driver":"nosuch"}"#,
            "plugin \"nosuch\" not found",
        ),
        (
            403,
            r#"{"Name":"x","Driver":"null"}"#,
            "only one instance of \"null\" network is allowed",
        ),
        (
            400,
            r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.212.0.1/16"}]}}"#,
            "invalid network config:\ninvalid subnet 10.212.0.1/16: it should be 10.212.0.0/16",
        ),
        (
            400,
            r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.212.0.0/16","Gateway":"10.213.0.1"}]}}"#,
            "invalid network config:\ninvalid gateway 10.213.0.1: parent subnet 10.212.0.0/16 doesn't contain this address",
        ),
        (
            403,
            r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.211.4.0/24"}]}}"#,
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        (
            400,
            r#"{"Name":"x","Options":{"com.docker.network.driver.mtu":"y"}}"#,
            "failed to parse com.docker.network.driver.mtu value: y (strconv.Atoi: parsing \"y\": invalid syntax)",
        ),
    ];
    for (status, body, message) in refused {
        let (got, answer) = daemon.api("POST", "/v1.51/networks/create", Some(body));
        assert_eq!(
            (got, answer["message"].as_str()),
            (*status, Some(*message)),
            "{body}"
        );
    }
    let (status, answer) = daemon.api("DELETE", "/v1.51/networks/bridge", None);
    assert_eq!(status, 403);
    assert_eq!(
        answer["message"],
        "bridge is a pre-defined network and cannot be removed"
    );
    assert_eq!(names(&daemon, "type=custom"), "one");
    daemon.docker(&["network", "rm", "one"]).ok();
}

#[test]
fn a_container_has_an_interface_on_each_of_its_networks() {
    let daemon = daemon();
    for (name, subnet) in [("front", "10.211.0.0/16"), ("back", "10.212.0.0/16")] {
        daemon
            .docker(&["network", "create", "--subnet", subnet, name])
            .ok();
    }
    let options = "--name web --hostname web --network name=front,alias=www,ip=10.211.0.50 \
                   --network name=back,mac-address=02:00:00:00:00:77,gw-priority=1";
    run_detached(&daemon, options, "sleep 1000");
    run_detached(&daemon, "--name db --network back", "sleep 1000");
    assert_eq!(address(&daemon, "web", "front"), "10.211.0.50");
    let shown = sh(
        &daemon,
        "web",
        "ip -4 -o addr show eth0; ip link show eth1; ip route",
    );
    assert!(shown.contains("10.211.0.50/16"), "{shown}");
    assert!(shown.contains("02:00:00:00:00:77"), "{shown}");
    assert!(shown.contains("default via 10.212.0.1 dev eth1"), "{shown}");
    let hosts = sh(&daemon, "web", "grep web /etc/hosts");
    let back = address(&daemon, "web", "back");
    assert_eq!(hosts, format!("10.211.0.50\tweb\n{back}\tweb"));
    sh(&daemon, "db", &format!("ping -c 1 -W 5 {back}"));
    let aliases = "{{(index .NetworkSettings.Networks \"front\").DNSNames}}";
    let id = inspect(&daemon, "web", "{{.Id}}");
    assert_eq!(
        inspect(&daemon, "web", aliases),
        format!("[web www {}]", &id[..12])
    );
    // Both see it there, and ps finds it by either.
    for network in ["front", "back"] {
        let form = "{{range .Containers}}{{.Name}} {{end}}";
        let on = daemon.docker(&["network", "inspect", "-f", form, network]);
        assert!(on.ok().contains("web"), "{}", on.stdout);
        let filter = format!("network={network}");
        let listed = daemon.docker(&["ps", "-q", "--no-trunc", "-f", &filter]);
        assert!(listed.ok().contains(&id));
    }
    let used = daemon.docker(&["network", "rm", "front"]);
    used.fails(
        1,
        "error while removing network: network front has active endpoints (name:\"web\" id:\"",
    );
    daemon.docker(&["rm", "-f", "web", "db"]).ok();
    daemon.docker(&["network", "rm", "front", "back"]).ok();
}

#[test]
fn running_containers_come_and_go() {
    let daemon = daemon();
    for (name, subnet) in [("front", "10.211.0.0/16"), ("back", "10.212.0.0/16")] {
        daemon
            .docker(&["network", "create", "--subnet", subnet, name])
            .ok();
    }
    let now = || daemon.api("GET", "/v1.51/info", None).1["SystemTime"].clone();
    let since = now();
    run_detached(
        &daemon,
        "--name web --hostname web --network front",
        "sleep 1000",
    );
    let id = inspect(&daemon, "web", "{{.Id}}");
    sh(&daemon, "web", "echo 10.9.9.9 mine >>/etc/hosts");
    for client in CLIENTS {
        let connect = [
            "network",
            "connect",
            "--ip",
            "10.212.0.60",
            "--alias",
            "a,b",
            "back",
            "web",
        ];
        client(&daemon, &connect).ok();
        client(&daemon, &connect).fails(1, "endpoint with name web already exists in network back");
        let shown = sh(
            &daemon,
            "web",
            "ip -4 -o addr show eth1; ip route; cat /etc/hosts",
        );
        assert!(shown.contains("10.212.0.60/16"), "{shown}");
        assert!(shown.contains("default via 10.212.0.1 dev eth1"), "{shown}");
        assert!(shown.contains("10.9.9.9 mine"), "{shown}");
        assert!(shown.contains("10.212.0.60\tweb"), "{shown}");
        let aliases = "{{(index .NetworkSettings.Networks \"back\").Aliases}}";
        assert_eq!(inspect(&daemon, "web", aliases), "[a b]");
        client(&daemon, &["network", "disconnect", "back", "web"]).ok();
        client(&daemon, &["network", "disconnect", "back", "web"]).fails(
            1,
            &format!("container {id} is not connected to network back"),
        );
        let shown = sh(&daemon, "web", "ip -o link; ip route; cat /etc/hosts");
        assert!(
            !shown.contains("eth1") && !shown.contains("10.212.0.60"),
            "{shown}"
        );
        assert!(shown.contains("default via 10.211.0.1 dev eth0"), "{shown}");
        assert!(shown.contains("10.9.9.9 mine"), "{shown}");
        client(&daemon, &["network", "connect", "nosuch", "web"])
            .fails(1, "network nosuch not found");
        client(&daemon, &["network", "connect", "front", "nosuch"])
            .fails(1, "No such container: nosuch");
        client(&daemon, &["network", "connect", "host", "web"])
            .fails(1, "container must be created in host network mode");
        client(
            &daemon,
            &["network", "connect", "--ip", "10.9.0.1", "back", "web"],
        )
        .fails(
            1,
            "no configured subnet or ip-range contain the IP address 10.9.0.1",
        );
    }
    // What is asked for while it is stopped is there when it runs again.
    daemon.docker(&["stop", "-t", "0", "web"]).ok();
    daemon.docker(&["network", "connect", "back", "web"]).ok();
    daemon
        .docker(&["network", "disconnect", "front", "web"])
        .ok();
    daemon.docker(&["start", "web"]).ok();
    assert!(address(&daemon, "web", "back").starts_with("10.212."));
    let end = now();
    let form = "{{.Action}} {{.Actor.Attributes.name}}";
    let filters = ["--filter", "type=network", "--format", form];
    let until = [
        "events",
        "--since",
        since.as_str().unwrap(),
        "--until",
        end.as_str().unwrap(),
    ];
    let seen = daemon.docker(&[until.as_slice(), &filters].concat());
    let expect = "connect front\nconnect back\ndisconnect back\nconnect back\ndisconnect back\n\
                  disconnect front\nconnect back";
    assert_eq!(seen.ok(), expect);
    daemon.docker(&["rm", "-f", "web"]).ok();
    daemon.docker(&["network", "rm", "front", "back"]).ok();
}

#[test]
fn published_ports_go_where_the_way_out_leads() {
    let daemon = daemon();
    for name in ["one", "two"] {
        daemon.docker(&["network", "create", name]).ok();
    }
    let serve = "mkdir -p /w; echo page >/w/index.html; exec httpd -f -p 80 -h /w";
    run_detached(&daemon, "--name web --network one -p 127.0.0.1::80", serve);
    let fetch = || {
        let port = host_port(&daemon, "web", "80");
        until("the page is there", || {
            let url = format!("http://127.0.0.1:{port}/");
            let mut curl = std::process::Command::new("curl");
            let got = berth_testkit::run(curl.args(["-sS", "-m", "5", &url]), b"");
            (got.stdout == "page\n").then_some(())
        });
    };
    fetch();
    daemon.docker(&["network", "connect", "two", "web"]).ok();
    fetch();
    daemon.docker(&["network", "disconnect", "one", "web"]).ok();
    fetch();
    daemon.docker(&["network", "disconnect", "two", "web"]).ok();
    assert_eq!(daemon.docker(&["port", "web"]).ok(), "");
    daemon.docker(&["network", "connect", "one", "web"]).ok();
    fetch();
    daemon.docker(&["rm", "-f", "web"]).ok();
    daemon.docker(&["network", "rm", "one", "two"]).ok();
}

#[test]
fn networks_outlive_the_daemon_and_unused_ones_are_pruned() {
    let mut daemon = daemon();
    for name in ["used", "idle"] {
        let label = format!("which={name}");
        daemon
            .docker(&["network", "create", "--label", &label, name])
            .ok();
    }
    run_detached(&daemon, "--name web --network used", "sleep 1000");
    let before = daemon.docker(&["network", "inspect", "used", "idle"]);
    for signal in [Signal::KILL, Signal::TERM] {
        daemon.signal(signal);
        daemon.spawn();
        let after = daemon.docker(&["network", "inspect", "used", "idle"]);
        assert_eq!(after.ok(), before.ok());
        let gateway = inspect(&daemon, "web", "{{.NetworkSettings.Networks.used.Gateway}}");
        until("the gateway answers", || {
            let ping = ["exec", "web", "ping", "-c", "1", "-W", "1", &gateway];
            (daemon.docker(&ping).code == 0).then_some(())
        });
    }
    assert_eq!(names(&daemon, "dangling=true"), "idle");
    assert_eq!(names(&daemon, "label=which=used"), "used");
    assert_eq!(names(&daemon, "driver=null"), "none");
    let kept = daemon.docker(&["network", "prune", "-f", "--filter", "label!=which=idle"]);
    assert_eq!(kept.ok(), "");
    let pruned = daemon.berth(&["network", "prune", "-f"]);
    assert_eq!(pruned.ok(), "Deleted Networks:\nidle");
    daemon.docker(&["rm", "-f", "web"]).ok();
    let pruned = daemon.docker(&["network", "prune", "-f"]);
    assert_eq!(pruned.ok(), "Deleted Networks:\nused");
}

/// A sender that never pauses, as a camera or a log: its flow follows the container through all
/// that may happen to it.
#[test]
fn a_steady_udp_flow_follows_the_container() {
    let island = Island::new(31);
    let daemon = island.daemon(&[]);
    daemon.docker(&["network", "create", "app"]).ok();
    daemon.load("debian");
    let receive = "use IO::Socket::INET; $SIG{TERM} = sub { exit };
        $s = IO::Socket::INET->new(LocalPort => 5514, Proto => 'udp') or die $!;
        while (1) { $s->recv($m, 64); open F, '>>', '/tmp/got'; print F $m; close F }";
    let start = |network: &str| {
        let words = [
            "run",
            "-d",
            "--name",
            "sink",
            "--network",
            network,
            "-p",
            "5514:5514/udp",
        ];
        let command = ["debian", "perl", "-e", receive];
        daemon.docker(&[&words[..], &command].concat()).ok();
    };
    start("bridge");
    let send = format!(
        "exec 3<>/dev/udp/{}/5514; i=0; while echo line$i >&3 || true; do i=$((i+1)); sleep 0.02; done \
         >/dev/null 2>&1 & echo $!",
        Island::HERE
    );
    let sender = island.on_neighbour(&send).ok().to_owned();
    let flows = |what: &str| {
        daemon
            .docker(&["exec", "sink", "sh", "-c", ": >/tmp/got"])
            .ok();
        until(what, || {
            let got = sh(&daemon, "sink", "wc -c </tmp/got");
            (got.trim() != "0").then_some(())
        });
    };
    flows("datagrams arrive");
    daemon.docker(&["restart", "-t", "1", "sink"]).ok();
    flows("datagrams arrive after a restart");
    daemon.docker(&["network", "connect", "app", "sink"]).ok();
    flows("datagrams arrive after a connection");
    // What is published goes to the other network.
    daemon
        .docker(&["network", "disconnect", "bridge", "sink"])
        .ok();
    flows("datagrams arrive in the other network");
    island.on_host("nft flush ruleset").ok();
    flows("datagrams arrive after a flush");
    daemon.docker(&["rm", "-f", "sink"]).ok();
    start("app");
    flows("datagrams arrive at another container");
    // By the kernel's translation, with the sender's own address.
    let tracked = format!(
        "conntrack -L -p udp --orig-src {} 2>/dev/null",
        Island::THERE
    );
    let form = "{{.NetworkSettings.Networks.app.IPAddress}}";
    let address = inspect(&daemon, "sink", form);
    until("the flow is translated", || {
        let tracked = island.on_host(&tracked);
        tracked
            .stdout
            .contains(&format!("src={address}"))
            .then_some(())
    });
    island.on_neighbour(&format!("kill {sender}")).ok();
}
