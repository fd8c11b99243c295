//! Questions that no zone answers: asked of other servers in turn, their answers kept.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use berth_tasks::Scope;
use hickory_proto::op::ResponseCode;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::cache::Cache;
use crate::query::{Query, Transport, encode};
use crate::reply::Reply;
use crate::shared::UnderWay;
use crate::upstream::{Origin, Upstreams, exchange};

/// How long a client may be kept waiting: three servers' time, as with Docker.
const PATIENCE: Duration = Duration::from_secs(12);
/// For how long a server that has not answered is asked after the others.
const RECOVERY: Duration = Duration::from_secs(30);

/// A set of servers and what they have answered. Views of many containers share it.
pub struct Forwarder {
    upstreams: ArcSwap<Upstreams>,
    /// Asked before each question: other servers, if they are others by now.
    changes: Option<Box<Changes>>,
    origin: Origin,
    scope: Scope,
    /// Shared by all forwarders of the instance: questions that are being asked.
    under_way: Arc<Semaphore>,
    cache: Mutex<Cache>,
    shared: UnderWay<Outcome>,
    turn: AtomicUsize,
    /// Until when a server is asked after the others.
    ailing: Mutex<HashMap<SocketAddr, Instant>>,
}

/// Tells the servers, if they are others than when it was asked last. It must not block.
pub type Changes = dyn Fn() -> Option<Upstreams> + Send + Sync;

/// An answer and what brought it, or what the client is told instead.
type Outcome = Result<(Reply, Transport), ResponseCode>;

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Forwarder").field(&self.upstreams).finish()
    }
}

