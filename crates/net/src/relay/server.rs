//! The relay's loop: one epoll, edge triggered, over the control socket, the published ports and
//! what passes through them.
//!
//! Every descriptor belongs to a source; a source's number is its epoll data. A source that had
//! its turn and is not done stands in `again`, so that a busy one does not starve the others.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::protocol::{Reply, Request, VERSION, take_frame, write_frame};
use super::tcp::{Pair, Turn};
use super::udp::{self, Flow, FlowKey};
use crate::endpoint::PortBinding;

/// Relayed connections and flows at a time; further ones are closed at once.
const MAX_STREAMS: usize = 16 << 10;
/// Connections accepted before others have their turn.
const ACCEPTS: usize = 64;
/// How long the daemon may take to receive an answer.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often idle flows are looked for.
const SWEEP: Duration = Duration::from_secs(10);
const SCRATCH_BYTES: usize = 64 << 10;
const EVENTS: usize = 256;

mod bindings;

pub struct Server {
    epoll: OwnedFd,
    sources: HashMap<u64, Source>,
    flows: HashMap<FlowKey, u64>,
    pairs: usize,
    next_source: u64,
    again: VecDeque<u64>,
    next_random: u16,
    scratch: Vec<u8>,
    swept: Instant,
    ended: bool,
}

enum Source {
    Control(UnixListener),
    Daemon {
        stream: UnixStream,
        received: Vec<u8>,
    },
    Tcp {
        port: Port,
        listener: TcpListener,
    },
    Udp {
        port: Port,
        listener: UdpSocket,
    },
    Pair {
        container_id: String,
        pair: Pair,
    },
    Flow {
        container_id: String,
        flow: Flow,
    },
}

#[derive(Clone)]
struct Port {
    container_id: String,
    target: IpAddr,
    container_port: u16,
    bindings: Vec<PortBinding>,
}

impl Server {
    pub fn new(control: UnixListener) -> io::Result<Server> {
        let mut server = Server {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            sources: HashMap::new(),
            flows: HashMap::new(),
            pairs: 0,
            next_source: 0,
            again: VecDeque::new(),
            next_random: 0,
            scratch: vec![0; SCRATCH_BYTES],
            swept: Instant::now(),
            ended: false,
        };
        control.set_nonblocking(true)?;
        let id = server.number();
        server.watch(id, &control, EventFlags::IN)?;
        server.sources.insert(id, Source::Control(control));
        Ok(server)
    }

