//! Flags as data, and a parser with the rules of pflag, which docker's users know.
//!
//! `--name value`, `--name=value`, `-n value`, `-nvalue`, `-n=value`, grouped switches (`-it`),
//! `--` ends the flags, and commands whose last argument is another program's command line stop
//! at the first word that is no flag.

use std::collections::HashMap;
use std::num::IntErrorKind;

use berth_base::{duration, size};

/// What a flag takes. The word is what help shows after the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A switch.
    Switch,
    Text,
    Int,
    Uint16,
    /// A size with a unit.
    Bytes,
    /// A size where -1 is no limit.
    SwapBytes,
    /// A number of processors.
    Decimal,
    /// A Go duration.
    Duration,
    /// May be repeated; the word names what it takes.
    Many(&'static str),
    /// One value under a word of its own.
    One(&'static str),
}

/// Looks at a value; says what is wrong with it.
pub type Check = fn(&str) -> Result<(), String>;

/// One flag of a command.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    /// The value when it is not given, as help shows it; empty shows none.
    pub default: &'static str,
    pub help: &'static str,
    pub hidden: bool,
    /// Refuses a value when it is read, in the words that follow `invalid argument`.
    pub check: Option<Check>,
}

impl Flag {
    const fn new(long: &'static str, kind: Kind, help: &'static str) -> Self {
        Self {
            long,
            short: None,
            kind,
            default: "",
            help,
            hidden: false,
            check: None,
        }
    }

    pub const fn switch(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::Switch, help)
    }

    pub const fn text(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::Text, help)
    }

    pub const fn int(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::Int, help)
    }

    pub const fn list(long: &'static str, help: &'static str) -> Self {
        Self::new(long, Kind::Many("list"), help)
    }

    pub const fn of(long: &'static str, kind: Kind, help: &'static str) -> Self {
        Self::new(long, kind, help)
    }

    pub const fn short(mut self, short: char) -> Self {
        self.short = Some(short);
        self
    }

    pub const fn default(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }

    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    pub const fn check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    /// `-n, --name` as messages show it.
    fn shown(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.long),
            None => format!("--{}", self.long),
        }
    }

    fn accept(&self, value: &str) -> Result<(), String> {
        let refuse = |why: String| {
            Err(format!(
                "invalid argument {value:?} for \"{}\" flag: {why}",
                self.shown()
            ))
        };
        let result = match self.kind {
            Kind::Switch => parse_bool(value)
                .map(drop)
                .ok_or_else(|| syntax("ParseBool", value)),
            Kind::Int => parse_int(value).map(drop),
            Kind::Uint16 => match value.parse::<u16>() {
                Ok(_) => Ok(()),
                Err(error) if matches!(error.kind(), IntErrorKind::PosOverflow) => Err(format!(
                    "strconv.ParseUint: parsing {value:?}: value out of range"
                )),
                Err(_) => Err(syntax("ParseUint", value)),
            },
            Kind::Bytes => size::parse_binary(value)
                .map(drop)
                .map_err(|error| error.to_string()),
            Kind::SwapBytes if value == "-1" => Ok(()),
            Kind::SwapBytes => size::parse_binary(value)
                .map(drop)
                .map_err(|error| error.to_string()),
            Kind::Decimal => parse_cpus(value).map(drop),
            Kind::Duration => duration::parse_go(value)
                .map(drop)
                .map_err(|error| bad_duration(value, &error)),
            Kind::Text | Kind::Many(_) | Kind::One(_) => Ok(()),
        };
        let result = match (result, self.check) {
            (Ok(()), Some(check)) => check(value),
            (result, _) => result,
        };
        result.or_else(refuse)
    }
}

/// Go tells what is wrong with the unit.
fn bad_duration(value: &str, error: &duration::InvalidDuration) -> String {
    let number = value.trim_start_matches(['+', '-']);
    let unit = number.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let end = unit
        .find(|c: char| c.is_ascii_digit() || c == '.')
        .unwrap_or(unit.len());
    match (unit.len() == number.len(), &unit[..end]) {
        (true, _) => error.to_string(),
        (false, "") => format!("time: missing unit in duration {value:?}"),
        (false, unit) => format!("time: unknown unit {unit:?} in duration {value:?}"),
    }
}

fn syntax(function: &str, value: &str) -> String {
    format!("strconv.{function}: parsing {value:?}: invalid syntax")
}