impl Forwarder {
    pub(crate) fn new(
        upstreams: Upstreams,
        changes: Option<Box<Changes>>,
        origin: Origin,
        scope: Scope,
        under_way: Arc<Semaphore>,
    ) -> Self {
        Self {
            ailing: Mutex::default(),
            upstreams: ArcSwap::from_pointee(upstreams),
            changes,
            origin,
            scope,
            under_way,
            cache: Mutex::default(),
            shared: UnderWay::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// The servers that are asked.
    pub fn upstreams(&self) -> Arc<Upstreams> {
        self.upstreams.load_full()
    }

    /// An answer that is at hand.
    pub(crate) fn kept(&self, query: &Query, transport: Transport) -> Option<Vec<u8>> {
        let key = query.cache_key()?;
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (reply, age) = cache.get(&key, Instant::now())?;
        drop(cache);
        let mut bytes = reply.for_client(query, age);
        // Without an OPT record, since that is one client's own.
        query.append_edns(&mut bytes);
        Some(if bytes.len() <= query.limit(transport) {
            bytes
        } else {
            cut(query, &reply)
        })
    }

    /// Asks, and answers in every case.
    pub(crate) async fn ask(&self, query: &Query, transport: Transport) -> Vec<u8> {
        let (outcome, own) = match query.cache_key() {
            Some(mut key) => {
                // Cut for the one is not cut for the other.
                key.push(u8::from(transport == Transport::Tcp));
                self.shared.once(key, self.reply(query, transport)).await
            }
            None => (self.reply(query, transport).await, true),
        };
        let (reply, by) = match outcome {
            Ok(found) => found,
            Err(code) => return encode(&query.respond(code)),
        };
        let mut bytes;
        if own {
            bytes = reply.for_client(query, Duration::ZERO);
        } else {
            bytes = reply.clone().for_all().for_client(query, Duration::ZERO);
            query.append_edns(&mut bytes);
        }
        // A server that sends more by UDP than was asked for does so for the better; as Docker,
        // the client gets all of it.
        let fits = bytes.len() <= query.limit(transport) || by == Transport::Udp;
        if !fits || reply.is_truncated() {
            return cut(query, &reply);
        }
        bytes
    }

    /// The servers that are asked now.
    fn current(&self) -> Arc<Upstreams> {
        let changed = self.changes.as_ref().and_then(|changes| changes());
        if let Some(changed) = changed {
            tracing::info!(servers = ?changed.servers, "the host asks other name servers now");
            self.upstreams.store(Arc::new(changed));
            *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = Cache::default();
        }
        self.upstreams()
    }

    async fn reply(&self, query: &Query, transport: Transport) -> Outcome {
        let upstreams = self.current();
        let begin = Instant::now();
        let slot = timeout(upstreams.timeout, self.under_way.acquire());
        let Ok(Ok(_slot)) = slot.await else {
            tracing::warn!("too many names are being asked of other servers at once");
            return Err(ResponseCode::Refused);
        };
        for _ in 0..upstreams.attempts {
            for server in self.order(&upstreams) {
                let now = Instant::now();
                let until = (now + upstreams.timeout).min(begin + PATIENCE);
                if until <= now {
                    return Err(ResponseCode::ServFail);
                }
                let by_tcp = transport == Transport::Tcp || upstreams.tcp;
                let found = self.ask_one(server, query, by_tcp, until).await;
                self.note(server, found.is_some());
                let Some((reply, by)) = found else { continue };
                let code = ResponseCode::from_low(reply.code());
                // Another one may know, or be willing.
                if matches!(code, ResponseCode::ServFail | ResponseCode::Refused) {
                    continue;
                }
                if let Some(key) = query.cache_key() {
                    let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
                    cache.put(key, reply.clone(), Instant::now());
                }
                return Ok((reply, by));
            }
        }
        Err(ResponseCode::ServFail)
    }

    /// Asks one server until then, by TCP as well if its answer is too long for UDP.
    async fn ask_one(
        &self,
        server: SocketAddr,
        query: &Query,
        by_tcp: bool,
        until: Instant,
    ) -> Option<(Reply, Transport)> {
        let exchange = async |by| {
            let asked = exchange(&self.origin, &self.scope, server, by, query);
            match timeout_at(until, asked).await {
                Ok(Ok(reply)) => Some((reply, by)),
                Ok(Err(error)) => {
                    tracing::debug!(%server, %error, "a name server did not answer");
                    None
                }
                Err(_) => {
                    tracing::debug!(%server, "a name server did not answer in time");
                    None
                }
            }
        };
        if by_tcp {
            return exchange(Transport::Tcp).await;
        }
        let cut = exchange(Transport::Udp).await?;
        if !cut.0.is_truncated() {
            return Some(cut);
        }
        Some(exchange(Transport::Tcp).await.unwrap_or(cut))
    }

    fn order(&self, upstreams: &Upstreams) -> Vec<SocketAddr> {
        let first = match upstreams.rotate {
            true => self.turn.fetch_add(1, Ordering::Relaxed),
            false => 0,
        };
        let now = Instant::now();
        let ailing = self.ailing.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = upstreams.servers.iter();
        let ails = |server| ailing.get(server).is_some_and(|until| now < *until);
        let ailing: Vec<bool> = servers.map(ails).collect();
        let order = order(&ailing, first).into_iter();
        order.map(|index| upstreams.servers[index]).collect()
    }

    fn note(&self, server: SocketAddr, answered: bool) {
        let mut ailing = self.ailing.lock().unwrap_or_else(PoisonError::into_inner);
        if answered {
            ailing.remove(&server);
        } else {
            ailing.insert(server, Instant::now() + RECOVERY);
        }
    }
}

/// The servers from `first` on and around; those that ail come last.
fn order(ailing: &[bool], first: usize) -> Vec<usize> {
    let count = ailing.len();
    let around = (0..count).map(|step| (first % count + step) % count);
    let (last, mut order): (Vec<_>, Vec<_>) = around.partition(|&index| ailing[index]);
    order.extend(last);
    order
}

/// What a client is told for whom the answer is too long.
fn cut(query: &Query, reply: &Reply) -> Vec<u8> {
    let mut message = query.respond(ResponseCode::from_low(reply.code()));
    message.metadata.truncation = true;
    encode(&message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_ail_come_last() {
        assert_eq!(order(&[false, false, false], 0), [0, 1, 2]);
        assert_eq!(order(&[true, false, false], 0), [1, 2, 0]);
        assert_eq!(order(&[true, true], 0), [0, 1]);
        assert_eq!(order(&[], 7), [0; 0]);
    }

    #[test]
    fn with_rotate_each_comes_first_in_its_turn() {
        assert_eq!(order(&[false; 3], 4), [1, 2, 0]);
        assert_eq!(order(&[false, true, false], 4), [2, 0, 1]);
        assert_eq!(order(&[false; 3], usize::MAX), [0, 1, 2]);
    }
}
