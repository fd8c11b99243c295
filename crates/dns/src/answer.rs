//! What is said of names that the view knows. Pure but for the order of addresses.

use std::net::IpAddr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::dice::Dice;
use crate::query::{Query, encode};
use crate::view::View;
use crate::wire;
use crate::zone::Family;

/// How long a name may be remembered, in seconds; Docker's.
const TTL: u32 = 600;

/// What is said to a client.
#[derive(Debug, Clone)]
pub struct Answer {
    message: Message,
    /// Of the name that was asked for, beside what the message has. They are written by
    /// [`Answer::fit`], since the library's encoder repeats a name in full after a hundred.
    addresses: Vec<IpAddr>,
}

/// The answer to what concerns names of the view; `None` where other servers are to be asked.
pub fn answer(query: &Query, view: &View, dice: &Dice) -> Option<Answer> {
    if !matches!(query.class(), DNSClass::IN | DNSClass::ANY) {
        return None;
    }
    let exists = || Answer {
        message: query.respond(ResponseCode::NoError),
        addresses: Vec::new(),
    };
    let addresses = |mut addresses: Vec<IpAddr>| {
        dice.shuffle(&mut addresses);
        Answer {
            addresses,
            ..exists()
        }
    };
    let local = query.name().and_then(|name| match query.record_type() {
        RecordType::A => view.addresses(name, Family::V4).map(addresses),
        RecordType::AAAA => view.addresses(name, Family::V6).map(addresses),
        RecordType::PTR => {
            let mut answer = exists();
            answer.message.add_answer(pointer(query, view)?);
            Some(answer)
        }
        other => view
            .addresses(name, Family::V4)
            .filter(|_| is_ours_alone(other, name))
            .map(|_| exists()),
    });
    local.or_else(|| is_left_to_search(query, view).then(exists))
}

impl Answer {
    /// The bytes within the client's limit. Addresses that do not fit are left out, and the answer
    /// says so.
    pub fn fit(mut self, query: &Query, limit: usize) -> Vec<u8> {
        /// A pointer to the question's name, type, class, lifetime, length.
        const FIXED: usize = 12;
        let Some(first) = self.addresses.first() else {
            return encode(&self.message);
        };
        let (kind, length) = match first {
            IpAddr::V4(_) => (RecordType::A, 4),
            IpAddr::V6(_) => (RecordType::AAAA, 16),
        };
        self.message.edns = None;
        let mut bytes = encode(&self.message);
        let room = limit.saturating_sub(bytes.len() + query.edns_length());
        let fits = (room / (FIXED + length)).min(self.addresses.len());
        if fits < self.addresses.len() {
            bytes[2] |= wire::TRUNCATED;
        }
        let count = u16::try_from(fits).unwrap_or(u16::MAX);
        bytes[6..8].copy_from_slice(&count.to_be_bytes());
        for address in &self.addresses[..fits] {
            bytes.extend(wire::POINTER_TO_QUESTION);
            bytes.extend(u16::from(kind).to_be_bytes());
            bytes.extend(u16::from(DNSClass::IN).to_be_bytes());
            bytes.extend(TTL.to_be_bytes());
            match address {
                IpAddr::V4(address) => {
                    bytes.extend([0, 4]);
                    bytes.extend(address.octets());
                }
                IpAddr::V6(address) => {
                    bytes.extend([0, 16]);
                    bytes.extend(address.octets());
                }
            }
        }
        query.append_edns(&mut bytes);
        bytes
    }
}

