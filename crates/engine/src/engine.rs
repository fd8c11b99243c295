//! The handle: one method for each operation of the API.

mod files;
mod volumes;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use berth_base::Id;
use berth_docker::reach::ReachablePort;
use berth_docker::{container, event, exec, filters::Filters, network, system};
use berth_image::{Images, Usage};
use berth_keeper::launcher::Launcher;
use berth_keeper::protocol::{self, RequestBody};
use berth_net::Net;
use berth_runtime::cgroup::Cgroup;
use berth_store::{Store, Txn};
use berth_tasks::Scope;

use crate::config::{Config, Live};
use crate::container::{Command, Handle};
use crate::error::{Context, Error, Result};
use crate::events::{EventStream, Events};
use crate::exec::Execs;
use crate::keeper::settled;
use crate::lifecycle::{self, Waiter};
use crate::links::{self, Links};
use crate::logs::{self, LogStream};
use crate::names::Names;
use crate::network::Networks;
use crate::options::{
    AttachOptions, Condition, EventOptions, ExecStartOptions, ListOptions, LogOptions,
    RemoveOptions, StartOptions, StopOptions, StreamTarget,
};
use crate::record::Phase;
use crate::shared::Shared;
use crate::table::Table;
use crate::volume::{Mounted, Volumes};
use crate::{attach, create, detach, exec as execs, inspect, list, recover, system as host, top};

/// What an engine is built on.
pub struct Parts {
    /// For the engine alone: [`Engine::shutdown`] ends it.
    pub scope: Scope,
    pub store: Store,
    pub images: Images,
    /// `None` where the bridge is disabled.
    pub net: Option<Arc<Net>>,
    pub launcher: Arc<Launcher>,
}

/// The engine of one instance. Clones share it.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// How long the tasks may take to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

impl Engine {
    /// Reads the records, finds the keepers that are alive, folds in what ended meanwhile, and
    /// starts what its restart policy wants running.
    pub async fn open(config: Config, parts: Parts) -> Result<Self> {
        let Parts {
            scope,
            store,
            images,
            net,
            launcher,
        } = parts;
        let networks = Networks::open(&store).await?;
        let volumes = Volumes::open(config.data_root.join("volumes"), &store)?;
        let shared = Arc::new(Shared {
            facts: host::facts(),
            default_ulimits: config.default_ulimits.values().cloned().collect(),
            id: daemon_id(&store).await?,
            live: ArcSwap::from_pointee(config.live.clone()),
            names: Names::new(scope.clone()),
            links: Links::default(),
            config,
            scope,
            store,
            images,
            net,
            launcher,
            events: Events::default(),
            table: Table::default(),
            execs: Execs::default(),
            volumes,
            mounted: Mounted::default(),
            networks,
            closing: AtomicBool::new(false),
        });
        recover::recover(&shared).await?;
        Ok(Self { shared })
    }

    pub fn images(&self) -> &Images {
        &self.shared.images
    }

    /// Which images the containers were made from: what the removal of an image asks for.
    pub fn image_usages(&self) -> Vec<Usage> {
        let handles = self.shared.table.all();
        let usage = |handle: Arc<Handle>| {
            let view = handle.view();
            Some(Usage {
                container_id: view.record.id.to_string(),
                image: view.record.image.parse().ok()?,
                running: view.state.phase.is_active(),
            })
        };
        handles.into_iter().filter_map(usage).collect()
    }

    /// Takes over what a running daemon can change.
    pub fn reload(&self, live: Live) {
        self.shared.live.store(Arc::new(live));
    }

    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Whether any container is alive: then the network and the keepers' directories stay.
    pub fn has_running(&self) -> bool {
        self.shared
            .table
            .all()
            .iter()
            .any(|handle| handle.view().state.phase.is_active())
    }

    /// Ends the engine: with live restore the containers go on, without it they are stopped.
    pub async fn shutdown(&self) {
        self.shared.closing.store(true, Ordering::Release);
        let live = self.shared.live.load_full();
        if !live.live_restore {
            lifecycle::stop_all(&self.shared, live.shutdown_timeout).await;
        }
        if !self.shared.scope.drain(DRAIN_DEADLINE).await {
            tracing::warn!("some tasks of the engine did not end");
        }
        if !self.has_running()
            && let Ok(parent) = Cgroup::new(&self.shared.config.cgroup_parent)
        {
            for directory in parent.directories() {
                // It stays where something is still in it.
                std::fs::remove_dir(directory).ok();
            }
        }
    }

    pub async fn create(
        &self,
        name: Option<&str>,
        request: container::CreateRequest,
        platform: Option<&str>,
    ) -> Result<container::CreateResponse> {
        // Boxed: the future holds a whole record.
        Box::pin(create::create(&self.shared, name, request, platform)).await
    }

