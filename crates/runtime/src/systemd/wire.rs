//! D-Bus messages as bytes: as much of the format as calls to systemd need (D-Bus specification,
//! "Type system" and "Message protocol"), little-endian.

/// A call.
pub const METHOD_CALL: u8 = 1;
pub const METHOD_RETURN: u8 = 2;
pub const ERROR: u8 = 3;
pub const SIGNAL: u8 = 4;

/// Bytes of a header before its fields.
pub const FIXED_HEADER_BYTES: usize = 16;
/// What the specification allows is 128 MiB; systemd answers in some hundred bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Header fields by their code.
mod field {
    pub const PATH: u8 = 1;
    pub const INTERFACE: u8 = 2;
    pub const MEMBER: u8 = 3;
    pub const ERROR_NAME: u8 = 4;
    pub const REPLY_SERIAL: u8 = 5;
    pub const DESTINATION: u8 = 6;
    pub const SIGNATURE: u8 = 8;
}

/// A value that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    I32(i32),
    U32(u32),
    U64(u64),
    Text(String),
    Bytes(Vec<u8>),
    /// The signature of one element, for an array may be empty.
    Array(&'static str, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Value {
    pub fn variant(self) -> Self {
        Self::Variant(Box::new(self))
    }

    fn signature(&self) -> String {
        match self {
            Self::Bool(_) => "b".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::U64(_) => "t".into(),
            Self::Text(_) => "s".into(),
            Self::Bytes(_) => "ay".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(items) => {
                let inner: String = items.iter().map(Self::signature).collect();
                format!("({inner})")
            }
            Self::Variant(_) => "v".into(),
        }
    }

    fn alignment(signature: &str) -> usize {
        match signature.as_bytes().first() {
            Some(b'y' | b'g' | b'v') => 1,
            Some(b't' | b'(') => 8,
            _ => 4,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        pad(out, Self::alignment(&self.signature()));
        match self {
            Self::Bool(value) => out.extend(u32::from(*value).to_le_bytes()),
            Self::I32(value) => out.extend(value.to_le_bytes()),
            Self::U32(value) => out.extend(value.to_le_bytes()),
            Self::U64(value) => out.extend(value.to_le_bytes()),
            Self::Text(text) => {
                out.extend(length(text.len()));
                out.extend(text.as_bytes());
                out.push(0);
            }
            Self::Bytes(bytes) => {
                out.extend(length(bytes.len()));
                out.extend(bytes);
            }
            Self::Array(element, items) => {
                out.extend(length(0));
                let at = out.len();
                pad(out, Self::alignment(element));
                // The padding before the first element does not count.
                let start = out.len();
                items.iter().for_each(|item| item.write(out));
                let bytes = length(out.len() - start);
                out[at - 4..at].copy_from_slice(&bytes);
            }
            Self::Struct(items) => items.iter().for_each(|item| item.write(out)),
            Self::Variant(value) => {
                write_signature(&value.signature(), out);
                value.write(out);
            }
        }
    }
}

fn pad(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment), 0);
}

/// Ours are far below 4 GiB.
fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

fn write_signature(signature: &str, out: &mut Vec<u8>) {
    out.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
    out.extend(signature.as_bytes());
    out.push(0);
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub destination: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
    pub member: &'static str,
}

/// The bytes of a call.
pub fn call(serial: u32, target: Target, args: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    args.iter().for_each(|arg| arg.write(&mut body));
    let signature: String = args.iter().map(Value::signature).collect();
    let mut out = vec![b'l', METHOD_CALL, 0, 1];
    out.extend(length(body.len()));
    out.extend(serial.to_le_bytes());
    out.extend(length(0));
    let texts = [
        (field::PATH, "o", target.path),
        (field::INTERFACE, "s", target.interface),
        (field::MEMBER, "s", target.member),
        (field::DESTINATION, "s", target.destination),
    ];
    for (code, kind, text) in texts {
        pad(&mut out, 8);
        out.push(code);
        write_signature(kind, &mut out);
        Value::from(text).write(&mut out);
    }
    if !signature.is_empty() {
        pad(&mut out, 8);
        out.push(field::SIGNATURE);
        write_signature("g", &mut out);
        write_signature(&signature, &mut out);
    }
    let fields = length(out.len() - FIXED_HEADER_BYTES);
    out[FIXED_HEADER_BYTES - 4..FIXED_HEADER_BYTES].copy_from_slice(&fields);
    pad(&mut out, 8);
    out.extend(body);
    out
}

/// A message that was received.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub reply_serial: u32,
    pub member: String,
    pub error_name: String,
    body: Vec<u8>,
}

