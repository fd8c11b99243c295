//! The key sequence by which a client leaves a terminal.

/// Looks for the sequence in what a client types, also across reads. The beginning of a sequence
/// is held back until it is clear that it is none.
#[derive(Debug)]
pub struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// An empty sequence never matches.
    pub fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Appends to `out` what is meant for the process. `true`: the sequence is complete; the rest
    /// of `typed` is void.
    pub fn filter(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(&first) = self.keys.first() else {
            out.extend_from_slice(typed);
            return false;
        };
        for &byte in typed {
            if byte != self.keys[self.matched] {
                out.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
                if byte != first {
                    out.push(byte);
                    continue;
                }
            }
            self.matched += 1;
            if self.matched == self.keys.len() {
                self.matched = 0;
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(typed: &[&[u8]], expect: &[u8], detached: bool) {
        let mut keys = DetachKeys::new(vec![16, 17]);
        let mut out = Vec::new();
        let left = typed.iter().any(|piece| keys.filter(piece, &mut out));
        assert_eq!((out.as_slice(), left), (expect, detached));
    }

    #[test]
    fn the_sequence_is_found_across_reads() {
        check(&[b"ab\x10\x11c"], b"ab", true);
        check(&[b"ab\x10", b"\x11"], b"ab", true);
    }

    #[test]
    fn a_beginning_alone_reaches_the_process() {
        check(&[b"\x10", b"x"], b"\x10x", false);
        check(&[b"\x10\x10\x11"], b"\x10", true);
        check(&[b"\x11\x10"], b"\x11", false);
    }
}
