//! The container's own `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf`: written at each
//! start, since the address is known only then, and bound into the container.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use berth_net::RESOLVER;
use berth_net::files::{self, Internal, ResolvConf};

use crate::error::{Context, Error, Result};
use crate::links;
use crate::network::Join;
use crate::record::{Connected, Record};
use crate::shared::Shared;
use crate::spec::EtcFiles;

const HOSTS_RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved tells the servers that it asks itself.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Where they lie. A container that shares another's network shares its files.
pub fn paths(shared: &Shared, record: &Record) -> EtcFiles {
    let owner = crate::spec::container_of(&record.host.network_mode)
        .and_then(|reference| shared.table.find(reference).ok())
        .map_or_else(|| record.id.clone(), |handle| handle.id.clone());
    in_directory(&shared.config.container_dir(owner.as_str()))
}

fn in_directory(directory: &Path) -> EtcFiles {
    EtcFiles {
        hostname: Some(directory.join("hostname")),
        hosts: Some(directory.join("hosts")),
        resolv_conf: Some(directory.join("resolv.conf")),
    }
}

/// Writes the files for a start, but for the text of `hosts` ([`write_hosts`]). Blocks.
pub fn write(shared: &Shared, record: &Record, join: &Join) -> Result<EtcFiles> {
    if let Join::Container { id, .. } = join {
        return Ok(in_directory(&shared.config.container_dir(id.as_str())));
    }
    let files = in_directory(&shared.config.container_dir(record.id.as_str()));
    let texts = [
        (&files.hostname, hostname(record)),
        (&files.hosts, String::new()),
        (&files.resolv_conf, resolv_conf(shared, record, join)),
    ];
    for (path, text) in texts {
        let Some(path) = path else { continue };
        write_file(path, &text)?;
    }
    Ok(files)
}

/// Writes `hosts`, once the container's address is known. Blocks.
pub fn write_hosts(
    shared: &Shared,
    record: &Record,
    join: &Join,
    endpoints: &BTreeMap<String, Connected>,
) -> Result<()> {
    if matches!(join, Join::Container { .. }) {
        return Ok(());
    }
    let text = hosts(shared, record, join, endpoints)?;
    links::with_hosts(shared, record, |links| {
        let text = text + &files::host_lines(links);
        write_file(&hosts_path(shared, record), &text)
    })
}

fn hosts_path(shared: &Shared, record: &Record) -> PathBuf {
    let directory = shared.config.container_dir(record.id.as_str());
    directory.join("hosts")
}

/// Adds a running container's addresses on one more network; its own changes stay. Blocks.
pub fn add_to_hosts(shared: &Shared, record: &Record, connected: &Connected) -> Result<()> {
    let path = hosts_path(shared, record);
    let mut text = read(&path)?;
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text += &files::host_lines(&own_hosts(record, [connected]));
    write_file(&path, &text)
}

/// Takes away a running container's addresses on a network that it leaves. Blocks.
pub fn take_from_hosts(shared: &Shared, record: &Record, connected: &Connected) -> Result<()> {
    let path = hosts_path(shared, record);
    let gone = files::host_lines(&own_hosts(record, [connected]));
    let text = read(&path)?;
    let kept = text
        .split_inclusive('\n')
        .filter(|line| !gone.lines().any(|it| it == line.trim_end()));
    write_file(&path, &kept.collect::<String>())
}

/// The name that a link has given has another address. Blocks.
pub fn change_in_hosts(
    shared: &Shared,
    record: &Record,
    alias: &str,
    address: IpAddr,
) -> Result<()> {
    let path = hosts_path(shared, record);
    let text = read(&path)?;
    let changed = files::with_address(&text, alias, address);
    if changed == text {
        return Ok(());
    }
    write_file(&path, &changed)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(format!("read {}", path.display()))
}

/// The container's addresses on these networks, each with the names that are its own.
fn own_hosts<'a>(
    record: &Record,
    connected: impl IntoIterator<Item = &'a Connected>,
) -> Vec<(IpAddr, Vec<String>)> {
    let config = &record.config;
    if config.hostname.is_empty() {
        return Vec::new();
    }
    let full = (!config.domainname.is_empty())
        .then(|| format!("{}.{}", config.hostname, config.domainname));
    let names: Vec<String> = full.into_iter().chain([config.hostname.clone()]).collect();
    let addresses = |it: &Connected| {
        let (v4, v6) = (it.endpoint.ipv4, it.endpoint.ipv6);
        [v4.map(IpAddr::V4), v6.map(IpAddr::V6)]
    };
    let all = connected.into_iter().flat_map(addresses).flatten();
    all.map(|address| (address, names.clone())).collect()
}

/// In place: a container that shares the file sees the new text. Without truncating it first,
/// after which ext4 would start to write the disk when the file is closed.
fn write_file(path: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        let length = text.len() as u64;
        if file.metadata()?.len() > length {
            file.set_len(length)?;
        }
        Ok(())
    };
    write().context(format!("write {}", path.display()))
}

fn hostname(record: &Record) -> String {
    let own = &record.config.hostname;
    let name = if own.is_empty() {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    } else {
        own.clone()
    };
    format!("{name}\n")
}

