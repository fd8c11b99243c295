//! The keys with which a user leaves a container's terminal without ending it.

use crate::failure::Failure;

/// Ctrl-P, Ctrl-Q.
const DEFAULT_KEYS: &str = "ctrl-p,ctrl-q";

/// Watches what is typed for the sequence.
#[derive(Debug, Clone)]
pub struct Keys {
    sequence: Vec<u8>,
    /// How much of the sequence the last bytes were.
    matched: usize,
}

impl Keys {
    /// Reads `ctrl-p,ctrl-q` or `a,b`; the empty text is the default.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let text = if text.is_empty() { DEFAULT_KEYS } else { text };
        let mut sequence = Vec::new();
        for key in text.split(',') {
            sequence.push(code(key).ok_or_else(|| {
                Failure::new(format!(
                    "invalid detach keys ({text}): Unknown character: '{key}'"
                ))
            })?);
        }
        Ok(Self {
            sequence,
            matched: 0,
        })
    }

    /// What is to be sent on, and whether the sequence was completed. The beginning of a sequence
    /// is held back until it is clear that it is none.
    pub fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(bytes.len() + self.matched);
        for &byte in bytes {
            if byte == self.sequence[self.matched] {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    self.matched = 0;
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.sequence[..self.matched]);
            self.matched = 0;
            if byte == self.sequence[0] && self.sequence.len() > 1 {
                self.matched = 1;
            } else {
                out.push(byte);
            }
        }
        (out, false)
    }
}

fn code(key: &str) -> Option<u8> {
    let mut bytes = key.bytes();
    match (bytes.next(), bytes.next()) {
        (Some(byte), None) => return Some(byte),
        (None, _) => return None,
        _ => {}
    }
    match key.strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        [b'@'] => Some(0),
        [b'['] => Some(27),
        [b'\\'] => Some(28),
        [b']'] => Some(29),
        [b'^'] => Some(30),
        [b'_'] => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_found_across_reads() {
        let mut keys = Keys::parse("").unwrap();
        assert_eq!(keys.feed(b"ls\x10"), (b"ls".to_vec(), false));
        assert_eq!(keys.feed(b"x"), (b"\x10x".to_vec(), false));
        assert_eq!(keys.feed(b"\x10\x10\x11z"), (b"\x10".to_vec(), true));
    }

    #[test]
    fn keys_are_letters_or_control_letters() {
        let mut keys = Keys::parse("a,ctrl-]").unwrap();
        assert_eq!(keys.feed(b"a\x1d"), (Vec::new(), true));
        assert!(Keys::parse("ctrl-").is_err());
        assert!(Keys::parse("shift-a").is_err());
    }
}
