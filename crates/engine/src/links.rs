//! Links between containers on the default bridge (`--link`), where there are no names: the linked
//! container's address in `hosts`, kept up to date, and variables that tell its ports (moby,
//! `daemon/{links,container_operations_unix}.go`, `daemon/links/links.go`).
//!
//! On networks of a user's own a link is one more name that the name server knows
//! ([`crate::names`]).

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_base::Id;
use berth_docker::port::{Port, Protocol};
use serde::{Deserialize, Serialize};

use crate::container::Handle;
use crate::error::{Error, Result};
use crate::etc;
use crate::network::is_own_mode;
use crate::record::{Record, View};
use crate::shared::Shared;
use crate::spec::container_of;

const DEFAULT_BRIDGE: &str = "bridge";
/// How long a start by the daemon waits for the linked containers to run; Docker's.
const CHILDREN_DEADLINE: Duration = Duration::from_secs(5);

/// One link of a container: to whom, and what it calls it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub child: Id,
    pub alias: String,
}

/// Who is linked to whom, the other way round than the records say it.
#[derive(Debug, Default)]
pub struct Links {
    parents: Mutex<HashMap<Id, BTreeSet<Id>>>,
    /// Held while a linked container's address is looked up and written to its parent's `hosts`.
    hosts: Mutex<()>,
}

impl Links {
    /// The container is there from now on.
    pub fn add(&self, record: &Record) {
        let mut parents = lock(&self.parents);
        for link in &record.links {
            let of_child = parents.entry(link.child.clone()).or_default();
            of_child.insert(record.id.clone());
        }
    }

    /// The container is gone, or has no links any more.
    pub fn remove(&self, record: &Record) {
        let mut parents = lock(&self.parents);
        for link in &record.links {
            if let Some(of_child) = parents.get_mut(&link.child) {
                of_child.remove(&record.id);
                if of_child.is_empty() {
                    parents.remove(&link.child);
                }
            }
        }
    }

    pub fn has_parents(&self, child: &Id) -> bool {
        lock(&self.parents).contains_key(child)
    }

    fn parents_of(&self, child: &Id) -> Vec<Id> {
        let parents = lock(&self.parents);
        parents.get(child).into_iter().flatten().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The links that a container is created with.
pub fn requested(shared: &Shared, record: &Record) -> Result<Vec<Link>> {
    let mut links: Vec<Link> = Vec::new();
    if is_own_mode(&record.host.network_mode) {
        return Ok(links);
    }
    for text in record.host.links.iter().flatten() {
        let (name, alias) = parse(text).map_err(Error::internal)?;
        let child = linked(shared, name)?;
        // As Docker, which goes on without the second of two with the same name.
        if links.iter().all(|link| link.alias != alias) {
            links.push(Link {
                child: child.id.clone(),
                alias: alias.to_owned(),
            });
        }
    }
    Ok(links)
}

/// The container that owns the network of the one that is named.
fn linked(shared: &Shared, name: &str) -> Result<Arc<Handle>> {
    let find = |name: &str| {
        let missing =
            |error| Error::invalid(format!("could not get container for {name}: {error}"));
        shared.table.find(name).map_err(missing)
    };
    let mut child = find(name)?;
    loop {
        let view = child.view();
        let mode = view.record.host.network_mode.as_str();
        match container_of(mode) {
            Some(other) => child = find(other)?,
            None if mode == "host" => {
                return Err(Error::invalid(
                    "conflicting options: host type networking can't be used with links. This \
                     would result in undefined behavior",
                ));
            }
            None => return Ok(child),
        }
    }
}

/// `name:alias`, `name`, or as `inspect` shows it: `/name:/parent/alias`.
fn parse(text: &str) -> std::result::Result<(&str, &str), String> {
    match text.split_once(':') {
        _ if text.is_empty() => Err("empty string specified for links".to_owned()),
        None => Ok((text, text)),
        Some((_, alias)) if alias.contains(':') => Err(format!("bad format for links: {text}")),
        Some((name, alias)) => Ok(match name.strip_prefix('/') {
            Some(name) => (name, alias.rsplit('/').next().unwrap_or(alias)),
            None => (name, alias),
        }),
    }
}

/// As `inspect` shows them: `/child:/parent/alias`.
pub fn shown(shared: &Shared, record: &Record) -> Option<Vec<String>> {
    let children = children(shared, record);
    let show = |(link, child): &(&Link, Arc<View>)| {
        format!("/{}:{}", child.record.name, full_name(record, link))
    };
    (!children.is_empty()).then(|| children.iter().map(show).collect())
}

/// What a linked container is called by those that are linked to it: `/parent/alias`.
pub fn names(shared: &Shared, record: &Record) -> Vec<String> {
    let parents = shared.links.parents_of(&record.id);
    let views = parents
        .iter()
        .filter_map(|id| Some(shared.table.find(id.as_str()).ok()?.view()));
    let of_parent = |view: Arc<View>| {
        let own = view
            .record
            .links
            .iter()
            .filter(|link| link.child == record.id);
        own.map(|link| full_name(&view.record, link))
            .collect::<Vec<_>>()
    };
    views.flat_map(of_parent).collect()
}

/// The container that has this link, `parent/alias`, and the link.
pub fn find(shared: &Shared, name: &str) -> Option<(Arc<Handle>, Link)> {
    let (parent, alias) = name.trim_start_matches('/').split_once('/')?;
    let parent = shared.table.find(parent).ok()?;
    let view = parent.view();
    let link = view.record.links.iter().find(|link| link.alias == alias)?;
    Some((parent, link.clone()))
}

fn full_name(parent: &Record, link: &Link) -> String {
    format!("/{}/{}", parent.name, link.alias)
}

/// Those of the linked containers that are there.
fn children<'a>(shared: &Shared, record: &'a Record) -> Vec<(&'a Link, Arc<View>)> {
    let view = |link: &'a Link| {
        let child = shared.table.find(link.child.as_str()).ok()?;
        Some((link, child.view()))
    };
    record.links.iter().filter_map(view).collect()
}

