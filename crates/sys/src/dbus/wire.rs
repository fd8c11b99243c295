//! Messages of D-Bus: a header, and a body of values that a signature describes.
//!
//! Sent in little-endian order; every value begins at a multiple of its alignment, counted from
//! the start of its message's header or body, both of which begin at a multiple of eight.

use std::io;

use super::{Method, Value};

/// The fixed part of a header: enough to know how long the message is.
pub const START_BYTES: usize = 16;
/// The specification allows 128 MiB; no answer that we ask for comes near this.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Containers within containers (the specification allows 64).
const MAX_DEPTH: usize = 64;

const LITTLE_ENDIAN: u8 = b'l';
const PROTOCOL: u8 = 1;
const METHOD_CALL: u8 = 1;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
/// A service that does not run is not to be started for our sake.
const NO_AUTO_START: u8 = 2;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// What matters of a message that was received.
#[derive(Debug, Default, PartialEq)]
pub struct Message {
    /// `None` is a signal.
    pub reply_to: Option<u32>,
    /// The name of the error that this is.
    pub error: Option<String>,
    /// The name of the signal that this is.
    pub signal: Option<String>,
    pub body: Vec<Value>,
}

/// A method call, ready to be sent.
pub fn call(method: Method<'_>, serial: u32, arguments: &[Value]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|argument| body.put(argument));
    let signature: String = arguments.iter().map(Value::signature).collect();
    let field = |code, value| Value::Struct(vec![Value::Byte(code), Value::Variant(value)]);
    let mut fields = vec![
        field(PATH, Box::new(Value::Path(method.path.to_owned()))),
        field(INTERFACE, Box::new(Value::text(method.interface))),
        field(MEMBER, Box::new(Value::text(method.name))),
        field(DESTINATION, Box::new(Value::text(method.destination))),
    ];
    if !arguments.is_empty() {
        fields.push(field(SIGNATURE, Box::new(Value::Signature(signature))));
    }
    let mut message = Writer(vec![LITTLE_ENDIAN, METHOD_CALL, NO_AUTO_START, PROTOCOL]);
    message.put(&Value::Uint32(length(body.0.len())));
    message.put(&Value::Uint32(serial));
    message.put(&Value::Array {
        of: "(yv)".to_owned(),
        items: fields,
    });
    message.align(8);
    message.0.extend_from_slice(&body.0);
    message.0
}

/// How many bytes follow this start of a message.
pub fn rest_of(start: &[u8; START_BYTES]) -> io::Result<usize> {
    let number = |at: usize| {
        let bytes = [start[at], start[at + 1], start[at + 2], start[at + 3]];
        u32::from_le_bytes(bytes) as usize
    };
    // Big-endian programs on a little-endian machine there are none.
    if start[0] != LITTLE_ENDIAN || start[3] != PROTOCOL {
        return Err(malformed("protocol"));
    }
    let (body, fields) = (number(4), number(12));
    if body > MAX_MESSAGE_BYTES || fields > MAX_MESSAGE_BYTES {
        return Err(malformed("length"));
    }
    Ok(fields.next_multiple_of(8) + body)
}

