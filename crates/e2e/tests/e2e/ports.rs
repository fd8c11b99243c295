//! `berth ports`: what it says is what a neighbour finds.

use berth_testkit::{Daemon, until};
use serde_json::Value;

use crate::island::Island;
use crate::network::serve;
use crate::run_detached;

fn rows(daemon: &Daemon) -> Vec<Value> {
    let (status, rows) = daemon.api("GET", "/v1.51/berth/ports", None);
    assert_eq!(status, 200, "{rows}");
    rows.as_array().unwrap().clone()
}

/// The row of this address and port, in a few words.
#[track_caller]
fn row(daemon: &Daemon, address: &str, port: u16) -> String {
    let rows = rows(daemon);
    let found = rows
        .iter()
        .find(|row| row["HostIp"] == address && row["HostPort"] == port);
    let row = found.unwrap_or_else(|| panic!("no {address} {port} in {rows:?}"));
    let field = |name: &str| row[name].as_str().unwrap().to_owned();
    let words = ["Container", "From", "Way", "Network", "Listening"];
    words.map(field).join(" ")
}

#[test]
fn what_ports_says_is_what_a_neighbour_finds() {
    let island = Island::new(11);
    let daemon = island.daemon(&[]);
    daemon.docker(&["network", "create", "app"]).ok();
    serve(&daemon, "web", &["8080:80"]);
    serve(&daemon, "local", &["127.0.0.1:8081:80"]);
    run_detached(&daemon, "--name silent -p 8082:80", "sleep 1000");
    let inner = "mkdir /w; exec httpd -f -p 127.0.0.1:80 -h /w";
    run_detached(&daemon, "--name inner -p 8083:80 --network app", inner);
    let host = "mkdir /w; echo page >/w/index.html; exec httpd -f -p 8084 -h /w";
    run_detached(&daemon, "--name onhost --network host", host);
    until("all of them listen", || {
        let listens = |name: &str, port: u16| {
            let look = format!("grep -qi ':{port:04x} ' /proc/net/tcp /proc/net/tcp6");
            daemon.docker(&["exec", name, "sh", "-c", &look]).code == 0
        };
        (listens("inner", 80) && listens("onhost", 8084)).then_some(())
    });

    assert_eq!(
        row(&daemon, "0.0.0.0", 8080),
        "web network nat bridge everywhere"
    );
    assert_eq!(
        row(&daemon, "::", 8080),
        "web network relay bridge everywhere"
    );
    assert_eq!(
        row(&daemon, "127.0.0.1", 8081),
        "local machine nat bridge everywhere"
    );
    assert_eq!(
        row(&daemon, "0.0.0.0", 8082),
        "silent network nat bridge nowhere"
    );
    assert_eq!(
        row(&daemon, "0.0.0.0", 8083),
        "inner network nat app loopback"
    );
    assert_eq!(
        row(&daemon, "::", 8084),
        "onhost network host host everywhere"
    );
    let check = || {
        for row in rows(&daemon) {
            let (address, port) = (row["HostIp"].as_str().unwrap(), &row["HostPort"]);
            let here = match address.contains(':') {
                true => format!("[{}]", Island::HERE6),
                false => Island::HERE.to_owned(),
            };
            let port = u16::try_from(port.as_u64().unwrap()).unwrap();
            let found = island.get(&here, port);
            let open = row["From"] != "machine" && row["From"] != "nobody";
            let expect = open && row["Listening"] == "everywhere";
            assert_eq!(found.is_some(), expect, "{row}: {found:?}");
        }
    };
    check();

    // A public address makes the difference between the neighbours and everybody.
    island.on_host("ip addr add 203.0.113.7/32 dev wire").ok();
    assert_eq!(
        row(&daemon, "0.0.0.0", 8080),
        "web everybody nat bridge everywhere"
    );
    assert_eq!(
        row(&daemon, "::", 8080),
        "web network relay bridge everywhere"
    );

    // Rules of others are named, or known to close.
    let field = |port: u16, name: &str| {
        let rows = rows(&daemon);
        let of_port = |row: &&Value| row["HostIp"] == "0.0.0.0" && row["HostPort"] == port;
        rows.iter().find(of_port).unwrap()[name].clone()
    };
    assert_eq!(field(8080, "Behind"), serde_json::json!([]));
    island.on_host("iptables-nft -P FORWARD DROP").ok();
    until("the page comes through", || island.get(Island::HERE, 8080));
    assert_eq!(field(8080, "Behind"), serde_json::json!([]));
    island
        .on_host("iptables-nft -I FORWARD -s 192.0.2.1 -j DROP")
        .ok();
    assert_eq!(field(8080, "Behind"), serde_json::json!(["iptables"]));
    let table = daemon.instance();
    let user = format!("nft add rule ip {table} user iifname wire tcp dport 80 drop");
    island.on_host(&user).ok();
    assert_eq!(island.get(Island::HERE, 8080), None);
    let chain = format!("the chain user of {table}");
    assert_eq!(
        field(8080, "Behind"),
        serde_json::json!([chain, "iptables"])
    );
    let flush = format!("nft flush chain ip {table} user; iptables-nft -F FORWARD");
    island.on_host(&flush).ok();
    until("our jump is back", || {
        (field(8080, "Behind") == serde_json::json!([]) && field(8080, "From") != "machine")
            .then_some(())
    });
    island
        .on_host("nft add table inet strict; nft add chain inet strict f '{ type filter hook forward priority 0; policy drop; }'")
        .ok();
    assert_eq!(field(8080, "From"), "machine");
    assert_eq!(field(8080, "ClosedBy"), "the nftables table strict");
    check();
    let here = format!("curl -sS -m 5 http://{}:8080/", Island::HERE);
    assert_eq!(
        island.on_host(&here).ok(),
        "page",
        "this machine gets there"
    );
}

