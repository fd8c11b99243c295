//! PAX extended headers: records of `length key=value\n` that override the header that follows.

use std::fmt;

use super::{Segment, Time};

/// The records that mean something here.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: GnuSparse,
}

/// GNU's records for sparse files (formats 0.0, 0.1 and 1.0).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct GnuSparse {
    pub name: Option<Vec<u8>>,
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub real_size: Option<u64>,
    pub map: Option<Vec<Segment>>,
    /// Format 0.0: the offset whose length comes in the next record.
    offset: Option<u64>,
}

/// Attributes of one member: no file system keeps as many.
const MAX_XATTRS: usize = 1000;

pub(crate) const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

impl Pax {
    pub(crate) fn parse(mut data: &[u8]) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        while !data.is_empty() && data[0] != 0 {
            let (key, value, rest) = record(data).ok_or("malformed extended header")?;
            pax.apply(key, value)?;
            data = rest;
        }
        Ok(pax)
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let decimal = |problem| unsigned(value).ok_or(problem);
        let name = || {
            if value.contains(&0) {
                return Err("a name contains a NUL");
            }
            // An empty value takes the record of an earlier header back.
            Ok(Some(value.to_vec()).filter(|value| !value.is_empty()))
        };
        match key {
            b"path" => self.path = name()?,
            b"linkpath" => self.link = name()?,
            b"size" => self.size = Some(decimal("malformed size")?),
            b"uid" => self.uid = Some(decimal("malformed uid")?),
            b"gid" => self.gid = Some(decimal("malformed gid")?),
            b"mtime" => self.mtime = Some(Time::parse(value).ok_or("malformed mtime")?),
            b"GNU.sparse.name" => self.sparse.name = name()?,
            b"GNU.sparse.major" => self.sparse.major = Some(decimal("malformed sparse version")?),
            b"GNU.sparse.minor" => self.sparse.minor = Some(decimal("malformed sparse version")?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                self.sparse.real_size = Some(decimal("malformed sparse size")?);
            }
            b"GNU.sparse.map" => self.sparse.map = Some(map(value).ok_or("malformed sparse map")?),
            b"GNU.sparse.offset" => self.sparse.offset = Some(decimal("malformed sparse map")?),
            b"GNU.sparse.numbytes" => {
                let offset = self.sparse.offset.take().ok_or("malformed sparse map")?;
                let length = decimal("malformed sparse map")?;
                let map = self.sparse.map.get_or_insert_default();
                map.push(Segment { offset, length });
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                    if self.xattrs.len() > MAX_XATTRS {
                        return Err("too many extended attributes");
                    }
                }
            }
        }
        Ok(())
    }
}

/// The first record and what follows it.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(unsigned(&data[..space])?).ok()?;
    let body = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    (!key.is_empty()).then_some((key, value, &data[length..]))
}

fn map(value: &[u8]) -> Option<Vec<Segment>> {
    let numbers: Option<Vec<u64>> = value.split(|&byte| byte == b',').map(unsigned).collect();
    let numbers = numbers?;
    let pairs = numbers.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    Some(
        pairs
            .map(|pair| Segment {
                offset: pair[0],
                length: pair[1],
            })
            .collect(),
    )
}

pub(crate) fn unsigned(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

impl Time {
    /// Seconds with an optional sign and fraction; digits beyond nanoseconds are dropped.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (negative, text) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut parts = text.splitn(2, |&byte| byte == b'.');
        let seconds = i64::try_from(unsigned(parts.next()?)?).ok()?;
        let mut nanos = 0u32;
        if let Some(fraction) = parts.next() {
            if !fraction.iter().all(u8::is_ascii_digit) {
                return None;
            }
            for place in 0..9 {
                let digit = fraction.get(place).map_or(0, |byte| byte - b'0');
                nanos = nanos * 10 + u32::from(digit);
            }
        }
        Some(match (negative, nanos) {
            (false, nanos) => Self { seconds, nanos },
            (true, 0) => Self {
                seconds: -seconds,
                nanos,
            },
            (true, nanos) => Self {
                seconds: -seconds - 1,
                nanos: 1_000_000_000 - nanos,
            },
        })
    }
}

/// As a record has it: seconds with a sign and a fraction.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.seconds, self.nanos) {
            (seconds, 0) => write!(f, "{seconds}"),
            (seconds, nanos) if seconds < 0 => {
                let sign = if seconds == -1 { "-" } else { "" };
                let (seconds, nanos) = (seconds + 1, 1_000_000_000 - nanos);
                write!(f, "{sign}{seconds}.{nanos:09}")
            }
            (seconds, nanos) => write!(f, "{seconds}.{nanos:09}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_override_and_keep_binary_values() {
        let data = b"12 path=a/b\n21 SCHILY.xattr.a=\0\xff\n21 mtime=-1.25000000\n";
        let pax = Pax::parse(data).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(pax.xattrs, [(b"a".to_vec(), vec![0, 0xff])]);
        let mtime = pax.mtime.unwrap();
        assert_eq!((mtime.seconds, mtime.nanos), (-2, 750_000_000));
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        for text in ["0", "-3", "1.250000000", "-0.500000000", "-2.000000001"] {
            assert_eq!(Time::parse(text.as_bytes()).unwrap().to_string(), text);
        }
    }

    #[test]
    fn hostile_records_are_refused() {
        for bad in [
            &b"99999999999999999999999 path=a\n"[..],
            b"18446744073709551615 path=a\n",
            b"3 a\n",
            b"0 path=a\n",
            b"10 path=\0\n\n",
            b"-1 path=a\n",
            b"path=a\n",
        ] {
            assert!(
                Pax::parse(bad).is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }
}
