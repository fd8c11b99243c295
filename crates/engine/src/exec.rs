//! Further commands in running containers.
//!
//! ```text
//!  create ──▶ Created ──start──▶ Starting ──▶ Running ──ExecExited──▶ Ended
//!                                    └────────── refused ───────────────▲
//! ```
//!
//! An exec lives in memory, and in the keeper while it runs: a daemon that comes later learns of
//! it from there.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use berth_base::Id;
use berth_docker::exec::{CreateRequest, CreateResponse, Inspect, ProcessConfig};
use berth_keeper::protocol::{
    AttachOptions, ExecState, FailureKind, ReplyBody, RequestBody, UserRequest, VERSION,
};

use crate::container::Handle;
use crate::detach;
use crate::error::{Error, Result};
use crate::keeper::refusal;
use crate::links;
use crate::options::{ExecStartOptions, StreamTarget};
use crate::record::{Phase, Record};
use crate::shared::Shared;
use crate::spec::process;

/// How many execs that ended are remembered for their exit codes.
const REMEMBERED: usize = 1024;
/// Execs that were made and not started; more are refused.
const MAX_EXECS: usize = 16 << 10;

/// All execs. The lock is held for look-ups only.
#[derive(Debug, Default)]
pub struct Execs(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    all: HashMap<String, Exec>,
    ended: VecDeque<String>,
}

#[derive(Debug, Clone)]
struct Exec {
    container: Id,
    request: Arc<CreateRequest>,
    phase: ExecPhase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExecPhase {
    Created,
    Starting,
    Running { pid: i32 },
    Ended { pid: i32, code: i32 },
}

impl Execs {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Result<Exec> {
        self.lock()
            .all
            .get(id)
            .cloned()
            .ok_or_else(|| Error::no_such_exec(id))
    }

    fn ended(&self, id: &str, code: i32) {
        let mut inner = self.lock();
        let Some(exec) = inner.all.get_mut(id) else {
            return;
        };
        let pid = match exec.phase {
            ExecPhase::Running { pid } => pid,
            ExecPhase::Created | ExecPhase::Starting => 0,
            ExecPhase::Ended { .. } => return,
        };
        exec.phase = ExecPhase::Ended { pid, code };
        inner.ended.push_back(id.to_owned());
        if inner.ended.len() > REMEMBERED
            && let Some(oldest) = inner.ended.pop_front()
        {
            inner.all.remove(&oldest);
        }
    }

    fn started(&self, id: &str, pid: i32) {
        // It may have ended already: events and answers take different ways.
        if let Some(exec) = self.lock().all.get_mut(id)
            && exec.phase == ExecPhase::Starting
        {
            exec.phase = ExecPhase::Running { pid };
        }
    }

    /// Those of a container that have not ended, as an inspection lists them.
    pub fn of(&self, container: &Id) -> Vec<String> {
        let inner = self.lock();
        let mut ids: Vec<String> = inner
            .all
            .iter()
            .filter(|(_, exec)| {
                exec.container == *container && !matches!(exec.phase, ExecPhase::Ended { .. })
            })
            .map(|(id, _)| id.clone())
            .collect();
        ids.sort_unstable();
        ids
    }

    /// What a keeper knows of execs that an earlier daemon started.
    pub fn adopt(&self, container: &Id, states: &[ExecState]) {
        let mut inner = self.lock();
        for state in states {
            let phase = match state.code {
                Some(code) => ExecPhase::Ended {
                    pid: state.pid,
                    code,
                },
                None => ExecPhase::Running { pid: state.pid },
            };
            let exec = Exec {
                container: container.clone(),
                request: Arc::default(),
                phase,
            };
            inner.all.insert(state.exec.clone(), exec);
            if state.code.is_some() {
                inner.ended.push_back(state.exec.clone());
            }
        }
    }
}

impl Shared {
    pub fn exec_ended(&self, record: &Record, exec: &str, code: i32) {
        self.execs.ended(exec, code);
        let code = code.to_string();
        self.container_event(record, "exec_die", &[("execID", exec), ("exitCode", &code)]);
    }

    /// The container has ended, and its execs with it.
    pub fn execs_end_with(&self, record: &Record) {
        for id in self.execs.of(&record.id) {
            let started = self
                .execs
                .get(&id)
                .is_ok_and(|exec| exec.phase != ExecPhase::Created);
            if started {
                self.exec_ended(record, &id, 128 + crate::signal::KILL);
            }
        }
    }

