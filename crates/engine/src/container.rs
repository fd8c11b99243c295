//! One container: its handle, and the task that owns it.
//!
//! ```text
//!            create
//!              │
//!              ▼      start                Started
//!           Created ────────▶ Starting ───────────────▶ Running ⇄ paused
//!              ▲                │   ▲                      │
//!              └─ StartFailed ──┤   │ back-off over        │ Exited, or keeper lost (137)
//!                 (first start) │   │                      ▼
//!                               │  Restarting ◀── policy ──┤
//!                               │   │ stop                 │ no policy
//!                               ▼   ▼                      ▼
//!                               Exited ◀───────────────────┘
//!                                 │ rm, or --rm
//!                                 ▼
//!                              Removing ──▶ gone
//! ```
//!
//! The owner is the only one that changes the container. It takes one input at a time: a command
//! from its mailbox, an event of the keeper, or its timer. Nothing in the loop waits for the
//! container itself: commands to the keeper are sent on, and their answers go straight to whoever
//! asked. What lasts longer (`stop` with its grace period) is done by the caller, who watches the
//! published [`View`].

mod command;
mod end;
mod networks;
mod start;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use berth_base::Id;
use berth_keeper::protocol::{AttachOptions, Event, ExitRecord, ReplyBody, RequestBody};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::keeper::Keeper;
use crate::links;
use crate::options::StartOptions;
use crate::record::{Phase, Record, State, View};
use crate::restart::Backoff;
use crate::shared::Shared;

pub use command::{Command, Reply};

/// How many commands may wait for an owner.
const MAILBOX: usize = 256;
/// How many clients may attach before the start.
const WAITING_CLIENTS: usize = 64;
/// A keeper that has not said by then whether its container runs is given up.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// What everybody else holds of a container.
#[derive(Debug)]
pub struct Handle {
    pub id: Id,
    view: ArcSwap<View>,
    changes: watch::Sender<u64>,
    mailbox: mpsc::Sender<Command>,
    /// Held by whoever changes the files of a container that does not run: its file system must
    /// not be mounted twice.
    pub files: Arc<tokio::sync::Mutex<()>>,
}

impl Handle {
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Waits until a published state satisfies the condition.
    pub async fn until(&self, condition: impl Fn(&View) -> bool + Send) -> Arc<View> {
        let mut changes = self.changes.subscribe();
        loop {
            let view = self.view();
            if condition(&view) || changes.changed().await.is_err() {
                return view;
            }
        }
    }

