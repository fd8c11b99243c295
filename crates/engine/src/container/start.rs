//! Starting: network, files, specification, launch; then the keeper's word.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use berth_base::Timestamp;
use berth_docker::container::Config;
use berth_keeper::foreign;
use berth_keeper::protocol::{
    AttachOptions, Event, Failure, FailureKind, Launch, UserRequest, VERSION,
};
use tokio::time::Instant;

use super::command::answer;
use super::{Owner, Reply, START_DEADLINE, by_policy};
use crate::error::{Context, Error, Result};
use crate::etc;
use crate::keeper::{Keeper, refusal};
use crate::links;
use crate::log_target;
use crate::network::Join;
use crate::options::StartOptions;
use crate::record::{Connected, Phase, Record};
use crate::shared::Shared;
use crate::spec::security::has_default_seccomp;
use crate::spec::{self, Inputs};

/// How long the end of the last run may take to sync the disk before a start goes on regardless.
const RELEASE_DEADLINE: Duration = Duration::from_secs(30);
/// Docker's exit code for a start that failed for no reason of the command's.
const START_FAILED: i32 = 128;

impl Owner {
    /// A start that a user asked for; answered when the command runs.
    pub(super) async fn start(&mut self, options: StartOptions, reply: Reply<()>) {
        let refused = match self.state.phase {
            Phase::Created | Phase::Exited => None,
            Phase::Starting => return self.starters.push(reply),
            Phase::Running { paused: true, .. } => Some(Error::conflict(
                "cannot start a paused container, try unpause instead",
            )),
            Phase::Running { paused: false, .. } | Phase::Restarting => {
                Some(Error::not_modified("container is already running"))
            }
            Phase::Removing | Phase::Dead => Some(Error::conflict(
                "container is marked for removal and cannot be started",
            )),
        };
        if let Some(error) = refused {
            return answer(reply, Err(error));
        }
        self.backoff.reset();
        self.state.restarts = 0;
        self.starters.push(reply);
        self.launch(options).await;
    }

    pub(super) async fn start_by_policy(&mut self) {
        if !self.shared.is_closing() {
            self.launch(by_policy()).await;
        }
    }

    /// Forks the keeper. What it says next decides.
    async fn launch(&mut self, options: StartOptions) {
        self.released().await;
        let handle = self.handle.clone();
        let files = tokio::time::timeout(RELEASE_DEADLINE, handle.files.lock()).await;
        if files.is_err() {
            tracing::warn!(container = %self.record.id, "its files are being written to still");
        }
        self.state.phase = Phase::Starting;
        self.state.stopped_by_user = false;
        self.publish();
        // Who wants to write from now on sees that it starts.
        drop(files);
        let result = match self.joins() {
            Ok(joins) => {
                let job = Job {
                    shared: self.shared.clone(),
                    record: self.record.clone(),
                    joins,
                    clients: std::mem::take(&mut self.clients),
                    options,
                };
                let work = self.shared.scope.spawn_blocking(move || job.perform());
                work.await
                    .unwrap_or_else(|_| Err(Error::internal("the start panicked")))
            }
            Err(error) => Err(error),
        };
        let launched = result.and_then(|launched| {
            let keeper = Keeper::new(launched.control).context("talk to the container's keeper");
            keeper.map(|keeper| (keeper, launched.endpoints))
        });
        match launched {
            Ok((keeper, endpoints)) => {
                self.keeper = Some(keeper);
                self.timer = Some(Instant::now() + START_DEADLINE);
                self.state.endpoints = endpoints;
                let networks = self.record.endpoints.keys();
                self.shared
                    .network_events(&self.record.id, networks, "connect");
                self.shared.volume_events(&self.record, "mount");
            }
            Err(error) => self.start_failed(error, START_FAILED).await,
        }
    }

    /// Waits until the keeper of the last run has let go of the root file system: the same
    /// overlay must not be mounted twice.
    async fn released(&mut self) {
        let wait = async {
            while let Some(keeper) = &mut self.keeper {
                match keeper.event().await {
                    Some(Event::Released) | None => self.keeper = None,
                    Some(_) => {}
                }
            }
        };
        if tokio::time::timeout(RELEASE_DEADLINE, wait).await.is_err() {
            tracing::warn!(container = %self.record.id, "the last run holds its file system still");
            self.keeper = None;
        }
    }

    /// Looks up the containers whose namespaces this one shares.
    fn joins(&self) -> Result<Joins> {
        let table = &self.shared.table;
        let pid = |kind: &str, mode: &str| -> Result<Option<i32>> {
            let Some(reference) = spec::container_of(mode) else {
                return Ok(None);
            };
            let view = table.find(reference)?.view();
            match view.state.phase.pid() {
                Some(pid) => Ok(Some(pid)),
                None => Err(Error::conflict(format!(
                    "failed to join {kind} namespace: container {} is not running",
                    view.record.id
                ))),
            }
        };
        Ok(Joins {
            network: Join::plan(&self.shared, &self.record)?,
            pid: pid("PID", &self.record.host.pid_mode)?,
            ipc: pid("IPC", &self.record.host.ipc_mode)?,
        })
    }

