//! Ending: the exit is published, the network released, and the policy asked; and removal.

use berth_base::Timestamp;
use berth_base::duration;
use berth_keeper::protocol::ExitRecord;
use tokio::time::Instant;

use super::Owner;
use crate::error::{Error, Result};
use crate::record::{Phase, Record};
use crate::shared::{kill_leftovers, lost_keeper};

impl Owner {
    /// The main process has ended.
    pub(super) async fn ended(&mut self, exit: ExitRecord) {
        // The keeper goes on until its clients have read everything; it says when it has let go
        // of the root file system.
        self.timer = None;
        let finished = Timestamp(exit.finished_at_ns);
        let run = self.state.started_at.elapsed_at(finished);
        self.state.finished_at = finished;
        self.state.exit_code = exit.code;
        self.state.oom_killed |= exit.oom_killed;
        let restart =
            self.record.policy().restarts_after(self.state.ended()) && !self.shared.is_closing();
        if restart {
            self.state.restarts += 1;
            self.timer = Some(Instant::now() + self.backoff.next(run));
        }
        self.state.phase = if restart {
            Phase::Restarting
        } else {
            Phase::Exited
        };
        // Whoever waits for the end may want the ports right after it; an address can wait.
        let had_ports = self
            .state
            .endpoints
            .values()
            .any(|it| !it.endpoint.ports.is_empty());
        if had_ports {
            self.release_network().await;
        }
        self.exits += 1;
        self.publish();
        self.release_network().await;
        self.release_mounts().await;
        self.save_state().await;
        self.shared.execs_end_with(&self.record);
        let code = exit.code.to_string();
        let seconds = run.as_secs().to_string();
        self.shared.container_event(
            &self.record,
            "die",
            &[("exitCode", &code), ("execDuration", &seconds)],
        );
        tracing::debug!(
            container = %self.record.id,
            code = exit.code,
            run = duration::format_go(run),
            "ended"
        );
        if self.record.host.auto_remove
            && !restart
            && let Err(error) = self.remove(true).await
        {
            tracing::error!(container = %self.record.id, %error, "not removed after its end");
        }
    }

    /// The keeper closed its socket without a word. It leaves a record if it could; otherwise it
    /// was killed, and what is left of its container is killed too.
    pub(super) async fn keeper_gone(&mut self) {
        self.keeper = None;
        if !self.state.phase.is_live() {
            return;
        }
        if self.state.phase == Phase::Starting {
            self.kill_leftovers().await;
            let error =
                Error::internal("the container's keeper ended before the container started");
            return self.start_failed(error, 128).await;
        }
        let shared = self.shared.clone();
        let record = self.record.clone();
        let work = self
            .shared
            .scope
            .spawn_blocking(move || lost_keeper(&shared, &record));
        let exit = match work.await {
            Ok(exit) => exit,
            Err(_) => ExitRecord {
                code: 137,
                signal: Some(9),
                oom_killed: false,
                finished_at_ns: Timestamp::now().unix_nanos(),
            },
        };
        self.ended(exit).await;
    }

    /// Kills what may have come to be of a start that is given up.
    pub(super) async fn kill_leftovers(&mut self) {
        self.keeper = None;
        let (id, cgroup) = (self.record.id.clone(), self.shared.cgroup(&self.record));
        let work = move || kill_leftovers(&id, &cgroup);
        if self.shared.scope.spawn_blocking(work).await.is_err() {
            tracing::error!(container = %self.record.id, "killing its processes panicked");
        }
    }

    /// Takes addresses, ports and rules away, if there are any.
    pub(super) async fn release_network(&mut self) {
        self.shared.names.forget(&self.record.id);
        let endpoints = std::mem::take(&mut self.state.endpoints);
        if endpoints.is_empty() {
            return;
        }
        let names: Vec<String> = endpoints.keys().cloned().collect();
        let (shared, id) = (self.shared.clone(), self.record.id.clone());
        let work = self
            .shared
            .scope
            .spawn_blocking(move || shared.disconnect(&id, endpoints.values()));
        if work.await.is_err() {
            tracing::error!(container = %self.record.id, "releasing its network panicked");
        }
        self.shared
            .network_events(&self.record.id, &names, "disconnect");
    }

    /// Lets go of what was mounted for it on the host.
    pub(super) async fn release_mounts(&mut self) {
        let places = self.shared.held_places(&self.record);
        if !places.is_empty() {
            let (shared, id) = (self.shared.clone(), self.record.id.clone());
            let release = move || {
                for place in places {
                    shared.mounted.release(&place, id.as_str());
                }
            };
            if self.shared.block(release).await.is_err() {
                tracing::error!(container = %self.record.id, "unmounting its volumes panicked");
            }
        }
        self.shared.volume_events(&self.record, "unmount");
    }

    /// Removes the container: once its record is gone it does not exist; its directories go
    /// after that, off everybody's path.
    pub(super) async fn remove(&mut self, volumes: bool) -> Result<()> {
        let before = self.state.phase;
        if before.is_active() {
            return Err(Error::conflict(format!(
                "container is {}: stop the container before removing or force remove",
                before.name()
            )));
        }
        self.state.phase = Phase::Removing;
        self.publish();
        if let Err(error) = Record::delete(&self.record.id, &self.shared.store).await {
            self.state.phase = before;
            self.publish();
            return Err(error);
        }
        self.removed = true;
        self.shared.table.remove(&self.record.id);
        self.shared.links.remove(&self.record);
        self.shared.forget_execs(&self.record.id);
        self.shared.discard(&self.record);
        if volumes {
            self.shared
                .volumes
                .remove_anonymous(&self.shared, &self.record)
                .await;
        }
        self.shared.container_event(&self.record, "destroy", &[]);
        self.publish();
        Ok(())
    }
}
