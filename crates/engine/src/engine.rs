//! The handle: one method for each operation of the API.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use berth_docker::{container, event, exec, filters::Filters, network, system, volume};
use berth_tasks::Scope;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::events::{EventStream, Events};
use crate::launcher::Launcher;
use crate::logs::LogStream;
use crate::options::{
    AttachOptions, Condition, EventOptions, ExecStartOptions, ListOptions, LogOptions,
    RemoveOptions, StartOptions, StopOptions, StreamTarget, Waited,
};

/// What an engine is built on.
pub struct Parts {
    pub scope: Scope,
    pub launcher: Launcher,
    pub events: Events,
}

/// The engine of one instance. Clones share it.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    #[expect(dead_code, reason = "read from the next delivery on")]
    config: Config,
    parts: Parts,
}

/// A wait that has begun: the handler can answer its headers before it completes.
#[derive(Debug)]
pub struct Waiter(());

impl Waiter {
    /// Completes when the condition holds.
    pub async fn done(self) -> Waited {
        std::future::pending().await
    }
}

impl Engine {
    /// Reads the records, finds the keepers that are alive, folds in what ended meanwhile, and
    /// starts what its restart policy wants running.
    pub async fn open(config: Config, parts: Parts) -> Result<Self> {
        Ok(Self {
            inner: Arc::new(Inner { config, parts }),
        })
    }

    /// Ends the engine: with live restore the containers go on, without it they are stopped.
    pub async fn shutdown(&self) {}

    pub async fn create(
        &self,
        name: Option<&str>,
        request: container::CreateRequest,
        platform: Option<&str>,
    ) -> Result<container::CreateResponse> {
        let _ = (name, request, platform);
        Err(unfinished())
    }

    pub async fn start(&self, id: &str, options: StartOptions) -> Result<()> {
        let _ = (id, options);
        Err(unfinished())
    }

    pub async fn stop(&self, id: &str, options: StopOptions) -> Result<()> {
        let _ = (id, options);
        Err(unfinished())
    }

    pub async fn restart(&self, id: &str, options: StopOptions) -> Result<()> {
        let _ = (id, options);
        Err(unfinished())
    }

    /// `signal`: a name with or without `SIG`, or a number; `None` is `KILL`.
    pub async fn kill(&self, id: &str, signal: Option<&str>) -> Result<()> {
        let _ = (id, signal);
        Err(unfinished())
    }

    pub async fn pause(&self, id: &str) -> Result<()> {
        let _ = id;
        Err(unfinished())
    }

    pub async fn unpause(&self, id: &str) -> Result<()> {
        let _ = id;
        Err(unfinished())
    }

    /// Begins to wait; the answer's headers may go out as soon as this returns.
    pub fn wait(&self, id: &str, condition: Condition) -> Result<Waiter> {
        let _ = (id, condition);
        Err(unfinished())
    }

    pub async fn remove(&self, id: &str, options: RemoveOptions) -> Result<()> {
        let _ = (id, options);
        Err(unfinished())
    }

    pub async fn rename(&self, id: &str, name: &str) -> Result<()> {
        let _ = (id, name);
        Err(unfinished())
    }

    pub async fn list(&self, options: ListOptions) -> Result<Vec<container::Summary>> {
        let _ = options;
        Err(unfinished())
    }

    pub async fn inspect(&self, id: &str, size: bool) -> Result<container::Inspect> {
        let _ = (id, size);
        Err(unfinished())
    }

    pub async fn top(&self, id: &str, ps_args: &str) -> Result<container::TopResponse> {
        let _ = (id, ps_args);
        Err(unfinished())
    }

    pub async fn update(
        &self,
        id: &str,
        update: container::HostConfig,
    ) -> Result<container::UpdateResponse> {
        let _ = (id, update);
        Err(unfinished())
    }

    pub async fn prune(&self, filters: &Filters) -> Result<container::PruneResponse> {
        let _ = filters;
        Err(unfinished())
    }

