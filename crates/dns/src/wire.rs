//! The bytes of messages, as far as a forwarder must know them: headers, and where names and
//! questions end (RFC 1035 section 4.1).

/// The length of a header.
pub const HEADER: usize = 12;
/// In the third byte of a header: there is more than this.
pub const TRUNCATED: u8 = 0x02;
/// The name of the question, repeated.
pub const POINTER_TO_QUESTION: [u8; 2] = [0xc0, 12];
/// The length of an OPT record without options.
pub const OPT_LENGTH: usize = 11;
/// A name's length at most (RFC 1035 section 3.1), so of its labels 128 with the last.
const MAX_LABELS: usize = 128;

/// What stands before the question.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    pub id: u16,
    pub flags: [u8; 2],
    /// Questions, answers, authorities, additional records.
    pub counts: [u16; 4],
}

impl Header {
    pub fn read(bytes: &[u8]) -> Option<Header> {
        Some(Header {
            id: u16_at(bytes, 0)?,
            flags: [*bytes.get(2)?, *bytes.get(3)?],
            counts: [
                u16_at(bytes, 4)?,
                u16_at(bytes, 6)?,
                u16_at(bytes, 8)?,
                u16_at(bytes, 10)?,
            ],
        })
    }

    pub fn is_reply(self) -> bool {
        self.flags[0] & 0x80 != 0
    }

    pub fn opcode(self) -> u8 {
        self.flags[0] >> 3 & 0x0f
    }

    pub fn is_truncated(self) -> bool {
        self.flags[0] & TRUNCATED != 0
    }

    pub fn code(self) -> u8 {
        self.flags[1] & 0x0f
    }
}

/// Where the one question ends. Its name is spelled out: nothing stands before it that could be
/// pointed to.
pub fn question_end(bytes: &[u8]) -> Option<usize> {
    let (end, spelled) = name_end(bytes, HEADER)?;
    (spelled && end + 4 <= bytes.len()).then_some(end + 4)
}

/// Adds an OPT record: the root's name, the type, the payload's size, no extended code, version 0,
/// flags, no options (RFC 6891 section 6.1.2).
pub fn append_opt(message: &mut Vec<u8>, payload: u16, dnssec_ok: bool) {
    let count = u16_at(message, 10).unwrap_or(0).saturating_add(1);
    message[10..HEADER].copy_from_slice(&count.to_be_bytes());
    let [high, low] = payload.to_be_bytes();
    let flags = if dnssec_ok { 0x80 } else { 0 };
    message.extend([0, 0, 41, high, low, 0, 0, flags, 0, 0, 0]);
}

/// Where a name ends, and whether it is spelled out rather than ending with a pointer.
pub fn name_end(bytes: &[u8], mut at: usize) -> Option<(usize, bool)> {
    for _ in 0..MAX_LABELS {
        match *bytes.get(at)? {
            0 => return Some((at + 1, true)),
            length @ 1..0x40 => at += 1 + usize::from(length),
            0xc0.. => return Some((at + 2, false)),
            // Reserved by RFC 1035 section 4.1.4.
            0x40.. => return None,
        }
    }
    None
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A lifetime; what is beyond 31 bits is none (RFC 2181 section 8).
pub fn seconds_at(bytes: &[u8], at: usize) -> Option<u32> {
    let seconds = u32_at(bytes, at)?;
    Some(if seconds >> 31 == 0 { seconds } else { 0 })
}
