//! What other servers answer, and how long it lives. It is passed on as it came (RFC 3597), with
//! types and options that nobody here has heard of; so it is not decoded and encoded again.

use std::time::Duration;

use crate::query::Query;
use crate::wire::{HEADER, Header, name_end, seconds_at, u16_at, u32_at};

/// What follows a record's name: type, class, lifetime, length.
const RECORD: usize = 10;

const TYPE_SOA: u16 = 6;
const TYPE_SIG: u16 = 24;
const TYPE_OPT: u16 = 41;
const TYPE_TSIG: u16 = 250;

const NO_ERROR: u8 = 0;
const NAME_ERROR: u8 = 3;

/// What another server has answered to a question of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    bytes: Vec<u8>,
    code: u8,
    truncated: bool,
    /// Where the lifetimes of its records are.
    lifetimes: Vec<usize>,
    /// How long it may be kept, in seconds; `None` for what is not to be kept.
    keep: Option<u32>,
    /// Where the OPT record is, which ends the message.
    opt: Option<usize>,
}

/// The bytes are no answer to the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// It is another one's, or nobody's: wait for the right one.
    Other,
    /// The server's, but damaged.
    Damaged,
}

impl Reply {
    /// Reads an answer to `query`, which was sent with this id.
    pub fn read(mut bytes: Vec<u8>, query: &Query, id: u16) -> Result<Reply, Mismatch> {
        let header = Header::read(&bytes).ok_or(Mismatch::Other)?;
        if !header.is_reply() || header.id != id {
            return Err(Mismatch::Other);
        }
        let code = header.code();
        let question = query.question();
        let echoed = bytes.get(HEADER..HEADER + question.len());
        if header.counts[0] != 1 || !echoed.is_some_and(|echo| echo.eq_ignore_ascii_case(question))
        {
            // Some say that they cannot, and not what.
            let refuses = header.counts[0] == 0 && code != NO_ERROR && code != NAME_ERROR;
            return if refuses {
                Ok(Reply::without_records(shell(query, header), code, false))
            } else {
                Err(Mismatch::Damaged)
            };
        }
        if header.is_truncated() {
            // Where it was cut is not said: often within a record.
            return Ok(Reply::without_records(bytes, code, true));
        }
        let records =
            Records::read(&bytes, HEADER + question.len(), header).ok_or(Mismatch::Damaged)?;
        bytes.truncate(records.end);
        bytes.shrink_to_fit();
        Ok(Reply {
            keep: records.keep(code, header.counts[1]),
            lifetimes: records.lifetimes,
            opt: records.opt,
            bytes,
            code,
            truncated: false,
        })
    }

    fn without_records(bytes: Vec<u8>, code: u8, truncated: bool) -> Reply {
        Reply {
            bytes,
            code,
            truncated,
            lifetimes: Vec::new(),
            keep: None,
            opt: None,
        }
    }

    /// The code of RFC 1035 section 4.1.1.
    pub fn code(&self) -> u8 {
        self.code
    }

    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How long it may be kept; `None` for what is not to be kept.
    pub fn keep(&self) -> Option<Duration> {
        self.keep.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// Without what concerned one client alone.
    pub fn for_all(mut self) -> Reply {
        if let Some(at) = self.opt.take() {
            self.bytes.truncate(at);
            let additionals = u16_at(&self.bytes, 10).unwrap_or(1).saturating_sub(1);
            self.bytes[10..12].copy_from_slice(&additionals.to_be_bytes());
        }
        self
    }

    /// The bytes for a client that asked the same: its id, its spelling of the question, and the
    /// lifetimes less the age.
    pub fn for_client(&self, query: &Query, age: Duration) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[..2].copy_from_slice(&query.id().to_be_bytes());
        bytes[HEADER..HEADER + query.question().len()].copy_from_slice(query.question());
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for &at in &self.lifetimes {
            let left = u32_at(&bytes, at).unwrap_or(0).saturating_sub(age);
            bytes[at..at + 4].copy_from_slice(&left.to_be_bytes());
        }
        bytes
    }
}

/// What is found on the way through an answer's records.
#[derive(Debug, Default)]
struct Records {
    lifetimes: Vec<usize>,
    least: Option<u32>,
    /// How long the absence of a record may be remembered (RFC 2308 section 5).
    absence: Option<u32>,
    opt: Option<usize>,
    signed: bool,
    end: usize,
}

impl Records {
    fn read(bytes: &[u8], start: usize, header: Header) -> Option<Records> {
        let [_, answers, authorities, additionals] = header.counts;
        let mut records = Records {
            end: start,
            ..Records::default()
        };
        for _ in 0..u32::from(answers) + u32::from(authorities) + u32::from(additionals) {
            records.next(bytes)?;
        }
        Some(records)
    }