    /// Serves until the daemon ends it.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        while !self.ended {
            let pause = if self.again.is_empty() {
                SWEEP
            } else {
                Duration::ZERO
            };
            let pause = rustix::time::Timespec::try_from(pause).ok();
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, pause.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let again = std::mem::take(&mut self.again);
            let ready: Vec<u64> = events.iter().map(|event| event.data.u64()).collect();
            for id in ready.into_iter().chain(again) {
                self.serve(id);
            }
            self.sweep();
        }
        Ok(())
    }

    /// Gives a source its turn. It is taken out meanwhile, and put back if it goes on.
    fn serve(&mut self, id: u64) {
        let Some(mut source) = self.sources.remove(&id) else {
            return;
        };
        let (stays, again) = match &mut source {
            Source::Control(listener) => (true, self.accept_daemons(listener)),
            Source::Daemon { stream, received } => (self.converse(stream, received), false),
            Source::Tcp { port, listener } => (true, self.accept_clients(port, listener)),
            Source::Udp { port, listener } => (true, self.receive(id, port, listener)),
            Source::Pair { pair, .. } => match pair.turn(&mut self.scratch) {
                Turn::Waits => (true, false),
                Turn::Again => (true, true),
                Turn::Over => {
                    self.pairs = self.pairs.saturating_sub(1);
                    (false, false)
                }
            },
            Source::Flow { flow, .. } => match self.sources.get(&flow.key.listener) {
                Some(Source::Udp { listener, .. }) => (
                    true,
                    flow.answer(listener, &mut self.scratch, Instant::now()),
                ),
                _ => (false, false),
            },
        };
        if stays {
            self.sources.insert(id, source);
        }
        if again {
            self.again.push_back(id);
        }
    }

    fn accept_daemons(&mut self, listener: &UnixListener) -> bool {
        while let Ok((stream, _)) = listener.accept() {
            let id = self.number();
            let ready = stream
                .set_nonblocking(true)
                .and_then(|()| stream.set_write_timeout(Some(CONTROL_TIMEOUT)))
                .and_then(|()| self.watch(id, &stream, EventFlags::IN | EventFlags::RDHUP));
            if ready.is_ok() {
                self.sources.insert(
                    id,
                    Source::Daemon {
                        stream,
                        received: Vec::new(),
                    },
                );
            }
        }
        false
    }

    /// Returns whether the daemon stays connected.
    fn converse(&mut self, stream: &mut UnixStream, received: &mut Vec<u8>) -> bool {
        loop {
            match stream.read(&mut self.scratch) {
                Ok(0) => return false,
                Ok(bytes) => received.extend_from_slice(&self.scratch[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return false,
            }
            loop {
                let request = match take_frame(received) {
                    Ok(Some(request)) => request,
                    Ok(None) => break,
                    Err(_) => return false,
                };
                let reply = self.answer(request);
                let sent = stream
                    .set_nonblocking(false)
                    .and_then(|()| write_frame(&mut *stream, &reply))
                    .and_then(|()| stream.set_nonblocking(true));
                if sent.is_err() {
                    return false;
                }
            }
        }
    }

    fn answer(&mut self, request: Request) -> Reply {
        match request {
            Request::Hello => Reply::Hello { version: VERSION },
            Request::Publish(publication) => match self.publish(&publication) {
                Ok(bindings) => Reply::Published { bindings },
                Err(refusal) => Reply::Refused(refusal),
            },
            Request::Withdraw { container_id } => {
                self.drop_where(|id| id == container_id);
                Reply::Done
            }
            Request::Adopt { containers } => Reply::Adopted {
                lost: self.adopt(&containers),
            },
            Request::Quit => {
                self.ended = true;
                Reply::Done
            }
        }
    }

    /// Returns whether more may be waiting.
    fn accept_clients(&mut self, port: &Port, listener: &TcpListener) -> bool {
        for _ in 0..ACCEPTS {
            let client = match listener.accept() {
                Ok((client, _)) => client,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // A client that left again, or no descriptor: the latter is tried again later.
                Err(_) => return false,
            };
            if self.pairs < MAX_STREAMS {
                self.join(port, client);
            }
        }
        true
    }

    /// A client whose container cannot be reached is closed, which is all that can be said.
    fn join(&mut self, port: &Port, client: std::net::TcpStream) {
        let both = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
        let id = self.number();
        let joined = Pair::connect(client, port.target, port.container_port).and_then(|pair| {
            self.watch(id, &pair.client, both)?;
            self.watch(id, &pair.target, both)?;
            Ok(pair)
        });
        if let Ok(pair) = joined {
            let container_id = port.container_id.clone();
            self.sources.insert(id, Source::Pair { container_id, pair });
            self.pairs += 1;
        }
    }

    fn receive(&mut self, id: u64, port: &Port, listener: &UdpSocket) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        let more = udp::receive(listener, &mut scratch, |client, host_ip, datagram| {
            self.pass(
                FlowKey {
                    listener: id,
                    client,
                    host_ip,
                },
                port,
                datagram,
            );
        });
        self.scratch = scratch;
        more
    }

    fn pass(&mut self, key: FlowKey, port: &Port, datagram: &[u8]) {
        let now = Instant::now();
        let known = self
            .flows
            .get(&key)
            .copied()
            .filter(|id| self.sources.contains_key(id));
        let Some(id) = known.or_else(|| self.begin_flow(key, port, now)) else {
            return;
        };
        if let Some(Source::Flow { flow, .. }) = self.sources.get_mut(&id) {
            flow.last = now;
            let _ = flow.target.send(datagram);
        }
    }

    fn begin_flow(&mut self, key: FlowKey, port: &Port, now: Instant) -> Option<u64> {
        if self.flows.len() >= MAX_STREAMS {
            return None;
        }
        let flow = Flow::connect(key, port.target, port.container_port, now).ok()?;
        let id = self.number();
        self.watch(id, &flow.target, EventFlags::IN).ok()?;
        self.sources.insert(
            id,
            Source::Flow {
                container_id: port.container_id.clone(),
                flow,
            },
        );
        self.flows.insert(key, id);
        Some(id)
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        let sources = &mut self.sources;
        self.flows.retain(|_, id| {
            let lives = matches!(sources.get(id), Some(Source::Flow { flow, .. })
                if now.duration_since(flow.last) < udp::IDLE);
            if !lives {
                sources.remove(id);
            }
            lives
        });
    }

    fn number(&mut self) -> u64 {
        self.next_source += 1;
        self.next_source
    }

    fn watch(&self, id: u64, fd: impl AsFd, flags: EventFlags) -> io::Result<()> {
        epoll::add(
            &self.epoll,
            fd,
            EventData::new_u64(id),
            flags | EventFlags::ET,
        )?;
        Ok(())
    }
}
