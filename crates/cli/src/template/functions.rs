//! The functions of templates: Go's own and docker's.

use std::cmp::Ordering;

use super::Error;
use super::value::Value;

const NAMES: &[&str] = &[
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "eq", "ne", "lt",
    "le", "gt", "ge", "html", "js", "urlquery", "json", "split", "join", "title", "lower", "upper",
    "pad", "truncate",
];

/// Those of docker's functions that leave a header alone.
const TEXT: &[&str] = &[
    "json", "split", "join", "title", "lower", "upper", "pad", "truncate",
];

pub fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

pub fn call(name: &str, arguments: &[Value], header: bool) -> Result<Value, Error> {
    if header && TEXT.contains(&name) {
        return Ok(arguments.first().cloned().unwrap_or_default());
    }
    let wrong = |want: usize| {
        Error(format!(
            ":1: wrong number of args for {name}: want {want} got {}",
            arguments.len()
        ))
    };
    let value = match (name, arguments) {
        ("and" | "or", [.., last]) => last.clone(),
        ("not", [value]) => Value::Bool(!value.is_true()),
        ("len", [value]) => length(value)?,
        ("index", [value, keys @ ..]) => index(value, keys)?,
        ("slice", [value, bounds @ ..]) => slice(value, bounds)?,
        ("print", values) => Value::text(print(values)),
        ("println", values) => {
            let words: Vec<String> = values.iter().map(Value::to_string).collect();
            Value::text(words.join(" ") + "\n")
        }
        ("printf", [format, values @ ..]) => Value::text(printf(&format.to_string(), values)),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            Value::Bool(others.iter().any(|other| equal(first, other)))
        }
        ("ne", [a, b]) => Value::Bool(!equal(a, b)),
        ("lt", [a, b]) => Value::Bool(order(a, b)?.is_lt()),
        ("le", [a, b]) => Value::Bool(order(a, b)?.is_le()),
        ("gt", [a, b]) => Value::Bool(order(a, b)?.is_gt()),
        ("ge", [a, b]) => Value::Bool(order(a, b)?.is_ge()),
        ("html" | "js" | "urlquery", values) => Value::text(print(values)),
        ("json", [value]) => Value::text(value.to_json()),
        ("split", [text, by]) => {
            let (text, by) = (text.to_string(), by.to_string());
            Value::List(text.split(by.as_str()).map(Value::text).collect())
        }
        ("join", [Value::List(items), by]) => {
            let words: Vec<String> = items.iter().map(Value::to_string).collect();
            Value::text(words.join(&by.to_string()))
        }
        ("join", [Value::Nil, _]) => Value::text(""),
        ("title", [text]) => Value::text(title(&text.to_string())),
        ("lower", [text]) => Value::text(text.to_string().to_lowercase()),
        ("upper", [text]) => Value::text(text.to_string().to_uppercase()),
        ("pad", [text, Value::Int(before), Value::Int(after)]) => {
            let text = text.to_string();
            if text.is_empty() {
                Value::text(text)
            } else {
                let spaces = |count: i64| " ".repeat(usize::try_from(count).unwrap_or(0));
                Value::text(format!("{}{text}{}", spaces(*before), spaces(*after)))
            }
        }
        ("truncate", [text, Value::Int(limit)]) => {
            let limit = usize::try_from(*limit).unwrap_or(0);
            Value::text(text.to_string().chars().take(limit).collect::<String>())
        }
        ("pad", _) => return Err(wrong(3)),
        ("split" | "join" | "truncate" | "ne" | "lt" | "le" | "gt" | "ge", _) => {
            return Err(wrong(2));
        }
        _ => return Err(wrong(1)),
    };
    Ok(value)
}

