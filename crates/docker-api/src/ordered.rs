//! A JSON object whose fields keep their order.
//!
//! What clients print as it comes (`docker inspect`) has dockerd's order, which is that of the
//! wire types. `serde_json::Value` would sort it; its feature that does not would do so for
//! everybody in the program.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::{RawValue, to_raw_value};

const SERIALIZES: &str = "wire types have string keys and no failing implementation of Serialize";

/// Fields in order, their values unparsed.
#[derive(Debug, Clone, Default)]
pub struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    /// The object that a value serializes to. One that is no object has no fields.
    pub fn of<T: Serialize>(value: &T) -> Self {
        let raw = to_raw_value(value).expect(SERIALIZES);
        serde_json::from_str(raw.get()).unwrap_or_default()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(field, _)| field == name)
    }

    /// Replaces a field, or adds it at the end.
    pub fn set<T: Serialize>(&mut self, name: &str, value: &T) {
        let value = to_raw_value(value).expect(SERIALIZES);
        match self.0.iter_mut().find(|(field, _)| field == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Adds a field that is not there.
    pub fn set_default<T: Serialize>(&mut self, name: &str, value: &T) {
        if !self.has(name) {
            self.set(name, value);
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(field, _)| field != name);
    }

    /// Changes a field that is an object; all others stay as they are.
    pub fn edit(&mut self, name: &str, change: impl FnOnce(&mut Self)) {
        let Some((_, value)) = self.0.iter_mut().find(|(field, _)| field == name) else {
            return;
        };
        if let Ok(mut object) = serde_json::from_str::<Self>(value.get()) {
            change(&mut object);
            *value = to_raw_value(&object).expect(SERIALIZES);
        }
    }

    /// Changes every field that is an object.
    pub fn edit_all(&mut self, change: impl Fn(&mut Self)) {
        let names: Vec<String> = self.0.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            self.edit(&name, &change);
        }
    }

    /// The text of a field.
    pub fn text(&self, name: &str) -> String {
        let value = self.0.iter().find(|(field, _)| field == name);
        value
            .and_then(|(_, value)| serde_json::from_str(value.get()).ok())
            .unwrap_or_default()
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(0));
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_additions_come_last() {
        let mut object: Object = serde_json::from_str(r#"{"b":{"z":1,"y":2},"a":"x"}"#).unwrap();
        object.edit("b", |inner| inner.set("z", &3));
        object.edit("a", |_| unreachable!("is no object"));
        object.set_default("a", &0);
        object.set("c", &());
        assert_eq!(object.text("a"), "x");
        let text = serde_json::to_string(&object).unwrap();
        assert_eq!(text, r#"{"b":{"z":3,"y":2},"a":"x","c":null}"#);
    }
}
