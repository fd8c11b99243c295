//! Sizes as people write and read them, in the notation of Docker's `go-units`.

use std::fmt;

/// The text is no size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSize(pub String);

impl fmt::Display for InvalidSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "invalid size: '{}'", self.0)
    }
}

impl std::error::Error for InvalidSize {}

/// Bytes from a text such as `512`, `64m`, `1.5g`, `2GiB`: units are powers of 1024.
pub fn parse_binary(text: &str) -> Result<i64, InvalidSize> {
    parse(text, 1024.0)
}

/// Bytes from a text such as `10kB`: units are powers of 1000.
pub fn parse_decimal(text: &str) -> Result<i64, InvalidSize> {
    parse(text, 1000.0)
}

fn parse(text: &str, base: f64) -> Result<i64, InvalidSize> {
    let invalid = || InvalidSize(text.to_owned());
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(invalid()),
    };
    let bytes = number * base.powi(power);
    if bytes >= 9.2e18 {
        return Err(invalid());
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bounded by the check above"
    )]
    Ok(bytes as i64)
}

/// `1.23MB`: powers of 1000, `digits` significant digits.
pub fn human_decimal(bytes: f64, digits: usize) -> String {
    human(
        bytes,
        1000.0,
        digits,
        &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"],
    )
}

/// `1.205MiB`: powers of 1024, four significant digits.
pub fn human_binary(bytes: f64) -> String {
    human(
        bytes,
        1024.0,
        4,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"],
    )
}

fn human(mut value: f64, base: f64, digits: usize, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= base && unit < units.len() - 1 {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// The number as C's `%.{digits}g` prints it.
pub fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponential = format!("{:.*e}", digits.saturating_sub(1), value);
    let exponent: i32 = exponential
        .rsplit('e')
        .next()
        .and_then(|e| e.parse().ok())
        .unwrap_or(0);
    let limit = i32::try_from(digits).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= limit {
        let (mantissa, _) = exponential.split_once('e').unwrap_or((&exponential, ""));
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim_zeros(mantissa), exponent.abs());
    }
    let decimals = usize::try_from(limit - 1 - exponent).unwrap_or(0);
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

fn trim_zeros(number: &str) -> &str {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_with_every_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("32", 32),
            ("32b", 32),
            ("32k", 32 << 10),
            ("32 MB", 32 << 20),
            ("1.5g", 3 << 29),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(parse_binary(text), Ok(bytes), "{text}");
        }
        for bad in ["", "x", "1x", "-1", "1..2", "1 mbb", "99999999P"] {
            assert!(parse_binary(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_print_as_go_units_does() {
        assert_eq!(human_decimal(0.0, 3), "0B");
        assert_eq!(human_decimal(1_234_567.0, 3), "1.23MB");
        assert_eq!(human_decimal(999.0, 3), "999B");
        assert_eq!(human_decimal(120_000_000.0, 4), "120MB");
        assert_eq!(human_binary(1536.0), "1.5KiB");
        assert_eq!(human_decimal(1023.0 * 1000.0 * 1000.0, 3), "1.02GB");
    }

    #[test]
    fn significant_matches_printf() {
        assert_eq!(significant(999.9, 3), "1e+03");
        assert_eq!(significant(0.000_012_3, 3), "1.23e-05");
        assert_eq!(significant(12.0, 4), "12");
    }
}
