//! Which ports of containers are really reachable, from where, and who holds them.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_docker::reach::ReachablePort;
use berth_net::sockets::{self, Bound};
use berth_net::{Holder, Net, Reach, Reachable, Transit, WantedPort};
use berth_runtime::cgroup::Cgroup;

use crate::error::{Context, Result};
use crate::network;
use crate::record::{Phase, Record, View};
use crate::shared::Shared;

/// The sockets of the network namespace that the daemon is in.
const OWN_SOCKETS: &str = "/proc/thread-self/net";

/// Ports that are published, those of containers on the host's network, and those that a container
/// which does not run would not get. In the order of the ports. Blocks.
pub fn ports(shared: &Shared) -> Result<Vec<ReachablePort>> {
    let Some(net) = &shared.net else {
        return Ok(Vec::new());
    };
    let views: HashMap<String, Arc<View>> = shared
        .table
        .all()
        .iter()
        .map(|handle| (handle.id.to_string(), handle.view()))
        .collect();
    let mut found = published(net, &views)?;
    found.extend(of_the_host(shared, net, &views)?);
    found.extend(wanted(net, &views));
    found.sort_by(|a, b| {
        let key = |it: &ReachablePort| {
            let ip = it.host_ip.parse::<IpAddr>().ok();
            (it.host_port, it.protocol.clone(), ip, it.container.clone())
        };
        key(a).cmp(&key(b))
    });
    Ok(found)
}

fn published(net: &Net, views: &HashMap<String, Arc<View>>) -> Result<Vec<ReachablePort>> {
    let mut receivers: HashMap<String, Vec<Bound>> = HashMap::new();
    let reachable = net
        .reachable()
        .context("look at the host's addresses and firewalls")?;
    let mut found = Vec::new();
    for one in reachable {
        // One that was removed just now.
        let Some(view) = views.get(&one.container_id) else {
            continue;
        };
        let sockets = receivers
            .entry(one.container_id.clone())
            .or_insert_with(|| match view.state.phase {
                Phase::Running { pid, .. } => sockets::bound(&sockets_of(pid)),
                _ => Vec::new(),
            });
        found.push(describe(&one, view, sockets));
    }
    Ok(found)
}

fn describe(one: &Reachable, view: &View, sockets: &[Bound]) -> ReachablePort {
    let lost = one.lost_to.as_ref().map(Holder::to_string);
    let mut networks = view.state.endpoints.iter();
    let network = networks.find(|(_, it)| it.endpoint.network == one.network);
    ReachablePort {
        host_ip: one.binding.host_ip.to_string(),
        host_port: one.binding.host_port,
        protocol: one.binding.protocol.to_string(),
        from: word(one.reach).to_owned(),
        way: match one.way {
            Transit::Nat => "nat",
            Transit::Relay => "relay",
            Transit::Routed => "routed",
        }
        .to_owned(),
        container_id: one.container_id.clone(),
        container: view.record.name.clone(),
        network: network.map(|(name, _)| name.clone()).unwrap_or_default(),
        target: one.target.to_string(),
        listening: match view.state.phase {
            Phase::Running { .. } => listening(one, sockets).to_owned(),
            _ => String::new(),
        },
        behind: one.behind.clone(),
        closed_by: one.closed_by.clone().unwrap_or_default(),
        held_by: lost.unwrap_or_default(),
    }
}

/// Where in the container the target's port is listened at.
fn listening(one: &Reachable, sockets: &[Bound]) -> &'static str {
    let (address, port) = (one.target.ip(), one.target.port());
    let mut of_port = sockets
        .iter()
        .filter(|it| it.protocol == one.binding.protocol && it.port == port && !it.connected)
        .peekable();
    if of_port.peek().is_none() {
        return "nowhere";
    }
    // A socket of IPv6 at all addresses may serve IPv4 as well.
    let serves = |it: &Bound| {
        it.address == address
            || it.address.is_unspecified() && (it.address.is_ipv6() || address.is_ipv4())
    };
    if of_port.any(serves) {
        "everywhere"
    } else {
        "loopback"
    }
}