#[test]
fn ports_names_who_holds_what_a_container_wanted() {
    let island = Island::new(12);
    let daemon = island.daemon(&[]);
    serve(&daemon, "web", &["8080:80"]);
    let taker = "python3 -c 'import socket,time
s=socket.socket(); s.bind((\"0.0.0.0\",8090)); s.listen(); print(1,flush=True); time.sleep(60)' >$1 2>$1 & echo $!";
    let ready = daemon.socket().with_extension("ready");
    let line = format!("set -- {}; {taker}", ready.display());
    let pid = island.on_host(&line).ok().to_owned();
    until("the port is taken", || {
        std::fs::read_to_string(&ready)
            .ok()
            .filter(|text| !text.is_empty())
    });
    for (name, port) in [("late", "8080:80"), ("later", "8090:80")] {
        daemon
            .docker(&["run", "-d", "--name", name, "-p", port, "busybox", "true"])
            .fails(125, "already");
    }
    let format = "{{.Container}}|{{.Address}}|{{.From}}|{{.Note}}";
    let shown = daemon.berth(&["ports", "--format", format]);
    let lines: Vec<&str> = shown.ok().lines().collect();
    assert_eq!(
        lines,
        [
            "late|:8080/tcp|nobody|held by container web",
            "web|0.0.0.0:8080/tcp|local network|",
            "web|[::]:8080/tcp|local network|",
            &format!("later|:8090/tcp|nobody|held by process {pid} (python3)"),
        ]
    );
    // The same as a table, as JSON, and of one container.
    let table = daemon.berth(&["ports", "web"]);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let ip = daemon.docker(&[
        "inspect",
        "-f",
        "{{.NetworkSettings.Networks.bridge.IPAddress}}",
        "web",
    ]);
    let mut lines = table.ok().lines().map(words);
    assert_eq!(
        lines.next().unwrap(),
        "ADDRESS FROM BY CONTAINER NETWORK TO NOTE"
    );
    let expect = format!(
        "0.0.0.0:8080/tcp local network nat web bridge {}:80",
        ip.ok()
    );
    assert_eq!(lines.next().unwrap(), expect);
    let json = daemon.berth(&["ports", "--format", "json", "later"]);
    let json: Value = serde_json::from_str(json.ok()).unwrap();
    assert_eq!(json["HeldBy"], format!("process {pid} (python3)"));
    daemon
        .berth(&["ports", "nosuch"])
        .fails(1, "nosuch has no ports");
    // Once the port is free, nobody holds it.
    island.on_host(&format!("kill {pid}")).ok();
    until("the port is free", || {
        let left = daemon.berth(&["ports", "--format", "{{.Container}}"]);
        (!left.ok().contains("later")).then_some(())
    });
}
