//! The start of an engine: what the records say, what the keepers say, and what follows.
//!
//! ```text
//!  record says   keeper answers      no keeper, exit.json      nothing
//!  running       adopt it            fold the exit in          kill the cgroup, exit 137
//!  otherwise     kill it: its start  –                         kill the cgroup
//!                was never answered
//! ```
//!
//! All of this is done before the engine answers anybody, and after the launcher has settled: what
//! the last daemon asked for in its last moment is there by then, or never will be.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_base::{Chain, Id};
use berth_keeper::protocol::{ExitRecord, KeeperState};
use berth_net::Endpoint;
use berth_runtime::cgroup::Cgroup;

use crate::container::{self, Beginning, Command};
use crate::error::{Context, Error, Result};
use crate::keeper::Keeper;
use crate::network;
use crate::record::{self, Phase, Record, State};
use crate::shared::{Shared, kill_leftovers, lost_keeper};

pub async fn recover(shared: &Arc<Shared>) -> Result<()> {
    let other = shared.clone();
    // One of the runtime's own threads wakes no other one for each task that it starts.
    let all = shared
        .scope
        .spawn("recover", async move { all(&other).await });
    let panicked = || Error::internal("the recovery panicked");
    all.await.ok().flatten().unwrap_or_else(|| Err(panicked()))
}

async fn all(shared: &Arc<Shared>) -> Result<()> {
    let (other, scope) = (shared.clone(), shared.scope.clone());
    let survey = scope.spawn_blocking(move || survey(&other));
    let Survey {
        at_rest: mut found,
        others,
        known,
        cgroups,
    } = survey
        .await
        .unwrap_or_else(|_| Err(Error::internal("reading the records panicked")))?;
    let mut tasks = Vec::new();
    for (mut record, state, keeper) in others {
        let shared = shared.clone();
        tasks.push(scope.spawn("recover a container", async move {
            let mut beginning = one(&shared, &record, state, keeper).await;
            if beginning.keeper.is_some() {
                settle_networks(&shared, &mut record, &mut beginning.state).await;
            }
            (record, beginning)
        }));
    }
    for task in tasks {
        if let Ok(Some(pair)) = task.await {
            found.push(pair);
        }
    }
    sweep(shared, &known, &cgroups);
    if cgroups.own {
        cgroups.tidy(&known);
    }
    restore_network(shared, &found).await;
    restore_mounts(shared, &found).await?;
    // Who is linked to others looks for them, which are older.
    found.sort_by_key(|(record, beginning)| (beginning.start, record.created));
    let mut folding = Vec::new();
    for (record, beginning) in found {
        let has_ended = beginning.exit.is_some();
        let handle = container::spawn(shared, record, beginning);
        if has_ended {
            folding.push(handle);
        }
    }
    for handle in folding {
        // Answered when the end has been handled; a container with `--rm` is gone by then.
        handle.ask(|reply| Command::Sync { reply }).await.ok();
    }
    crate::volume::resume_all(shared).await
}

/// What there is, before anybody was asked.
struct Survey {
    /// Did not run, and nothing is left of a run.
    at_rest: Vec<(Record, Beginning)>,
    others: Vec<(Record, State, Option<UnixStream>)>,
    known: HashSet<Id>,
    cgroups: Cgroups,
}

/// Reads the records, and looks which keepers there are. Blocks.
fn survey(shared: &Shared) -> Result<Survey> {
    let loaded = record::load(&shared.store)?;
    (shared.launcher.settle()).context("wait for the launcher of an earlier daemon")?;
    let mut survey = Survey {
        at_rest: Vec::with_capacity(loaded.containers.len()),
        others: Vec::new(),
        known: loaded.known,
        cgroups: Cgroups::of(shared),
    };
    for (record, state) in loaded.containers {
        // A name in two records can only come from a damaged store; the first one keeps it.
        if let Err(error) = shared.table.reserve(&record.name, &record.id) {
            tracing::error!(container = %record.id, %error, "its name is taken");
        }
        let directory = shared.config.runtime_dir(record.id.as_str());
        let keeper = Keeper::find(&directory).unwrap_or_else(|error| {
            no_response(&record, &error);
            None
        });
        let was_running = matches!(state.phase, Phase::Running { .. });
        if keeper.is_some() || was_running || survey.cgroups.may_have(&record) {
            survey.others.push((record, state, keeper));
        } else {
            let beginning = not_running(shared, &record, state);
            survey.at_rest.push((record, beginning));
        }
    }
    Ok(survey)
}

fn no_response(record: &Record, error: &std::io::Error) {
    tracing::error!(container = %record.id, %error, "its keeper does not respond");
}

