//! Questions that no zone answers: asked of other servers in turn, their answers kept.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_tasks::Scope;
use hickory_proto::op::ResponseCode;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::cache::Cache;
use crate::query::{Query, Transport, encode};
use crate::reply::Reply;
use crate::upstream::{Origin, Upstreams, exchange};

/// How long a client may be kept waiting: three servers' time, as with Docker.
const PATIENCE: Duration = Duration::from_secs(12);
/// For how long a server that has not answered is asked after the others.
const RECOVERY: Duration = Duration::from_secs(30);

/// A set of servers and what they have answered. Views of many containers share it.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Upstreams,
    origin: Origin,
    scope: Scope,
    /// Shared by all forwarders of the instance: questions that are being asked.
    under_way: Arc<Semaphore>,
    cache: Mutex<Cache>,
    turn: AtomicUsize,
    /// Beside each server, until when it is asked after the others.
    ailing: Mutex<Vec<Option<Instant>>>,
}

impl Forwarder {
    pub(crate) fn new(
        upstreams: Upstreams,
        origin: Origin,
        scope: Scope,
        under_way: Arc<Semaphore>,
    ) -> Self {
        Self {
            ailing: Mutex::new(vec![None; upstreams.servers.len()]),
            upstreams,
            origin,
            scope,
            under_way,
            cache: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// The servers that are asked.
    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
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
        let (reply, by) = match self.reply(query, transport).await {
            Ok(found) => found,
            Err(code) => return encode(&query.respond(code)),
        };
        let bytes = reply.for_client(query, Duration::ZERO);
        // A server that sends more by UDP than was asked for does so for the better; as Docker,
        // the client gets all of it.
        let fits = bytes.len() <= query.limit(transport) || by == Transport::Udp;
        if !fits || reply.is_truncated() {
            return cut(query, &reply);
        }
        bytes
    }

    async fn reply(
        &self,
        query: &Query,
        transport: Transport,
    ) -> Result<(Reply, Transport), ResponseCode> {
        let begin = Instant::now();
        let slot = timeout(self.upstreams.timeout, self.under_way.acquire());
        let Ok(Ok(_slot)) = slot.await else {
            tracing::warn!("too many names are being asked of other servers at once");
            return Err(ResponseCode::Refused);
        };
        for _ in 0..self.upstreams.attempts {
            for index in self.order() {
                let server = self.upstreams.servers[index];
                let now = Instant::now();
                let until = (now + self.upstreams.timeout).min(begin + PATIENCE);
                if until <= now {
                    return Err(ResponseCode::ServFail);
                }
                let found = self.ask_one(server, query, transport, until).await;
                self.note(index, found.is_some());
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
        transport: Transport,
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
        if transport == Transport::Tcp || self.upstreams.tcp {
            return exchange(Transport::Tcp).await;
        }
        let cut = exchange(Transport::Udp).await?;
        if !cut.0.is_truncated() {
            return Some(cut);
        }
        Some(exchange(Transport::Tcp).await.unwrap_or(cut))
    }

    fn order(&self) -> Vec<usize> {
        let first = match self.upstreams.rotate {
            true => self.turn.fetch_add(1, Ordering::Relaxed),
            false => 0,
        };
        let now = Instant::now();
        let ailing = self.ailing.lock().unwrap_or_else(PoisonError::into_inner);
        let ailing: Vec<bool> = ailing
            .iter()
            .map(|until| until.is_some_and(|until| now < until))
            .collect();
        order(&ailing, first)
    }

    fn note(&self, index: usize, answered: bool) {
        let mut ailing = self.ailing.lock().unwrap_or_else(PoisonError::into_inner);
        ailing[index] = (!answered).then(|| Instant::now() + RECOVERY);
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
