//! Build, run, drain.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use berth_cli::flags::Parsed;
use berth_docker_api::Api;
use berth_engine::{Config, Engine, Live, Parts, Runtime};
use berth_http::serve::{Limits, serve};
use berth_http::tls::rustls::ServerConfig;
use berth_image::Images;
use berth_image::distribution::{self, Distribution, Registries};
use berth_keeper::launcher::{self, Launcher};
use berth_net::address::{Address, Cidr, Pool};
use berth_net::{BridgeConfig, Firewall, Net};
use berth_runtime::systemd::Place;
use berth_store::Store;
use berth_tasks::Scope;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::instance::Instance;
use super::listen;
use super::reload::{self, LevelHandle};
use super::rest;
use super::settings::Settings;
use crate::surroundings::Surroundings;

/// How long tasks are given to end after the last connection.
const DRAIN: Duration = Duration::from_secs(5);
/// Threads for system calls that block. Idle ones end after some seconds.
const BLOCKING_THREADS: usize = 64;
/// What is not touched costs nothing; an unoptimized build needs more than half of it for a pull.
const THREAD_STACK_BYTES: usize = 1 << 20;
/// What the launcher can start beside keepers.
const SERVICES: &[(&str, launcher::Service)] = &[("relay", relay)];

pub fn run(mut settings: Settings, flags: Parsed) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("the daemon needs root: start it with sudo");
    }
    let level = init_logging(&settings);
    // Before anything is made.
    let surroundings = Surroundings::of_process();
    let tls = listen::tls(&settings, &surroundings.certificates())?;
    let hosts = listen::parse(&settings.hosts, tls.is_some())?;
    surroundings.complete_proxies(&mut settings);
    let distribution = distribution_config(&settings)?;
    let instance = Instance::claim(&settings)?;
    // While this process has one thread and little memory: every keeper is a copy of it.
    let mut place = Place::obtain(&instance.name).context("find a place for containers")?;
    if let Some(warning) = &place.warning {
        tracing::warn!(cgroup = %place.cgroup, "systemd gives no scope: {warning}");
    }
    let launcher = launcher::fork(launcher::Config {
        cgroup: Some(&place.keepers()),
        is_scope: place.is_scope,
        births: Some(&instance.births()),
        services: SERVICES,
    })
    .context("start the launcher")?;
    if let Some(pid) = launcher.pid() {
        place.settle(pid).context("start the launcher")?;
    }
    let cgroup_parent = settings.cgroup_parent.clone();
    let cgroup_parent = cgroup_parent.unwrap_or_else(|| place.cgroup.clone());
    let births = instance.births().to_string_lossy().into_owned();
    let mut again = vec![births, place.keepers()];
    again.extend(place.is_scope.then(|| instance.name.clone()));
    let limit = raise_descriptor_limit();
    let launcher = launcher.revived_by(move |socket| another_launcher(socket, &again, limit));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(workers())
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(THREAD_STACK_BYTES)
        .thread_name("berth")
        .build()
        .context("start the runtime")?;
    let outcome = runtime.block_on(async {
        let daemon = Daemon {
            settings,
            distribution,
            flags,
            level,
            instance,
            cgroup_parent,
            surroundings,
            tls,
        };
        daemon.serve(hosts, Arc::new(launcher)).await
    });
    runtime.shutdown_timeout(DRAIN);
    outcome
}

fn workers() -> usize {
    std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 8)
}

fn init_logging(settings: &Settings) -> LevelHandle {
    let (filter, handle) = tracing_subscriber::reload::Layer::new(reload::filter(settings));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // A journal or a file shows colours as noise.
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    handle
}

/// With containers running, the network stays as it is for them; otherwise it goes.
fn leave_network(net: Arc<Net>, idle: bool) -> Result<()> {
    net.settle();
    match Arc::into_inner(net) {
        Some(net) if idle => Ok(net.close()?),
        // Kept, or still in use by a task that did not end in time.
        _ => Ok(()),
    }
}