/// Finds out how one container is that ran, or that something is left of.
async fn one(
    shared: &Arc<Shared>,
    record: &Record,
    mut state: State,
    keeper: Option<UnixStream>,
) -> Beginning {
    let directory = shared.config.runtime_dir(record.id.as_str());
    let keeper = match keeper {
        Some(socket) => Keeper::reconnect(socket, &directory).await,
        None => Ok(None),
    };
    let keeper = keeper.unwrap_or_else(|error| {
        no_response(record, &error);
        None
    });
    let was_running = matches!(state.phase, Phase::Running { .. });
    match (keeper, was_running) {
        (Some((keeper, said)), true) if said.exited.is_none() => {
            adopt(shared, record, state, keeper, &said)
        }
        (Some((_, said)), true) => ended(state, said.exited),
        (Some((_, said)), false) if said.exited.is_none() => {
            tracing::info!(container = %record.id, "killed: its start was never answered");
            blocking(shared, record, |shared, record| {
                kill_leftovers(&record.id, &shared.cgroup(record));
            })
            .await;
            not_running(shared, record, state)
        }
        (Some(_), false) => not_running(shared, record, state),
        (None, false) => {
            blocking(shared, record, |shared, record| {
                kill_leftovers(&record.id, &shared.cgroup(record));
            })
            .await;
            not_running(shared, record, state)
        }
        (None, true) => {
            let exit = blocking(shared, record, lost_keeper).await;
            if exit.is_none() {
                state.phase = Phase::Exited;
            }
            ended(state, exit)
        }
    }
}

fn adopt(
    shared: &Shared,
    record: &Record,
    mut state: State,
    keeper: Keeper,
    said: &KeeperState,
) -> Beginning {
    state.phase = Phase::Running {
        pid: said.init_pid,
        paused: said.paused,
    };
    shared.execs.adopt(&record.id, &said.execs);
    Beginning {
        state,
        keeper: Some(keeper),
        ..Beginning::default()
    }
}

/// A network on which a running container shall be and is not, or is and shall not be: to connect
/// or to disconnect it was interrupted, and nobody was answered. It is not on it from now on.
async fn settle_networks(shared: &Shared, record: &mut Record, state: &mut State) {
    if shared.net.is_none() || record.config.network_disabled {
        return;
    }
    let before = record.endpoints.len();
    record.endpoints.retain(|name, _| {
        let network = shared.networks.find(name);
        let has_link = network.is_ok_and(|network| network.link().is_some());
        !has_link || state.endpoints.contains_key(name)
    });
    if record.endpoints.len() != before
        && let Err(error) = record.save(&shared.store).await
    {
        tracing::error!(container = %record.id, %error, "its networks were not recorded");
    }
    let on = state.endpoints.len();
    state.endpoints.retain(|name, connected| {
        let stays = record.endpoints.contains_key(name);
        if !stays && let Err(error) = crate::etc::take_from_hosts(shared, record, connected) {
            tracing::warn!(container = %record.id, %error, "take a network out of its hosts");
        }
        stays
    });
    if state.endpoints.len() != on
        && let Err(error) = state.save(&record.id, &shared.store).await
    {
        tracing::error!(container = %record.id, %error, "its networks were not recorded");
    }
}

fn ended(state: State, exit: Option<ExitRecord>) -> Beginning {
    Beginning {
        state,
        exit,
        ..Beginning::default()
    }
}

/// A container that did not run: its policy may want it, or `--rm` may have been interrupted.
fn not_running(shared: &Shared, record: &Record, mut state: State) -> Beginning {
    let waiting = state.phase == Phase::Restarting;
    state.endpoints.clear();
    state.phase = if state.was_started() {
        Phase::Exited
    } else {
        Phase::Created
    };
    if record.host.auto_remove && state.was_started() && !waiting {
        let exit = ExitRecord {
            code: state.exit_code,
            signal: None,
            oom_killed: state.oom_killed,
            finished_at_ns: state.finished_at.unix_nanos(),
        };
        return ended(state, Some(exit));
    }
    let start = !shared.is_closing()
        && state.was_started()
        && (waiting || record.policy().starts_with_daemon(state.ended()));
    if start {
        state.phase = Phase::Restarting;
    }
    Beginning {
        state,
        start,
        ..Beginning::default()
    }
}

async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    record: &Record,
    work: impl FnOnce(&Shared, &Record) -> T + Send + 'static,
) -> Option<T> {
    let (other, record) = (shared.clone(), record.clone());
    shared
        .scope
        .spawn_blocking(move || work(&other, &record))
        .await
        .ok()
}

