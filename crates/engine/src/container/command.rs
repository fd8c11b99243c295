//! What others may ask of an owner.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::attach::greet;
use berth_docker::container::HostConfig;
use berth_docker::network::EndpointSettings;
use berth_keeper::protocol::{AttachOptions, ReplyBody, RequestBody, Target};
use tokio::sync::oneshot;

use super::{Owner, WAITING_CLIENTS};
use crate::error::{Error, Result};
use crate::keeper::settled;
use crate::links::Link;
use crate::network::Network;
use crate::options::StartOptions;
use crate::record::{Phase, Record};

/// A keeper answers at once, unless its container or its disk hangs: then only the owner's other
/// commands must not.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

pub type Reply<T> = oneshot::Sender<Result<T>>;

#[derive(Debug)]
pub enum Command {
    Start {
        options: StartOptions,
        reply: Reply<()>,
    },
    /// For the keeper of the running container, as it is.
    Keeper {
        body: Box<RequestBody>,
        fds: Vec<OwnedFd>,
        reply: Reply<ReplyBody>,
    },
    Signal {
        signal: i32,
        target: Target,
        /// The user wants the container to end, so its policy must not start it again.
        ends: bool,
        reply: Reply<ReplyBody>,
    },
    Pause {
        pause: bool,
        reply: Reply<()>,
    },
    /// Answered at once: the connection is handed to the keeper, or kept for the start.
    Attach {
        options: AttachOptions,
        greeting: Vec<u8>,
        client: OwnedFd,
        reply: Reply<()>,
    },
    /// A container that waits for its restart stays down.
    CancelRestart {
        reply: Reply<()>,
    },
    /// Takes one of its links away.
    Unlink {
        link: Link,
        reply: Reply<()>,
    },
    Rename {
        name: String,
        reply: Reply<()>,
    },
    Update {
        host: Box<HostConfig>,
        reply: Reply<()>,
    },
    /// Puts the container on a network.
    Connect {
        network: Arc<Network>,
        settings: Box<EndpointSettings>,
        reply: Reply<()>,
    },
    /// Takes the container off a network, which may not be there any more.
    Disconnect {
        name: String,
        network: Option<Arc<Network>>,
        reply: Reply<()>,
    },
    Remove {
        volumes: bool,
        reply: Reply<()>,
    },
    /// Answered when all that came before has been done.
    Sync {
        reply: Reply<()>,
    },
}

impl Owner {
    pub(super) async fn command(&mut self, command: Command) {
        match command {
            Command::Start { options, reply } => self.start(options, reply).await,
            Command::Keeper { body, fds, reply } => self.forward(*body, fds, reply).await,
            Command::Signal {
                signal,
                target,
                ends,
                reply,
            } => {
                if ends && self.is_running() && !self.state.stopped_by_user {
                    self.state.stopped_by_user = true;
                    self.save_state().await;
                    self.publish();
                }
                self.forward(RequestBody::Signal { signal, target }, Vec::new(), reply)
                    .await;
            }
            Command::Pause { pause, reply } => self.pause(pause, reply).await,
            Command::Attach {
                options,
                greeting,
                client,
                reply,
            } => {
                answer(reply, self.attach(options, &greeting, client).await);
            }
            Command::CancelRestart { reply } => answer(reply, self.cancel_restart().await),
            Command::Unlink { link, reply } => answer(reply, self.unlink(&link).await),
            Command::Rename { name, reply } => answer(reply, self.rename(name).await),
            Command::Update { host, reply } => answer(reply, self.update(*host).await),
            Command::Connect {
                network,
                settings,
                reply,
            } => {
                let connected = Box::pin(self.connect(network, *settings)).await;
                answer(reply, connected);
            }
            Command::Disconnect {
                name,
                network,
                reply,
            } => {
                let disconnected = Box::pin(self.disconnect(&name, network)).await;
                answer(reply, disconnected);
            }
            Command::Remove { volumes, reply } => answer(reply, self.remove(volumes).await),
            Command::Sync { reply } => answer(reply, Ok(())),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state.phase, Phase::Running { .. })
    }

    async fn forward(&mut self, body: RequestBody, fds: Vec<OwnedFd>, reply: Reply<ReplyBody>) {
        let running = self.is_running();
        match &mut self.keeper {
            Some(keeper) if running => keeper.request(body, fds, reply).await,
            _ => answer(reply, Err(Error::not_running(self.record.id.as_str()))),
        }
    }

