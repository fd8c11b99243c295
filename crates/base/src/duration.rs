//! Durations: Go's notation (`1h30m`), and Docker's words for people (`About a minute`).

use std::fmt;
use std::time::Duration;

/// The text is no duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDuration(pub String);

impl fmt::Display for InvalidDuration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "time: invalid duration {:?}", self.0)
    }
}

impl std::error::Error for InvalidDuration {}

/// Nanoseconds from Go's notation: a sign, then decimal numbers each with a unit of `ns`, `us`,
/// `µs`, `ms`, `s`, `m` or `h` (`time.ParseDuration`).
pub fn parse_go(text: &str) -> Result<i64, InvalidDuration> {
    let invalid = || InvalidDuration(text.to_owned());
    let (sign, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (-1.0, &text[1..]),
        Some(b'+') => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let scale = match &rest[..unit_end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(invalid()),
        };
        total += number * scale;
        rest = &rest[unit_end..];
    }
    if total >= 9.2e18 {
        return Err(invalid());
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bounded by the check above"
    )]
    Ok((sign * total).round() as i64)
}

/// Go's `Duration.String`: `1h2m3.5s`, `1.5ms`, `0s`.
pub fn format_go(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let fraction = |value: u128, unit: u128| {
        let text = format!(
            "{}.{:0width$}",
            value / unit,
            value % unit,
            width = unit.ilog10() as usize
        );
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// Docker's approximate words: `Less than a second`, `5 minutes`, `About an hour`, `3 weeks`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Docker rounds to the nearest hour and truncates everything else.
    let hours = (duration.as_secs_f64() / 3600.0 + 0.5).floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "non-negative, far below 2^63"
    )]
    let hours = hours as u64;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", duration.as_secs() / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_round_trip() {
        for (text, nanos) in [
            ("0", 0),
            ("1.5s", 1_500_000_000),
            ("1h2m3s", 3_723_000_000_000),
            ("10ms", 10_000_000),
        ] {
            assert_eq!(parse_go(text), Ok(nanos), "{text}");
        }
        for bad in ["", "1", "s", "1x", "1s2", "."] {
            assert!(parse_go(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_go("-1s"), Ok(-1_000_000_000));
        for text in ["1h2m3.5s", "1.5ms", "30s", "1m0s", "250µs"] {
            let nanos = u64::try_from(parse_go(text).unwrap()).unwrap();
            assert_eq!(format_go(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn people_read_dockers_words() {
        let check = |seconds, words: &str| assert_eq!(human(Duration::from_secs(seconds)), words);
        check(0, "Less than a second");
        check(1, "1 second");
        check(59, "59 seconds");
        check(61, "About a minute");
        check(150, "2 minutes");
        check(3600, "About an hour");
        check(5400, "2 hours");
        check(3600 * 50, "2 days");
        check(3600 * 24 * 15, "2 weeks");
        check(3600 * 24 * 70, "2 months");
        check(3600 * 24 * 365 * 3, "3 years");
    }
}
