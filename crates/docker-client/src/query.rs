//! The query of a request: pairs, percent-encoded as Go's `url.Values` does.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const KEPT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

#[derive(Debug, Clone, Default)]
pub struct Query(String);

impl Query {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl AsRef<str>) -> Self {
        self.push(key, value.as_ref());
        self
    }

    /// Adds `key=1` when the condition holds.
    #[must_use]
    pub fn with_if(self, key: &str, set: bool) -> Self {
        if set { self.with(key, "1") } else { self }
    }

    /// Adds a pair when there is a value.
    #[must_use]
    pub fn with_some(self, key: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    pub fn push(&mut self, key: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(key);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, KEPT));
    }

    /// `path?query`, or the bare path.
    pub fn append_to(&self, path: &str) -> String {
        if self.0.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{}", self.0)
        }
    }
}

/// A name as one segment of a path: a slash or a question mark in it cannot change the route.
pub fn segment(name: &str) -> String {
    utf8_percent_encode(name, KEPT).to_string()
}

/// A reference to an image as docker puts it into paths: slashes stay.
pub fn path(name: &str) -> String {
    const SET: &AsciiSet = &KEPT.remove(b'/').remove(b':').remove(b'@');
    utf8_percent_encode(name, SET).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_segments_are_encoded() {
        let query = Query::new()
            .with("name", "a b/c")
            .with_if("all", true)
            .with_if("size", false);
        assert_eq!(query.append_to("/x"), "/x?name=a%20b%2Fc&all=1");
        assert_eq!(segment("../a?b"), "..%2Fa%3Fb");
        assert_eq!(path("host:5000/a@sha256:0"), "host:5000/a@sha256:0");
    }
}
