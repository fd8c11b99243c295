//! What templates are applied to: JSON with its order kept, and methods.

use std::fmt;
use std::rc::Rc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A method of an object: text to text, since docker has no others.
pub type Method = Rc<dyn Fn(&str) -> String>;

#[derive(Clone, Default)]
pub enum Value {
    #[default]
    Nil,
    /// A field that is there, and points to nothing.
    NilPointer,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<[Value]>),
    Object(Rc<Object>),
}

/// Fields in the order in which they came.
#[derive(Clone, Default)]
pub struct Object {
    pub fields: Vec<(String, Value)>,
    /// The Go type whose fields these are, for the message about an unknown one; maps have none.
    pub type_name: Option<&'static str>,
    /// `{{.Label "name"}}` and the like.
    pub methods: Vec<(&'static str, Method)>,
}

impl Object {
    pub fn get(&self, name: &str) -> Option<&Value> {
        let field = self.fields.iter().find(|(key, _)| key == name);
        field.map(|(_, value)| value)
    }
}

impl Value {
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(text.as_ref().into())
    }

    pub fn object(fields: Vec<(String, Value)>) -> Self {
        Self::Object(Rc::new(Object {
            fields,
            ..Object::default()
        }))
    }

    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Go's idea of an empty value.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Nil | Self::NilPointer => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Object(object) => object.type_name.is_some() || !object.fields.is_empty(),
        }
    }

    /// As Go's `encoding/json` writes it, with `<`, `>` and `&` as they are.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.write_json(&mut out);
        out
    }

    fn write_json(&self, out: &mut String) {
        match self {
            Self::Nil | Self::NilPointer => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => out.push_str(&value.to_string()),
            Self::Float(value) => out.push_str(&go_float(*value)),
            Self::Text(text) => quote_json(text, out),
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write_json(out);
                }
                out.push(']');
            }
            Self::Object(object) if object.type_name.is_some() => {
                // Rows of lists are Go maps that were marshalled on their own: sorted, and with
                // the escapes that keep JSON harmless within HTML.
                let mut fields = object.fields.clone();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                let inner = Self::object(fields).to_json();
                for c in inner.chars() {
                    match c {
                        '<' => out.push_str("\\u003c"),
                        '>' => out.push_str("\\u003e"),
                        '&' => out.push_str("\\u0026"),
                        c => out.push(c),
                    }
                }
            }
            Self::Object(object) => {
                out.push('{');
                for (index, (key, value)) in object.fields.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    quote_json(key, out);
                    out.push(':');
                    value.write_json(out);
                }
                out.push('}');
            }
        }
    }
}

fn quote_json(text: &str, out: &mut String) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        Err(_) => out.push_str("\"\""),
    }
}

/// Go's `%v` of a float: the shortest form, with an exponent only for very large or small ones.
pub fn go_float(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{value}")
}

/// Go's `%v`.
impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => out.write_str("<no value>"),
            Self::NilPointer => out.write_str("<nil>"),
            Self::Bool(value) => write!(out, "{value}"),
            Self::Int(value) => write!(out, "{value}"),
            Self::Float(value) => out.write_str(&go_float(*value)),
            Self::Text(text) => out.write_str(text),
            Self::List(items) => {
                out.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.write_str(" ")?;
                    }
                    inner(item, out)?;
                }
                out.write_str("]")
            }
            Self::Object(object) => {
                let mut fields: Vec<_> = object.fields.iter().collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                out.write_str("map[")?;
                for (index, (key, value)) in fields.into_iter().enumerate() {
                    if index > 0 {
                        out.write_str(" ")?;
                    }
                    write!(out, "{key}:")?;
                    inner(value, out)?;
                }
                out.write_str("]")
            }
        }
    }
}

fn inner(value: &Value, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Nil => out.write_str("<nil>"),
        other => write!(out, "{other}"),
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.to_json())
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "beyond i64 only a float is left"
        )]
        let float = value as f64;
        Ok(i64::try_from(value).map_or(Value::Float(float), Value::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::text(text))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Value::object(fields))
    }
}