    pub fn forget_execs(&self, container: &Id) {
        let mut inner = self.execs.lock();
        inner.all.retain(|_, exec| exec.container != *container);
        let Inner { all, ended } = &mut *inner;
        ended.retain(|id| all.contains_key(id));
    }
}

pub fn create(shared: &Shared, reference: &str, request: CreateRequest) -> Result<CreateResponse> {
    let handle = shared.table.find(reference)?;
    check_running(&handle)?;
    let words: &[String] = request.cmd.as_ref().map_or(&[], |cmd| &cmd.0);
    if words.is_empty() {
        return Err(Error::invalid("No exec command specified"));
    }
    detach::parse(Some(&request.detach_keys))?;
    let id = Id::random().to_string();
    let action = format!("exec_create: {}", words.join(" "));
    {
        let mut inner = shared.execs.lock();
        if inner.all.len() >= MAX_EXECS {
            return Err(Error::unavailable("too many execs that were not started"));
        }
        let exec = Exec {
            container: handle.id.clone(),
            request: Arc::new(request),
            phase: ExecPhase::Created,
        };
        inner.all.insert(id.clone(), exec);
    }
    shared.container_event(&handle.view().record, &action, &[("execID", &id)]);
    Ok(CreateResponse { id })
}

fn check_running(handle: &Handle) -> Result<()> {
    let id = &handle.id;
    match handle.view().state.phase {
        Phase::Running { paused: false, .. } => Ok(()),
        Phase::Running { paused: true, .. } => Err(Error::conflict(format!(
            "Container {id} is paused, unpause the container before exec"
        ))),
        Phase::Restarting => Err(Error::conflict(format!(
            "Container {id} is restarting, wait until the container is running"
        ))),
        Phase::Created | Phase::Starting | Phase::Exited | Phase::Removing | Phase::Dead => {
            Err(Error::not_running(id.as_str()))
        }
    }
}

/// Whether a start would be accepted.
pub fn target(shared: &Shared, id: &str) -> Result<StreamTarget> {
    let exec = shared.execs.get(id)?;
    check_startable(id, &exec)?;
    check_running(&*shared.table.find(exec.container.as_str())?)?;
    Ok(StreamTarget {
        id: id.to_owned(),
        tty: exec.request.tty,
    })
}

fn check_startable(id: &str, exec: &Exec) -> Result<()> {
    match exec.phase {
        ExecPhase::Created => Ok(()),
        ExecPhase::Starting | ExecPhase::Running { .. } => Err(Error::conflict(format!(
            "Error: Exec command {id} is already running"
        ))),
        ExecPhase::Ended { .. } => Err(Error::conflict(format!(
            "Error: Exec command {id} has already run"
        ))),
    }
}

/// Starts the command. When it is refused, the client reads why on its stream.
pub async fn start(
    shared: &Shared,
    id: &str,
    options: ExecStartOptions,
    client: Option<OwnedFd>,
) -> Result<()> {
    let exec = shared.execs.get(id)?;
    let handle = shared.table.find(exec.container.as_str())?;
    check_running(&handle)?;
    {
        let mut inner = shared.execs.lock();
        let entry = inner
            .all
            .get_mut(id)
            .ok_or_else(|| Error::no_such_exec(id))?;
        check_startable(id, entry)?;
        entry.phase = ExecPhase::Starting;
    }
    let record = handle.view().record.clone();
    let words: &[String] = exec.request.cmd.as_ref().map_or(&[], |cmd| &cmd.0);
    let action = format!("exec_start: {}", words.join(" "));
    shared.container_event(&record, &action, &[("execID", id)]);
    // The keeper gets the only other copy: when it has ended, the client sees the end at once.
    let to_tell = client.as_ref().and_then(|client| client.try_clone().ok());
    let body = body(shared, id, &exec, &record, &options, client.is_some())?;
    let answer = handle.ask_keeper(body, client.into_iter().collect()).await;
    let (error, code) = match answer {
        Ok(ReplyBody::ExecStarted { pid }) => {
            shared.execs.started(id, pid);
            return Ok(());
        }
        Ok(ReplyBody::Failed(failure)) => {
            let code = match failure.kind {
                FailureKind::CommandNotFound => 127,
                FailureKind::CommandNotExecutable => 126,
                _ => 128,
            };
            (
                refusal(failure.kind, in_dockers_words(&failure.message)),
                code,
            )
        }
        Ok(other) => (
            Error::internal(format!("the keeper answered {other:?}")),
            128,
        ),
        Err(error) => (error, 128),
    };
    shared.exec_ended(&record, id, code);
    if let Some(client) = to_tell {
        tell(client, exec.request.tty, &error);
    }
    Err(error)
}

fn body(
    shared: &Shared,
    id: &str,
    exec: &Exec,
    record: &Record,
    options: &ExecStartOptions,
    attached: bool,
) -> Result<RequestBody> {
    let request = &exec.request;
    let empty = Vec::new();
    let mut config = Cow::Borrowed(&record.config);
    let linked = links::environment(shared, record)?;
    if !linked.is_empty() {
        config
            .to_mut()
            .env
            .get_or_insert_default()
            .splice(0..0, linked);
    }
    let process = process::exec(
        &config,
        &record.host,
        &shared.default_ulimits,
        &process::ExecRequest {
            args: request.cmd.as_ref().map_or(&[], |cmd| &cmd.0),
            env: request.env.as_ref().unwrap_or(&empty),
            working_dir: &request.working_dir,
            tty: request.tty,
            privileged: request.privileged,
        },
    )?;
    let user = match request.user.as_str() {
        "" => record.config.user.clone(),
        given => given.to_owned(),
    };
    let size = |size: [u32; 2]| Some((u16::try_from(size[0]).ok()?, u16::try_from(size[1]).ok()?));
    Ok(RequestBody::Exec {
        exec: id.to_owned(),
        process: Box::new(process),
        user: UserRequest {
            user,
            groups: record.host.group_add.clone().unwrap_or_default(),
        },
        console_size: options
            .console_size
            .or_else(|| request.console_size.and_then(size)),
        attach: attached
            .then(|| -> Result<AttachOptions> {
                Ok(AttachOptions {
                    stdin: request.attach_stdin,
                    stdout: request.attach_stdout,
                    stderr: request.attach_stderr,
                    multiplexed: !request.tty,
                    detach_keys: match request.tty {
                        true => detach::parse(Some(&request.detach_keys))?,
                        false => Vec::new(),
                    },
                })
            })
            .transpose()?,
        open_stdin: request.attach_stdin && attached,
    })
}

fn in_dockers_words(message: &str) -> String {
    if message.starts_with("exec failed") {
        format!("OCI runtime exec failed: {message}: unknown")
    } else {
        message.to_owned()
    }
}

/// Writes an error onto a client's stream, as dockerd does once the connection is hijacked.
fn tell(client: OwnedFd, tty: bool, error: &Error) {
    let text = format!("{}\r\n", error.message);
    let mut bytes = Vec::new();
    if !tty {
        bytes.extend_from_slice(&[2, 0, 0, 0]);
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    }
    bytes.extend_from_slice(text.as_bytes());
    // A client that has gone, or does not read, misses it.
    std::os::unix::net::UnixStream::from(client)
        .write_all(&bytes)
        .ok();
}

pub async fn inspect(shared: &Shared, id: &str) -> Result<Inspect> {
    let mut exec = shared.execs.get(id)?;
    if matches!(exec.phase, ExecPhase::Starting | ExecPhase::Running { .. })
        && let Ok(handle) = shared.table.find(exec.container.as_str())
    {
        // The client may have seen the end of the stream before we saw the end of the command:
        // events that came before this answer have been handled when it arrives. A container
        // that is gone by then has ended its execs.
        handle
            .ask_keeper(RequestBody::Hello { version: VERSION }, Vec::new())
            .await
            .ok();
        exec = shared.execs.get(id)?;
    }
    let request = &exec.request;
    let mut words = request.cmd.clone().unwrap_or_default().0.into_iter();
    let (running, exit_code, pid) = match exec.phase {
        ExecPhase::Created | ExecPhase::Starting => (false, None, 0),
        ExecPhase::Running { pid } => (true, None, pid),
        ExecPhase::Ended { pid, code } => (false, Some(i64::from(code)), pid),
    };
    Ok(Inspect {
        id: id.to_owned(),
        running,
        exit_code,
        process_config: ProcessConfig {
            tty: request.tty,
            entrypoint: words.next().unwrap_or_default(),
            arguments: words.collect(),
            privileged: Some(request.privileged),
            user: request.user.clone(),
        },
        open_stdin: request.attach_stdin,
        open_stderr: request.attach_stderr,
        open_stdout: request.attach_stdout,
        can_remove: false,
        container_id: exec.container.to_string(),
        detach_keys: Some(request.detach_keys.clone()),
        pid: i64::from(pid),
    })
}

pub async fn resize(shared: &Shared, id: &str, rows: u16, columns: u16) -> Result<()> {
    let exec = shared.execs.get(id)?;
    let handle = shared.table.find(exec.container.as_str())?;
    let body = RequestBody::Resize {
        exec: Some(id.to_owned()),
        rows,
        columns,
    };
    let answer = handle.ask_keeper(body, Vec::new()).await?;
    crate::keeper::settled(answer).map(|_| ())
}
