//! Times as Go's `RFC3339Nano` prints them: UTC, and the fraction without its trailing zeros.

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Appends the time that is `ns` nanoseconds after the epoch.
pub fn append(out: &mut Vec<u8>, ns: i64) {
    let seconds = ns.div_euclid(NANOS_PER_SECOND);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second_of_day = seconds.rem_euclid(86_400);
    for (value, width, after) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second_of_day / 3600, 2, b':'),
        (second_of_day / 60 % 60, 2, b':'),
        (second_of_day % 60, 2, b'.'),
        (ns.rem_euclid(NANOS_PER_SECOND), 9, b'Z'),
    ] {
        decimal(out, value, width);
        out.push(after);
    }
    out.pop();
    while out.last() == Some(&b'0') {
        out.pop();
    }
    if out.last() == Some(&b'.') {
        out.pop();
    }
    out.push(b'Z');
}

fn decimal(out: &mut Vec<u8>, mut value: i64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// Year, month and day of the proleptic Gregorian calendar, from days since 1970-01-01. Years are
/// counted from March on, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_ERA: i64 = 146_097; // 400 years
    const DAYS_TO_EPOCH: i64 = 719_468; // 0000-03-01 to 1970-01-01
    let days = days + DAYS_TO_EPOCH;
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + days.div_euclid(DAYS_PER_ERA) * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ns: i64, expect: &str) {
        let mut out = Vec::new();
        append(&mut out, ns);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn times_are_printed_as_go_prints_them() {
        check(0, "1970-01-01T00:00:00Z");
        check(1_500_000_000, "1970-01-01T00:00:01.5Z");
        check(951_827_696_000_000_001, "2000-02-29T12:34:56.000000001Z");
        check(1_795_256_999_120_000_000, "2026-11-21T10:29:59.12Z");
        check(4_107_542_399_999_999_999, "2100-02-28T23:59:59.999999999Z");
        check(4_107_542_400_000_000_000, "2100-03-01T00:00:00Z");
    }
}