    pub(super) async fn started(&mut self, pid: i32, started_at_ns: i64) {
        self.timer = None;
        let before = self.state.started_at;
        self.state.phase = Phase::Running { pid, paused: false };
        self.state.started_at = Timestamp(started_at_ns);
        self.state.exit_code = 0;
        self.state.oom_killed = false;
        self.state.error.clear();
        // A daemon that finds no word of the start takes the container's processes for those of a
        // start that nobody answered.
        if let Err(error) = self.state.save(&self.record.id, &self.shared.store).await {
            self.state.started_at = before;
            self.kill_leftovers().await;
            return self.start_failed(error, START_FAILED).await;
        }
        self.publish();
        self.tell_parents().await;
        self.shared.container_event(&self.record, "start", &[]);
        for reply in self.starters.drain(..) {
            answer(reply, Ok(()));
        }
    }

    /// Those that are linked to it find it at its address.
    async fn tell_parents(&self) {
        let (shared, id) = (self.shared.clone(), self.record.id.clone());
        if !shared.links.has_parents(&id)
            || shared
                .clone()
                .block(move || links::follow(&shared, &id))
                .await
                .is_ok()
        {
            return;
        }
        tracing::error!(container = %self.record.id, "telling those linked to it panicked");
    }

    pub(super) async fn start_refused(&mut self, failure: &Failure) {
        self.keeper = None;
        let (error, code) = launch_error(failure);
        self.start_failed(error, code).await;
    }

    /// Undoes a start that went wrong, and tells who waits for it.
    pub(super) async fn start_failed(&mut self, error: Error, code: i32) {
        self.timer = None;
        self.clients.clear();
        self.release_network().await;
        self.release_mounts().await;
        self.state.phase = if self.state.was_started() {
            Phase::Exited
        } else {
            Phase::Created
        };
        self.state.exit_code = code;
        self.state.error = error.message.clone();
        self.save_state().await;
        self.publish();
        if self.record.host.auto_remove
            && let Err(error) = self.remove(true).await
        {
            tracing::error!(container = %self.record.id, %error, "not removed after a failed start");
        }
        if self.starters.is_empty() {
            tracing::error!(container = %self.record.id, %error, "not started by its restart policy");
        }
        for reply in self.starters.drain(..) {
            answer(reply, Err(error.clone()));
        }
    }
}

/// Docker's words around those of the runtime, and the exit code that the container gets.
fn launch_error(failure: &Failure) -> (Error, i32) {
    let code = match failure.kind {
        FailureKind::CommandNotFound => 127,
        FailureKind::CommandNotExecutable => 126,
        _ => START_FAILED,
    };
    let other_runtimes = failure.message.strip_prefix(foreign::CREATE_FAILED);
    let is_runtimes = failure.message.starts_with("runc create failed") || other_runtimes.is_some();
    if !is_runtimes {
        return (refusal(failure.kind, failure.message.clone()), code);
    }
    let mut message = format!(
        "failed to create task for container: failed to create shim task: \
         OCI runtime create failed: {}: unknown",
        other_runtimes.unwrap_or(&failure.message)
    );
    // What Docker makes of it, wherever it comes from (moby, `daemon/errors.go`).
    if message.contains("not a directory") {
        message.push_str(
            ": Are you trying to mount a directory onto a file (or vice-versa)? \
             Check if the specified host path exists and is the expected type",
        );
        return (refusal(FailureKind::InvalidRequest, message), 127);
    }
    (refusal(failure.kind, message), code)
}

/// Process 1 of the containers whose namespaces are shared.
struct Joins {
    network: Join,
    pid: Option<i32>,
    ipc: Option<i32>,
}

/// The blocking part of a start.
struct Job {
    shared: Arc<Shared>,
    record: Arc<Record>,
    joins: Joins,
    clients: Vec<(AttachOptions, OwnedFd)>,
    options: StartOptions,
}

struct Launched {
    control: OwnedFd,
    endpoints: BTreeMap<String, Connected>,
}

impl Job {
    fn perform(self) -> Result<Launched> {
        let netns = self.joins.network.namespace(&self.shared)?;
        let netns = netns.as_ref().map(AsFd::as_fd);
        if self.connects_meanwhile() {
            let control = self.launch(netns, true)?;
            return match self.connect(netns) {
                Ok(endpoints) => {
                    go(&control);
                    Ok(Launched {
                        control: control.into(),
                        endpoints,
                    })
                }
                Err(error) => {
                    call_off(&control);
                    Err(error)
                }
            };
        }
        let endpoints = self.connect(netns)?;
        match self.launch(netns, false) {
            Ok(control) => Ok(Launched {
                control: control.into(),
                endpoints,
            }),
            Err(error) => {
                self.shared.disconnect(&self.record.id, endpoints.values());
                Err(error)
            }
        }
    }

    /// Whether the network is completed while the keeper makes the container. Sysctls may be
    /// those of the interface, which must be there before they are set; what another runtime
    /// looks at before the command begins is not known.
    fn connects_meanwhile(&self) -> bool {
        matches!(self.joins.network, Join::Networks(_))
            && self.record.host.sysctls.is_empty()
            && matches!(self.shared.oci_runtime(&self.record), Ok(None))
    }