/// How many bytes follow the fixed header; `None` when it is none of ours.
pub fn rest_of(header: &[u8; FIXED_HEADER_BYTES]) -> Option<usize> {
    let mut reader = Reader::new(header);
    let little_endian = reader.byte()? == b'l';
    reader.at = 4;
    let body = usize::try_from(reader.u32()?).ok()?;
    reader.at = 12;
    let fields = usize::try_from(reader.u32()?).ok()?;
    let rest = fields.checked_next_multiple_of(8)?.checked_add(body)?;
    (little_endian && rest <= MAX_MESSAGE_BYTES).then_some(rest)
}

impl Message {
    /// From a whole message.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        reader.at = 1;
        let mut message = Self {
            kind: reader.byte()?,
            ..Self::default()
        };
        reader.at = 12;
        let end = FIXED_HEADER_BYTES + usize::try_from(reader.u32()?).ok()?;
        while reader.at < end {
            reader.align(8);
            let code = reader.byte()?;
            match (code, reader.signature()?.as_str()) {
                (field::MEMBER, "s") => message.member = reader.text()?,
                (field::ERROR_NAME, "s") => message.error_name = reader.text()?,
                (field::REPLY_SERIAL, "u") => message.reply_serial = reader.u32()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.signature()?),
                (_, "u") => drop(reader.u32()?),
                _ => return None,
            }
        }
        message.body = bytes.get(end.next_multiple_of(8)..)?.to_owned();
        Some(message)
    }

    /// Reads the body from its beginning.
    pub fn body(&self) -> Reader<'_> {
        Reader::new(&self.body)
    }
}

/// Reads values one after another; `None` at the first that is not there.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn align(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A string or an object path.
    pub fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.u32()?).ok()?;
        let text = self.take(length)?;
        self.byte()?;
        String::from_utf8(text.to_owned()).ok()
    }

    pub fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let text = self.take(length)?;
        self.byte()?;
        String::from_utf8(text.to_owned()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target {
        destination: "a.b",
        path: "/x",
        interface: "a.b.C",
        member: "Do",
    };

    #[test]
    fn a_call_has_the_specified_bytes() {
        let properties = Value::Array(
            "(sv)",
            vec![Value::Struct(vec!["P".into(), Value::U64(7).variant()])],
        );
        let bytes = call(5, TARGET, &["u".into(), properties]);
        let expect: &[&[u8]] = &[
            b"l\x01\x00\x01\x30\x00\x00\x00\x05\x00\x00\x00\x55\x00\x00\x00",
            b"\x01\x01o\x00\x02\x00\x00\x00/x\x00\x00\x00\x00\x00\x00",
            b"\x02\x01s\x00\x05\x00\x00\x00a.b.C\x00\x00\x00",
            b"\x03\x01s\x00\x02\x00\x00\x00Do\x00\x00\x00\x00\x00\x00",
            b"\x06\x01s\x00\x03\x00\x00\x00a.b\x00\x00\x00\x00\x00",
            b"\x08\x01g\x00\x06sa(sv)\x00\x00\x00\x00\x00\x00",
        ];
        let header: Vec<u8> = expect.concat();
        let body: &[&[u8]] = &[
            b"\x01\x00\x00\x00u\x00\x00\x00",
            b"\x18\x00\x00\x00\x00\x00\x00\x00",
            b"\x01\x00\x00\x00P\x00\x01t\x00\x00\x00\x00\x00\x00\x00\x00",
            b"\x07\x00\x00\x00\x00\x00\x00\x00",
        ];
        let body: Vec<u8> = body.concat();
        assert!(bytes.ends_with(&body), "{bytes:?}");
        assert_eq!(bytes[4], u8::try_from(body.len()).unwrap());
        let fields = bytes.len() - body.len();
        assert_eq!(bytes[16..fields], header[16..fields]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let bytes = call(9, TARGET, &["word".into(), Value::U32(3), "/o".into()]);
        let header: [u8; FIXED_HEADER_BYTES] = bytes[..FIXED_HEADER_BYTES].try_into().unwrap();
        assert_eq!(rest_of(&header), Some(bytes.len() - FIXED_HEADER_BYTES));
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.kind, message.member.as_str()), (METHOD_CALL, "Do"));
        let mut body = message.body();
        assert_eq!(body.text().as_deref(), Some("word"));
        assert_eq!(body.u32(), Some(3));
        assert_eq!(body.text().as_deref(), Some("/o"));
        assert_eq!(body.u32(), None);
    }

    #[test]
    fn cut_off_and_foreign_messages_are_none() {
        let bytes = call(9, TARGET, &["word".into()]);
        for length in 0..bytes.len() - 9 {
            assert_eq!(Message::parse(&bytes[..length]), None, "{length}");
        }
        let mut header: [u8; FIXED_HEADER_BYTES] = bytes[..FIXED_HEADER_BYTES].try_into().unwrap();
        header[0] = b'B';
        assert_eq!(rest_of(&header), None);
        header = *b"l\x01\x00\x01\xff\xff\xff\xff\x05\x00\x00\x00\xff\xff\xff\xff";
        assert_eq!(rest_of(&header), None);
    }
}