/// The kernel's rules and links become those of the containers that run.
async fn restore_network(shared: &Arc<Shared>, found: &[(Record, Beginning)]) {
    let Some(net) = shared.net.clone() else {
        return;
    };
    let endpoints: Vec<Endpoint> = found
        .iter()
        .filter(|(_, beginning)| beginning.keeper.is_some())
        .flat_map(|(_, beginning)| beginning.state.endpoints.values())
        .map(|connected| connected.endpoint.clone())
        .collect();
    let networks = shared.networks.made();
    let work = shared
        .scope
        .spawn_blocking(move || net.restore(&networks, &endpoints));
    match work.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(error = %Chain(&error), "restore the network"),
        Err(_) => tracing::error!("restoring the network panicked"),
    }
    for (record, beginning) in found {
        if let Some(pid) = beginning.state.phase.pid()
            && beginning.keeper.is_some()
        {
            restore_names(shared, record, &beginning.state, pid).await;
        }
    }
}

/// The name server ended with the daemon.
async fn restore_names(shared: &Arc<Shared>, record: &Record, state: &State, pid: i32) {
    let endpoints = state.endpoints.clone();
    let restored = blocking(shared, record, move |shared, record| {
        let netns = network::open_namespace(pid).context("open its network")?;
        let names = &shared.names;
        names.settle(shared, record, &endpoints, netns.as_fd())
    });
    if let Some(Err(error)) = restored.await {
        tracing::error!(container = %record.id, %error, "restore its name server");
    }
}

/// Volumes and images stay mounted for the containers that run.
async fn restore_mounts(shared: &Arc<Shared>, found: &[(Record, Beginning)]) -> Result<()> {
    let running = found.iter().filter(|(_, it)| it.keeper.is_some());
    let running: Vec<Record> = running.map(|(record, _)| record.clone()).collect();
    let other = shared.clone();
    let restore = move || other.restore_mounts(&running.iter().collect::<Vec<_>>());
    shared.block(restore).await?
}

/// The cgroups that are there before anything is started.
struct Cgroups {
    /// The parent's, in each hierarchy.
    directories: Vec<PathBuf>,
    ids: HashSet<Id>,
    /// Only this instance has containers where they are.
    own: bool,
}

impl Cgroups {
    fn of(shared: &Shared) -> Self {
        let config = &shared.config;
        let directories =
            Cgroup::new(&config.cgroup_parent).map_or_else(|_| Vec::new(), |it| it.directories());
        let ids = directories.iter().flat_map(|it| ids(it)).collect();
        Self {
            ids,
            directories,
            own: Path::new(&config.cgroup_parent).ends_with(&config.instance),
        }
    }

    fn may_have(&self, record: &Record) -> bool {
        self.ids.contains(&record.id) || !record.host.cgroup_parent.is_empty()
    }

    /// Removes what is empty and no container's: a launcher or a keeper that was killed did not.
    fn tidy(&self, known: &HashSet<Id>) {
        for directory in &self.directories {
            for entry in subdirectories(directory) {
                let id = entry
                    .file_name()
                    .and_then(|name| name.to_str()?.parse().ok());
                if id.is_none_or(|id: Id| !known.contains(&id)) {
                    remove_empty(&entry);
                }
            }
        }
    }
}

/// With those below it. The kernel keeps what has a process in it.
fn remove_empty(cgroup: &Path) {
    for below in subdirectories(cgroup) {
        remove_empty(&below);
    }
    let _ = std::fs::remove_dir(cgroup);
}

fn subdirectories(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

/// The entries of a directory that are named like containers.
fn ids(directory: &Path) -> Vec<Id> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// What containers without a record have left: a create or a removal was interrupted.
fn sweep(shared: &Arc<Shared>, known: &HashSet<Id>, cgroups: &Cgroups) {
    let roots = [&shared.config.data_root, &shared.config.exec_root];
    let directories = roots.map(|root| ids(&root.join("containers")));
    let cgroups = cgroups.ids.iter().filter(|_| cgroups.own).cloned();
    let orphans: HashSet<Id> = directories
        .into_iter()
        .flatten()
        .chain(cgroups)
        .filter(|id| !known.contains(id))
        .collect();
    for id in orphans {
        tracing::info!(container = %id, "cleaning up after an interrupted operation");
        let shared = shared.clone();
        let scope = shared.scope.clone();
        scope.spawn_blocking(move || {
            kill_leftovers(&id, &shared.config.cgroup(id.as_str()));
            shared.discard_now(&id);
        });
    }
}