    fn next(&mut self, bytes: &[u8]) -> Option<()> {
        let start = self.end;
        let (fields, _) = name_end(bytes, start)?;
        let kind = u16_at(bytes, fields)?;
        let lifetime = seconds_at(bytes, fields + 4)?;
        let length = usize::from(u16_at(bytes, fields + 8)?);
        self.end = fields + RECORD + length;
        let data = bytes.get(fields + RECORD..self.end)?;
        match kind {
            TYPE_OPT => self.opt = Some(start),
            TYPE_TSIG | TYPE_SIG => self.signed = true,
            _ => {
                self.lifetimes.push(fields + 4);
                self.least = Some(self.least.map_or(lifetime, |least| least.min(lifetime)));
            }
        }
        if kind == TYPE_SOA && length >= 4 {
            self.absence = Some(lifetime.min(seconds_at(data, length - 4)?));
        }
        Some(())
    }

    fn keep(&self, code: u8, answers: u16) -> Option<u32> {
        // Cutting out an OPT record in the middle would shift what pointers mean.
        let last = self.lifetimes.last().copied().unwrap_or(0);
        if self.signed || self.opt.is_some_and(|at| at < last) {
            return None;
        }
        let seconds = match code {
            NO_ERROR if answers > 0 => self.least?,
            NO_ERROR | NAME_ERROR => self.least?.min(self.absence?),
            _ => return None,
        };
        (seconds > 0).then_some(seconds)
    }
}

