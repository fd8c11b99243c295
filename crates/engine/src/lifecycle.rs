//! What takes a container through its life from outside: stop, kill, restart, wait, remove.
//!
//! These watch the published view and send the owner short commands, so that a stop that waits
//! for its grace period never keeps a kill out. They are meant to run in a task of their own: a
//! client that hangs up does not interrupt a stop.

use std::sync::Arc;
use std::time::Duration;

use berth_keeper::protocol::Target;

use crate::container::{Command, Handle};
use crate::error::{Error, ErrorKind, Result};
use crate::keeper::settled;
use crate::options::{Condition, RemoveOptions, StartOptions, StopOptions, Waited};
use crate::record::{Phase, Record, View};
use crate::shared::{Shared, kill_leftovers};
use crate::signal;

/// Docker's grace period.
const DEFAULT_TIMEOUT_S: i64 = 10;
/// How long a killed process may take to be gone; in an uninterruptible call it may take for ever.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

pub fn parse_signal(text: &str) -> Result<i32> {
    signal::parse(text).ok_or_else(|| Error::invalid(format!("invalid signal: {text}")))
}

/// A keeper that has not passed a signal on by then hangs.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(5);

/// The signal that asks the container to end.
fn stop_signal(record: &Record) -> i32 {
    signal::parse(&record.config.stop_signal).unwrap_or(signal::TERM)
}

fn over(before: u64) -> impl Fn(&View) -> bool + Send {
    move |view: &View| view.exits > before || view.removed || !view.state.phase.is_active()
}

/// Ends a container: the signal, the grace period, then SIGKILL. Its network is released when
/// this returns.
pub async fn stop(shared: &Shared, handle: &Handle, options: StopOptions) -> Result<()> {
    let view = handle.view();
    if !view.state.phase.is_active() {
        return Err(Error::not_modified("container is already stopped"));
    }
    let signal = match &options.signal {
        Some(text) if !text.is_empty() => parse_signal(text)?,
        _ => stop_signal(&view.record),
    };
    let timeout_s = options
        .timeout_s
        .or(view.record.config.stop_timeout)
        .unwrap_or(DEFAULT_TIMEOUT_S);
    end(shared, handle, signal, timeout_s).await?;
    shared.container_event(&view.record, "stop", &[]);
    Ok(())
}

/// Signals, waits, kills. Also used for all containers when the daemon ends without live restore.
async fn end(shared: &Shared, handle: &Handle, first: i32, timeout_s: i64) -> Result<()> {
    let before = handle.view().exits;
    handle.ask(|reply| Command::CancelRestart { reply }).await?;
    wait_and_kill(shared, handle, before, first, timeout_s).await
}

async fn wait_and_kill(
    shared: &Shared,
    handle: &Handle,
    before: u64,
    first: i32,
    timeout_s: i64,
) -> Result<()> {
    let view = handle.view();
    if over(before)(&view) {
        return Ok(());
    }
    match send(shared, handle, first, false).await {
        Ok(()) => {}
        // It has ended in between, or does not hear.
        Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::Unavailable) => {}
        Err(error) => return Err(error),
    }
    thaw(handle).await;
    let grace = u64::try_from(timeout_s).ok().map(Duration::from_secs);
    if !ended_within(handle, before, grace).await {
        kill_and_wait(shared, handle, before, false).await?;
    }
    handle
        .ask(|reply| Command::Sync { reply })
        .await
        .or_else(gone_is_fine)
}