fn length(value: &Value) -> Result<Value, Error> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Object(object) => object.fields.len(),
        Value::Nil | Value::NilPointer => 0,
        other => {
            return Err(Error(format!(":1: error calling len: len of type {other}")));
        }
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, Error> {
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::List(items), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| items.get(at));
                found.cloned().ok_or_else(|| {
                    Error(format!(
                        ":1:2: executing \"\" at <index>: error calling index: index out of range: {at}"
                    ))
                })?
            }
            (Value::Object(object), key) => {
                let key = key.to_string();
                let found = object.fields.iter().find(|(name, _)| *name == key);
                found.map(|(_, value)| value.clone()).unwrap_or_default()
            }
            (Value::Nil, _) => {
                return Err(Error(
                    ":1:2: executing \"\" at <index>: error calling index: index of untyped nil"
                        .to_owned(),
                ));
            }
            (other, key) => {
                return Err(Error(format!(
                    ":1:2: executing \"\" at <index>: error calling index: cannot index {other} with {key}"
                )));
            }
        };
    }
    Ok(value)
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, Error> {
    let out_of_range = || Error(":1: error calling slice: index out of range".to_owned());
    let bound = |at: usize, default: usize| match bounds.get(at) {
        Some(Value::Int(bound)) => usize::try_from(*bound).map_err(|_| out_of_range()),
        Some(_) => Err(out_of_range()),
        None => Ok(default),
    };
    match value {
        Value::Text(text) => {
            let range = bound(0, 0)?..bound(1, text.len())?;
            text.get(range).map(Value::text).ok_or_else(out_of_range)
        }
        Value::List(items) => {
            let range = bound(0, 0)?..bound(1, items.len())?;
            let part = items.get(range).ok_or_else(out_of_range)?;
            Ok(Value::List(part.into()))
        }
        other => Err(Error(format!(
            ":1: error calling slice: can't slice item of type {other}"
        ))),
    }
}

/// Go's `Sprint`: a space between two operands neither of which is a string.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let both_plain =
            at > 0 && !matches!(value, Value::Text(_)) && !matches!(values[at - 1], Value::Text(_));
        if both_plain {
            out.push(' ');
        }
        out.push_str(&value.to_string());
    }
    out
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Nil, Value::Nil) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a == b,
        _ => order(a, b).is_ok_and(Ordering::is_eq),
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering, Error> {
    let incompatible =
        || Error(":1: error calling compare: incompatible types for comparison".to_owned());
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b).ok_or_else(incompatible),
        (Value::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
        _ => Err(incompatible()),
    }
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .map(|c| {
            let upper = start;
            start = !(c.is_alphanumeric() || matches!(c, '_' | '\''));
            if upper { c.to_ascii_uppercase() } else { c }
        })
        .collect()
}

/// The verbs that formats of lists use: `%s %v %d %q %t %x %f`, with width and precision.
fn printf(format: &str, values: &[Value]) -> String {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = String::new();
        while let Some(next) = chars.next_if(|c| "+-# 0123456789.".contains(*c)) {
            spec.push(next);
        }
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        out.push_str(&pad(&spec, &verbed(verb, &spec, value)));
    }
    let extra: Vec<String> = values.map(Value::to_string).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn verbed(verb: char, spec: &str, value: &Value) -> String {
    let precision = spec
        .split_once('.')
        .and_then(|(_, p)| p.parse::<usize>().ok());
    match (verb, value) {
        ('s' | 'v', value) => {
            let text = value.to_string();
            match precision {
                Some(limit) => text.chars().take(limit).collect(),
                None => text,
            }
        }
        ('d', Value::Int(number)) => number.to_string(),
        ('q', value) => format!("{:?}", value.to_string()),
        ('t', Value::Bool(value)) => value.to_string(),
        ('x', Value::Int(number)) => format!("{number:x}"),
        ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('f', Value::Float(number)) => format!("{number:.*}", precision.unwrap_or(6)),
        (verb, value) => format!("%!{verb}({value})"),
    }
}

fn pad(spec: &str, text: &str) -> String {
    let left = spec.contains('-');
    let zero = spec.trim_start_matches(['+', '#', ' ']).starts_with('0') && !left;
    let digits = spec.trim_start_matches(['+', '-', '#', ' ', '0']);
    let width: usize = digits
        .split('.')
        .next()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0);
    match (left, zero) {
        (true, _) => format!("{text:<width$}"),
        (_, true) => format!("{text:0>width$}"),
        (false, false) => format!("{text:>width$}"),
    }
}