    pub async fn start(&self, id: &str, options: StartOptions) -> Result<()> {
        let handle = self.find(id)?;
        detach::parse(options.detach_keys.as_deref())?;
        handle.ask(|reply| Command::Start { options, reply }).await
    }

    pub async fn stop(&self, id: &str, options: StopOptions) -> Result<()> {
        let handle = self.find(id)?;
        self.detached("stop", move |shared| async move {
            lifecycle::stop(&shared, &handle, options).await
        })
        .await
    }

    pub async fn restart(&self, id: &str, options: StopOptions) -> Result<()> {
        let handle = self.find(id)?;
        self.detached("restart", move |shared| async move {
            lifecycle::restart(&shared, &handle, options).await
        })
        .await
    }

    /// `signal`: a name with or without `SIG`, or a number; `None` is `KILL`.
    pub async fn kill(&self, id: &str, signal: Option<&str>) -> Result<()> {
        let handle = self.find(id)?;
        lifecycle::kill(&self.shared, &handle, id, signal).await
    }

    pub async fn pause(&self, id: &str) -> Result<()> {
        self.find(id)?
            .ask(|reply| Command::Pause { pause: true, reply })
            .await
    }

    pub async fn unpause(&self, id: &str) -> Result<()> {
        self.find(id)?
            .ask(|reply| Command::Pause {
                pause: false,
                reply,
            })
            .await
    }

    /// Begins to wait; the answer's headers may go out as soon as this returns.
    pub fn wait(&self, id: &str, condition: Condition) -> Result<Waiter> {
        Ok(Waiter::new(self.find(id)?, condition))
    }

    pub async fn remove(&self, id: &str, options: RemoveOptions) -> Result<()> {
        if options.link {
            return self.remove_link(id).await;
        }
        let handle = self.find(id)?;
        let reference = id.to_owned();
        self.detached("remove", move |shared| async move {
            lifecycle::remove(&shared, &handle, &reference, options).await
        })
        .await
    }

