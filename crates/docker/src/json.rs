//! JSON as Go reads and writes it: null and absence are the zero value, the last of several
//! equal keys counts, and a value of the wrong type is reported with the path of its field.

use serde::de::{DeserializeOwned, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Why a document could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing but white space.
    #[error("invalid JSON: got EOF while reading request body")]
    Empty,
    #[error("invalid JSON: {0}")]
    Syntax(String),
    /// Well-formed, but not of the shape that the type has.
    #[error("invalid JSON: {0}")]
    Shape(String),
    #[error("unexpected content after JSON")]
    Trailing,
}

/// Declares a wire type: each field that is null or absent gets its default.
macro_rules! wire {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident : $type:ty,)*
    }) => {
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])*
            #[serde(default, deserialize_with = "crate::json::or_default")]
            pub $field: $type,)*
        }
    };
}
pub(crate) use wire;

/// Reads null as the default.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Go's `omitempty`.
pub(crate) fn zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads one document, and nothing after it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter();
    let value: Value = match documents.next() {
        None => return Err(Error::Empty),
        Some(Err(e)) if e.is_eof() => return Err(Error::Syntax("unexpected EOF".into())),
        Some(Err(e)) => return Err(Error::Syntax(e.to_string())),
        Some(Ok(value)) => value,
    };
    if bytes[documents.byte_offset()..]
        .iter()
        .any(|b| !b.is_ascii_whitespace())
    {
        return Err(Error::Trailing);
    }
    match value {
        // An array would fill a struct's fields in their order.
        value if is_struct::<T>() && !value.is_object() => match value {
            Value::Null => from_value(Value::Object(Map::new())),
            other => Err(Error::Shape(format!(
                "json: cannot unmarshal {} into Go value of type {}",
                kind(&other),
                go_type::<T>()
            ))),
        },
        value => from_value(value),
    }
}

/// Whether values of the type are read from objects.
fn is_struct<T: DeserializeOwned>() -> bool {
    let refused = serde_json::from_value::<T>(Value::Bool(true)).err();
    // With a flattened part it is read as a map.
    let words = ["expected struct", "expected a map"];
    refused.is_some_and(|error| words.iter().any(|it| error.to_string().contains(it)))
}

/// The type as Go writes it: its package and its name, which are as ours.
fn go_type<T>() -> String {
    let name = std::any::type_name::<T>();
    let mut words = name.rsplit("::");
    let name = words.next().unwrap_or(name);
    words
        .next()
        .map_or(name.to_owned(), |package| format!("{package}.{name}"))
}

/// As Go calls it.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Reads an already parsed document.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        let reason = e.into_inner().to_string();
        Error::Shape(match path.as_str() {
            "." if reason.starts_with(NESTED) => reason,
            "." => format!("cannot unmarshal: {reason}"),
            path if reason.starts_with(NESTED) => {
                format!("cannot unmarshal field {path}.{}", &reason[NESTED.len()..])
            }
            path => format!("cannot unmarshal field {path}: {reason}"),
        })
    })
}

const NESTED: &str = "cannot unmarshal field ";

/// Go's `struct{}`: what sets are maps to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A list of words for which a single string is accepted too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StrSlice(pub Vec<String>);

impl<'de> Deserialize<'de> for StrSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> serde::de::Visitor<'de> for Words {
            type Value = StrSlice;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a string or an array of strings")
            }
            fn visit_str<E>(self, word: &str) -> Result<StrSlice, E> {
                Ok(StrSlice(vec![word.to_owned()]))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<StrSlice, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element()? {
                    words.push(word);
                }
                Ok(StrSlice(words))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

impl std::ops::Deref for StrSlice {
    type Target = Vec<String>;
    fn deref(&self) -> &Vec<String> {
        &self.0
    }
}

impl From<Vec<String>> for StrSlice {
    fn from(words: Vec<String>) -> Self {
        Self(words)
    }
}

impl FromIterator<String> for StrSlice {
    fn from_iter<I: IntoIterator<Item = String>>(words: I) -> Self {
        Self(words.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::{CreateRequest, HostConfig};

    fn shape_error<T: DeserializeOwned + std::fmt::Debug>(text: &str) -> String {
        decode::<T>(text.as_bytes())
            .expect_err("must not parse")
            .to_string()
    }

    #[test]
    fn null_and_absent_are_the_zero_value() {
        let config: HostConfig = decode(br#"{"Memory":null,"Binds":null,"Init":null}"#).unwrap();
        assert_eq!(config, HostConfig::default());
        assert_eq!(
            decode::<CreateRequest>(b"null"),
            Ok(CreateRequest::default())
        );
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        let config: HostConfig = decode(br#"{"Memory":1,"Memory":2}"#).unwrap();
        assert_eq!(config.memory, 2);
    }

    #[test]
    fn wrong_shape_names_the_field() {
        assert_eq!(
            shape_error::<CreateRequest>(r#"{"HostConfig":{"Memory":"x"}}"#),
            "invalid JSON: cannot unmarshal field HostConfig.Memory: \
             invalid type: string \"x\", expected i64"
        );
        assert_eq!(
            shape_error::<CreateRequest>(r#"{"Tty":1}"#),
            "invalid JSON: cannot unmarshal field Tty: \
             invalid type: integer `1`, expected a boolean"
        );
        for (text, kind) in [("[]", "array"), (r#""x""#, "string"), ("1", "number")] {
            let words = format!(
                "invalid JSON: json: cannot unmarshal {kind} into Go value of type \
                 container.CreateRequest"
            );
            assert_eq!(shape_error::<CreateRequest>(text), words);
        }
        assert_eq!(decode::<Vec<String>>(br#"["a"]"#), Ok(vec!["a".to_owned()]));
        assert_eq!(shape_error::<CreateRequest>(" "), Error::Empty.to_string());
        assert_eq!(
            shape_error::<CreateRequest>("{} {}"),
            "unexpected content after JSON"
        );
        assert_eq!(
            shape_error::<CreateRequest>("{"),
            "invalid JSON: unexpected EOF"
        );
    }

    #[test]
    fn a_single_word_is_a_list() {
        let request: CreateRequest = decode(br#"{"Cmd":"ls","Entrypoint":["a","b"]}"#).unwrap();
        assert_eq!(request.config.cmd.unwrap().0, ["ls"]);
        assert_eq!(request.config.entrypoint.unwrap().0, ["a", "b"]);
    }
}
