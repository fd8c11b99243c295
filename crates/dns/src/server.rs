//! The sockets: one task a container reads them, and answers from memory at once. What has to be
//! asked elsewhere, and each connection of TCP, is a task of its own.
//!
//! ```text
//!            ┌──────── sockets of a container ────────┐
//! datagram ─▶│ read ─▶ known, or kept? ─ yes ─▶ answer │
//!            │                        └ no ─▶ task ────┼─▶ servers elsewhere ─▶ answer
//! connection▶│ accept ─▶ task: message after message   │
//!            └─────────────────────────────────────────┘
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use berth_tasks::{Backoff, Scope, Shutdown};
use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::answer::answer;
use crate::dice::{self, Dice};
use crate::forward::{Changes, Forwarder};
use crate::query::{MAX_QUERY, Query, Transport, Unusable, encode};
use crate::upstream::{Origin, Upstreams, framed};
use crate::view::View;

/// Questions of the instance that are being asked of other servers: each has a socket.
const UNDER_WAY: usize = 4_096;
/// Those of one container, with the ones that wait for their turn. One more is refused.
const UNDER_WAY_OF_ONE: usize = 1_024;
/// Connections of one container. A further one waits until another has ended.
const CONNECTIONS: usize = 64;
/// How long a connection may be silent, and take to receive an answer.
const IDLE: Duration = Duration::from_secs(10);
/// Datagrams that are read before other tasks have their turn.
const BATCH: usize = 64;
/// The pause after a socket's failure, and the longest one.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of a container's tasks is waited for; none of them does more than wait.
const END: Duration = Duration::from_secs(5);

/// The name server of an instance.
#[derive(Debug, Clone)]
pub struct Resolver {
    scope: Scope,
    under_way: Arc<Semaphore>,
}

/// Where a container's questions arrive. They need not be non-blocking.
#[derive(Debug)]
pub struct Sockets {
    pub udp: std::net::UdpSocket,
    pub tcp: std::net::TcpListener,
}

/// A container's questions are being answered until this is dropped. The sockets, which keep the
/// container's network namespace, are closed soon after; with [`Listening::stop`], before it
/// returns.
#[derive(Debug)]
pub struct Listening {
    scope: Scope,
    view: Arc<ArcSwap<View>>,
}

impl Resolver {
    /// Its tasks belong to `scope`.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            under_way: Arc::new(Semaphore::new(UNDER_WAY)),
        }
    }

    /// A set of servers for the views that share it; what they answer is kept there. `changes`
    /// tells, before each question, whether they are others by now.
    pub fn forwarder(
        &self,
        upstreams: Upstreams,
        changes: Option<Box<Changes>>,
        origin: Origin,
    ) -> Arc<Forwarder> {
        let under_way = Arc::clone(&self.under_way);
        Arc::new(Forwarder::new(
            upstreams,
            changes,
            origin,
            self.scope.clone(),
            under_way,
        ))
    }

    /// Answers on the sockets. Within a tokio runtime.
    pub fn listen(&self, sockets: Sockets, view: View) -> io::Result<Listening> {
        sockets.udp.set_nonblocking(true)?;
        sockets.tcp.set_nonblocking(true)?;
        let scope = self.scope.child();
        let view = Arc::new(ArcSwap::from_pointee(view));
        let container = Container {
            udp: Arc::new(UdpSocket::from_std(sockets.udp)?),
            tcp: TcpListener::from_std(sockets.tcp)?,
            desk: Desk {
                view: Arc::clone(&view),
                dice: Arc::new(Dice::new(dice::seed())),
                under_way: Arc::new(Semaphore::new(UNDER_WAY_OF_ONE)),
            },
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            scope: scope.clone(),
        };
        scope.spawn("dns", container.serve());
        Ok(Listening { scope, view })
    }
}

impl Listening {
    /// From the next question on, this is what the container sees.
    pub fn show(&self, view: View) {
        self.view.store(Arc::new(view));
    }