/// Waits for the linked containers, for a while: they are started by the daemon as well.
pub async fn await_children(shared: &Shared, record: &Record) {
    let all = async {
        for link in &record.links {
            if let Ok(child) = shared.table.find(link.child.as_str()) {
                child.until(|view| view.state.phase.pid().is_some()).await;
            }
        }
    };
    if tokio::time::timeout(CHILDREN_DEADLINE, all).await.is_err() {
        tracing::warn!(container = %record.id, "its linked containers do not run yet");
    }
}

/// The variables of all links, for each command that is run in the container.
pub fn environment(shared: &Shared, record: &Record) -> Result<Vec<String>> {
    let mut all = Vec::new();
    if !record.endpoints.contains_key(DEFAULT_BRIDGE) {
        return Ok(all);
    }
    for (link, child) in children(shared, record) {
        let name = full_name(record, link);
        if child.state.phase.pid().is_none() {
            return Err(Error::internal(format!(
                "Cannot link to a non running container: /{} AS {name}",
                child.record.name
            )));
        }
        let Some(address) = address(&child) else {
            return Err(Error::internal(format!(
                "Cannot link to /{}, as it does not belong to the default network",
                child.record.name
            )));
        };
        let config = &child.record.config;
        let ports = config
            .exposed_ports
            .keys()
            .filter_map(|text| text.parse().ok());
        let env = config.env.as_deref().unwrap_or_default();
        all.extend(variables(address, &name, env, ports.collect()));
    }
    Ok(all)
}

fn address(child: &View) -> Option<IpAddr> {
    let connected = child.state.endpoints.get(DEFAULT_BRIDGE)?;
    connected.endpoint.ipv4.map(IpAddr::V4)
}

/// `name` is the link's in full.
fn variables(address: IpAddr, name: &str, env: &[String], mut ports: Vec<Port>) -> Vec<String> {
    let alias = name.rsplit('/').next().unwrap_or(name);
    let alias = alias.to_uppercase().replace('-', "_");
    ports.sort_by_key(|port| {
        (
            port.protocol != Protocol::Tcp,
            port.protocol.to_string(),
            port.number,
        )
    });
    let mut all = Vec::new();
    let url = |port: &Port| format!("{}://{address}:{}", port.protocol, port.number);
    let prefix = |port: &Port| {
        let protocol = port.protocol.to_string().to_uppercase();
        format!("{alias}_PORT_{}_{protocol}", port.number)
    };
    all.extend(
        ports
            .first()
            .map(|port| format!("{alias}_PORT={}", url(port))),
    );
    let mut begin = 0;
    for (at, port) in ports.iter().enumerate() {
        let own = prefix(port);
        all.push(format!("{own}={}", url(port)));
        all.push(format!("{own}_ADDR={address}"));
        all.push(format!("{own}_PORT={}", port.number));
        all.push(format!("{own}_PROTO={}", port.protocol));
        let goes_on = ports.get(at + 1).is_some_and(|next| {
            next.protocol == port.protocol && next.number == port.number.saturating_add(1)
        });
        if goes_on {
            continue;
        }
        let first = &ports[begin];
        if begin < at {
            let own = prefix(first);
            all.push(format!("{own}_START={}", url(first)));
            all.push(format!("{own}_PORT_START={}", first.number));
            all.push(format!("{own}_END={}", url(port)));
            all.push(format!("{own}_PORT_END={}", port.number));
        }
        begin = at + 1;
    }
    all.push(format!("{alias}_NAME={name}"));
    let of_child = env.iter().filter_map(|entry| entry.split_once('='));
    let told = of_child.filter(|(key, _)| !matches!(*key, "HOME" | "PATH"));
    all.extend(told.map(|(key, value)| format!("{alias}_ENV_{key}={value}")));
    all
}