fn hosts(
    shared: &Shared,
    record: &Record,
    join: &Join,
    endpoints: &BTreeMap<String, Connected>,
) -> Result<String> {
    let extra = extra_hosts(shared, record)?;
    if *join == Join::Host {
        let mut text = fs::read_to_string("/etc/hosts").unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for (name, address) in extra {
            text += &format!("{address}\t{name}\n");
        }
        return Ok(text);
    }
    let mut connected: Vec<&Connected> = endpoints.values().collect();
    connected.sort_by(|a, b| a.endpoint.interface.cmp(&b.endpoint.interface));
    Ok(files::hosts(&own_hosts(record, connected), &extra, true))
}

/// `--add-host name:address`; `host-gateway` is the host as the container reaches it.
fn extra_hosts(shared: &Shared, record: &Record) -> Result<Vec<(String, IpAddr)>> {
    let mut hosts = Vec::new();
    for text in record.host.extra_hosts.iter().flatten() {
        let bad = || Error::invalid(format!("invalid IP address in add-host: {text:?}"));
        let (name, address) = text.split_once(['=', ':']).ok_or_else(bad)?;
        if address != "host-gateway" {
            let address = address
                .trim_matches(['[', ']'])
                .parse()
                .map_err(|_| bad())?;
            hosts.push((name.to_owned(), address));
            continue;
        }
        let gateways: Vec<IpAddr> = match shared.config.host_gateway_ips.as_slice() {
            [] => shared
                .net
                .iter()
                .map(|net| IpAddr::V4(net.bridge().gateway))
                .collect(),
            given => given.to_vec(),
        };
        if gateways.is_empty() {
            return Err(Error::invalid(
                "unable to derive the IP value for host-gateway: the bridge is disabled; \
                 give --host-gateway-ip to the daemon",
            ));
        }
        hosts.extend(
            gateways
                .into_iter()
                .map(|gateway| (name.to_owned(), gateway)),
        );
    }
    Ok(hosts)
}

fn resolv_conf(shared: &Shared, record: &Record, join: &Join) -> String {
    let has_names = match join {
        Join::Networks(places) => places.iter().any(|place| place.network.has_names()),
        Join::Host | Join::None | Join::Container { .. } => false,
    };
    if has_names {
        return internal_resolv_conf(shared, record).text;
    }
    let sources = Sources::read(shared, record);
    files::resolv_conf(ResolvConf {
        host_network: *join == Join::Host,
        ..sources.inputs()
    })
}

/// What a container with a name server of its own is told, and the name server.
pub fn internal_resolv_conf(shared: &Shared, record: &Record) -> Internal {
    let sources = Sources::read(shared, record);
    files::internal_resolv_conf(sources.inputs(), RESOLVER.into())
}

/// Tells what [`internal_resolv_conf`] would be now, if the host's files have changed since it was
/// asked last. It looks at them each time; that is a few microseconds.
pub fn host_changes(
    shared: &Shared,
    record: &Record,
) -> impl Fn() -> Option<Internal> + Send + Sync + 'static {
    let wishes = Wishes::of(shared, record);
    let seen = Mutex::new(stamps());
    move || {
        let now = stamps();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return None;
        }
        *seen = now;
        drop(seen);
        let sources = Sources::with(wishes.clone());
        Some(files::internal_resolv_conf(
            sources.inputs(),
            RESOLVER.into(),
        ))
    }
}

/// What tells one state of the host's files from another; nothing of one that is not there.
fn stamps() -> [Option<(u64, i64, i64, u64)>; 2] {
    [HOSTS_RESOLV_CONF, RESOLVED].map(|path| {
        let found = fs::metadata(path).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    })
}

/// Points a running container to the name server that it has got, unless somebody has changed
/// what it was told. Blocks.
pub fn point_to_resolver(shared: &Shared, record: &Record) -> Result<()> {
    let directory = shared.config.container_dir(record.id.as_str());
    let path = directory.join("resolv.conf");
    let sources = Sources::read(shared, record);
    if read(&path)? != files::resolv_conf(sources.inputs()) {
        return Ok(());
    }
    write_file(&path, &internal_resolv_conf(shared, record).text)
}

/// What a `resolv.conf` is made from: the host's files, and the wishes of user and daemon.
struct Sources {
    host: String,
    resolved: Option<String>,
    wishes: Wishes,
}

/// Of the user, or else of the daemon.
#[derive(Clone)]
struct Wishes {
    servers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl Wishes {
    fn of(shared: &Shared, record: &Record) -> Self {
        let config = &shared.config;
        let or = |own: &Option<Vec<String>>, default: &[String]| match own {
            Some(own) if !own.is_empty() => own.clone(),
            _ => default.to_vec(),
        };
        let servers: Vec<String> = config.dns.iter().map(IpAddr::to_string).collect();
        Self {
            servers: or(&record.host.dns, &servers),
            search: or(&record.host.dns_search, &config.dns_search),
            options: or(&record.host.dns_options, &config.dns_options),
        }
    }
}

impl Sources {
    fn read(shared: &Shared, record: &Record) -> Self {
        Self::with(Wishes::of(shared, record))
    }

    fn with(wishes: Wishes) -> Self {
        Self {
            host: fs::read_to_string(HOSTS_RESOLV_CONF).unwrap_or_default(),
            resolved: fs::read_to_string(RESOLVED).ok(),
            wishes,
        }
    }

    fn inputs(&self) -> ResolvConf<'_> {
        ResolvConf {
            host: &self.host,
            resolved: self.resolved.as_deref(),
            servers: &self.wishes.servers,
            search: &self.wishes.search,
            options: &self.wishes.options,
            host_network: false,
        }
    }
}
