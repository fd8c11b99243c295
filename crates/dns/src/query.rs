//! A client's question, read once; and the replies that are ours.

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::{DNSClass, RecordType};

use crate::wire;

/// The largest query that is read, in bytes. Nobody's is longer than a name, a type and a few
/// options.
pub const MAX_QUERY: usize = 4_096;
/// The same, as it is told to clients.
const PAYLOAD: u16 = 4_096;
/// What a UDP answer may have when the client says nothing of it (RFC 1035 section 4.2.1).
const MIN_PAYLOAD: u16 = 512;

/// What brought a query, and takes its answer back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// One well formed question.
#[derive(Debug, Clone)]
pub struct Query {
    bytes: Vec<u8>,
    message: Message,
    question_end: usize,
    name: Option<String>,
}

/// Bytes that ask nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// Not to be answered: too short for an id, or itself an answer.
    Silence,
    /// To be answered with this.
    Refused(Vec<u8>),
}

impl Query {
    /// Which messages are refused, and how, is as in Docker's server.
    pub fn read(bytes: &[u8]) -> Result<Query, Unusable> {
        let header = wire::Header::read(bytes).ok_or(Unusable::Silence)?;
        if header.is_reply() {
            return Err(Unusable::Silence);
        }
        let refused = |code| Unusable::Refused(bare(header.id, code));
        if header.opcode() != u8::from(OpCode::Query) {
            return Err(refused(ResponseCode::NotImp));
        }
        let malformed = || refused(ResponseCode::FormErr);
        let [questions, answers, authorities, additionals] = header.counts;
        if questions != 1 || answers > 1 || authorities > 1 || additionals > 2 {
            return Err(malformed());
        }
        let question_end = wire::question_end(bytes).ok_or_else(malformed)?;
        let message = Message::from_vec(bytes).map_err(|_| malformed())?;
        let name = message.queries.first().and_then(|query| text(query.name()));
        Ok(Query {
            bytes: bytes.to_vec(),
            message,
            question_end,
            name,
        })
    }

    /// The message as it came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn id(&self) -> u16 {
        self.message.metadata.id
    }

    /// Name, type and class as they came.
    pub fn question(&self) -> &[u8] {
        &self.bytes[wire::HEADER..self.question_end]
    }

    fn asked(&self) -> &hickory_proto::op::Query {
        // `read` has counted one.
        &self.message.queries[0]
    }

    /// As it was written by the client.
    pub fn exact_name(&self) -> &hickory_proto::rr::Name {
        self.asked().name()
    }

    /// In lower case, without the last dot; `None` for one that no container can have: with a dot
    /// inside a label, or not UTF-8.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub fn record_type(&self) -> RecordType {
        self.asked().query_type()
    }

    pub fn class(&self) -> DNSClass {
        self.asked().query_class()
    }

    /// The largest answer that the client takes, in bytes.
    pub fn limit(&self, transport: Transport) -> usize {
        let payload = match (transport, &self.message.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => MIN_PAYLOAD,
            (Transport::Udp, Some(edns)) => edns.max_payload().max(MIN_PAYLOAD),
        };
        usize::from(payload)
    }

    /// The OPT record for an answer; none where the question has none.
    fn edns(&self) -> Option<Edns> {
        let asked = self.message.edns.as_ref()?;
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        Some(edns)
    }

    /// What [`Query::append_edns`] adds.
    pub fn edns_length(&self) -> usize {
        self.message.edns.as_ref().map_or(0, |_| wire::OPT_LENGTH)
    }

    /// Ends an answer that has no OPT record with the one that the question asks for.
    pub fn append_edns(&self, answer: &mut Vec<u8>) {
        if let Some(edns) = self.edns() {
            wire::append_opt(answer, edns.max_payload(), edns.flags().dnssec_ok);
        }
    }

    /// What tells apart questions whose answers differ: the question in lower case, and the flags
    /// that the server heeds. `None` where an option asks for an answer of one's own.
    pub fn cache_key(&self) -> Option<Vec<u8>> {
        let edns = self.message.edns.as_ref();
        let neutral = |code| {
            matches!(
                code,
                EdnsCode::Cookie | EdnsCode::Keepalive | EdnsCode::Padding
            )
        };
        let mut options = edns.into_iter().flat_map(|edns| &edns.options().options);
        if self.message.signature.is_some() || !options.all(|(code, _)| neutral(*code)) {
            return None;
        }
        let Metadata {
            recursion_desired,
            authentic_data,
            checking_disabled,
            ..
        } = self.message.metadata;
        let dnssec_ok = edns.is_some_and(|edns| edns.flags().dnssec_ok);
        let flags = [
            recursion_desired,
            authentic_data,
            checking_disabled,
            dnssec_ok,
        ];
        let mut key = self.question().to_ascii_lowercase();
        key.extend(flags.map(u8::from));
        Some(key)
    }

    /// The beginning of an answer of ours: no records yet.
    pub fn respond(&self, code: ResponseCode) -> Message {
        let mut message = Message::response(self.id(), OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.message.metadata);
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.queries = self.message.queries.clone();
        message.edns = self.edns();
        message
    }
}

