//! Filters of lists: `{"label":["a=b"]}`, or as clients before 1.22 wrote it,
//! `{"label":{"a=b":true}}`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Keys to the set of their values. Values of one key are alternatives, keys all have to match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid filter")]
    Syntax,
    #[error("invalid filter '{0}'")]
    Key(String),
    #[error("invalid filter '{key}={value}'")]
    Value { key: String, value: String },
}

impl Filters {
    /// Reads the query parameter `filters`; an empty one is no filter.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|_| Error::Syntax)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.entry(key.into()).or_default().insert(value.into());
    }

    pub fn remove(&mut self, key: &str) {
        self.0.remove(key);
    }

    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The values of a key; none if it is not given.
    pub fn get<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Refuses keys that the list does not know.
    pub fn accept(&self, known: &[&str]) -> Result<(), Error> {
        match self.keys().find(|key| !known.contains(key)) {
            Some(key) => Err(Error::Key(key.to_owned())),
            None => Ok(()),
        }
    }

    /// True if the key is not given, or one of its values equals this one.
    pub fn matches(&self, key: &str, value: &str) -> bool {
        self.matches_any(key, |wanted| wanted == value)
    }

    /// True if the key is not given, or the test holds for one of its values.
    pub fn matches_any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.iter().any(|value| test(value)))
    }

    /// True if all values of the key, each `name` or `name=value`, are among the labels.
    pub fn matches_labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(key).all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        })
    }

    /// A key whose value is a truth value: `None` if it is not given.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        let Some(values) = self.0.get(key) else {
            return Ok(None);
        };
        let yes = values.contains("1") || values.contains("true");
        let no = values.contains("0") || values.contains("false");
        match (yes, no) {
            (true, false) => Ok(Some(true)),
            (false, true) => Ok(Some(false)),
            _ => {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                Err(Error::Value {
                    key: key.to_owned(),
                    value: format!("[{}]", values.join(" ")),
                })
            }
        }
    }
}

impl Serialize for Filters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let old: BTreeMap<&str, BTreeMap<&str, bool>> = self
            .0
            .iter()
            .map(|(key, values)| (key.as_str(), values.iter().map(|v| (&**v, true)).collect()))
            .collect();
        old.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Filters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Values {
            List(Vec<String>),
            Set(BTreeMap<String, bool>),
        }
        let raw = Option::<BTreeMap<String, Option<Values>>>::deserialize(deserializer)?;
        let mut filters = Self::default();
        for (key, values) in raw.unwrap_or_default() {
            let values: BTreeSet<String> = match values {
                None => continue,
                Some(Values::List(list)) => list.into_iter().collect(),
                Some(Values::Set(set)) => set.into_keys().collect(),
            };
            if !values.is_empty() {
                filters.0.insert(key, values);
            }
        }
        Ok(filters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let new = Filters::parse(r#"{"label":["a=b","c"],"status":[]}"#).unwrap();
        let old = Filters::parse(r#"{"label":{"a=b":true,"c":true}}"#).unwrap();
        assert_eq!(new, old);
        assert_eq!(Filters::parse(""), Ok(Filters::default()));
        assert_eq!(Filters::parse("x"), Err(Error::Syntax));
    }

    #[test]
    fn labels_all_have_to_match() {
        let filters = Filters::parse(r#"{"label":["a=b","c"]}"#).unwrap();
        let mut labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert!(!filters.matches_labels("label", &labels));
        labels.insert("c".into(), "anything".into());
        assert!(filters.matches_labels("label", &labels));
    }

    #[test]
    fn flags_are_one_truth_value() {
        let flag = |text| Filters::parse(text).unwrap().flag("dangling");
        assert_eq!(flag("{}"), Ok(None));
        assert_eq!(flag(r#"{"dangling":["1"]}"#), Ok(Some(true)));
        assert_eq!(
            flag(r#"{"dangling":["x"]}"#).unwrap_err().to_string(),
            "invalid filter 'dangling=[x]'"
        );
    }
}