/// The words that Go takes for a truth value.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn parse_int(text: &str) -> Result<i64, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let parsed = match digits.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    match parsed {
        Ok(number) if !digits.starts_with(['-', '+']) => Ok(sign * number),
        Err(error) if matches!(error.kind(), IntErrorKind::PosOverflow) => Err(format!(
            "strconv.ParseInt: parsing {text:?}: value out of range"
        )),
        _ => Err(syntax("ParseInt", text)),
    }
}

/// Billionths of a processor from a decimal number.
pub fn parse_cpus(text: &str) -> Result<i64, String> {
    let unreadable = || format!("failed to parse {text} as a rational number");
    let number: f64 = text.parse().map_err(|_| unreadable())?;
    if !number.is_finite() || number.abs() >= 9e9 {
        return Err(unreadable());
    }
    let nanos = number * 1e9;
    if (nanos - nanos.round()).abs() > 1e-3 {
        return Err("value is too precise".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded just above")]
    Ok(nanos.round() as i64)
}

/// What was given.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    values: HashMap<&'static str, Vec<String>>,
    defaults: HashMap<&'static str, &'static str>,
    /// The words that are no flags.
    pub args: Vec<String>,
    /// What is to be said about old names of flags.
    pub deprecated: Vec<String>,
}

impl Parsed {
    /// Whether the flag was given at all.
    pub fn changed(&self, long: &str) -> bool {
        self.values.contains_key(long)
    }

    pub fn on(&self, long: &str) -> bool {
        parse_bool(self.text(long)).unwrap_or(false)
    }

    /// The last value, or the default.
    pub fn text(&self, long: &str) -> &str {
        self.given(long)
            .or_else(|| self.defaults.get(long).copied())
            .unwrap_or_default()
    }

    /// The last value, if one was given.
    pub fn given(&self, long: &str) -> Option<&str> {
        self.values.get(long)?.last().map(String::as_str)
    }

    /// All values in their order.
    pub fn list(&self, long: &str) -> &[String] {
        self.values.get(long).map_or(&[], Vec::as_slice)
    }

    pub fn int(&self, long: &str) -> i64 {
        parse_int(self.text(long)).unwrap_or(0)
    }

    /// The integer, if one was given.
    pub fn given_int(&self, long: &str) -> Option<i64> {
        parse_int(self.given(long)?).ok()
    }

    /// A size in bytes; 0 when it was not given.
    pub fn bytes(&self, long: &str) -> i64 {
        match self.text(long) {
            "-1" => -1,
            text => size::parse_binary(text).unwrap_or(0),
        }
    }

    /// A duration in nanoseconds; 0 when it was not given.
    pub fn nanos(&self, long: &str) -> i64 {
        duration::parse_go(self.text(long)).unwrap_or(0)
    }

    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }
}

/// Why the words are no valid flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// `--help` came first.
    Help,
    /// `-h` came first, which docker still takes but does not like.
    ShortHelp,
    Invalid(String),
}

/// How flags and arguments may be mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Mixed,
    /// Everything from the first argument on is left as it is.
    FlagsFirst,
}

/// Takes the words apart.
pub fn parse(flags: &[Flag], order: Order, words: &[String]) -> Result<Parsed, Stop> {
    let mut parsed = Parsed {
        defaults: flags.iter().map(|flag| (flag.long, flag.default)).collect(),
        ..Parsed::default()
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.args.extend(words.cloned());
            break;
        } else if let Some(long) = word.strip_prefix("--") {
            parse_long(flags, long, &mut words, &mut parsed)?;
        } else if word.len() > 1 && word.starts_with('-') {
            parse_short(flags, &word[1..], &mut words, &mut parsed)?;
        } else {
            parsed.args.push(word.clone());
            if order == Order::FlagsFirst {
                parsed.args.extend(words.cloned());
                break;
            }
        }
    }
    Ok(parsed)
}

fn parse_long<'a>(
    flags: &[Flag],
    word: &str,
    rest: &mut impl Iterator<Item = &'a String>,
    parsed: &mut Parsed,
) -> Result<(), Stop> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (word, None),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(Stop::Invalid(format!("bad flag syntax: --{word}")));
    }
    match (name, value.as_deref()) {
        ("help", None | Some("true")) => return Err(Stop::Help),
        ("help", Some(_)) => return Ok(()),
        _ => {}
    }
    let found = flags.iter().find(|flag| flag.long == name);
    let found = found.or_else(|| flags.iter().find(|flag| flag.long == alias(name)));
    let flag = found.ok_or_else(|| Stop::Invalid(format!("unknown flag: --{name}")))?;
    let value = match (value, flag.kind) {
        (Some(value), _) => value,
        (None, Kind::Switch) => "true".to_owned(),
        (None, _) => rest
            .next()
            .cloned()
            .ok_or_else(|| Stop::Invalid(format!("flag needs an argument: --{name}")))?,
    };
    if name == "time" {
        let notice = "Flag --time has been deprecated, use --timeout instead";
        parsed.deprecated.push(notice.to_owned());
    }
    store(flag, value, parsed)
}

