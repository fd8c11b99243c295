//! What the engine does with the streams of containers: logs, attaching, further commands.

use std::os::fd::OwnedFd;

use berth_docker::exec;
use berth_keeper::protocol::{self, RequestBody};

use super::Engine;
use crate::container::Command;
use crate::error::{Error, Result};
use crate::keeper::settled;
use crate::logs::{self, LogStream};
use crate::options::{AttachOptions, ExecStartOptions, LogOptions, StreamTarget};
use crate::record::Phase;
use crate::{attach, detach, exec as execs};

impl Engine {
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
}
