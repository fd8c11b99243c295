//! What an instance may have on the machine when nobody asks anything of it: what its containers
//! need, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_testkit::{Daemon, http, run};

use super::victim::named;

/// The interfaces of ended containers go within two seconds; the machine may be slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// The containers as the daemon lists them.
struct Listed {
    all: BTreeSet<String>,
    running: BTreeSet<String>,
    on_bridge: usize,
    ports: usize,
}

/// Waits until the machine holds exactly what the containers need.
///
/// # Panics
/// When something orphaned stays, or something needed is missing.
pub fn check(daemon: &Daemon) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let wrong = differences(daemon);
        if wrong.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{wrong:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn listed(daemon: &Daemon) -> Listed {
    let path = "/containers/json?all=1";
    let answer = http::request(&daemon.socket(), "GET", path, None).unwrap();
    let mut listed = Listed {
        all: BTreeSet::new(),
        running: BTreeSet::new(),
        on_bridge: 0,
        ports: 0,
    };
    for container in answer.json().as_array().unwrap() {
        let id = container["Id"].as_str().unwrap().to_owned();
        if container["State"] == "running" {
            listed.running.insert(id.clone());
            let is_on_bridge = container["HostConfig"]["NetworkMode"] == "bridge";
            listed.on_bridge += usize::from(is_on_bridge);
            let published = container["Ports"].as_array().unwrap();
            listed.ports += published
                .iter()
                .filter(|port| port["PublicPort"].is_u64())
                .count();
        }
        listed.all.insert(id);
    }
    listed
}

fn differences(daemon: &Daemon) -> Vec<String> {
    let listed = listed(daemon);
    let (instance, bridge) = (daemon.instance(), daemon.bridge());
    let mut wrong = Vec::new();
    let mut same = |what: &str, found: &BTreeSet<String>, expect: &BTreeSet<String>| {
        for more in found.difference(expect) {
            wrong.push(format!("{what}: {more} is left"));
        }
        for missing in expect.difference(found) {
            wrong.push(format!("{what}: {missing} is missing"));
        }
    };
    let data = &daemon.data;
    same("directory", &names(&data.join("containers")), &listed.all);
    same("snapshot", &names(&data.join("snapshots")), &listed.all);
    same("cgroup", &cgroups(&instance), &listed.running);
    let runtime = names(&daemon.root.join("exec/containers"));
    for id in runtime.difference(&listed.all) {
        wrong.push(format!("runtime directory: {id} is left"));
    }
    let trash = names(&data.join("trash"));
    let ingest = names(&data.join("ingest"));
    for name in trash.iter().chain(&ingest) {
        wrong.push(format!("file on its way: {name}"));
    }
    let mut count = |what: &str, found: usize, expect: usize| {
        if found != expect {
            wrong.push(format!("{what}: {found}, not {expect}"));
        }
    };
    count(
        "keepers",
        named(&instance, "berth-keeper").len(),
        listed.running.len(),
    );
    // One that was killed is replaced when the next start needs it.
    let launchers = named(&instance, "berth-launcher").len();
    count("launchers", launchers.max(1), 1);
    let relays = named(&instance, "berth-service");
    count("relays", relays.len(), 1);
    count("interfaces", links(&bridge), listed.on_bridge);
    count("elements of nftables", elements(&instance), listed.ports);
    count("ports bound", bound(&relays), listed.ports);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = daemon.root.to_string_lossy().into_owned() + "/";
    wrong.extend(
        mounts
            .lines()
            .filter(|line| line.contains(&ours))
            .map(|line| format!("mount: {line}")),
    );
    wrong
}

/// The names in a directory; none if it does not exist.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The containers that have a cgroup in any hierarchy.
fn cgroups(instance: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let roots = hierarchies
        .map(|entry| entry.path())
        .chain(["/sys/fs/cgroup".into()]);
    for root in roots {
        found.extend(
            names(&root.join(instance))
                .into_iter()
                .filter(|name| name.len() == 64),
        );
    }
    found
}

fn tool(program: &str, words: &[&str]) -> String {
    run(std::process::Command::new(program).args(words), b"").stdout
}

/// The interfaces on a bridge.
fn links(bridge: &str) -> usize {
    tool("ip", &["-o", "link", "show", "master", bridge])
        .lines()
        .count()
}

/// The published ports in the instance's table.
fn elements(instance: &str) -> usize {
    let text = tool("nft", &["-j", "list", "table", "ip", instance]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let objects = json["nftables"].as_array().into_iter().flatten();
    objects
        .filter_map(|object| object["map"]["elem"].as_array())
        .map(Vec::len)
        .sum()
}

/// The TCP ports that the relays listen on.
fn bound(relays: &[i32]) -> usize {
    let text = tool("ss", &["-Hltnp"]);
    let marks: Vec<String> = relays.iter().map(|pid| format!("pid={pid},")).collect();
    text.lines()
        .filter(|line| marks.iter().any(|mark| line.contains(mark)))
        .count()
}