/// What becomes of `berth daemon-launcher LOCK CGROUP [INSTANCE]`, with the daemon's socket as its
/// standard input. With the instance's name, its place is a scope, which may have ended meanwhile.
pub fn launcher(births: &str, cgroup: &str, instance: Option<&str>) -> i32 {
    let settle = |mut place: Place| place.settle(rustix::process::getpid());
    if let Some(Err(_)) = instance.map(|name| Place::obtain(name).and_then(settle)) {
        return 1;
    }
    // The launcher makes its standard input the null device.
    match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => launcher::run(
            UnixStream::from(socket),
            launcher::Config {
                cgroup: Some(cgroup),
                is_scope: instance.is_some(),
                births: Some(Path::new(births)),
                services: SERVICES,
            },
        ),
        Err(_) => 1,
    }
}

/// A thousand containers are some thousand descriptors: a keeper's socket and those of a name
/// server each. After the launcher was forked, since containers shall have the limit that the
/// daemon was started with, which is returned.
fn raise_descriptor_limit() -> Rlimit {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // What fails here is only a limit lower than it could be.
    let _ = setrlimit(Resource::Nofile, most);
    limit
}

/// In place of one that was killed. `limit` is that of descriptors.
fn another_launcher(socket: UnixStream, words: &[String], limit: Rlimit) -> std::io::Result<Pid> {
    tracing::warn!("the launcher had ended; a new one was started");
    let child = Command::new("/proc/self/exe")
        .arg0("berth")
        .arg(crate::LAUNCHER)
        .args(words)
        .stdin(OwnedFd::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = Pid::from_child(&child);
    // It makes nothing before it is asked to.
    prlimit(Some(pid), Resource::Nofile, limit)?;
    Ok(pid)
}

/// The relay's process: its one descriptor is its listening socket.
fn relay(service: launcher::ServiceArgs) -> i32 {
    match service.fds.into_iter().next() {
        Some(socket) => berth_net::relay::main(UnixListener::from(socket)),
        None => 1,
    }
}

struct Built {
    engine: Engine,
    distribution: Distribution,
    api: Api,
    net: Option<Arc<Net>>,
}

struct Daemon {
    settings: Settings,
    distribution: distribution::Config,
    flags: Parsed,
    level: LevelHandle,
    instance: Instance,
    cgroup_parent: String,
    surroundings: Surroundings,
    tls: Option<Arc<ServerConfig>>,
}

impl Daemon {
    async fn serve(mut self, hosts: Vec<listen::Host>, launcher: Arc<Launcher>) -> Result<()> {
        let mut signals = Signals::new()?;
        // Bound first: a client that comes while the rest is made waits in the backlog.
        let listeners = listen::open(
            &hosts,
            self.settings.group.as_deref(),
            self.tls.as_ref(),
            self.surroundings.listen_fds(),
        )
        .await?;
        let scope = Scope::new();
        let Built {
            engine,
            distribution,
            api,
            net,
        } = self.build(&scope, launcher.clone()).await?;
        let connections = Scope::new();
        let activity = Arc::new(Notify::new());
        let mut servers = Vec::new();
        for listener in listeners {
            let (api, activity) = (api.clone(), activity.clone());
            let answer = move |request| {
                let (api, activity) = (api.clone(), activity.clone());
                async move {
                    activity.notify_one();
                    let response = api.handle(request).await;
                    activity.notify_one();
                    response
                }
            };
            let service = serve(listener, connections.clone(), Limits::default(), answer);
            servers.push(scope.spawn("listener", service));
        }
        let shutdown = scope.shutdown();
        let rest = async move { rest::keep(&activity, shutdown).await };
        drop(scope.spawn("rest", rest));
        self.surroundings.notify("READY=1");
        tracing::info!(instance = %self.instance.name, hosts = ?hosts, "API listens");
        while signals.reload_rather_than_end().await {
            self.surroundings.notify("RELOADING=1");
            let running = reload::Running {
                surroundings: &self.surroundings,
                level: &self.level,
                engine: &engine,
                distribution: &distribution,
            };
            self.settings = reload::reload(self.settings, &self.flags, &running);
            self.surroundings.notify("READY=1");
        }
        tracing::info!("ending");
        self.surroundings.notify("STOPPING=1");
        connections.cancel();
        engine.shutdown().await;
        for server in servers {
            // A listener's task that panicked has been logged.
            let _ = server.await;
        }
        if !scope.drain(DRAIN).await {
            tracing::warn!(tasks = scope.len(), "some tasks did not end in time");
        }
        let idle = !engine.has_running();
        drop((engine, api, distribution));
        if let Err(error) = launcher.ensure() {
            tracing::warn!(error = %berth_base::Chain(&error), "the keepers' cgroup stays behind");
        }
        if let Some(net) = net {
            tokio::task::spawn_blocking(move || leave_network(net, idle)).await??;
        }
        Ok(())
    }

    async fn build(&self, scope: &Scope, launcher: Arc<Launcher>) -> Result<Built> {
        let root = &self.instance.data_root;
        let store = Store::open(&root.join("store"), berth_store::Options::default())?;
        let images = Images::open(root, store.clone())?;
        let net = self.open_net(Arc::clone(&launcher)).await?;
        let config = self.config()?;
        let parts = Parts {
            scope: scope.child(),
            store,
            images: images.clone(),
            net: net.clone(),
            launcher,
        };
        let engine = Engine::open(config, parts).await?;
        let distribution = Distribution::new(self.distribution.clone(), images.clone(), scope);
        let api = Api::new(berth_docker_api::Parts {
            engine: engine.clone(),
            images,
            distribution: distribution.clone(),
            scope: scope.child(),
            product: format!("Berth/{} (linux)", crate::build::VERSION),
        });
        Ok(Built {
            engine,
            distribution,
            api,
            net,
        })
    }

    async fn open_net(&self, launcher: Arc<Launcher>) -> Result<Option<Arc<Net>>> {
        if self.settings.bridge.as_deref() == Some("none") {
            return Ok(None);
        }
        let mut config = net_config(&self.settings, &self.instance)?;
        if let Some(path) = self.surroundings.system_bus() {
            config.system_bus = path.to_owned();
        }
        let start_relay = move |listener: UnixListener| {
            let args = serde_json::Value::Null;
            launcher
                .service("relay", args, &[listener.as_fd()])
                .map(drop)
                .map_err(std::io::Error::other)
        };
        let net = tokio::task::spawn_blocking(move || Net::open(config, start_relay)).await??;
        Ok(Some(Arc::new(net)))
    }

    fn config(&self) -> Result<Config> {
        let settings = &self.settings;
        let base = Config::new(
            &self.instance.name,
            &self.instance.data_root,
            &self.instance.exec_root,
        );
        let shm = settings
            .default_shm_size
            .as_deref()
            .map(berth_base::size::parse_binary)
            .transpose()?;
        Ok(Config {
            cgroup_parent: self.cgroup_parent.clone(),
            init: settings.init.unwrap_or(false),
            log_driver: settings.log_driver.clone().unwrap_or(base.log_driver),
            log_opts: settings.log_opts.clone(),
            default_ulimits: settings.ulimits(),
            dns: settings.dns.clone(),
            dns_options: settings.dns_opts.clone(),
            dns_search: settings.dns_search.clone(),
            host_gateway_ips: settings.host_gateway_ips.clone(),
            default_shm_size_bytes: shm
                .and_then(|bytes| u64::try_from(bytes).ok())
                .unwrap_or(base.default_shm_size_bytes),
            default_ipc_mode: settings
                .default_ipc_mode
                .clone()
                .unwrap_or(base.default_ipc_mode),
            default_cgroupns_mode: settings.default_cgroupns_mode.clone(),
            no_new_privileges: settings.no_new_privileges.unwrap_or(false),
            bridge_disabled: settings.bridge.as_deref() == Some("none"),
            debug: settings.debug.unwrap_or(false),
            http_proxy: shown(&settings.http_proxy),
            https_proxy: shown(&settings.https_proxy),
            no_proxy: settings.no_proxy.clone().unwrap_or_default(),
            version: crate::build::engine_version(),
            live: live(settings),
            ..base
        })
    }
}

/// A proxy as `info` shows it.
fn shown(proxy: &Option<String>) -> String {
    berth_http::proxy::masked(proxy.as_deref().unwrap_or_default())
}

/// The part that SIGHUP may change.
pub fn live(settings: &Settings) -> Live {
    let runtime = |setting: &super::settings::RuntimeSetting| Runtime {
        path: setting.path.clone(),
        args: setting.runtime_args.clone(),
    };
    Live {
        live_restore: settings.live_restore.unwrap_or(true),
        shutdown_timeout: Duration::from_secs(settings.shutdown_timeout.unwrap_or(15)),
        labels: settings.labels.clone(),
        insecure_registries: settings.insecure_registries.clone(),
        registry_mirrors: settings.registry_mirrors.clone(),
        default_runtime: settings
            .default_runtime
            .clone()
            .unwrap_or_else(|| berth_engine::config::OWN_RUNTIME.to_owned()),
        runtimes: settings
            .runtimes
            .iter()
            .map(|(name, setting)| (name.clone(), runtime(setting)))
            .collect(),
    }
}

/// The part of the distribution client's settings that SIGHUP may change.
pub fn registries(settings: &Settings) -> Result<Registries> {
    let mirrors = settings.registry_mirrors.iter().map(|mirror| {
        mirror
            .parse()
            .with_context(|| format!("invalid mirror {mirror:?}"))
    });
    let insecure = settings.insecure_registries.iter().map(|text| text.parse());
    Ok(Registries {
        mirrors: mirrors.collect::<Result<_>>()?,
        insecure: insecure.collect::<Result<_, _>>()?,
    })
}

fn distribution_config(settings: &Settings) -> Result<distribution::Config> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (http, https, except) = (
        text(&settings.http_proxy),
        text(&settings.https_proxy),
        text(&settings.no_proxy),
    );
    Ok(distribution::Config {
        registries: registries(settings)?,
        proxies: berth_http::proxy::Proxies::parse(&http, &https, &except).context("proxies")?,
        ..distribution::Config::default()
    })
}