    /// Freezing takes the kernel microseconds, so the owner waits for it and the state is never
    /// behind.
    async fn pause(&mut self, pause: bool, reply: Reply<()>) {
        let id = self.record.id.clone();
        let Phase::Running { pid, paused } = self.state.phase else {
            return answer(reply, Err(Error::not_running(id.as_str())));
        };
        if paused == pause {
            let message = match pause {
                true => format!("container {id} is already paused"),
                false => format!("Container {id} is not paused"),
            };
            return answer(reply, Err(Error::conflict(message)));
        }
        let body = if pause {
            RequestBody::Pause
        } else {
            RequestBody::Resume
        };
        let (sender, receiver) = oneshot::channel();
        self.forward(body, Vec::new(), sender).await;
        let result = self.keeper_answer(receiver).await;
        if result.is_ok() && self.is_running() {
            self.state.phase = Phase::Running { pid, paused: pause };
            self.save_state().await;
            self.publish();
            let action = if pause { "pause" } else { "unpause" };
            self.shared.container_event(&self.record, action, &[]);
        }
        answer(reply, result.map(|_| ()));
    }

    /// Waits for one answer of the keeper, handling the events that come before it.
    async fn keeper_answer(
        &mut self,
        mut answer: oneshot::Receiver<Result<ReplyBody>>,
    ) -> Result<ReplyBody> {
        let deadline = tokio::time::Instant::now() + ANSWER_DEADLINE;
        loop {
            let gone = || Error::not_running(self.record.id.as_str());
            let event = tokio::select! {
                biased;
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Error::internal("the container's keeper does not respond"));
                }
                answer = &mut answer => {
                    return answer.unwrap_or_else(|_| Err(gone())).and_then(settled);
                }
                event = super::next_event(&mut self.keeper) => event,
            };
            match event {
                // Boxed: an event's handling may come back here only through the loop.
                Some(event) => Box::pin(self.event(event)).await,
                None => Box::pin(self.keeper_gone()).await,
            }
            if self.keeper.is_none() {
                return answer
                    .try_recv()
                    .unwrap_or_else(|_| Err(Error::not_running(self.record.id.as_str())))
                    .and_then(settled);
            }
        }
    }

    async fn attach(
        &mut self,
        options: AttachOptions,
        greeting: &[u8],
        client: OwnedFd,
    ) -> Result<()> {
        match self.state.phase {
            Phase::Running { .. } => {
                greet(&client, greeting)?;
                let (sender, receiver) = oneshot::channel();
                let body = RequestBody::Attach {
                    exec: None,
                    options,
                };
                self.forward(body, vec![client], sender).await;
                self.keeper_answer(receiver).await.map(|_| ())
            }
            Phase::Removing | Phase::Dead => Err(Error::conflict(
                "can't attach to a container that is being removed",
            )),
            _ if self.clients.len() >= WAITING_CLIENTS => Err(Error::conflict(
                "too many clients wait for the container's start",
            )),
            Phase::Created | Phase::Starting | Phase::Restarting | Phase::Exited => {
                greet(&client, greeting)?;
                self.clients.push((options, client));
                Ok(())
            }
        }
    }

    async fn cancel_restart(&mut self) -> Result<()> {
        self.state.stopped_by_user = true;
        if self.state.phase == Phase::Restarting {
            self.timer = None;
            self.state.phase = Phase::Exited;
        }
        self.save_state().await;
        self.publish();
        Ok(())
    }

    async fn unlink(&mut self, link: &Link) -> Result<()> {
        let mut record = (*self.record).clone();
        record.links.retain(|other| other != link);
        record.save(&self.shared.store).await?;
        self.shared.links.remove(&self.record);
        self.record = Arc::new(record);
        self.shared.links.add(&self.record);
        self.publish();
        Ok(())
    }

    async fn rename(&mut self, name: String) -> Result<()> {
        let old = self.record.name.clone();
        if name == old {
            return Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ));
        }
        self.shared
            .table
            .reserve(&name, &self.record.id)
            .map_err(|error| error.while_doing("Error when allocating new name"))?;
        let record = Record {
            name: name.clone(),
            ..(*self.record).clone()
        };
        if let Err(error) = record.save(&self.shared.store).await {
            self.shared.table.release(&name);
            return Err(error);
        }
        self.record = Arc::new(record);
        self.shared.table.release(&old);
        let endpoints = &self.state.endpoints;
        self.shared
            .names
            .rename(&self.shared, &self.record, endpoints);
        self.publish();
        self.shared
            .container_event(&self.record, "rename", &[("oldName", &format!("/{old}"))]);
        Ok(())
    }

    async fn update(&mut self, host: HostConfig) -> Result<()> {
        if self.is_running() {
            let resources = self.shared.resources(&host)?;
            let (sender, receiver) = oneshot::channel();
            let body = RequestBody::Update {
                resources: Box::new(resources),
            };
            self.forward(body, Vec::new(), sender).await;
            self.keeper_answer(receiver).await?;
        }
        let record = Record {
            host,
            ..(*self.record).clone()
        };
        record.save(&self.shared.store).await?;
        self.record = Arc::new(record);
        self.publish();
        self.shared.container_event(&self.record, "update", &[]);
        Ok(())
    }
}

/// Answers; whoever asked may have gone.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T>) {
    drop(reply.send(result));
}