    /// The endpoints, with the addresses in `hosts`.
    fn connect(&self, netns: Option<BorrowedFd<'_>>) -> Result<BTreeMap<String, Connected>> {
        let (shared, record, network) = (&self.shared, &self.record, &self.joins.network);
        let endpoints = network.connect(shared, record, netns)?;
        let written = etc::write_hosts(shared, record, network, &endpoints);
        let named = written.and_then(|()| match netns {
            Some(netns) => shared.names.settle(shared, record, &endpoints, netns),
            None => Ok(()),
        });
        if named.is_err() {
            shared.disconnect(&record.id, endpoints.values());
        }
        named.map(|()| endpoints)
    }

    fn launch(&self, netns: Option<BorrowedFd<'_>>, gated: bool) -> Result<UnixStream> {
        let (shared, record) = (&self.shared, &self.record);
        let id = record.id.as_str();
        let etc = etc::write(shared, record, &self.joins.network)?;
        shared.prepare_mounts(record, id)?;
        let devices = spec::devices::gather(&record.host)?;
        let cgroup = shared.cgroup(record);
        let mut config = self.named_config();
        let linked = links::environment(shared, record)?;
        if !linked.is_empty() {
            // What the container has itself goes before it.
            config
                .to_mut()
                .env
                .get_or_insert_default()
                .splice(0..0, linked);
        }
        let other_runtime = shared.oci_runtime(record)?;
        let default_seccomp = other_runtime.is_none() && has_default_seccomp(&record.host)?;
        let spec = spec::plan(&Inputs {
            config: &config,
            host: &record.host,
            mounts: &record.mounts,
            devices: &devices,
            etc: &etc,
            pid_of: self.joins.pid,
            ipc_of: self.joins.ipc,
            cgroup: &cgroup,
            default_ulimits: &shared.default_ulimits,
            omit_seccomp: default_seccomp,
            facts: &shared.facts,
        })?;
        let launch = Launch {
            version: VERSION,
            id: id.to_owned(),
            dir: shared.config.runtime_dir(id),
            spec: Box::new(spec),
            default_seccomp,
            user: UserRequest {
                user: record.config.user.clone(),
                groups: record.host.group_add.clone().unwrap_or_default(),
            },
            rootfs: record.rootfs(),
            cgroup,
            has_netns: netns.is_some(),
            gated,
            open_stdin: record.config.open_stdin,
            stdin_once: record.config.stdin_once,
            console_size: self.options.console_size.or_else(|| created_size(record)),
            init: record.host.init.unwrap_or(shared.config.init),
            log: log_target::plan(&shared.config, record)?,
            attach: self
                .clients
                .iter()
                .map(|(options, _)| options.clone())
                .collect(),
            oci_runtime: other_runtime.as_ref().map(|other| other.path.clone()),
            oci_runtime_args: other_runtime.map(|other| other.args).unwrap_or_default(),
            beneath: spec::mounts::beneath(&record.mounts, self.joins.ipc),
        };
        let (ours, theirs) = UnixStream::pair().context("make a keeper's control socket")?;
        let clients: Vec<_> = self
            .clients
            .iter()
            .map(|(_, client)| client.as_fd())
            .collect();
        shared
            .launcher
            .launch(launch, theirs.as_fd(), netns, &clients)
            .context(format!("launch container {id}"))?;
        Ok(ours)
    }
}

/// Opens the gate. A keeper that has ended by now has left its reason in the socket, or the
/// socket's end tells; so a failure here needs no words of its own.
fn go(mut control: &UnixStream) {
    control.write_all(&[1]).ok();
}

/// Closes the gate for good, and waits for the keeper to have taken everything back.
fn call_off(mut control: &UnixStream) {
    let limit = Some(RELEASE_DEADLINE);
    let closed = control
        .shutdown(Shutdown::Write)
        .and_then(|()| control.set_read_timeout(limit))
        .and_then(|()| std::io::copy(&mut control, &mut std::io::sink()));
    if let Err(error) = closed {
        tracing::warn!(%error, "a start that was called off");
    }
}

impl Job {
    /// The configuration with the host name that a shared network brings along, as Docker has it.
    fn named_config(&self) -> Cow<'_, Config> {
        let config = &self.record.config;
        if !config.hostname.is_empty() {
            return Cow::Borrowed(config);
        }
        let hostname = match &self.joins.network {
            Join::Host => rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            Join::Container { id, .. } => {
                let joined = self.shared.table.find(id.as_str());
                joined.map_or_else(
                    |_gone| String::new(),
                    |joined| joined.view().record.config.hostname.clone(),
                )
            }
            Join::None | Join::Networks(_) => String::new(),
        };
        Cow::Owned(Config {
            hostname,
            ..config.clone()
        })
    }
}

/// The terminal's size as the container was created with.
fn created_size(record: &Record) -> Option<(u16, u16)> {
    let [rows, columns] = record.host.console_size;
    let size = (u16::try_from(rows).ok()?, u16::try_from(columns).ok()?);
    (record.config.tty && size != (0, 0)).then_some(size)
}
