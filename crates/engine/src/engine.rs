//! The handle: one method for each operation of the API.

mod files;
mod networks;
mod streams;
mod volumes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use berth_base::Id;
use berth_docker::{container, event, filters::Filters, system};
use berth_image::{Images, Usage};
use berth_keeper::launcher::Launcher;
use berth_net::Net;
use berth_runtime::cgroup::Cgroup;
use berth_store::{Store, Txn};
use berth_tasks::Scope;

use crate::config::{Config, Live};
use crate::container::{Command, Handle};
use crate::error::{Context, Error, Result};
use crate::events::{EventStream, Events};
use crate::exec::Execs;
use crate::lifecycle::{self, Waiter};
use crate::links::{self, Links};
use crate::names::Names;
use crate::network::Networks;
use crate::options::{
    Condition, EventOptions, ListOptions, RemoveOptions, StartOptions, StopOptions,
};
use crate::shared::Shared;
use crate::table::Table;
use crate::volume::{Mounted, Volumes};
use crate::{create, detach, inspect, list, recover, system as host, top};

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