    /// Sends the owner a command and waits for its answer. A keeper that ends answers nothing any
    /// more: then the container is not running.
    pub async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let gone = || match self.view().removed {
            true => Error::no_such_container(self.id.as_str()),
            false => Error::not_running(self.id.as_str()),
        };
        self.mailbox
            .send(command(reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Passes a request on to the keeper of the running container; its answer may be `Failed`.
    pub async fn ask_keeper(&self, body: RequestBody, fds: Vec<OwnedFd>) -> Result<ReplyBody> {
        self.ask(|reply| Command::Keeper {
            body: Box::new(body),
            fds,
            reply,
        })
        .await
    }

    fn publish(&self, view: View) {
        self.view.store(Arc::new(view));
        self.changes.send_modify(|count| *count += 1);
    }
}

/// The task's own state.
pub struct Owner {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    inbox: mpsc::Receiver<Command>,
    record: Arc<Record>,
    state: State,
    exits: u64,
    removed: bool,
    keeper: Option<Keeper>,
    /// Who waits for the start that is under way.
    starters: Vec<Reply<()>>,
    /// Clients that attached before the start.
    clients: Vec<(AttachOptions, OwnedFd)>,
    backoff: Backoff,
    timer: Option<Instant>,
}

/// What an owner begins with, beside its record.
#[derive(Debug, Default)]
pub struct Beginning {
    pub state: State,
    /// Of a container that runs already.
    pub keeper: Option<Keeper>,
    /// Ended while no daemon ran: to be handled as if it ended now.
    pub exit: Option<ExitRecord>,
    /// Start it right away, by its restart policy.
    pub start: bool,
}

enum Input {
    Command(Option<Command>),
    Keeper(Option<Event>),
    Timer,
    Shutdown,
}

/// Publishes a container and starts its owner.
pub fn spawn(shared: &Arc<Shared>, record: Record, beginning: Beginning) -> Arc<Handle> {
    let (mailbox, inbox) = mpsc::channel(MAILBOX);
    let record = Arc::new(record);
    let view = View {
        record: record.clone(),
        state: beginning.state.clone(),
        exits: 0,
        removed: false,
    };
    let handle = Arc::new(Handle {
        id: record.id.clone(),
        view: ArcSwap::from_pointee(view),
        changes: watch::Sender::new(0),
        mailbox,
        files: Arc::default(),
    });
    let owner = Owner {
        shared: shared.clone(),
        handle: handle.clone(),
        inbox,
        record,
        state: beginning.state,
        exits: 0,
        removed: false,
        keeper: beginning.keeper,
        starters: Vec::new(),
        clients: Vec::new(),
        backoff: Backoff::default(),
        timer: None,
    };
    shared.links.add(&owner.record);
    shared.table.insert(handle.clone());
    shared.scope.spawn(
        "container owner",
        owner.run(beginning.exit, beginning.start),
    );
    handle
}

impl Owner {
    async fn run(mut self, exit: Option<ExitRecord>, start: bool) {
        if let Some(exit) = exit {
            self.ended(exit).await;
        } else if start {
            links::await_children(&self.shared, &self.record).await;
            self.start_by_policy().await;
        }
        let shutdown = self.shared.scope.shutdown();
        while !self.removed {
            let input = tokio::select! {
                command = self.inbox.recv() => Input::Command(command),
                event = next_event(&mut self.keeper) => Input::Keeper(event),
                () = until(self.timer) => Input::Timer,
                () = shutdown.requested() => Input::Shutdown,
            };
            match input {
                Input::Command(Some(command)) => self.command(command).await,
                Input::Keeper(Some(event)) => self.event(event).await,
                Input::Keeper(None) => self.keeper_gone().await,
                Input::Timer => self.timer_due().await,
                Input::Command(None) | Input::Shutdown => return,
            }
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Started { pid, started_at_ns } => self.started(pid, started_at_ns).await,
            Event::StartFailed(failure) => self.start_refused(&failure).await,
            // A keeper that introduces itself late may say so twice.
            Event::Exited(exit) if self.state.phase.is_live() => self.ended(exit).await,
            Event::Exited(_) => {}
            Event::ExecExited { exec, code } => self.shared.exec_ended(&self.record, &exec, code),
            Event::Oom => {
                self.state.oom_killed = true;
                self.publish();
                self.shared.container_event(&self.record, "oom", &[]);
            }
            Event::Detached { exec: None } => {
                self.shared.container_event(&self.record, "detach", &[]);
            }
            Event::Detached { exec: Some(exec) } => {
                self.shared
                    .container_event(&self.record, "exec_detach", &[("execID", &exec)]);
            }
            Event::Released => {
                if !self.state.phase.is_live() {
                    self.keeper = None;
                }
            }
            Event::Warning { message } => {
                tracing::warn!(container = %self.record.id, message, "from the container's keeper");
            }
        }
    }

    async fn timer_due(&mut self) {
        self.timer = None;
        match self.state.phase {
            Phase::Restarting => self.start_by_policy().await,
            Phase::Starting => {
                tracing::error!(container = %self.record.id, "the start took too long");
                self.keeper_gone().await;
            }
            Phase::Created
            | Phase::Running { .. }
            | Phase::Exited
            | Phase::Removing
            | Phase::Dead => {}
        }
    }

    fn publish(&self) {
        self.handle.publish(View {
            record: self.record.clone(),
            state: self.state.clone(),
            exits: self.exits,
            removed: self.removed,
        });
    }

    /// Writes the state; a failure is reported, the container itself goes on.
    async fn save_state(&self) {
        if let Err(error) = self.state.save(&self.record.id, &self.shared.store).await {
            tracing::error!(%error, "a container's state was not recorded");
        }
    }
}

async fn next_event(keeper: &mut Option<Keeper>) -> Option<Event> {
    match keeper {
        Some(keeper) => keeper.event().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The options of a start that nobody in particular asked for.
fn by_policy() -> StartOptions {
    StartOptions::default()
}