fn pointer(query: &Query, view: &View) -> Option<Record> {
    let network = query.exact_name().parse_arpa_name().ok()?;
    if network.prefix_len() != network.max_prefix_len() {
        return None;
    }
    let name = view.name_of(network.addr())?;
    let mut name = Name::from_labels(name.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    let data = RData::PTR(PTR(name));
    Some(Record::from_rdata(query.exact_name().clone(), TTL, data))
}

/// Whether a container's name has no records of this type, rather than those of a host elsewhere
/// that has the same name. Mail goes to the address then (RFC 5321 section 5.1), and so do
/// browsers. Docker asks other servers for all but MX, so that a browser waits for a dead one.
fn is_ours_alone(record_type: RecordType, name: &str) -> bool {
    let leads_elsewhere = matches!(
        record_type,
        RecordType::MX | RecordType::HTTPS | RecordType::SVCB
    );
    leads_elsewhere || !name.contains('.')
}

/// Whether the client comes again with a search domain when it hears of no address.
fn is_left_to_search(query: &Query, view: &View) -> bool {
    let of_address = matches!(query.record_type(), RecordType::A | RecordType::AAAA);
    of_address && view.ndots_set && query.exact_name().num_labels() <= 1
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use hickory_proto::op::Edns;

    use super::*;
    use crate::query::Transport;
    use crate::query::tests::ask;
    use crate::view::Membership;
    use crate::zone::Zone;

    fn view() -> View {
        let zone = Zone::new("app");
        let addresses = ["10.0.0.2", "fd00::2"].map(|text| text.parse().unwrap());
        zone.insert(
            "1",
            &["web".to_owned(), "mail.example.org".to_owned()],
            &addresses,
        );
        let addresses = ["10.0.0.3".parse().unwrap()];
        zone.insert("2", &["db".to_owned()], &addresses);
        View {
            networks: vec![Membership::new(Arc::new(zone), [])],
            ..View::default()
        }
    }

    fn respond(view: &View, name: &str, record_type: RecordType) -> Option<Message> {
        let query = Query::read(&ask(name, record_type).to_vec().unwrap()).unwrap();
        let answer = answer(&query, view, &Dice::new(1))?;
        let bytes = answer.fit(&query, query.limit(Transport::Udp));
        let reply = Message::from_vec(&bytes).unwrap();
        assert!(reply.metadata.recursion_available && reply.metadata.recursion_desired);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert_eq!(reply.queries, ask(name, record_type).queries);
        Some(reply)
    }

    fn check(view: &View, name: &str, record_type: RecordType, expect: Option<&[&str]>) {
        let reply = respond(view, name, record_type);
        let found = reply.map(|reply| {
            let records = reply.answers.iter();
            records
                .map(|record| format!("{} {} {}", record.name, record.ttl, record.data))
                .collect::<Vec<_>>()
        });
        let found = found
            .as_ref()
            .map(|all| all.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(found.as_deref(), expect, "{name} {record_type}");
    }

    #[test]
    fn addresses_and_names_are_answered_as_by_docker() {
        let view = view();
        check(&view, "WEB.", RecordType::A, Some(&["WEB. 600 10.0.0.2"]));
        check(
            &view,
            "web.app.",
            RecordType::AAAA,
            Some(&["web.app. 600 fd00::2"]),
        );
        let reverse = "3.0.0.10.in-addr.arpa.";
        check(
            &view,
            reverse,
            RecordType::PTR,
            Some(&["3.0.0.10.in-addr.arpa. 600 db.app."]),
        );
        let reverse = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
        check(
            &view,
            reverse,
            RecordType::PTR,
            Some(&[&format!("{reverse} 600 web.app.")]),
        );
    }

    #[test]
    fn a_name_without_such_an_address_exists_nevertheless() {
        check(&view(), "db.", RecordType::AAAA, Some(&[]));
        check(&view(), "web.", RecordType::MX, Some(&[]));
        check(&view(), "web.", RecordType::TXT, Some(&[]));
        check(&view(), "web.app.", RecordType::HTTPS, Some(&[]));
    }

    #[test]
    fn what_nobody_here_has_is_asked_elsewhere() {
        check(&view(), "other.", RecordType::A, None);
        check(&view(), "9.0.0.10.in-addr.arpa.", RecordType::PTR, None);
        check(&view(), "0.10.in-addr.arpa.", RecordType::PTR, None);
        check(&view(), "web.", RecordType::PTR, None);
        // A name with dots may be a host's as well, with records that we do not know.
        check(&view(), "mail.example.org.", RecordType::TXT, None);
        check(&view(), ".", RecordType::NS, None);
    }

    #[test]
    fn with_ndots_single_labels_are_left_to_the_clients_search() {
        let view = View {
            ndots_set: true,
            ..view()
        };
        check(&view, "other.", RecordType::A, Some(&[]));
        check(&view, "other.lan.", RecordType::A, None);
        check(&view, "other.", RecordType::TXT, None);
    }

    #[test]
    fn an_answer_that_is_too_long_says_so_and_has_what_fits() {
        let zone = Zone::new("app");
        for index in 0..1_000u32 {
            let address = IpAddr::from(Ipv4Addr::from(0x0a00_0000 + index));
            zone.insert(&index.to_string(), &["many".to_owned()], &[address]);
        }
        let view = View {
            networks: vec![Membership::new(Arc::new(zone), [])],
            ..View::default()
        };
        let mut asked = ask("many.", RecordType::A);
        let reply = |asked: &Message, limit| {
            let query = Query::read(&asked.to_vec().unwrap()).unwrap();
            let bytes = answer(&query, &view, &Dice::new(1))
                .unwrap()
                .fit(&query, limit);
            assert!(bytes.len() <= limit, "{} bytes", bytes.len());
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!(reply.edns.is_some(), asked.edns.is_some());
            (reply.answers.len(), reply.metadata.truncation)
        };
        // 12 of the header, 10 of the question, 16 a record.
        assert_eq!(reply(&asked, 512), (30, true));
        assert_eq!(reply(&asked, 65_535), (1_000, false));
        // And 11 of the OPT record.
        asked.set_edns(Edns::new());
        assert_eq!(reply(&asked, 12 + 10 + 16 * 40 + 11), (40, true));
        assert_eq!(reply(&asked, 12 + 10 + 16 * 40 + 10), (39, true));
    }

    #[test]
    fn equal_names_take_turns() {
        let zone = Zone::new("app");
        for last in 1..=3 {
            let address = IpAddr::from([10, 0, 0, last]);
            zone.insert(&last.to_string(), &["web".to_owned()], &[address]);
        }
        let view = View {
            networks: vec![Membership::new(Arc::new(zone), [])],
            ..View::default()
        };
        let query = Query::read(&ask("web.", RecordType::A).to_vec().unwrap()).unwrap();
        let dice = Dice::new(1);
        let mut first = std::collections::HashSet::new();
        for _ in 0..100 {
            let answer = answer(&query, &view, &dice).unwrap();
            assert_eq!(answer.addresses.len(), 3);
            first.insert(answer.addresses[0]);
        }
        assert_eq!(first.len(), 3);
    }
}