/// What processes of containers on the host's network have bound.
fn of_the_host(
    shared: &Shared,
    net: &Net,
    views: &HashMap<String, Arc<View>>,
) -> Result<Vec<ReachablePort>> {
    let is_on_host = |view: &&Arc<View>| {
        view.record.host.network_mode == "host" && matches!(view.state.phase, Phase::Running { .. })
    };
    let mut on_host = views.values().filter(is_on_host).peekable();
    if on_host.peek().is_none() {
        return Ok(Vec::new());
    }
    let mut bound = sockets::bound(Path::new(OWN_SOCKETS));
    bound.retain(|it| !it.connected);
    let reach = net
        .reach_of(&bound)
        .context("look at the host's addresses and firewalls")?;
    let mut found = Vec::new();
    for view in on_host {
        let own = inodes(shared, &view.record);
        for (bound, (reach, behind)) in bound.iter().zip(&reach) {
            if own.contains(&bound.inode) {
                found.push(ReachablePort {
                    host_ip: bound.address.to_string(),
                    host_port: bound.port,
                    protocol: bound.protocol.to_string(),
                    from: word(*reach).to_owned(),
                    way: "host".to_owned(),
                    container_id: view.record.id.to_string(),
                    container: view.record.name.clone(),
                    network: "host".to_owned(),
                    listening: "everywhere".to_owned(),
                    behind: behind.clone(),
                    ..ReachablePort::default()
                });
            }
        }
    }
    Ok(found)
}

/// The sockets of all processes of a container. One that ends meanwhile has none.
fn inodes(shared: &Shared, record: &Record) -> HashSet<u64> {
    let cgroup = Cgroup::new(&shared.cgroup(record)).ok();
    let pids = cgroup
        .and_then(|cgroup| cgroup.pids().ok())
        .unwrap_or_default();
    let descriptors = |pid: i32| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd"));
        entries.into_iter().flatten().flatten()
    };
    let inode = |link: PathBuf| {
        let text = link.to_str()?.strip_prefix("socket:[")?;
        text.strip_suffix(']')?.parse().ok()
    };
    let links = pids.into_iter().flat_map(descriptors);
    let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter_map(inode).collect()
}

/// Ports that a container which does not run asks for, and somebody has.
fn wanted(net: &Net, views: &HashMap<String, Arc<View>>) -> Vec<ReachablePort> {
    let (mut askers, mut asked) = (Vec::new(), Vec::new());
    for view in views.values().filter(|view| !view.state.phase.is_active()) {
        for request in network::ports(&view.record).unwrap_or_default() {
            // One of a range may be had.
            if let Some(range) = request.host_ports.filter(|it| it.start() == it.end()) {
                askers.push(view);
                asked.push(WantedPort {
                    protocol: request.protocol,
                    host_ip: request.host_ip,
                    port: *range.start(),
                });
            }
        }
    }
    let name = |holder: Holder| match &holder {
        Holder::Container { id } => match views.get(id) {
            Some(view) => format!("container {}", view.record.name),
            None => holder.to_string(),
        },
        Holder::Process { .. } | Holder::Unknown => holder.to_string(),
    };
    let mut found = Vec::new();
    for ((view, wanted), holder) in askers.into_iter().zip(&asked).zip(net.holders(&asked)) {
        let Some(holder) = holder else { continue };
        found.push(ReachablePort {
            host_ip: wanted.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            host_port: wanted.port,
            protocol: wanted.protocol.to_string(),
            from: word(Reach::Nobody).to_owned(),
            container_id: view.record.id.to_string(),
            container: view.record.name.clone(),
            held_by: name(holder),
            ..ReachablePort::default()
        });
    }
    found
}

fn sockets_of(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/net"))
}

fn word(reach: Reach) -> &'static str {
    match reach {
        Reach::Nobody => "nobody",
        Reach::Machine => "machine",
        Reach::Network => "network",
        Reach::Everybody => "everybody",
    }
}
