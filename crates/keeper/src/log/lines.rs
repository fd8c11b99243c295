//! Cutting a stream of output into the records of Docker's json-file driver.
//!
//! One record is one line with its newline. A line that passes [`MAX_PIECE_BYTES`] is cut there:
//! a piece that is not the last has no newline in its record, and all pieces have the time of the
//! first. What the container left without a newline at its end becomes such a piece, too.

/// Docker's buffer: a longer line is cut.
pub const MAX_PIECE_BYTES: usize = 16 * 1024;

/// One record: the text, whether a newline belongs to it, and its time.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub text: &'a [u8],
    pub newline: bool,
    pub time_ns: i64,
}

/// The state of one stream between two pieces.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose end has not arrived; shorter than a piece.
    pending: Vec<u8>,
    /// When the line began to arrive that is not complete.
    since_ns: Option<i64>,
}

impl Lines {
    /// Gives each record that `piece` completes to `each`.
    pub fn feed(&mut self, piece: &[u8], now_ns: i64, mut each: impl FnMut(Record<'_>)) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            self.line(&piece[start..end], true, now_ns, &mut each);
            start = end + 1;
        }
        if start < piece.len() {
            self.line(&piece[start..], false, now_ns, &mut each);
        }
    }

    /// The beginning of a line whose end has not arrived.
    pub fn begun(&self) -> &[u8] {
        &self.pending
    }

    /// Gives what is left to `each` at the stream's end.
    pub fn finish(&mut self, each: impl FnOnce(Record<'_>)) {
        let since = self.since_ns.take();
        let pending = std::mem::take(&mut self.pending);
        if let (Some(time_ns), false) = (since, pending.is_empty()) {
            each(Record {
                text: &pending,
                newline: false,
                time_ns,
            });
        }
    }

    /// Gives back the memory that long lines needed.
    pub fn rest(&mut self) {
        self.pending.shrink_to_fit();
    }

    fn line(
        &mut self,
        mut text: &[u8],
        newline: bool,
        now_ns: i64,
        each: &mut impl FnMut(Record<'_>),
    ) {
        let time_ns = *self.since_ns.get_or_insert(now_ns);
        while self.pending.len() + text.len() >= MAX_PIECE_BYTES {
            let (head, tail) = text.split_at(MAX_PIECE_BYTES - self.pending.len());
            text = tail;
            self.record(head, false, time_ns, each);
        }
        if newline {
            self.since_ns = None;
            self.record(text, true, time_ns, each);
        } else {
            self.pending.extend_from_slice(text);
        }
    }

    /// Gives what is pending, and this, to `each`.
    fn record(
        &mut self,
        text: &[u8],
        newline: bool,
        time_ns: i64,
        each: &mut impl FnMut(Record<'_>),
    ) {
        let text = if self.pending.is_empty() {
            text
        } else {
            self.pending.extend_from_slice(text);
            &self.pending
        };
        each(Record {
            text,
            newline,
            time_ns,
        });
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = Vec<(usize, bool, i64)>;

    /// Feeds `pieces` at the times 0, 1, ...; returns each record's length, newline and time.
    fn check(pieces: &[&[u8]], expect: &[(usize, bool, i64)]) {
        let mut lines = Lines::default();
        let mut seen = Seen::new();
        for (time, piece) in (0..).zip(pieces) {
            lines.feed(piece, time, |record| {
                seen.push((record.text.len(), record.newline, record.time_ns));
            });
        }
        lines.finish(|record| seen.push((record.text.len(), record.newline, record.time_ns)));
        assert_eq!(seen, expect);
    }

    #[test]
    fn lines_become_records() {
        check(
            &[b"one\ntwo\n", b"\n"],
            &[(3, true, 0), (3, true, 0), (0, true, 1)],
        );
    }

    #[test]
    fn a_line_in_pieces_has_the_first_piece_s_time() {
        check(&[b"on", b"e", b"\nx\n"], &[(3, true, 0), (1, true, 2)]);
    }

    #[test]
    fn the_end_without_newline_is_recorded_without_newline() {
        check(&[b"a\nhello"], &[(1, true, 0), (5, false, 0)]);
        check(&[b"a\n"], &[(1, true, 0)]);
    }

    #[test]
    fn a_long_line_is_cut_at_16_kib() {
        let long = [b'x'; 40_000];
        let cut = [(16_384, false, 0), (16_384, false, 0), (7_232, true, 0)];
        check(&[&long, b"\n"], &cut);
        check(
            &[&long[..10], &long[10..20_000], &long[20_000..], b"\n"],
            &cut,
        );
        let exact = [b'x'; 16_384];
        check(
            &[&exact, b"\ny\n"],
            &[(16_384, false, 0), (0, true, 0), (1, true, 1)],
        );
        check(&[&exact[1..], b"\n"], &[(16_383, true, 0)]);
    }
}