    /// Whether the container exists and its log can be read, and what its stream looks like.
    pub fn logs_target(&self, id: &str) -> Result<StreamTarget> {
        let _ = id;
        Err(unfinished())
    }

    /// Rendered as the client wants it: with Docker's 8-byte headers unless there is a terminal.
    pub fn logs(&self, id: &str, options: LogOptions) -> Result<LogStream> {
        let _ = (id, options);
        Err(unfinished())
    }

    /// Whether an attach would be accepted: to be asked before the connection is hijacked.
    pub fn attach_target(&self, id: &str) -> Result<StreamTarget> {
        let _ = id;
        Err(unfinished())
    }

    /// Hands a client's connection to the container. Before the start it waits for the start.
    /// Returns when the connection has been handed over; it is closed when the output ends.
    pub async fn attach(&self, id: &str, options: AttachOptions, client: OwnedFd) -> Result<()> {
        let _ = (id, options, client);
        Err(unfinished())
    }

    pub async fn resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let _ = (id, rows, columns);
        Err(unfinished())
    }

    pub async fn exec_create(
        &self,
        id: &str,
        request: exec::CreateRequest,
    ) -> Result<exec::CreateResponse> {
        let _ = (id, request);
        Err(unfinished())
    }

    /// Whether a start would be accepted: to be asked before the connection is hijacked.
    pub fn exec_target(&self, exec: &str) -> Result<StreamTarget> {
        let _ = exec;
        Err(unfinished())
    }

    /// Starts the command. If it cannot be started, `client` is told why on its stream, as
    /// dockerd does, and the error is returned as well (for a detached start).
    pub async fn exec_start(
        &self,
        exec: &str,
        options: ExecStartOptions,
        client: Option<OwnedFd>,
    ) -> Result<()> {
        let _ = (exec, options, client);
        Err(unfinished())
    }

    pub async fn exec_inspect(&self, exec: &str) -> Result<exec::Inspect> {
        let _ = exec;
        Err(unfinished())
    }

    pub async fn exec_resize(&self, exec: &str, rows: u16, columns: u16) -> Result<()> {
        let _ = (exec, rows, columns);
        Err(unfinished())
    }

    pub fn events(&self, options: EventOptions) -> Result<EventStream> {
        self.inner
            .parts
            .events
            .subscribe(&self.inner.parts.scope, options)
    }

    /// For what happens outside of the engine (images): adds an event.
    pub fn publish(&self, event: event::Message) {
        self.inner.parts.events.publish(
            &event.kind,
            &event.action,
            &event.actor.id,
            event.actor.attributes,
        );
    }

    pub async fn info(&self) -> Result<system::Info> {
        Err(unfinished())
    }

    pub fn version(&self) -> system::Version {
        system::Version::default()
    }

    pub async fn disk_usage(&self) -> Result<system::DiskUsage> {
        Err(unfinished())
    }

    pub fn network_list(&self, filters: &Filters) -> Result<Vec<network::Network>> {
        let _ = filters;
        Err(unfinished())
    }

    pub fn network_inspect(&self, id: &str) -> Result<network::Network> {
        let _ = id;
        Err(unfinished())
    }

    pub async fn volume_create(&self, request: volume::CreateRequest) -> Result<volume::Volume> {
        let _ = request;
        Err(unfinished())
    }

    pub fn volume_list(&self, filters: &Filters) -> Result<volume::List> {
        let _ = filters;
        Err(unfinished())
    }

    pub fn volume_inspect(&self, name: &str) -> Result<volume::Volume> {
        let _ = name;
        Err(unfinished())
    }

    pub async fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        let _ = (name, force);
        Err(unfinished())
    }

    pub async fn volume_prune(&self, filters: &Filters) -> Result<volume::PruneResponse> {
        let _ = filters;
        Err(unfinished())
    }
}

fn unfinished() -> Error {
    Error::not_implemented("the engine is being built")
}