/// Does something with the lines of `hosts` that the links of a container are. They are true until
/// it returns.
pub fn with_hosts<T>(
    shared: &Shared,
    record: &Record,
    work: impl FnOnce(&[(IpAddr, Vec<String>)]) -> T,
) -> T {
    if record.links.is_empty() || !record.endpoints.contains_key(DEFAULT_BRIDGE) {
        return work(&[]);
    }
    let _held = lock(&shared.links.hosts);
    let line = |(link, child): (&Link, Arc<View>)| {
        let (name, hostname) = (&child.record.name, &child.record.config.hostname);
        let mut names = vec![link.alias.clone(), hostname.clone()];
        names.extend((link.alias != *name).then(|| name.clone()));
        Some((address(&child)?, names))
    };
    let lines: Vec<_> = children(shared, record)
        .into_iter()
        .filter_map(line)
        .collect();
    work(&lines)
}

/// The container runs: those that are linked to it and run find it at its address. Blocks.
pub fn follow(shared: &Shared, child: &Id) {
    let parents = shared.links.parents_of(child);
    let _held = lock(&shared.links.hosts);
    let address = shared
        .table
        .find(child.as_str())
        .ok()
        .and_then(|it| address(&it.view()));
    let Some(address) = address else { return };
    for parent in parents {
        let Ok(parent) = shared.table.find(parent.as_str()) else {
            continue;
        };
        let record = parent.view().record.clone();
        for link in record.links.iter().filter(|link| link.child == *child) {
            if let Err(error) = etc::change_in_hosts(shared, &record, &link.alias, address) {
                tracing::warn!(container = %record.id, %error, "follow a linked container");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_as_docker_reads_them() {
        assert_eq!(parse("db"), Ok(("db", "db")));
        assert_eq!(parse("db:mysql"), Ok(("db", "mysql")));
        assert_eq!(parse("/db:/web/mysql"), Ok(("db", "mysql")));
        assert_eq!(
            parse("a:b:c"),
            Err("bad format for links: a:b:c".to_owned())
        );
        assert_eq!(
            parse(""),
            Err("empty string specified for links".to_owned())
        );
    }

    #[test]
    fn variables_tell_ports_ranges_and_the_childs_own() {
        let ports = ["53/udp", "6380/tcp", "6379/tcp", "6381/tcp", "80/tcp"];
        let ports = ports.map(|text| text.parse().unwrap()).into();
        let env = ["PASSWORD=x=y", "PATH=/bin", "HOME=/", "EMPTY"].map(str::to_owned);
        let all = variables([172, 17, 0, 2].into(), "/web/my-db", &env, ports);
        let expect = "\
            MY_DB_PORT=tcp://172.17.0.2:80
            MY_DB_PORT_80_TCP=tcp://172.17.0.2:80
            MY_DB_PORT_80_TCP_ADDR=172.17.0.2
            MY_DB_PORT_80_TCP_PORT=80
            MY_DB_PORT_80_TCP_PROTO=tcp
            MY_DB_PORT_6379_TCP=tcp://172.17.0.2:6379
            MY_DB_PORT_6379_TCP_ADDR=172.17.0.2
            MY_DB_PORT_6379_TCP_PORT=6379
            MY_DB_PORT_6379_TCP_PROTO=tcp
            MY_DB_PORT_6380_TCP=tcp://172.17.0.2:6380
            MY_DB_PORT_6380_TCP_ADDR=172.17.0.2
            MY_DB_PORT_6380_TCP_PORT=6380
            MY_DB_PORT_6380_TCP_PROTO=tcp
            MY_DB_PORT_6381_TCP=tcp://172.17.0.2:6381
            MY_DB_PORT_6381_TCP_ADDR=172.17.0.2
            MY_DB_PORT_6381_TCP_PORT=6381
            MY_DB_PORT_6381_TCP_PROTO=tcp
            MY_DB_PORT_6379_TCP_START=tcp://172.17.0.2:6379
            MY_DB_PORT_6379_TCP_PORT_START=6379
            MY_DB_PORT_6379_TCP_END=tcp://172.17.0.2:6381
            MY_DB_PORT_6379_TCP_PORT_END=6381
            MY_DB_PORT_53_UDP=udp://172.17.0.2:53
            MY_DB_PORT_53_UDP_ADDR=172.17.0.2
            MY_DB_PORT_53_UDP_PORT=53
            MY_DB_PORT_53_UDP_PROTO=udp
            MY_DB_NAME=/web/my-db
            MY_DB_ENV_PASSWORD=x=y";
        let expect: Vec<&str> = expect.lines().map(str::trim).collect();
        assert_eq!(all, expect);
    }
}
