//! Query parameters, read as dockerd reads them: unknown ones are ignored, truth has many
//! spellings.

use std::borrow::Cow;

use berth_docker::filters::Filters;
use percent_encoding::percent_decode_str;

use crate::error::Error;

/// The parameters of a request, in their order.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The first value of a parameter; empty if it is not given.
    pub fn text(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or("")
    }

    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let name = name.to_owned();
        self.0
            .iter()
            .filter(move |(key, _)| *key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value, if it is given and not empty.
    pub fn some(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|value| !value.is_empty())
    }

    pub fn flag(&self, name: &str) -> bool {
        let value = self.text(name).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A number; one that cannot be read is refused in the words of Go's strconv.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Error> {
        let Some(value) = self.some(name) else {
            return Ok(None);
        };
        value
            .parse()
            .map(Some)
            .map_err(|_| Error::invalid(format!("strconv.Atoi: parsing {value:?}: invalid syntax")))
    }

    /// The parameter `filters`, of which only the known keys may be used.
    pub fn filters(&self, known: &[&str]) -> Result<Filters, Error> {
        let filters = Filters::parse(self.text("filters"))?;
        filters.accept(known)?;
        Ok(filters)
    }
}

fn decode(text: &str) -> String {
    let spaced: Cow<str> = if text.contains('+') {
        text.replace('+', " ").into()
    } else {
        text.into()
    };
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truth_is_what_is_not_false() {
        let query = Query::parse("a=1&b=False&c=&d&e=x&f=none");
        let truths: Vec<bool> = ["a", "b", "c", "d", "e", "f", "g"]
            .map(|name| query.flag(name))
            .into();
        assert_eq!(truths, [true, false, false, false, true, false, false]);
    }

    #[test]
    fn values_are_decoded() {
        let query = Query::parse("name=a%2Fb+c&n=-7&m=x");
        assert_eq!(query.text("name"), "a/b c");
        assert_eq!(query.number("n").unwrap(), Some(-7));
        assert_eq!(query.number("none").unwrap(), None);
        assert_eq!(
            query.number("m").unwrap_err().message,
            "strconv.Atoi: parsing \"x\": invalid syntax"
        );
    }
}
