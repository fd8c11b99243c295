//! One line of a json-file log: `{"log":"…","stream":"stdout","time":"…"}`, rendered as a client
//! wants it.
//!
//! A gigabyte of log is tens of millions of these, so the usual shape (the keeper's and dockerd's
//! own order of members) is read by hand without a tree or an allocation; any other valid JSON
//! goes through serde.

use berth_base::Timestamp;
use serde::Deserialize;

/// How records are rendered, and which ones.
#[derive(Debug, Clone, Copy)]
pub struct Render {
    pub stdout: bool,
    pub stderr: bool,
    /// Docker's 8-byte header before each record; `false` for a container with a terminal.
    pub multiplexed: bool,
    pub timestamps: bool,
    pub details: bool,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Written,
    Skipped,
    /// Later than `until`; so is all that follows.
    PastEnd,
    Malformed,
}

const HEADER_BYTES: usize = 8;

impl Render {
    /// Appends the record in `line` (without its newline) to `out`.
    pub fn record(&self, line: &[u8], out: &mut Vec<u8>) -> Verdict {
        match Fields::parse(line) {
            Some(fields) => self.fields(&fields, out),
            None => match serde_json::from_slice::<Loose>(line) {
                Ok(loose) => self.loose(&loose, out),
                Err(_) => Verdict::Malformed,
            },
        }
    }

    fn loose(&self, loose: &Loose, out: &mut Vec<u8>) -> Verdict {
        let text = serde_json::to_string(&loose.log).unwrap_or_default();
        let fields = Fields {
            log: text.as_bytes().get(1..text.len() - 1).unwrap_or_default(),
            stream: loose.stream.as_bytes(),
            attrs: None,
            time: loose.time.as_bytes(),
        };
        self.fields_with(&fields, loose.attrs.as_ref(), out)
    }

    fn fields(&self, fields: &Fields<'_>, out: &mut Vec<u8>) -> Verdict {
        let attrs = match fields.attrs {
            Some(text) if self.details => serde_json::from_slice(text).ok(),
            _ => None,
        };
        self.fields_with(fields, attrs.as_ref(), out)
    }

    fn fields_with(
        &self,
        fields: &Fields<'_>,
        attrs: Option<&serde_json::Map<String, serde_json::Value>>,
        out: &mut Vec<u8>,
    ) -> Verdict {
        if self.since.is_some() || self.until.is_some() {
            let Some(time) = parse_time(fields.time) else {
                return Verdict::Malformed;
            };
            if self.until.is_some_and(|until| time > until) {
                return Verdict::PastEnd;
            }
            if self.since.is_some_and(|since| time < since) {
                return Verdict::Skipped;
            }
        }
        let stderr = fields.stream == b"stderr";
        if !(if stderr { self.stderr } else { self.stdout }) {
            return Verdict::Skipped;
        }
        let start = out.len();
        if self.multiplexed {
            out.extend_from_slice(&[if stderr { 2 } else { 1 }, 0, 0, 0, 0, 0, 0, 0]);
        }
        if self.timestamps {
            push_fixed_time(fields.time, out);
            out.push(b' ');
        }
        if self.details {
            if let Some(attrs) = attrs {
                push_details(attrs, out);
            }
            out.push(b' ');
        }
        if unescape(fields.log, out).is_none() {
            out.truncate(start);
            return Verdict::Malformed;
        }
        if self.multiplexed {
            let length = u32::try_from(out.len() - start - HEADER_BYTES).unwrap_or(u32::MAX);
            out[start + 4..start + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
        }
        Verdict::Written
    }
}

/// The members of a record, still escaped.
struct Fields<'a> {
    log: &'a [u8],
    stream: &'a [u8],
    attrs: Option<&'a [u8]>,
    time: &'a [u8],
}

#[derive(Deserialize)]
struct Loose {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    time: String,
    attrs: Option<serde_json::Map<String, serde_json::Value>>,
}