/// Reads a whole message.
pub fn read(bytes: &[u8]) -> io::Result<Message> {
    let kind = *bytes.get(1).ok_or_else(|| malformed("header"))?;
    let mut header = Reader { bytes, at: 12 };
    let fields = header.value("a(yv)", 0)?;
    header.align(8)?;
    let mut message = Message::default();
    let mut signature = "";
    for field in fields.as_items().unwrap_or_default() {
        let Value::Struct(parts) = field else {
            continue;
        };
        let [Value::Byte(code), Value::Variant(value)] = parts.as_slice() else {
            continue;
        };
        match (*code, &**value) {
            (REPLY_SERIAL, Value::Uint32(serial)) => message.reply_to = Some(*serial),
            (ERROR_NAME, Value::Text(name)) if kind == ERROR => message.error = Some(name.clone()),
            (MEMBER, Value::Text(name)) if kind == SIGNAL => message.signal = Some(name.clone()),
            (SIGNATURE, Value::Signature(text)) => signature = text,
            _ => {}
        }
    }
    if kind == ERROR && message.error.is_none() {
        return Err(malformed("error without a name"));
    }
    let bytes = &bytes[header.at..];
    let mut body = Reader { bytes, at: 0 };
    while !signature.is_empty() {
        let (first, rest) = first_type(signature, 0)?;
        message.body.push(body.value(first, 0)?);
        signature = rest;
    }
    Ok(message)
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn put(&mut self, value: &Value) {
        match value {
            Value::Byte(byte) => self.0.push(*byte),
            Value::Bool(flag) => self.fixed(&u32::from(*flag).to_le_bytes()),
            Value::Int16(number) => self.fixed(&number.to_le_bytes()),
            Value::Uint16(number) => self.fixed(&number.to_le_bytes()),
            Value::Int32(number) => self.fixed(&number.to_le_bytes()),
            Value::Uint32(number) => self.fixed(&number.to_le_bytes()),
            Value::Int64(number) => self.fixed(&number.to_le_bytes()),
            Value::Uint64(number) => self.fixed(&number.to_le_bytes()),
            Value::Double(number) => self.fixed(&number.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => {
                self.fixed(&length(text.len()).to_le_bytes());
                self.0.extend_from_slice(text.as_bytes());
                self.0.push(0);
            }
            Value::Signature(text) => self.signature(text),
            Value::Array { of, items } => {
                self.fixed(&[0; 4]);
                let at = self.0.len();
                // The padding before the first item is not counted.
                self.align(alignment(of));
                let first = self.0.len();
                items.iter().for_each(|item| self.put(item));
                let bytes = length(self.0.len() - first).to_le_bytes();
                self.0[at - 4..at].copy_from_slice(&bytes);
            }
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.put(field));
            }
            Value::Entry(entry) => {
                self.align(8);
                self.put(&entry.0);
                self.put(&entry.1);
            }
            Value::Variant(value) => {
                self.signature(&value.signature());
                self.put(value);
            }
        }
    }

    fn fixed(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn signature(&mut self, text: &str) {
        // At most 255 by the specification; ours are a dozen.
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) -> io::Result<()> {
        let gap = self.at.next_multiple_of(to) - self.at;
        self.take(gap).map(drop)
    }

    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| malformed("too short"))?;
        self.at += count;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.align(N)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn text(&mut self, length: usize) -> io::Result<String> {
        let bytes = self.take(length)?;
        self.take(1)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| malformed("text"))
    }

    /// The value of one complete type.
    fn value(&mut self, signature: &str, depth: usize) -> io::Result<Value> {
        if depth > MAX_DEPTH {
            return Err(malformed("depth"));
        }
        let inner = signature.get(1..).unwrap_or_default();
        Ok(match signature.as_bytes().first() {
            Some(b'y') => Value::Byte(self.take(1)?[0]),
            Some(b'b') => Value::Bool(u32::from_le_bytes(self.fixed()?) != 0),
            Some(b'n') => Value::Int16(i16::from_le_bytes(self.fixed()?)),
            Some(b'q') => Value::Uint16(u16::from_le_bytes(self.fixed()?)),
            Some(b'i') => Value::Int32(i32::from_le_bytes(self.fixed()?)),
            Some(b'u') => Value::Uint32(u32::from_le_bytes(self.fixed()?)),
            Some(b'x') => Value::Int64(i64::from_le_bytes(self.fixed()?)),
            Some(b't') => Value::Uint64(u64::from_le_bytes(self.fixed()?)),
            Some(b'd') => Value::Double(f64::from_le_bytes(self.fixed()?)),
            Some(kind @ (b's' | b'o')) => {
                let length = u32::from_le_bytes(self.fixed()?) as usize;
                let text = self.text(length)?;
                if *kind == b's' {
                    Value::Text(text)
                } else {
                    Value::Path(text)
                }
            }
            Some(b'g') => Value::Signature(self.signature()?),
            Some(b'v') => {
                let signature = self.signature()?;
                let (first, rest) = first_type(&signature, 0)?;
                if !rest.is_empty() {
                    return Err(malformed("variant"));
                }
                Value::Variant(Box::new(self.value(first, depth + 1)?))
            }
            Some(b'a') => {
                let length = u32::from_le_bytes(self.fixed()?) as usize;
                self.align(alignment(inner))?;
                let end = self.at + length;
                let mut items = Vec::new();
                while self.at < end {
                    let before = self.at;
                    items.push(self.value(inner, depth + 1)?);
                    if self.at == before {
                        return Err(malformed("array of nothing"));
                    }
                }
                Value::Array {
                    of: inner.to_owned(),
                    items,
                }
            }
            Some(open @ (b'(' | b'{')) => {
                self.align(8)?;
                let mut rest = inner.get(..inner.len().saturating_sub(1)).unwrap_or("");
                let mut fields = Vec::new();
                while !rest.is_empty() {
                    let (first, after) = first_type(rest, 0)?;
                    fields.push(self.value(first, depth + 1)?);
                    rest = after;
                }
                match (*open, <[Value; 2]>::try_from(fields)) {
                    (b'{', Ok([key, value])) => Value::Entry(Box::new((key, value))),
                    (b'{', Err(_)) => return Err(malformed("dictionary")),
                    (_, Ok(two)) => Value::Struct(two.into()),
                    (_, Err(fields)) => Value::Struct(fields),
                }
            }
            _ => return Err(malformed("type")),
        })
    }

    fn signature(&mut self) -> io::Result<String> {
        let length = usize::from(self.take(1)?[0]);
        self.text(length)
    }
}

/// Splits a signature after its first complete type.
fn first_type(signature: &str, depth: usize) -> io::Result<(&str, &str)> {
    let bad = || malformed("signature");
    if depth > MAX_DEPTH || !signature.is_ascii() {
        return Err(bad());
    }
    let length = match signature.as_bytes().first() {
        None => return Err(bad()),
        Some(b'a') => 1 + first_type(&signature[1..], depth + 1)?.0.len(),
        Some(open @ (b'(' | b'{')) => {
            let close = if *open == b'(' { b')' } else { b'}' };
            let mut at = 1;
            while signature.as_bytes().get(at) != Some(&close) {
                at += first_type(&signature[at..], depth + 1)?.0.len();
            }
            at + 1
        }
        Some(_) => 1,
    };
    Ok(signature.split_at(length))
}

fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

fn length(bytes: usize) -> u32 {
    // What is sent is made by this program, of names and paths.
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a D-Bus message that is none: {what}"),
    )
}

#[cfg(test)]
mod tests;