    /// Takes a link away, `parent/alias`, and no container.
    async fn remove_link(&self, name: &str) -> Result<()> {
        let Some((parent, link)) = links::find(&self.shared, name) else {
            self.find(name)?;
            return Err(Error::internal(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        parent.ask(|reply| Command::Unlink { link, reply }).await
    }

    pub async fn rename(&self, id: &str, name: &str) -> Result<()> {
        let name = name.strip_prefix('/').unwrap_or(name).to_owned();
        if id.is_empty() || name.is_empty() {
            return Err(Error::invalid("Neither old nor new names may be empty"));
        }
        let handle = self.find(id)?;
        create::check_name(&name)?;
        handle.ask(|reply| Command::Rename { name, reply }).await
    }

    pub async fn list(&self, options: ListOptions) -> Result<Vec<container::Summary>> {
        if options.size || options.filters.contains("ancestor") {
            return self
                .blocking(move |shared| list::list(shared, &options))
                .await;
        }
        list::list(&self.shared, &options)
    }

    pub async fn inspect(&self, id: &str, size: bool) -> Result<container::Inspect> {
        let view = self.find(id)?.view();
        self.blocking(move |shared| {
            let mut answer = inspect::inspect(shared, &view);
            if size {
                let (own, all) = inspect::sizes(shared, &view.record);
                (answer.size_rw, answer.size_root_fs) = (Some(own), Some(all));
            }
            Ok(answer)
        })
        .await
    }

    /// The columns of `ps -ef`; other arguments are refused.
    pub async fn top(&self, id: &str, ps_args: &str) -> Result<container::TopResponse> {
        let (view, ps_args) = (self.find(id)?.view(), ps_args.to_owned());
        self.blocking(move |shared| top::top(shared, &view, &ps_args))
            .await
    }

    /// Changes limits and the restart policy; what the update leaves at zero stays.
    pub async fn update(
        &self,
        id: &str,
        update: container::HostConfig,
    ) -> Result<container::UpdateResponse> {
        let handle = self.find(id)?;
        let record = handle.view().record.clone();
        let mut host = crate::update::plan(&record, &update)?;
        let discarded = crate::spec::validate::discard(&mut host, &self.shared.facts);
        let mut warnings = crate::spec::validate::check(&record.config, &host, &self.shared.facts)?;
        warnings.extend(discarded);
        let host = Box::new(host);
        handle.ask(|reply| Command::Update { host, reply }).await?;
        Ok(container::UpdateResponse {
            warnings: Some(warnings),
        })
    }

    pub async fn prune(&self, filters: &Filters) -> Result<container::PruneResponse> {
        crate::prune::containers(&self.shared, filters).await
    }

    /// Whether the container exists and its log can be read, and what its stream looks like.
    pub fn logs_target(&self, id: &str) -> Result<StreamTarget> {
        let view = self.find(id)?.view();
        if view.record.host.log_config.driver != "json-file" {
            return Err(Error::not_implemented(
                "configured logging driver does not support reading",
            ));
        }
        Ok(StreamTarget {
            id: view.record.id.to_string(),
            tty: view.record.config.tty,
        })
    }

    /// Rendered as the client wants it: with Docker's 8-byte headers unless there is a terminal.
    pub fn logs(&self, id: &str, options: LogOptions) -> Result<LogStream> {
        if !(options.stdout || options.stderr) {
            return Err(Error::invalid(
                "Bad parameters: you must choose at least one stream",
            ));
        }
        let target = self.logs_target(id)?;
        let handle = self.find(&target.id)?;
        let query = self.log_query(&target, &options);
        let ended = options.follow.then_some(async move {
            handle
                .until(|view| !view.state.phase.is_active() || view.removed)
                .await;
        });
        Ok(logs::read(&self.shared.scope, query, ended))
    }

    fn log_query(&self, target: &StreamTarget, options: &LogOptions) -> logs::Query {
        logs::Query {
            path: self.shared.config.log_path(&target.id),
            render: logs::Render {
                stdout: options.stdout,
                stderr: options.stderr,
                multiplexed: !target.tty,
                timestamps: options.timestamps,
                details: options.details,
                since: options.since,
                until: options.until,
            },
            tail: options.tail,
        }
    }

    /// Whether an attach would be accepted: to be asked before the connection is hijacked.
    pub fn attach_target(&self, id: &str) -> Result<StreamTarget> {
        let view = self.find(id)?.view();
        let id = &view.record.id;
        match view.state.phase {
            Phase::Running { paused: true, .. } => Err(Error::conflict(format!(
                "container {id} is paused, unpause the container before attach"
            ))),
            Phase::Restarting => Err(Error::conflict(format!(
                "container {id} is restarting, wait until the container is running"
            ))),
            Phase::Removing | Phase::Dead => {
                Err(Error::conflict(format!("container {id} is being removed")))
            }
            Phase::Created | Phase::Starting | Phase::Running { .. } | Phase::Exited => {
                Ok(StreamTarget {
                    id: id.to_string(),
                    tty: view.record.config.tty,
                })
            }
        }
    }

    /// Hands a client's connection to the container. Before the start it waits for the start.
    /// Returns when the connection has been handed over; it is closed when the output ends.
    pub async fn attach(&self, id: &str, options: AttachOptions, client: OwnedFd) -> Result<()> {
        let handle = self.find(id)?;
        let target = self.attach_target(id)?;
        let keys = match target.tty {
            true => detach::parse(options.detach_keys.as_deref())?,
            // Without a terminal a client's input is data, never a command.
            false => detach::parse(options.detach_keys.as_deref()).map(|_| Vec::new())?,
        };
        let mut greeting = options.greeting.clone();
        if options.logs || !options.stream {
            attach::greet(&client, &std::mem::take(&mut greeting))?;
        }
        let view = handle.view();
        let wire = protocol::AttachOptions {
            stdin: options.stdin && view.record.config.open_stdin,
            stdout: options.stdout,
            stderr: options.stderr,
            multiplexed: !target.tty,
            detach_keys: keys,
        };
        // A driver that keeps nothing has nothing to replay.
        if options.logs && self.logs_target(id).is_ok() {
            let wanted = LogOptions {
                stdout: options.stdout,
                stderr: options.stderr,
                ..LogOptions::default()
            };
            let query = self.log_query(&target, &wanted);
            let join = options.stream.then(|| wire.clone());
            if attach::replay(&self.shared.scope, &handle, query, join, &client).await? {
                self.shared.container_event(&view.record, "attach", &[]);
                return Ok(());
            }
        }
        if !options.stream {
            return Ok(());
        }
        handle
            .ask(|reply| Command::Attach {
                options: wire,
                greeting,
                client,
                reply,
            })
            .await?;
        self.shared.container_event(&view.record, "attach", &[]);
        Ok(())
    }

    pub async fn resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let body = RequestBody::Resize {
            exec: None,
            rows,
            columns,
        };
        let handle = self.find(id)?;
        settled(handle.ask_keeper(body, Vec::new()).await?)?;
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        let size: Vec<_> = size
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        self.shared
            .container_event(&handle.view().record, "resize", &size);
        Ok(())
    }

    pub async fn exec_create(
        &self,
        id: &str,
        request: exec::CreateRequest,
    ) -> Result<exec::CreateResponse> {
        execs::create(&self.shared, id, request)
    }

    /// Whether a start would be accepted: to be asked before the connection is hijacked.
    pub fn exec_target(&self, exec: &str) -> Result<StreamTarget> {
        execs::target(&self.shared, exec)
    }

    /// Starts the command. If it cannot be started, `client` is told why on its stream, as
    /// dockerd does, and the error is returned as well (for a detached start).
    pub async fn exec_start(
        &self,
        exec: &str,
        options: ExecStartOptions,
        client: Option<OwnedFd>,
    ) -> Result<()> {
        let client = client.filter(|_| !options.detach);
        Box::pin(execs::start(&self.shared, exec, options, client)).await
    }

    pub async fn exec_inspect(&self, exec: &str) -> Result<exec::Inspect> {
        execs::inspect(&self.shared, exec).await
    }

    pub async fn exec_resize(&self, exec: &str, rows: u16, columns: u16) -> Result<()> {
        execs::resize(&self.shared, exec, rows, columns).await
    }

    pub fn events(&self, options: EventOptions) -> Result<EventStream> {
        self.shared.events.subscribe(&self.shared.scope, options)
    }

    /// For what happens outside of the engine (images): adds an event.
    pub fn publish(&self, event: event::Message) {
        self.shared.events.publish(
            &event.kind,
            &event.action,
            &event.actor.id,
            event.actor.attributes,
        );
    }

    pub async fn info(&self) -> Result<system::Info> {
        self.blocking(|shared| Ok(host::info(shared))).await
    }

    pub fn version(&self) -> system::Version {
        host::version(&self.shared)
    }

    /// Images are left to the caller, who has their list.
    pub async fn disk_usage(&self) -> Result<system::DiskUsage> {
        self.blocking(host::disk_usage).await
    }

    /// `detailed`: with the containers of each.
    pub fn network_list(&self, filters: &Filters, detailed: bool) -> Result<Vec<network::Network>> {
        crate::network::list(&self.shared, filters, detailed)
    }

    /// Which ports are reachable, from where, and who holds them.
    pub async fn ports(&self) -> Result<Vec<ReachablePort>> {
        self.blocking(crate::reachable::ports).await
    }

    pub async fn network_create(
        &self,
        request: network::CreateRequest,
    ) -> Result<network::CreateResponse> {
        crate::network::create(&self.shared, request).await
    }

    pub async fn network_remove(&self, id: &str) -> Result<()> {
        crate::network::remove(&self.shared, id).await
    }

    pub async fn network_prune(&self, filters: &Filters) -> Result<network::PruneResponse> {
        crate::network::prune(&self.shared, filters).await
    }

    pub async fn network_connect(&self, id: &str, request: network::ConnectRequest) -> Result<()> {
        let handle = self.find(&request.container)?;
        let network = self.shared.networks.find(id)?;
        let settings = Box::new(request.endpoint_config.unwrap_or_default());
        let connect = |reply| Command::Connect {
            network,
            settings,
            reply,
        };
        handle.ask(connect).await
    }

    pub async fn network_disconnect(
        &self,
        id: &str,
        request: network::DisconnectRequest,
    ) -> Result<()> {
        let found = self.shared.networks.find(id);
        let handle = match self.find(&request.container) {
            // Nothing is left of a container that is gone.
            Err(_) if request.force => {
                found?;
                let message = format!("endpoint {} not found", request.container);
                return Err(Error::not_found(message));
            }
            found => found?,
        };
        let running = matches!(handle.view().state.phase, Phase::Running { .. });
        let network = match found {
            Err(error) if running && !request.force => return Err(error),
            found => found.ok(),
        };
        let disconnect = |reply| Command::Disconnect {
            name: id.to_owned(),
            network,
            reply,
        };
        handle.ask(disconnect).await
    }

    pub fn network_inspect(&self, id: &str) -> Result<network::Network> {
        crate::network::inspect(&self.shared, id)
    }

    fn find(&self, reference: &str) -> Result<Arc<Handle>> {
        self.shared.table.find(reference)
    }

    /// Goes on although the client may hang up.
    async fn detached<F>(
        &self,
        name: &'static str,
        work: impl FnOnce(Arc<Shared>) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let task = self.shared.scope.spawn(name, work(self.shared.clone()));
        let panicked = || Error::internal(format!("{name}: a task panicked"));
        task.await.ok().flatten().unwrap_or_else(|| Err(panicked()))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        let task = self.shared.scope.spawn_blocking(move || work(&shared));
        task.await
            .unwrap_or_else(|_| Err(Error::internal("a task panicked")))
    }
}

/// The daemon's id, made at its first start.
async fn daemon_id(store: &Store) -> Result<String> {
    const KEY: &str = "daemon-id";
    if let Some(item) = store.get(KEY).context("read the daemon's id")? {
        return Ok(String::from_utf8_lossy(&item.value).into_owned());
    }
    let id = Id::random().to_string();
    // As Docker's: a UUID.
    let id = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..32]].join("-");
    store
        .txn(Txn::put(KEY, id.clone()))
        .await
        .context("record the daemon's id")?;
    Ok(id)
}
