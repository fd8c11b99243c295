//! Answers of other servers, kept for as long as they say. Pure: the caller tells the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::reply::Reply;

/// Answers are kept in two generations of this many; the older is dropped as a whole.
const GENERATION: usize = 1_024;
/// Longer answers, in bytes, are not kept.
const MAX_LENGTH: usize = 4_096;
/// No answer is kept for longer, whatever it says.
const MAX_AGE: Duration = Duration::from_secs(3_600);

/// Answers by what was asked. At most 8 MiB.
#[derive(Debug, Default)]
pub struct Cache {
    young: HashMap<Vec<u8>, Entry>,
    old: HashMap<Vec<u8>, Entry>,
}

#[derive(Debug)]
struct Entry {
    reply: Arc<Reply>,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// The answer and its age.
    pub fn get(&self, key: &[u8], now: Instant) -> Option<(Arc<Reply>, Duration)> {
        let entry = self.young.get(key).or_else(|| self.old.get(key))?;
        (now < entry.until).then(|| (Arc::clone(&entry.reply), now - entry.since))
    }

    /// Keeps an answer that may be kept.
    pub fn put(&mut self, key: Vec<u8>, reply: Reply, now: Instant) {
        let Some(keep) = reply.keep() else { return };
        if reply.len() > MAX_LENGTH {
            return;
        }
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        let entry = Entry {
            reply: Arc::new(reply.for_all()),
            since: now,
            until: now + keep.min(MAX_AGE),
        };
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{RData, Record, RecordType};

    use super::*;
    use crate::query::Query;
    use crate::query::tests::ask;

    fn reply(ttl: u32) -> Reply {
        let query = Query::read(&ask("a.", RecordType::A).to_vec().unwrap()).unwrap();
        let mut message = query.respond(ResponseCode::NoError);
        let data = RData::A(A::new(192, 0, 2, 1));
        message.add_answer(Record::from_rdata(query.exact_name().clone(), ttl, data));
        Reply::read(message.to_vec().unwrap(), &query, query.id()).unwrap()
    }

    #[test]
    fn an_answer_lasts_as_long_as_it_says_and_not_beyond_an_hour() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut cache = Cache::default();
        cache.put(b"short".to_vec(), reply(10), now);
        cache.put(b"long".to_vec(), reply(1_000_000), now);
        cache.put(b"none".to_vec(), reply(0), now);
        let age = |key: &[u8], at| cache.get(key, at).map(|(_, age)| age.as_secs());
        assert_eq!(age(b"short", after(9)), Some(9));
        assert_eq!(age(b"short", after(10)), None);
        assert_eq!(age(b"long", after(3_599)), Some(3_599));
        assert_eq!(age(b"long", after(3_600)), None);
        assert_eq!(age(b"none", now), None);
    }

    #[test]
    fn however_many_are_put_only_two_generations_stay() {
        let now = Instant::now();
        let mut cache = Cache::default();
        for index in 0..10 * GENERATION {
            cache.put(index.to_be_bytes().to_vec(), reply(10), now);
        }
        assert!(cache.young.len() + cache.old.len() <= 2 * GENERATION);
        let last = (10 * GENERATION - 1).to_be_bytes();
        assert!(cache.get(&last, now).is_some());
    }
}