    /// Returns when the sockets are closed.
    pub async fn stop(self) {
        if !self.scope.drain(END).await {
            tracing::error!("the name server of a container did not end in time");
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.scope.cancel();
    }
}

/// What reads a container's sockets.
struct Container {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    desk: Desk,
    connections: Arc<Semaphore>,
    scope: Scope,
}

/// What answers a container's questions, whatever brings them.
#[derive(Clone)]
struct Desk {
    view: Arc<ArcSwap<View>>,
    dice: Arc<Dice>,
    under_way: Arc<Semaphore>,
}

/// What becomes of a message.
enum Response {
    Nothing,
    Now(Vec<u8>),
    /// It has to be asked of others.
    Later(Box<Errand>),
}

struct Errand {
    query: Query,
    forwarder: Arc<Forwarder>,
    _slot: OwnedSemaphorePermit,
}

enum Event {
    End,
    Readable(io::Result<()>),
    Accepted(io::Result<TcpStream>, OwnedSemaphorePermit),
}

impl Container {
    async fn serve(self) {
        let shutdown = self.scope.shutdown();
        let mut pause = Backoff::new(PAUSE, LONGEST_PAUSE);
        loop {
            let event = tokio::select! {
                () = shutdown.requested() => Event::End,
                ready = self.udp.readable() => Event::Readable(ready),
                (accepted, slot) = self.accept() => Event::Accepted(accepted, slot),
            };
            let done = match event {
                Event::End => return,
                Event::Readable(ready) => ready.and_then(|()| self.read_datagrams()),
                Event::Accepted(accepted, slot) => accepted.map(|stream| self.take(stream, slot)),
            };
            match done {
                Ok(()) => pause.reset(),
                Err(error) => {
                    tracing::warn!(%error, "a socket of a container's name server failed");
                    tokio::time::sleep(pause.next_delay()).await;
                }
            }
        }
    }

    async fn accept(&self) -> (io::Result<TcpStream>, OwnedSemaphorePermit) {
        let slot = Arc::clone(&self.connections).acquire_owned().await;
        let slot = slot.expect("the semaphore is never closed");
        let accepted = self.tcp.accept().await;
        (accepted.map(|(stream, _)| stream), slot)
    }

    fn read_datagrams(&self) -> io::Result<()> {
        let mut buffer = [0; MAX_QUERY];
        for _ in 0..BATCH {
            let (length, client) = match self.udp.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            match self.desk.respond(&buffer[..length], Transport::Udp) {
                Response::Nothing => (),
                // A client that does not read its answers loses them.
                Response::Now(bytes) => drop(self.udp.try_send_to(&bytes, client)),
                Response::Later(errand) => self.send_out(*errand, client),
            }
        }
        Ok(())
    }

    fn send_out(&self, errand: Errand, client: SocketAddr) {
        let (udp, shutdown) = (Arc::clone(&self.udp), self.scope.shutdown());
        let run = async move {
            let bytes = errand.run(Transport::Udp).await;
            if let Err(error) = udp.send_to(&bytes, client).await {
                tracing::debug!(%error, "an answer could not be given");
            }
        };
        self.scope
            .spawn("dns question", unless_ended(shutdown, run));
    }

    fn take(&self, stream: TcpStream, slot: OwnedSemaphorePermit) {
        let (desk, shutdown) = (self.desk.clone(), self.scope.shutdown());
        let run = async move {
            // Clients leave without a word.
            let _ = desk.converse(stream).await;
            drop(slot);
        };
        self.scope
            .spawn("dns connection", unless_ended(shutdown, run));
    }
}

impl Desk {
    fn respond(&self, message: &[u8], transport: Transport) -> Response {
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Unusable::Silence) => return Response::Nothing,
            Err(Unusable::Refused(bytes)) => return Response::Now(bytes),
        };
        let view = self.view.load();
        if let Some(answer) = answer(&query, &view, &self.dice) {
            return Response::Now(answer.fit(&query, query.limit(transport)));
        }
        let Some(forwarder) = &view.forwarder else {
            return Response::Now(encode(&query.respond(ResponseCode::ServFail)));
        };
        if let Some(bytes) = forwarder.kept(&query, transport) {
            return Response::Now(bytes);
        }
        match Arc::clone(&self.under_way).try_acquire_owned() {
            Ok(slot) => Response::Later(Box::new(Errand {
                query,
                forwarder: Arc::clone(forwarder),
                _slot: slot,
            })),
            Err(_) => Response::Now(encode(&query.respond(ResponseCode::Refused))),
        }
    }

    /// Question after question, until the client leaves or is silent for too long.
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let message = timeout(IDLE, read_framed(&mut stream)).await??;
            let bytes = match self.respond(&message, Transport::Tcp) {
                Response::Nothing => continue,
                Response::Now(bytes) => bytes,
                Response::Later(errand) => errand.run(Transport::Tcp).await,
            };
            timeout(IDLE, stream.write_all(&framed(&bytes))).await??;
        }
    }
}

impl Errand {
    async fn run(&self, transport: Transport) -> Vec<u8> {
        self.forwarder.ask(&self.query, transport).await
    }
}

async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_QUERY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn unless_ended(shutdown: Shutdown, work: impl Future<Output = ()>) {
    tokio::select! {
        () = shutdown.requested() => (),
        () = work => (),
    }
}