impl<'a> Fields<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let (log, rest) = match line.strip_prefix(b"{\"log\":\"") {
            Some(rest) => string_end(rest)?,
            // A record of an empty line that dockerd wrote has no `log` member.
            None => return None,
        };
        let rest = rest.strip_prefix(b",\"stream\":\"")?;
        let (stream, mut rest) = string_end(rest)?;
        let mut attrs = None;
        if let Some(inner) = rest.strip_prefix(b",\"attrs\":") {
            let end = memchr::memmem::rfind(inner, b",\"time\":\"")?;
            attrs = Some(&inner[..end]);
            rest = &inner[end..];
        }
        let rest = rest.strip_prefix(b",\"time\":\"")?;
        let (time, rest) = string_end(rest)?;
        (rest == b"}" && !time.contains(&b'\\')).then_some(Self {
            log,
            stream,
            attrs,
            time,
        })
    }
}

/// Splits at the quote that ends a JSON string; the quote is dropped.
fn string_end(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', text.get(from..)?)?;
        if text[at] == b'"' {
            return Some((&text[..at], &text[at + 1..]));
        }
        from = at + 2;
    }
}

/// Appends the bytes that an escaped JSON string stands for.
fn unescape(mut text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    while let Some(at) = memchr::memchr(b'\\', text) {
        out.extend_from_slice(&text[..at]);
        let escape = *text.get(at + 1)?;
        text = &text[at + 2..];
        match escape {
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'r' => out.push(b'\r'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'"' | b'\\' | b'/' => out.push(escape),
            b'u' => {
                let mut unit = hex4(text)?;
                text = &text[4..];
                if (0xd800..0xdc00).contains(&unit)
                    && let Some(low) = text.strip_prefix(b"\\u").and_then(hex4)
                    && (0xdc00..0xe000).contains(&low)
                {
                    unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                    text = &text[6..];
                }
                let character = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return None,
        }
    }
    out.extend_from_slice(text);
    Some(())
}

fn hex4(text: &[u8]) -> Option<u32> {
    text.get(..4)?.iter().try_fold(0, |value, digit| {
        char::from(*digit)
            .to_digit(16)
            .map(|digit| value * 16 + digit)
    })
}

/// Go's `RFC3339NanoFixed`: nine digits of the fraction, so that columns align.
fn push_fixed_time(time: &[u8], out: &mut Vec<u8>) {
    let (head, zone) = match time
        .iter()
        .rposition(|byte| matches!(byte, b'Z' | b'+' | b'-'))
    {
        Some(at) if at >= 19 => time.split_at(at),
        _ => return out.extend_from_slice(time),
    };
    out.extend_from_slice(head);
    let digits = head.len().saturating_sub(20);
    if head.len() == 19 {
        out.push(b'.');
    }
    out.extend(std::iter::repeat_n(b'0', 9usize.saturating_sub(digits)));
    out.extend_from_slice(zone);
}

/// `key=value` pairs by key, joined by commas, each part percent-encoded as Go's `QueryEscape`.
fn push_details(attrs: &serde_json::Map<String, serde_json::Value>, out: &mut Vec<u8>) {
    let mut pairs: Vec<(&str, &str)> = attrs
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort_unstable();
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_query_escaped(key, out);
        out.push(b'=');
        push_query_escaped(value, out);
    }
}

fn push_query_escaped(text: &str, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte),
            b' ' => out.push(b'+'),
            _ => out.extend_from_slice(&[
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]),
        }
    }
}

/// The record's time. The usual form (`2026-11-21T10:00:00.123456789Z`) is read by hand.
pub fn parse_time(text: &[u8]) -> Option<Timestamp> {
    fast_time(text).or_else(|| std::str::from_utf8(text).ok()?.parse().ok())
}

