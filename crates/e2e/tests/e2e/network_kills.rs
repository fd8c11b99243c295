//! The daemon is killed at any moment while networks are made and removed, and containers that run
//! are put on them and taken off. The next one keeps what was acknowledged, and what it shows is
//! what the kernel has.
//!
//! `BERTH_KILL_SEED` repeats a run's choices, `BERTH_NETWORK_KILL_ROUNDS` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_testkit::http::{self, Response};
use berth_testkit::{Daemon, Random, sh, until};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{program, run_detached};

const CLIENTS: usize = 3;
const NETWORKS: u64 = 3;
const ROUNDS: u64 = 25;
/// After fewer answers than this, all clients together, the daemon is killed.
const ANSWERS: u64 = 12;

/// What is known of something after all answers, and those that never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    There,
    Gone,
    Either,
}

/// One client has a container and some networks of its own.
struct Client {
    socket: PathBuf,
    container: String,
    names: Vec<String>,
    random: Random,
    networks: BTreeMap<String, Is>,
    /// Of the container, by network.
    places: BTreeMap<String, Is>,
}

impl Client {
    fn new(number: usize, daemon: &Daemon, seed: u64) -> Self {
        let container = format!("nk{number}");
        run_detached(daemon, &format!("--name {container}"), "exec sleep 10000");
        let names = (0..NETWORKS).map(|index| format!("net{number}-{index}"));
        Self {
            socket: daemon.socket(),
            container,
            names: names.collect(),
            random: Random::new(seed),
            networks: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    fn work(&mut self, over: &AtomicBool, answers: &AtomicU64) {
        while !over.load(Ordering::Acquire) {
            if self.step().is_none() {
                return;
            }
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Option<Response> {
        http::request(&self.socket, method, path, body).ok()
    }

    /// `None`: the daemon is gone, and what was asked for may have been done or not.
    fn step(&mut self) -> Option<()> {
        let name = self.random.pick(&self.names).unwrap().clone();
        let network = self.networks.get(&name).copied().unwrap_or(Is::Gone);
        let place = self.places.get(&name).copied().unwrap_or(Is::Gone);
        let body = json!({"Container": self.container});
        let (path, body, networks, want, expect) = match (network, place) {
            (Is::Gone, _) => {
                let v6 = self.random.percent(30);
                let body = json!({"Name": name, "EnableIPv6": v6});
                (
                    "/networks/create".to_owned(),
                    Some(body),
                    true,
                    Is::There,
                    201,
                )
            }
            (_, Is::Gone) if self.random.percent(40) => {
                (format!("/networks/{name}"), None, true, Is::Gone, 204)
            }
            (_, Is::Gone) => {
                let path = format!("/networks/{name}/connect");
                (path, Some(body), false, Is::There, 200)
            }
            (..) => {
                let path = format!("/networks/{name}/disconnect");
                (path, Some(body), false, Is::Gone, 200)
            }
        };
        let known = |client: &mut Self, is| {
            let all = if networks {
                &mut client.networks
            } else {
                &mut client.places
            };
            all.insert(name.clone(), is);
        };
        known(self, Is::Either);
        let method = if body.is_some() { "POST" } else { "DELETE" };
        let answer = self.ask(method, &path, body.as_ref())?;
        assert_eq!(answer.status, expect, "{method} {path}: {}", answer.text());
        known(self, want);
        Some(())
    }

    /// What was acknowledged is so; of what was not, it is seen how it went.
    fn verify(&mut self, found: &BTreeSet<String>) {
        let path = format!("/containers/{}/json", self.container);
        let shown = self.ask("GET", &path, None).unwrap().json();
        assert_eq!(shown["State"]["Running"], true, "{}", self.container);
        let on = &shown["NetworkSettings"]["Networks"];
        let settle = |all: &mut BTreeMap<String, Is>, there: &dyn Fn(&str) -> bool| {
            for (name, is) in all {
                let now = if there(name) { Is::There } else { Is::Gone };
                assert!(
                    *is == Is::Either || *is == now,
                    "{name} is {now:?}, not {is:?}"
                );
                *is = now;
            }
        };
        settle(&mut self.networks, &|name| found.contains(name));
        settle(&mut self.places, &|name| !on[name].is_null());
        let pid = shown["State"]["Pid"].to_string();
        let own = addresses(
            Path::new("/proc")
                .join(&pid)
                .join("ns/net")
                .to_str()
                .unwrap(),
        );
        let mut told = BTreeSet::new();
        for (name, place) in on.as_object().unwrap() {
            let address = place["IPAddress"].as_str().unwrap();
            assert!(!address.is_empty(), "{name}: {place}");
            told.insert(address.to_owned());
        }
        assert_eq!(own, told, "{}", self.container);
    }
}

/// Those of IPv4 in a network namespace, but the loopback's.
fn addresses(namespace: &str) -> BTreeSet<String> {
    let line = format!("nsenter --net={namespace} ip -4 -o addr show scope global");
    let shown = sh(&line);
    let address = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[3].split('/').next().unwrap().to_owned()
    };
    shown.lines().map(address).collect()
}

/// The bridges of the daemon's networks, and the ports on them, are those that it shows.
fn check_machine(daemon: &Daemon) -> BTreeSet<String> {
    let (_, listed) = daemon.api("GET", "/v1.51/networks", None);
    let mut names = BTreeSet::new();
    let mut bridges = BTreeMap::from([(daemon.bridge(), CLIENTS)]);
    for network in listed.as_array().unwrap() {
        let (name, id) = (&network["Name"], network["Id"].as_str().unwrap());
        let name = name.as_str().unwrap();
        if matches!(name, "bridge" | "host" | "none") {
            continue;
        }
        names.insert(name.to_owned());
        let (_, shown) = daemon.api("GET", &format!("/v1.51/networks/{id}"), None);
        let members = shown["Containers"]
            .as_object()
            .map_or(0, serde_json::Map::len);
        bridges.insert(format!("br-{}", &id[..12]), members);
    }
    let table = sh(&format!("nft -j list set ip {} bridges", daemon.instance()));
    let table: Value = serde_json::from_str(&table).unwrap();
    let elements = table["nftables"][1]["set"]["elem"].as_array().unwrap();
    let in_table: BTreeSet<&str> = elements.iter().map(|it| it.as_str().unwrap()).collect();
    let wanted: BTreeSet<&str> = bridges.keys().map(String::as_str).collect();
    assert_eq!(in_table, wanted);
    for (bridge, members) in &bridges {
        until("the bridge has the ports of its members", || {
            let ports = sh(&format!("ip -o link show master {bridge} | wc -l"));
            (ports.trim() == members.to_string()).then_some(())
        });
    }
    names
}

#[test]
fn networks_are_whole_or_not_there_however_the_daemon_is_killed() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = number("BERTH_KILL_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    let rounds = number("BERTH_NETWORK_KILL_ROUNDS").unwrap_or(ROUNDS);
    println!("network_kills: seed {seed}, {rounds} rounds");
    // Pools of its own: others make networks at the same time.
    let pool = ["--default-address-pool", "base=10.218.0.0/16,size=24"];
    let mut daemon = Daemon::start(program(), &pool);
    daemon.load("busybox");
    let mut random = Random::new(seed);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|number| Client::new(number, &daemon, seed + number as u64 + 1))
        .collect();
    for _ in 0..rounds {
        let (over, answers) = (AtomicBool::new(false), AtomicU64::new(0));
        let enough = random.below(ANSWERS);
        let moment = Duration::from_micros(random.below(20_000));
        std::thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| client.work(&over, &answers));
            }
            until("the clients are busy", || {
                (answers.load(Ordering::Relaxed) >= enough).then_some(())
            });
            // The moment is what the test varies.
            std::thread::sleep(moment);
            daemon.signal(Signal::KILL);
            over.store(true, Ordering::Release);
        });
        daemon.spawn();
        let found = check_machine(&daemon);
        for client in &mut clients {
            client.verify(&found);
        }
    }
    for client in &clients {
        daemon.docker(&["rm", "-f", &client.container]).ok();
    }
    daemon.docker(&["network", "prune", "-f"]).ok();
    assert_eq!(check_left(&daemon), "");
}

/// The networks of users' own.
fn check_left(daemon: &Daemon) -> String {
    let listed = daemon.docker(&["network", "ls", "-q", "-f", "type=custom"]);
    listed.ok().to_owned()
}