/// A container with `--rm` may be gone already.
fn gone_is_fine(error: Error) -> Result<()> {
    if error.kind == ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

async fn ended_within(handle: &Handle, before: u64, limit: Option<Duration>) -> bool {
    let ended = handle.until(over(before));
    match limit {
        Some(limit) => tokio::time::timeout(limit, ended).await.is_ok(),
        None => {
            ended.await;
            true
        }
    }
}

async fn kill_and_wait(shared: &Shared, handle: &Handle, before: u64, ends: bool) -> Result<()> {
    match send(shared, handle, signal::KILL, ends).await {
        // A keeper that hangs in its container (it executes something in a frozen one) is helped.
        Err(error) if error.kind == ErrorKind::Unavailable => kill_directly(shared, handle).await,
        Ok(()) => {}
        // It is ending: its keeper had no more answer.
        Err(error) if error.kind == ErrorKind::Conflict => {}
        Err(error) => return Err(error),
    }
    thaw(handle).await;
    if ended_within(handle, before, Some(KILL_DEADLINE)).await {
        return Ok(());
    }
    Err(Error::internal(format!(
        "container {} did not end within {} s of SIGKILL: one of its processes hangs in the kernel",
        handle.id,
        KILL_DEADLINE.as_secs()
    )))
}

/// Kills a container's processes without its keeper.
async fn kill_directly(shared: &Shared, handle: &Handle) {
    let (id, cgroup) = (handle.id.clone(), shared.cgroup(&handle.view().record));
    let work = shared
        .scope
        .spawn_blocking(move || kill_leftovers(&id, &cgroup));
    if work.await.is_err() {
        tracing::error!(container = %handle.id, "killing its processes panicked");
    }
}

/// A frozen process does not see its signal.
async fn thaw(handle: &Handle) {
    if matches!(
        handle.view().state.phase,
        Phase::Running { paused: true, .. }
    ) {
        let pause = false;
        // That it may have ended meanwhile is fine.
        handle
            .ask(|reply| Command::Pause { pause, reply })
            .await
            .ok();
    }
}

async fn send(shared: &Shared, handle: &Handle, signal: i32, ends: bool) -> Result<()> {
    let target = Target::Init;
    let answer = handle.ask(|reply| Command::Signal {
        signal,
        target,
        ends,
        reply,
    });
    let answer = tokio::time::timeout(SIGNAL_DEADLINE, answer).await;
    settled(answer.unwrap_or_else(|_| {
        Err(Error::unavailable(
            "the container's keeper does not respond",
        ))
    })?)?;
    let number = signal.to_string();
    shared.container_event(&handle.view().record, "kill", &[("signal", &number)]);
    Ok(())
}

/// Sends a signal. SIGKILL is answered when the container has ended.
pub async fn kill(
    shared: &Shared,
    handle: &Handle,
    reference: &str,
    text: Option<&str>,
) -> Result<()> {
    let signal = match text {
        Some(text) if !text.is_empty() => parse_signal(text)?,
        _ => signal::KILL,
    };
    let view = handle.view();
    let context = |error: Error| error.while_doing(format!("cannot kill container: {reference}"));
    match view.state.phase {
        Phase::Running { .. } => {}
        Phase::Restarting if signal == signal::KILL => {
            return handle.ask(|reply| Command::CancelRestart { reply }).await;
        }
        _ => return Err(context(Error::not_running(handle.id.as_str()))),
    }
    if signal == signal::KILL {
        kill_and_wait(shared, handle, view.exits, true)
            .await
            .map_err(context)?;
        return handle
            .ask(|reply| Command::Sync { reply })
            .await
            .or_else(gone_is_fine);
    }
    let ends = signal == stop_signal(&view.record);
    send(shared, handle, signal, ends).await.map_err(context)
}

/// Stops a running container, and starts it.
pub async fn restart(shared: &Shared, handle: &Handle, options: StopOptions) -> Result<()> {
    let view = handle.view();
    if view.state.phase.is_active() {
        stop(shared, handle, options).await?;
    }
    handle
        .ask(|reply| Command::Start {
            options: StartOptions::default(),
            reply,
        })
        .await?;
    shared.container_event(&handle.view().record, "restart", &[]);
    Ok(())
}

/// Removes a container; a running one only with `force`.
pub async fn remove(
    shared: &Shared,
    handle: &Handle,
    reference: &str,
    options: RemoveOptions,
) -> Result<()> {
    let view = handle.view();
    let context = |error: Error| match error.kind {
        ErrorKind::NotFound => error,
        _ => error.while_doing(format!("cannot remove container \"/{}\"", view.record.name)),
    };
    if view.state.phase == Phase::Removing {
        return Err(Error::conflict(format!(
            "removal of container {reference} is already in progress"
        )));
    }
    if view.state.phase.is_active() {
        if !options.force {
            return Err(context(Error::conflict(match view.state.phase {
                Phase::Running { paused: true, .. } => {
                    "container is paused and must be unpaused first".to_owned()
                }
                phase => format!(
                    "container is {}: stop the container before removing or force remove",
                    phase.name()
                ),
            })));
        }
        handle.ask(|reply| Command::CancelRestart { reply }).await?;
        if handle.view().state.phase == Phase::Starting {
            handle
                .until(|view| view.state.phase != Phase::Starting)
                .await;
        }
        if matches!(handle.view().state.phase, Phase::Running { .. }) {
            let before = handle.view().exits;
            match kill_and_wait(shared, handle, before, true).await {
                Ok(()) => {}
                // With `--rm` it may be gone.
                Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
                Err(error) => {
                    return Err(context(error.while_doing("could not kill container")));
                }
            }
        }
    }
    let auto_remove = view.record.host.auto_remove;
    let volumes = options.volumes;
    match handle.ask(|reply| Command::Remove { volumes, reply }).await {
        // It removed itself in between.
        Err(error) if error.kind == ErrorKind::NotFound && auto_remove => Ok(()),
        result => result.map_err(context),
    }
}

/// A wait that has begun: the handler can answer its headers before it completes.
#[derive(Debug)]
pub struct Waiter {
    handle: Arc<Handle>,
    condition: Condition,
    before: u64,
}

impl Waiter {
    pub(crate) fn new(handle: Arc<Handle>, condition: Condition) -> Self {
        let before = handle.view().exits;
        Self {
            handle,
            condition,
            before,
        }
    }

    /// Completes when the condition holds.
    pub async fn done(self) -> Waited {
        let before = self.before;
        let condition = self.condition;
        let view = self
            .handle
            .until(move |view| match condition {
                Condition::NotRunning => over(before)(view),
                Condition::NextExit => view.exits > before || view.removed,
                Condition::Removed => view.removed,
            })
            .await;
        Waited {
            exit_code: i64::from(view.state.exit_code),
            error: None,
        }
    }
}

/// Stops everything that runs, without taking it for the user's wish: the restart policies start
/// it again with the next daemon.
pub async fn stop_all(shared: &Arc<Shared>, limit: Duration) {
    let mut ends = Vec::new();
    for handle in shared.table.all() {
        if !handle.view().state.phase.is_active() {
            continue;
        }
        let shared = shared.clone();
        let scope = shared.scope.clone();
        ends.push(scope.spawn("stop at shutdown", async move {
            let view = handle.view();
            let own = view.record.config.stop_timeout.unwrap_or(DEFAULT_TIMEOUT_S);
            let most = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
            let timeout_s = if own < 0 { most } else { own.min(most) };
            let signal = stop_signal(&view.record);
            if let Err(error) = wait_and_kill(&shared, &handle, view.exits, signal, timeout_s).await
            {
                tracing::error!(container = %handle.id, %error, "stop at shutdown");
            }
        }));
    }
    for end in ends {
        // A panic was reported where it happened.
        end.await.ok();
    }
}