fn fast_time(text: &[u8]) -> Option<Timestamp> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        text.get(range)?.iter().try_fold(0i64, |value, byte| {
            byte.is_ascii_digit()
                .then(|| value * 10 + i64::from(byte - b'0'))
        })
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if text.last() != Some(&b'Z') || marks.iter().any(|&(at, mark)| text.get(at) != Some(&mark)) {
        return None;
    }
    let end = text.len() - 1;
    let nanos = match end {
        19 => 0,
        21..=29 if text[19] == b'.' => number(20..end)? * 10i64.pow(u32::try_from(29 - end).ok()?),
        _ => return None,
    };
    let days = days_from_civil(number(0..4)?, number(5..7)?, number(8..10)?);
    let seconds = days * 86_400 + number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    Some(Timestamp(seconds.checked_mul(1_000_000_000)? + nanos))
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, counting years from March so that
/// the leap day comes last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Render = Render {
        stdout: true,
        stderr: true,
        multiplexed: false,
        timestamps: false,
        details: false,
        since: None,
        until: None,
    };

    fn check(render: Render, line: &str, verdict: Verdict, text: &str) {
        let mut out = Vec::new();
        assert_eq!(render.record(line.as_bytes(), &mut out), verdict, "{line}");
        assert_eq!(String::from_utf8_lossy(&out), text, "{line}");
    }

    #[test]
    fn escapes_are_undone() {
        let line = r#"{"log":"a\tb\"\\\u003c\ud83d\ude00\u0000\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}"#;
        check(ALL, line, Verdict::Written, "a\tb\"\\<\u{1f600}\0\n");
    }

    #[test]
    fn members_may_come_in_any_order() {
        let line = r#"{"time":"2026-01-01T00:00:00Z", "stream":"stderr","log":"x\n"}"#;
        check(ALL, line, Verdict::Written, "x\n");
        check(
            Render {
                stderr: false,
                ..ALL
            },
            line,
            Verdict::Skipped,
            "",
        );
    }

    #[test]
    fn damaged_lines_write_nothing() {
        for line in ["", "{", r#"{"log":"a"#, "\0\0\0"] {
            check(ALL, line, Verdict::Malformed, "");
        }
    }

    #[test]
    fn headers_timestamps_and_details_are_dockers() {
        let line = r#"{"log":"x\n","stream":"stderr","attrs":{"b":"2 3","a":"1"},"time":"2026-01-01T00:00:00.5Z"}"#;
        let render = Render {
            timestamps: true,
            details: true,
            multiplexed: true,
            ..ALL
        };
        let text = "2026-01-01T00:00:00.500000000Z a=1,b=2+3 x\n";
        let header = format!(
            "\u{2}\0\0\0\0\0\0{}",
            char::from(u8::try_from(text.len()).unwrap())
        );
        check(render, line, Verdict::Written, &format!("{header}{text}"));
    }

    #[test]
    fn since_and_until_cut_by_time() {
        let line = r#"{"log":"x\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}"#;
        let time = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
        let since = |offset| Render {
            since: Some(Timestamp(time.0 + offset)),
            ..ALL
        };
        check(since(0), line, Verdict::Written, "x\n");
        check(since(1), line, Verdict::Skipped, "");
        let until = Render {
            until: Some(Timestamp(time.0 - 1)),
            ..ALL
        };
        check(until, line, Verdict::PastEnd, "");
    }

    #[test]
    fn fast_times_agree_with_the_slow_parser() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2024-02-29T23:59:59.999999999Z",
            "2026-11-21T10:15:00.5Z",
            "2100-03-01T00:00:00.25Z",
        ] {
            assert_eq!(fast_time(text.as_bytes()), text.parse().ok(), "{text}");
        }
        assert_eq!(
            parse_time(b"2026-01-01T01:00:00+01:00"),
            "2026-01-01T00:00:00Z".parse().ok()
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_back(text in ".*") {
            let line = format!(
                r#"{{"log":{},"stream":"stdout","time":"2026-01-01T00:00:00Z"}}"#,
                serde_json::to_string(&text).unwrap()
            );
            check(ALL, &line, Verdict::Written, &text);
        }

        #[test]
        fn no_input_panics(line: Vec<u8>) {
            ALL.record(&line, &mut Vec::new());
        }
    }
}