/// Second names of flags, which help does not show.
fn alias(name: &str) -> &str {
    match name {
        "net" => "network",
        "net-alias" => "network-alias",
        "dns-opt" => "dns-option",
        "time" => "timeout",
        other => other,
    }
}

fn parse_short<'a>(
    flags: &[Flag],
    group: &str,
    rest: &mut impl Iterator<Item = &'a String>,
    parsed: &mut Parsed,
) -> Result<(), Stop> {
    let mut left = group;
    while let Some(short) = left.chars().next() {
        let after = &left[short.len_utf8()..];
        let Some(flag) = flags.iter().find(|flag| flag.short == Some(short)) else {
            return Err(match short {
                'h' => Stop::ShortHelp,
                _ => Stop::Invalid(format!("unknown shorthand flag: {short:?} in -{left}")),
            });
        };
        if let Some(value) = after.strip_prefix('=') {
            return store(flag, value.to_owned(), parsed);
        }
        if flag.kind == Kind::Switch {
            store(flag, "true".to_owned(), parsed)?;
            left = after;
            continue;
        }
        let value = match after {
            "" => rest.next().cloned().ok_or_else(|| {
                Stop::Invalid(format!("flag needs an argument: {short:?} in -{left}"))
            })?,
            value => value.to_owned(),
        };
        return store(flag, value, parsed);
    }
    Ok(())
}

fn store(flag: &Flag, value: String, parsed: &mut Parsed) -> Result<(), Stop> {
    flag.accept(&value).map_err(Stop::Invalid)?;
    parsed.values.entry(flag.long).or_default().push(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::switch("interactive", "").short('i'),
        Flag::switch("tty", "").short('t'),
        Flag::list("env", "").short('e'),
        Flag::int("timeout", "").short('n').default("10"),
        Flag::of("memory", Kind::Bytes, "").short('m'),
        Flag::text("network", ""),
    ];

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn good(order: Order, text: &str) -> Parsed {
        parse(FLAGS, order, &words(text)).unwrap()
    }

    fn bad(text: &str) -> String {
        match parse(FLAGS, Order::Mixed, &words(text)) {
            Err(Stop::Invalid(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_spelling_of_a_value_is_read() {
        let parsed = good(
            Order::Mixed,
            "-it -e A=1 -eB=2 -e=C=3 --env D --env=E=5 x --net n y",
        );
        assert!(parsed.on("interactive") && parsed.on("tty"));
        assert_eq!(parsed.list("env"), ["A=1", "B=2", "C=3", "D", "E=5"]);
        assert_eq!(parsed.args, ["x", "y"]);
        assert_eq!(parsed.text("network"), "n");
        assert_eq!(parsed.int("timeout"), 10);
        assert_eq!(parsed.given_int("timeout"), None);
    }

    #[test]
    fn a_foreign_command_line_is_left_alone() {
        let parsed = good(Order::FlagsFirst, "-i image ls -t --env x");
        assert_eq!(parsed.args, ["image", "ls", "-t", "--env", "x"]);
        let parsed = good(Order::FlagsFirst, "-- -i");
        assert_eq!(parsed.args, ["-i"]);
    }

    #[test]
    fn mistakes_are_told_in_pflags_words() {
        assert_eq!(bad("--nosuch"), "unknown flag: --nosuch");
        assert_eq!(bad("-ix"), "unknown shorthand flag: 'x' in -x");
        assert_eq!(bad("-n"), "flag needs an argument: 'n' in -n");
        assert_eq!(bad("--env"), "flag needs an argument: --env");
        assert_eq!(
            bad("-m xx"),
            "invalid argument \"xx\" for \"-m, --memory\" flag: invalid size: 'xx'"
        );
        assert_eq!(
            bad("-n x"),
            "invalid argument \"x\" for \"-n, --timeout\" flag: strconv.ParseInt: parsing \"x\": invalid syntax"
        );
    }

    #[test]
    fn processors_are_counted_in_billionths() {
        assert_eq!(parse_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(
            parse_cpus("x"),
            Err("failed to parse x as a rational number".into())
        );
        assert!(parse_cpus("0.0000000001").is_err());
    }
}
