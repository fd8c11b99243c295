//! Values of D-Bus's types, and their signatures.

/// A value of one of D-Bus's types.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    Int16(i16),
    Uint16(u16),
    Int32(i32),
    Uint32(u32),
    Int64(i64),
    Uint64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// `of` is the signature of one item, which an empty array needs too.
    Array {
        of: String,
        items: Vec<Value>,
    },
    Struct(Vec<Value>),
    /// Of a dictionary, which is an array of these.
    Entry(Box<(Value, Value)>),
    Variant(Box<Value>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl Value {
    /// An array of items of the type `of`.
    pub fn array(of: &str, items: Vec<Value>) -> Value {
        Value::Array {
            of: of.to_owned(),
            items,
        }
    }

    pub fn bytes(bytes: &[u8]) -> Value {
        Value::array("y", bytes.iter().copied().map(Value::Byte).collect())
    }

    pub fn variant(self) -> Value {
        Value::Variant(Box::new(self))
    }

    pub fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// An array of strings.
    pub fn texts(texts: &[&str]) -> Value {
        Value::array("s", texts.iter().map(|text| Value::text(text)).collect())
    }

    /// A dictionary from names to values of any type: `a{sv}`.
    pub fn properties(properties: &[(&str, Value)]) -> Value {
        let entry = |(name, value): &(&str, Value)| {
            Value::Entry(Box::new((Value::text(name), value.clone().variant())))
        };
        Value::array("{sv}", properties.iter().map(entry).collect())
    }

    /// Text, a path or a signature.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Path(text) | Value::Signature(text) => Some(text),
            _ => None,
        }
    }

    /// The items of an array.
    pub fn as_items(&self) -> Option<&[Value]> {
        match self {
            Value::Array { items, .. } => Some(items),
            _ => None,
        }
    }

    /// The type, as D-Bus writes it.
    pub(super) fn signature(&self) -> String {
        let all = |values: &[Value]| values.iter().map(Value::signature).collect::<String>();
        match self {
            Value::Byte(_) => "y".to_owned(),
            Value::Bool(_) => "b".to_owned(),
            Value::Int16(_) => "n".to_owned(),
            Value::Uint16(_) => "q".to_owned(),
            Value::Int32(_) => "i".to_owned(),
            Value::Uint32(_) => "u".to_owned(),
            Value::Int64(_) => "x".to_owned(),
            Value::Uint64(_) => "t".to_owned(),
            Value::Double(_) => "d".to_owned(),
            Value::Text(_) => "s".to_owned(),
            Value::Path(_) => "o".to_owned(),
            Value::Signature(_) => "g".to_owned(),
            Value::Array { of, .. } => format!("a{of}"),
            Value::Struct(fields) => format!("({})", all(fields)),
            Value::Entry(entry) => format!("{{{}{}}}", entry.0.signature(), entry.1.signature()),
            Value::Variant(_) => "v".to_owned(),
        }
    }
}