/// An answer to what could not be read.
fn bare(id: u16, code: ResponseCode) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Response, OpCode::Query);
    message.metadata.response_code = code;
    encode(&message)
}

/// The bytes of a message of ours.
pub fn encode(message: &Message) -> Vec<u8> {
    message
        .to_vec()
        .expect("names come from a message that was read, and a thousand addresses fit")
}

fn text(name: &hickory_proto::rr::Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name.iter() {
        let label = std::str::from_utf8(label).ok()?;
        if label.contains('.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(label);
    }
    text.make_ascii_lowercase();
    Some(text)
}

#[cfg(test)]
pub mod tests {
    use hickory_proto::rr::Name;

    use super::*;

    /// A client's message.
    pub fn ask(name: &str, record_type: RecordType) -> Message {
        let mut message = Message::new(4_711, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        let name = Name::from_ascii(name).unwrap();
        message.add_query(hickory_proto::op::Query::query(name, record_type));
        message
    }

    fn read(message: &Message) -> Query {
        Query::read(&message.to_vec().unwrap()).unwrap()
    }

    #[test]
    fn a_name_is_read_in_lower_case_and_kept_as_it_was() {
        let query = read(&ask("Web.App-Net.", RecordType::A));
        assert_eq!(query.name(), Some("web.app-net"));
        assert_eq!(query.exact_name().to_string(), "Web.App-Net.");
        assert_eq!(query.question(), b"\x03Web\x07App-Net\x00\x00\x01\x00\x01");
        assert_eq!(read(&ask(".", RecordType::NS)).name(), Some(""));
        assert_eq!(read(&ask("a\\.b.c.", RecordType::A)).name(), None);
    }

    #[test]
    fn the_client_says_how_much_it_takes() {
        let mut message = ask("web.", RecordType::A);
        assert_eq!(read(&message).limit(Transport::Udp), 512);
        assert_eq!(read(&message).limit(Transport::Tcp), 65_535);
        for (said, meant) in [(100, 512), (1_232, 1_232)] {
            let mut edns = Edns::new();
            edns.set_max_payload(said);
            message.set_edns(edns);
            assert_eq!(read(&message).limit(Transport::Udp), meant);
        }
    }

    #[test]
    fn what_is_no_question_is_refused_or_ignored_as_by_docker() {
        let check = |change: fn(&mut Message), expect: Option<ResponseCode>| {
            let mut message = ask("web.", RecordType::A);
            change(&mut message);
            let found = match Query::read(&message.to_vec().unwrap()) {
                Ok(_) => panic!("{message} was taken"),
                Err(Unusable::Silence) => None,
                Err(Unusable::Refused(bytes)) => {
                    let reply = Message::from_vec(&bytes).unwrap();
                    assert_eq!(reply.metadata.id, 4_711);
                    assert_eq!(reply.metadata.message_type, MessageType::Response);
                    Some(reply.metadata.response_code)
                }
            };
            assert_eq!(found, expect);
        };
        check(
            |message| message.metadata.message_type = MessageType::Response,
            None,
        );
        check(
            |message| message.metadata.op_code = OpCode::Update,
            Some(ResponseCode::NotImp),
        );
        check(
            |message| message.queries.clear(),
            Some(ResponseCode::FormErr),
        );
        check(
            |message| {
                let again = message.queries[0].clone();
                message.add_query(again);
            },
            Some(ResponseCode::FormErr),
        );
        assert_eq!(Query::read(b"\x12\x67\x01").unwrap_err(), Unusable::Silence);
        let mut cut = ask("web.", RecordType::A).to_vec().unwrap();
        cut.pop();
        assert!(matches!(Query::read(&cut), Err(Unusable::Refused(_))));
    }

    #[test]
    fn questions_that_differ_in_case_alone_share_an_answer() {
        let key = |message: &Message| read(message).cache_key();
        let lower = ask("example.org.", RecordType::A);
        let upper = ask("EXAMPLE.org.", RecordType::A);
        assert!(key(&lower).is_some());
        assert_eq!(key(&lower), key(&upper));
        assert_ne!(key(&lower), key(&ask("example.org.", RecordType::AAAA)));
        let mut unchecked = lower.clone();
        unchecked.metadata.checking_disabled = true;
        assert_ne!(key(&lower), key(&unchecked));
    }
}
