//! Points in time: nanoseconds since the epoch, printed as Go's RFC 3339 with nanoseconds.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nanoseconds since 1970-01-01T00:00:00Z. [`Timestamp::ZERO`] stands for Go's zero time
/// (`0001-01-01T00:00:00Z`), which Docker prints where nothing has happened yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// The text is no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidTime(pub String);

impl Timestamp {
    pub const ZERO: Self = Self(i64::MIN);

    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    pub fn unix_seconds(self) -> i64 {
        if self.is_zero() {
            -62_135_596_800
        } else {
            self.0.div_euclid(1_000_000_000)
        }
    }

    pub fn unix_nanos(self) -> i64 {
        self.0
    }

    /// How long ago this was at `now`; zero for the future.
    pub fn elapsed_at(self, now: Self) -> Duration {
        Duration::from_nanos(u64::try_from(now.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// A time as Docker's `since` and `until` take it: seconds since the epoch with an optional
    /// fraction, RFC 3339 with optional parts (in the local zone where none is given), or a Go
    /// duration before `now`.
    pub fn parse_docker(text: &str, now: Self) -> Result<Self, InvalidTime> {
        if let Some(seconds) = parse_seconds(text) {
            return Ok(Self(seconds));
        }
        if let Ok(ago) = crate::duration::parse_go(text) {
            return Ok(Self(now.0.saturating_sub(ago)));
        }
        text.parse()
    }
}

fn parse_seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

impl std::str::FromStr for Timestamp {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let invalid = || InvalidTime(text.to_owned());
        if text.starts_with("0001-01-01T00:00:00") {
            return Ok(Self::ZERO);
        }
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            return i64::try_from(time.as_nanosecond())
                .map(Self)
                .map_err(|_| invalid());
        }
        let local = text
            .parse::<jiff::civil::DateTime>()
            .map_err(|_| invalid())?;
        let zoned = local
            .to_zoned(jiff::tz::TimeZone::system())
            .map_err(|_| invalid())?;
        i64::try_from(zoned.timestamp().as_nanosecond())
            .map(Self)
            .map_err(|_| invalid())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let nanos = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()),
            Err(before) => i64::try_from(before.duration().as_nanos()).map(|nanos| -nanos),
        };
        Self(nanos.unwrap_or(i64::MAX))
    }
}

/// RFC 3339 in UTC with as many digits of the fraction as are not zero.
impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return out.write_str("0001-01-01T00:00:00Z");
        }
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(out, "{time}"),
            Err(_) => Err(fmt::Error),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for InvalidTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{:?} is not a time: give seconds since the epoch, RFC 3339 or a duration",
            self.0
        )
    }
}

impl std::error::Error for InvalidTime {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_and_parse_as_go_does() {
        for text in [
            "2026-11-21T10:15:00Z",
            "2026-11-21T10:15:00.5Z",
            "2026-11-21T10:15:00.123456789Z",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn docker_times_take_seconds_durations_and_dates() {
        let now = Timestamp(100_000_000_000);
        assert_eq!(
            Timestamp::parse_docker("12.5", now),
            Ok(Timestamp(12_500_000_000))
        );
        assert_eq!(
            Timestamp::parse_docker("10s", now),
            Ok(Timestamp(90_000_000_000))
        );
        assert_eq!(
            Timestamp::parse_docker("1970-01-01T00:00:01Z", now),
            Ok(Timestamp(1_000_000_000))
        );
        assert!(Timestamp::parse_docker("yesterday", now).is_err());
    }
}
