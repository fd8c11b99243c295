//! The client of the launcher: the process that forks keepers and services.
//!
//! The launcher answers in order and a fork takes a fraction of a millisecond, so requests are
//! simply taken one after another by one task, which alone holds the socket.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_runtime::protocol::{Launch, LauncherReply, LauncherRequest};
use berth_tasks::Scope;
use tokio::sync::{mpsc, oneshot};

use crate::frame::Channel;

/// How many requests may wait for the launcher.
const QUEUED: usize = 1024;

/// A handle on the launcher. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Launcher(mpsc::Sender<Job>);

#[derive(Debug)]
struct Job {
    request: LauncherRequest,
    fds: Vec<OwnedFd>,
    reply: oneshot::Sender<io::Result<i32>>,
}

impl Launcher {
    /// Takes over the daemon's end of the socket pair. Must be called inside a runtime.
    pub fn new(scope: &Scope, socket: OwnedFd) -> io::Result<Self> {
        let channel = Channel::new(socket)?;
        let (sender, receiver) = mpsc::channel(QUEUED);
        scope.spawn("launcher client", serve(channel, receiver));
        Ok(Self(sender))
    }

    /// Forks a keeper; returns its process id. The descriptors are those that [`Launch`] names.
    pub async fn launch(&self, launch: Launch, fds: Vec<OwnedFd>) -> io::Result<i32> {
        let (job, answer) = job(LauncherRequest::Launch(Box::new(launch)), fds);
        self.0.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Forks a service of the binary; returns its process id. Blocks: not for async code.
    pub fn service_blocking(
        &self,
        name: &str,
        args: serde_json::Value,
        fds: Vec<OwnedFd>,
    ) -> io::Result<i32> {
        let name = name.to_owned();
        let (job, answer) = job(LauncherRequest::Service { name, args }, fds);
        self.0.blocking_send(job).map_err(|_| gone())?;
        answer.blocking_recv().map_err(|_| gone())?
    }
}

fn job(request: LauncherRequest, fds: Vec<OwnedFd>) -> (Job, oneshot::Receiver<io::Result<i32>>) {
    let (reply, answer) = oneshot::channel();
    let job = Job {
        request,
        fds,
        reply,
    };
    (job, answer)
}

async fn serve(mut channel: Channel, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.recv().await {
        let result = perform(&mut channel, &job).await;
        // Whoever asked may have gone; the keeper then finds its control socket closed.
        job.reply.send(result).ok();
    }
}

async fn perform(channel: &mut Channel, job: &Job) -> io::Result<i32> {
    let fds: Vec<_> = job.fds.iter().map(AsFd::as_fd).collect();
    channel.send(&job.request, &fds).await?;
    match channel.receive().await? {
        Some(LauncherReply::Forked { pid }) => Ok(pid),
        Some(LauncherReply::Failed { message }) => Err(io::Error::other(message)),
        None => Err(gone()),
    }
}

fn gone() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotConnected,
        "the launcher process has ended; restart the daemon",
    )
}