fn net_config(settings: &Settings, instance: &Instance) -> Result<berth_net::Config> {
    let mut config = berth_net::Config::new(&instance.name, &instance.bridge, &instance.exec_root);
    config.bridge = BridgeConfig {
        address: settings
            .bip
            .as_deref()
            .map(str::parse::<Cidr>)
            .transpose()
            .context("--bip")?,
        mtu: settings.mtu.filter(|mtu| *mtu > 0),
        ..config.bridge
    };
    if let Some(name) = &settings.bridge {
        config.bridge.name.clone_from(name);
        config.bridge.user_managed = true;
    }
    // Nobody else's networks are to have the same, wherever they meet.
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let own = format!("{} {}", machine.trim(), instance.name);
    config.pools6 = vec![Pool::unique_local(&own)];
    let given = &settings.default_address_pools;
    let (v6, v4): (Vec<_>, Vec<_>) = given.iter().partition(|pool| pool.base.contains(':'));
    if !v4.is_empty() {
        config.pools = v4.into_iter().map(pool).collect::<Result<_>>()?;
    }
    if !v6.is_empty() {
        config.pools6 = v6.into_iter().map(pool).collect::<Result<_>>()?;
    }
    config.firewall = match (settings.iptables, settings.firewall.as_deref()) {
        (Some(false), _) => Firewall::Off,
        (_, Some("own")) => Firewall::Own,
        _ => Firewall::Auto,
    };
    config.icc = settings.icc.unwrap_or(true);
    config.ip_forward = settings.ip_forward.unwrap_or(true);
    config.masquerade = settings.ip_masq.unwrap_or(true);
    if let Some(ip) = settings.ip {
        config.default_host_ip = ip;
    }
    Ok(config)
}

fn pool<A: Address>(given: &super::settings::AddressPool) -> Result<Pool<A>> {
    let base: Cidr<A> = given.base.parse().context("default-address-pools")?;
    Pool::new(base.network(), given.size)
        .context("default-address-pools: size does not fit the base")
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("handle signals");
        Ok(Self {
            hangup: on(SignalKind::hangup())?,
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal: `true` to read the settings again, `false` to end.
    async fn reload_rather_than_end(&mut self) -> bool {
        tokio::select! {
            _ = self.hangup.recv() => true,
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
        }
    }
}