/// A header and the question, with the flags of another header.
fn shell(query: &Query, header: Header) -> Vec<u8> {
    let mut bytes = query.bytes()[..HEADER + query.question().len()].to_vec();
    bytes[2..4].copy_from_slice(&header.flags);
    bytes[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    bytes
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns, Message, ResponseCode};
    use hickory_proto::rr::rdata::{A, CNAME, SOA};
    use hickory_proto::rr::{Name, RData, Record, RecordType};
    use proptest::prelude::*;

    use super::*;
    use crate::query::tests::ask;

    fn query() -> Query {
        Query::read(&ask("www.example.org.", RecordType::A).to_vec().unwrap()).unwrap()
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn reply(change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = query().respond(ResponseCode::NoError);
        change(&mut message);
        message.to_vec().unwrap()
    }

    fn address(ttl: u32) -> Record {
        Record::from_rdata(
            name("www.example.org."),
            ttl,
            RData::A(A::new(192, 0, 2, 1)),
        )
    }

    fn authority(ttl: u32, minimum: u32) -> Record {
        let (server, mailbox) = (name("ns.example.org."), name("root.example.org."));
        let soa = SOA::new(server, mailbox, 1, 2, 3, 4, minimum);
        Record::from_rdata(name("example.org."), ttl, RData::SOA(soa))
    }

    fn read(bytes: &[u8]) -> Result<Reply, Mismatch> {
        Reply::read(bytes.to_vec(), &query(), query().id())
    }

    #[test]
    fn an_answer_is_kept_as_long_as_its_shortest_record() {
        let check = |change: &dyn Fn(&mut Message), expect: Option<u64>| {
            let found = read(&reply(change)).unwrap().keep();
            assert_eq!(found, expect.map(Duration::from_secs));
        };
        let alias = || {
            Record::from_rdata(
                name("www.example.org."),
                20,
                RData::CNAME(CNAME(name("x."))),
            )
        };
        check(
            &|message| message.answers.extend([alias(), address(60)]),
            Some(20),
        );
        check(&|message| message.answers.push(address(0)), None);
        check(&|message| message.answers.push(address(1 << 31)), None);
        // Nothing there: as long as its zone says, if it does.
        check(&|_| (), None);
        check(
            &|message| message.authorities.push(authority(300, 30)),
            Some(30),
        );
        check(
            &|message| {
                message.metadata.response_code = ResponseCode::NXDomain;
                message.add_authority(authority(15, 30));
            },
            Some(15),
        );
        check(
            &|message| {
                message.metadata.response_code = ResponseCode::ServFail;
                message.add_answer(address(60));
            },
            None,
        );
    }

    #[test]
    fn a_kept_answer_is_the_clients_own_and_ages() {
        let bytes = reply(|message| {
            message.add_answer(address(60)).set_edns(Edns::new());
        });
        let kept = read(&bytes).unwrap().for_all();
        let mut other = ask("WWW.example.ORG.", RecordType::A);
        other.metadata.id = 99;
        let other = Query::read(&other.to_vec().unwrap()).unwrap();
        let message = Message::from_vec(&kept.for_client(&other, Duration::from_secs(25))).unwrap();
        assert_eq!(message.metadata.id, 99);
        assert!(message.queries[0].name().eq_case(&name("WWW.example.ORG.")));
        assert_eq!((message.answers.len(), message.answers[0].ttl), (1, 35));
        assert!(message.edns.is_none());
        let message = Message::from_vec(&kept.for_client(&other, Duration::from_secs(99))).unwrap();
        assert_eq!(message.answers[0].ttl, 0);
    }

    #[test]
    fn only_the_answer_to_the_question_is_taken() {
        let good = reply(|message| message.answers.push(address(60)));
        assert!(read(&good).is_ok());
        let other = |change: fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            read(&bytes).map(|_| ())
        };
        assert_eq!(other(|bytes| bytes[0] ^= 1), Err(Mismatch::Other));
        assert_eq!(other(|bytes| bytes[2] &= 0x7f), Err(Mismatch::Other));
        assert_eq!(other(|bytes| bytes.truncate(11)), Err(Mismatch::Other));
        assert_eq!(other(|bytes| bytes[14] = b'x'), Err(Mismatch::Damaged));
        assert_eq!(
            other(|bytes| bytes.truncate(bytes.len() - 1)),
            Err(Mismatch::Damaged)
        );
        assert_eq!(other(|bytes| bytes[7] = 9), Err(Mismatch::Damaged));
        assert_eq!(other(|bytes| bytes.extend(b"more")), Ok(()));
        // Cut anywhere, but it says so.
        let mut cut = good.clone();
        cut[2] |= 2;
        cut.truncate(cut.len() - 3);
        assert!(read(&cut).unwrap().is_truncated());
    }

    #[test]
    fn a_server_that_cannot_need_not_repeat_the_question() {
        let mut bytes = vec![0; HEADER];
        bytes[..2].copy_from_slice(&query().id().to_be_bytes());
        bytes[2] = 0x80;
        assert_eq!(
            read(&bytes),
            Err(Mismatch::Damaged),
            "no error and no question"
        );
        bytes[3] = 1;
        let reply = read(&bytes).unwrap();
        let message = Message::from_vec(&reply.for_client(&query(), Duration::ZERO)).unwrap();
        assert_eq!(message.metadata.response_code, ResponseCode::FormErr);
        assert_eq!(message.queries.len(), 1);
    }

    fn record() -> impl Strategy<Value = Record> {
        let data = prop_oneof![
            any::<[u8; 4]>().prop_map(|[a, b, c, d]| RData::A(A::new(a, b, c, d))),
            "[a-z]{1,20}"
                .prop_map(|label| RData::CNAME(CNAME(name(&format!("{label}.example.org."))))),
            Just(authority(1, 7).data),
        ];
        ("[a-z]{1,9}", 0u32..1 << 31, data).prop_map(|(label, ttl, data)| {
            Record::from_rdata(name(&format!("{label}.example.org.")), ttl, data)
        })
    }

    fn replies() -> impl Strategy<Value = Message> {
        let records = || proptest::collection::vec(record(), 0..6);
        (records(), records(), records(), any::<bool>()).prop_map(
            |(answers, authorities, additionals, edns)| {
                let mut message = query().respond(ResponseCode::NoError);
                message.add_answers(answers);
                message.authorities = authorities;
                message.additionals = additionals;
                message.edns = edns.then(Edns::new);
                message
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_arrives_is_read_without_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&bytes);
            if let Ok(query) = Query::read(&bytes) {
                prop_assert!(query.question().len() >= 5);
                let _ = query.cache_key();
            }
        }

        #[test]
        fn damage_anywhere_is_noticed_or_harmless(
            message in replies(),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = message.to_vec().unwrap();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate(length.index(bytes.len()) + 1);
            if let Ok(reply) = read(&bytes) {
                let length = reply.len();
                prop_assert_eq!(reply.for_client(&query(), Duration::from_secs(1)).len(), length);
                reply.for_all().for_client(&query(), Duration::from_secs(1));
            }
        }

        #[test]
        fn the_walk_finds_what_the_decoder_finds(message in replies()) {
            let reply = read(&message.to_vec().unwrap()).unwrap();
            let passed = Message::from_vec(&reply.for_client(&query(), Duration::ZERO)).unwrap();
            prop_assert_eq!(&passed.answers, &message.answers);
            let aged = Message::from_vec(&reply.clone().for_all().for_client(&query(), Duration::from_secs(10))).unwrap();
            let mut expected = message.clone();
            expected.edns = None;
            let sections = [&mut expected.answers, &mut expected.authorities, &mut expected.additionals];
            for record in sections.into_iter().flatten() {
                record.ttl = record.ttl.saturating_sub(10);
            }
            prop_assert_eq!(&aged, &expected);
        }
    }
}
